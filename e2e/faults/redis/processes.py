"""Processes of the queue's pods that are killed, stopped, or find their volume empty."""

from __future__ import annotations

from contextlib import contextmanager

from .. import pods, processes
from ..arena import Before
from ..fault import Break
from .arena import RedisArena

# What Redis and the start program of the pod keep there.
_EMPTY = "rm -rf /data/redis/*"
# By the shell alone. A signal may end the shell as well, with the container, so the exit code means nothing.
_SIGNAL_SENTINEL = (
    'for process in /proc/[0-9]*; do read -r name <"$process/comm" && [ "$name" = redis-sentinel ] '
    '&& kill -s "$1" "${process#/proc/}"; done; exit 0'
)


@contextmanager
def kill_redis(arena: RedisArena, before: Before) -> Break:
    """SIGKILL to the master's Redis; the container ends with it, and kubelet starts the next one."""
    _kill(arena, before)
    yield


@contextmanager
def kill_redis_and_empty_its_volume(arena: RedisArena, before: Before) -> Break:
    """The same, and it comes back within down-after with nothing on its volume: nobody may copy that."""
    victim = before.primary.name
    arena.hub.kubectl("exec", victim, "-c", "redis", "--", "sh", "-c", _EMPTY, timeout=20)
    _kill(arena, before)
    yield


def _kill(arena: RedisArena, before: Before) -> None:
    victim = before.primary
    found = processes.of_container(arena.bed, victim.node, victim.container)
    processes.send(arena.bed, victim.node, "KILL", [processes.named(found, "redis-server")])


def container_restarted(arena: RedisArena, before: Before) -> bool:
    """Whether the old master's pod has another container."""
    containers = {member.name: member.container for member in arena.members()}
    return containers.get(before.primary.name) not in (None, before.primary.container)


@contextmanager
def stop_redis(arena: RedisArena, before: Before) -> Break:
    """SIGSTOP to the master's Redis, SIGCONT later, should its own pod not have ended it."""
    victim = before.primary
    try:
        found = processes.of_container(arena.bed, victim.node, victim.container)
        processes.send(arena.bed, victim.node, "STOP", [processes.named(found, "redis-server")])
        yield
    finally:
        pods.let_go_on(arena, [victim])


@contextmanager
def kill_sentinels(arena: RedisArena, before: Before) -> Break:
    """SIGKILL to all Sentinels at once."""
    _signal_sentinels(arena, before, "KILL")
    yield


@contextmanager
def stop_sentinels(arena: RedisArena, before: Before) -> Break:
    """SIGSTOP to all Sentinels, SIGCONT later: time has leaped for them, so they go into TILT and trust nothing."""
    try:
        _signal_sentinels(arena, before, "STOP")
        yield
    finally:
        _signal_sentinels(arena, before, "CONT")


def _signal_sentinels(arena: RedisArena, before: Before, signal: str) -> None:
    for member in before.members:
        command = ("sh", "-c", _SIGNAL_SENTINEL, "sh", signal)
        arena.hub.kubectl("exec", member.name, "-c", "sentinel", "--", *command, timeout=20)
