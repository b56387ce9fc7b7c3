"""The Events of a visit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from .. import names
from ..actions import OrphanPods
from ..api import (
    Condition,
    ConditionReason,
    ConditionType,
    EventReason,
    Failover,
    PostgresStatus,
    RedisStatus,
    RunnerHubClusterStatus,
)
from ..kube.events import EventNote
from . import conditions, fullness
from .migration import Migration

_ROLE_WORDS: Final[Mapping[str, tuple[EventReason, str]]] = {
    names.POSTGRES: ("PrimaryChanged", "Postgres primary"),
    names.REDIS: ("MasterChanged", "Redis master"),
    names.ORCHESTRATOR: ("LeaderChanged", "leading orchestrator"),
}
_ANNOUNCED: Final = (ConditionType.READY, ConditionType.DEGRADED, ConditionType.ACCEPTED)


def of_failover(failover: Failover) -> EventNote:
    """A role has moved."""
    reason, role = _ROLE_WORDS[failover.component]
    took = f" after {failover.duration_seconds} s" if failover.duration_seconds is not None else ""
    return EventNote(
        "Normal",
        reason,
        f"{role} moved from {failover.from_ or 'nobody'} to {failover.to}{took} ({failover.cause})",
    )


def of_conditions(before: tuple[Condition, ...], after: tuple[Condition, ...]) -> Iterator[EventNote]:
    """Conditions that people wait for have changed."""
    old = {item.type: item.status for item in before}
    if not before:
        yield EventNote("Normal", "Creating", "creating database, queue, orchestrators, load balancer")
    for item in after:
        if item.type not in _ANNOUNCED or old.get(item.type) == item.status:
            continue
        if item.type == ConditionType.READY and item.status == "True":
            yield EventNote("Normal", "Ready", item.message)
        elif item.type == ConditionType.READY and old.get(item.type) == "True":
            yield EventNote("Warning", "NotReady", item.message)
        elif item.type == ConditionType.ACCEPTED and item.status == "False":
            yield EventNote("Warning", ConditionReason(item.reason), item.message)
        elif item.type == ConditionType.DEGRADED and item.status == "True":
            yield EventNote("Warning", "Degraded", item.message)
        elif item.type == ConditionType.DEGRADED and old.get(item.type) == "True":
            yield EventNote("Normal", "Recovered", item.message)


def of_fullness(
    before: RunnerHubClusterStatus, postgres: PostgresStatus, redis: RedisStatus
) -> Iterator[EventNote]:
    """Volumes and the memory of the queue fill up."""
    yield from fullness.events(before.postgres.instances, postgres.instances, fullness.POSTGRES_SIZE)
    yield from fullness.events(before.redis.instances, redis.instances, fullness.REDIS_SIZE)
    told = fullness.memory_told(redis)
    if told and not fullness.memory_told(before.redis):
        yield EventNote("Warning", "MemoryNearlyFull", told[0])


def of_queue(before: RedisStatus, after: RedisStatus) -> Iterator[EventNote]:
    """Workers have become deaf; a pod has put data aside, or lost it."""
    for name in sorted(set(after.deaf_queues) - set(before.deaf_queues)):
        yield EventNote("Warning", ConditionReason.WORKERS_DEAF, conditions.deafness_told((name,)))
    known = {(pod.name, snapshot) for pod in before.instances for snapshot in pod.snapshots}
    for pod in after.instances:
        for snapshot in pod.snapshots:
            if (pod.name, snapshot) not in known:
                yield _put_aside(pod.name, snapshot)


def _put_aside(pod: str, name: str) -> EventNote:
    """What a pod tells by the name of a file; the image's `snapshots` makes them."""
    if name.endswith(".not-saved"):
        text = f"{pod} was replaced as master and had something of its own that could not be saved: {name}"
        return EventNote("Warning", "FormerMasterNotSaved", text)
    if name.endswith(".damaged"):
        text = f"the append-only file of {pod} was damaged and is kept as it was: /data/diverged/{name}"
        return EventNote("Warning", "AppendOnlyFileDamaged", text)
    text = f"{pod} was replaced as master and had something of its own: /data/diverged/{name}"
    return EventNote("Warning", "FormerMasterSaved", text)


def of_migration(migrating: Migration, told: str) -> Iterator[EventNote]:
    """A migration has failed; `told` is the Job whose failure was told last, "" for none."""
    if migrating.failed and migrating.failed != told:
        yield EventNote("Warning", ConditionReason.MIGRATION_FAILED, migrating.told)


def of_replacement(action: OrphanPods) -> EventNote:
    """A StatefulSet is deleted, to be made anew around its pods."""
    name = action.stateful_set["metadata"]["name"]
    message = f"StatefulSet {name} is made anew for larger volumes; its pods go on running"
    return EventNote("Normal", "StatefulSetReplaced", message)
