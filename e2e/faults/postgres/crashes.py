"""Crashes and hangs of processes and pods."""

from __future__ import annotations

from contextlib import contextmanager

from .. import pods, processes
from ..arena import Before
from ..fault import Break
from .arena import PostgresArena


@contextmanager
def kill_postmaster(arena: PostgresArena, before: Before) -> Break:
    """SIGKILL to the primary's server; its children notice and end, Patroni stays."""
    victim = before.primary
    found = processes.of_container(arena.bed, victim.node, victim.container)
    processes.send(arena.bed, victim.node, "KILL", [processes.postmaster(found)])
    yield


@contextmanager
def kill_patroni(arena: PostgresArena, before: Before) -> Break:
    """SIGKILL to the primary's Patroni: the container ends with it, and Postgres gets no time to stop."""
    victim = before.primary
    found = processes.of_container(arena.bed, victim.node, victim.container)
    processes.send(arena.bed, victim.node, "KILL", [processes.named(found, "patroni-daemon")])
    yield


def container_restarted(arena: PostgresArena, before: Before) -> bool:
    """Whether the old primary runs in a new container of the same pod."""
    containers = {member.name: member.container for member in arena.members()}
    return containers.get(before.primary.name) not in (None, before.primary.container)


@contextmanager
def stop_postgres(arena: PostgresArena, before: Before) -> Break:
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
        pods.let_go_on(arena, [victim])


@contextmanager
def kill_pooler(arena: PostgresArena, before: Before) -> Break:
    """Delete one of the poolers without grace: half of the clients' connections break."""
    arena.hub.kubectl.delete_pod_now(min(before.poolers))
    yield


def pooler_replaced(arena: PostgresArena, before: Before) -> bool:
    """Whether another pod is there instead of the pooler."""
    now = arena.poolers()
    return before.poolers[min(before.poolers)] not in now.values() and len(now) == len(before.poolers)
