"""Crashes and hangs of processes and pods."""

from __future__ import annotations

from contextlib import contextmanager

from ...lab.kubectl import wait_for
from .. import pods, processes
from ..arena import Before
from ..fault import Break
from .arena import PostgresArena

PATRONI = "patroni-daemon"
PATRONI_SECONDS = 10.0


@contextmanager
def kill_postmaster(arena: PostgresArena, before: Before) -> Break:
    """SIGKILL to the primary's server; its children notice and end, Patroni stays."""
    victim = before.primary
    found = processes.of_container(arena.bed, victim.node, victim.container)
    processes.send(arena.bed, victim.node, "KILL", [processes.postmaster(found)])
    yield


@contextmanager
def kill_patroni(arena: PostgresArena, before: Before) -> Break:
    """SIGKILL to the primary's Patroni; afterwards another one must watch over the very same server."""
    victim = before.primary
    found = processes.of_container(arena.bed, victim.node, victim.container)
    killed, server = processes.named(found, PATRONI), processes.postmaster(found)
    processes.send(arena.bed, victim.node, "KILL", [killed])
    yield

    def renewed() -> bool:
        now = processes.list_container(arena.bed, victim.node, victim.container)
        others = {(process.pid, process.name) for process in now if process.pid != killed.pid}
        return (server.pid, server.name) in others and PATRONI in {name for _, name in others}

    wait_for("another Patroni beside the same server", renewed, PATRONI_SECONDS)


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
