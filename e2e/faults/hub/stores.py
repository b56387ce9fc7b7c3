"""Faults of the database and of the queue while orchestrators serve.

Five of them are those under which the public application lost posts or jobs (docs/fault-tests-hub.md has the table).
"""

from __future__ import annotations

from contextlib import contextmanager

from kindbed.console import TestBedError

from .. import pods, processes
from ..arena import Before, let_pass
from ..fault import Break
from .arena import HubArena

POSTGRES_BURST = 100
IDLE_SECONDS = 100.0
IDLE_BURST = 7
IDLE_PATIENCE_SECONDS = 60.0


@contextmanager
def fail_postgres_over(arena: HubArena, _before: Before) -> Break:
    """Delete the pod of Postgres' primary without grace."""
    arena.hub.kubectl.delete_pod_now(_holder(arena, "postgres"))
    yield


@contextmanager
def hand_redis_over(arena: HubArena, _before: Before) -> Break:
    """Delete the pod of the Redis master with its grace period: it has the Sentinels fail over to another one."""
    arena.hub.kubectl("delete", "pod", _holder(arena, "redis"), "--wait=false")
    yield


@contextmanager
def kill_redis(arena: HubArena, _before: Before) -> Break:
    """SIGKILL to the master's Redis."""
    holder = _holder(arena, "redis")
    victim = next(member for member in arena.containers("redis", "redis") if member.name == holder)
    found = processes.of_container(arena.bed, victim.node, victim.container)
    processes.send(arena.bed, victim.node, "KILL", [processes.named(found, "redis-server")])
    yield


@contextmanager
def stop_postgres(arena: HubArena, _before: Before) -> Break:
    """Have a hundred jobs accepted, and right after that stop all members of the database, SIGCONT later."""

    def post() -> None:
        found = arena.burst(POSTGRES_BURST)
        arena.told["burst_failed_tries"] = float(found["failed_tries"])
        arena.told["burst_open"] = float(found["jobs"] - found["completed"])

    with pods.frozen(arena, arena.containers("postgres", "postgres"), post):
        if not arena.told["burst_open"]:
            raise TestBedError("all jobs had run before the database was stopped")
        yield


@contextmanager
def stop_redis(arena: HubArena, _before: Before) -> Break:
    """SIGSTOP to every Redis and every Sentinel, SIGCONT later."""
    everything = [*arena.containers("redis", "redis"), *arena.containers("redis", "sentinel")]
    with pods.frozen(arena, everything):
        yield


@contextmanager
def idle(arena: HubArena, _before: Before) -> Break:
    """No jobs for longer than every timeout on the way from the queue to a runner, while runners ask; then a few."""
    try:
        arena.pause_jobs(paused=True)
        let_pass("idleness", IDLE_SECONDS)
        yield
        found = arena.burst(IDLE_BURST, wait_seconds=IDLE_PATIENCE_SECONDS)
        if found["completed"] != IDLE_BURST:
            raise TestBedError(f"after idleness {found['completed']} of {IDLE_BURST} jobs ran")
        arena.told["all_done_seconds"] = float(found["all_done_seconds"])
    finally:
        arena.pause_jobs(paused=False)


def told(arena: HubArena) -> dict[str, float]:
    """What a fault measured while it lasted."""
    return dict(arena.told)


def _holder(arena: HubArena, component: str) -> str:
    holder = arena.hub.role_holder(component)
    if holder is None:
        raise TestBedError(f"nobody has the role of {component}")
    return holder
