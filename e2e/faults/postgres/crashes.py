"""Crashes and hangs of processes and pods."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import contextmanager

from . import processes
from .arena import Arena, Before, Member
from .fault import Break


@contextmanager
def kill_postmaster(arena: Arena, before: Before) -> Break:
    """SIGKILL to the primary's server; its children notice and end, Patroni stays."""
    victim = before.primary
    found = processes.of_container(arena.bed, victim.node, victim.container)
    processes.send(arena.bed, victim.node, "KILL", [processes.postmaster(found)])
    yield


@contextmanager
def kill_patroni(arena: Arena, before: Before) -> Break:
    """SIGKILL to the primary's Patroni: the container ends with it, and Postgres gets no time to stop."""
    victim = before.primary
    found = processes.of_container(arena.bed, victim.node, victim.container)
    processes.send(arena.bed, victim.node, "KILL", [processes.named(found, "patroni-daemon")])
    yield


def container_restarted(arena: Arena, before: Before) -> bool:
    """Whether the old primary runs in a new container of the same pod."""
    containers = {member.name: member.container for member in arena.members()}
    return containers.get(before.primary.name) not in (None, before.primary.container)


@contextmanager
def stop_postgres(arena: Arena, before: Before) -> Break:
    """SIGSTOP to the primary's Postgres, the server first so that it starts no new children; Patroni goes on."""
    victim = before.primary
    try:
        found = processes.of_container(arena.bed, victim.node, victim.container)
        processes.send(arena.bed, victim.node, "STOP", [processes.postmaster(found)])
        children = [
            process
            for process in processes.of_container(arena.bed, victim.node, victim.container)
            if process.name == "postgres"
        ]
        processes.send_to_those_left(arena.bed, victim.node, "STOP", children)
        yield
    finally:
        _continue(arena, [victim])


@contextmanager
def force_delete(arena: Arena, before: Before) -> Break:
    """Delete the primary's pod without grace."""
    arena.hub.kubectl.delete_pod_now(before.primary.name)
    yield


@contextmanager
def kill_pooler(arena: Arena, before: Before) -> Break:
    """Delete one of the poolers without grace: half of the clients' connections break."""
    arena.hub.kubectl.delete_pod_now(min(before.poolers))
    yield


def pooler_replaced(arena: Arena, before: Before) -> bool:
    """Whether another pod is there instead of the pooler."""
    now = arena.poolers()
    return before.poolers[min(before.poolers)] not in now.values() and len(now) == len(before.poolers)


@contextmanager
def lose_replicas(arena: Arena, before: Before) -> Break:
    """Freeze every process of both replicas, and let them go on later."""
    with _frozen(arena, before.replicas):
        yield


@contextmanager
def lose_majority(arena: Arena, before: Before) -> Break:
    """Freeze every process of the primary and of the replica that confirms its commits.

    The one that is left may not know the last commits, so it must not take over alone: writes wait, none is lost.
    """
    with _frozen(arena, (before.primary, before.replicas[0])):
        yield


@contextmanager
def _frozen(arena: Arena, members: Sequence[Member]) -> Break:
    try:
        for member in members:
            found = processes.of_container(arena.bed, member.node, member.container)
            processes.send_to_those_left(arena.bed, member.node, "STOP", found)
        yield
    finally:
        _continue(arena, members)


def _continue(arena: Arena, members: Sequence[Member]) -> None:
    for member in members:
        left = processes.list_container(arena.bed, member.node, member.container)
        processes.send_to_those_left(arena.bed, member.node, "CONT", left)
