"""Not crying wolf: a reading that got worse while every pod says it is fine must last before it is told.

A probe that takes two seconds on a busy machine is no outage; without this each one would be two Events and two
writes of the status. Decisions about disruptions use the raw reading.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Final

from .. import names
from ..api import (
    ConditionReason,
    ConditionType,
    PostgresStatus,
    RedisStatus,
    RunnerHubCluster,
    RunnerHubClusterStatus,
)
from ..snapshot import Snapshot
from .conditions import checks_in

PATIENCE_SECONDS: Final = 15.0
# Lags that come and go with the load are told no sooner than this after the last time.
LAG_SECONDS: Final = 30.0
# Each agent looks by itself, and any of them is asked: a queue is deaf until none has told it for so long.
DEAF_SECONDS: Final = 30.0
# Likewise, but one agent alone may have lost the storage, and each visit asks only a few of them.
FAILING_SECONDS: Final = 60.0
# More would make the status long without telling more.
MOST_DEAF_QUEUES: Final = 16


@dataclass(frozen=True, slots=True)
class Failing:
    """A check that fails: seen first `since` then and last `at`, and what was said first."""

    since: datetime
    at: datetime
    error: str


@dataclass(frozen=True, slots=True)
class Patience:
    """Since when the readings have been worse than what was last told. `checks`: those that fail, by name."""

    postgres_since: datetime | None = None
    redis_since: datetime | None = None
    refused_since: datetime | None = None
    entrance_since: datetime | None = None
    demand_since: datetime | None = None
    checks: Mapping[str, Failing] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Told:
    """What is to be told, which may still be what was told last.

    `refusal`: the Redis master's answer to a write that it refuses, "" when it takes them. `unserved`: why no request
    is served, "" when one is. `demand_lost`: the pools' demand is not known. `failing_checks`: what they said, by name.
    """

    postgres: PostgresStatus
    redis: RedisStatus
    refusal: str
    unserved: str
    demand_lost: bool
    failing_checks: Mapping[str, str]


def _held(since: datetime | None, worse: bool, now: datetime) -> tuple[datetime | None, bool]:
    if not worse:
        return None, False
    since = since or now
    return since, (now - since).total_seconds() < PATIENCE_SECONDS


def told(
    cluster: RunnerHubCluster,
    snapshot: Snapshot,
    postgres: PostgresStatus,
    redis: RedisStatus,
    patience: Patience,
) -> tuple[Told, Patience]:
    """What to tell of these readings, and the next state of patience."""
    before = cluster.status
    postgres_worse = _all_ready(snapshot, names.POSTGRES, before.postgres.primary) and (
        snapshot.patroni is None or _fewer_follow(before.postgres, postgres)
    )
    redis_worse = (
        _all_ready(snapshot, names.REDIS, before.redis.master)
        and not _master_moved(before.redis, redis, snapshot)
        and _strength(redis) < _strength(before.redis)
    )
    postgres_since, hold_postgres = _held(patience.postgres_since, postgres_worse, snapshot.now)
    redis_since, hold_redis = _held(patience.redis_since, redis_worse, snapshot.now)
    refusal = snapshot.writes_refused
    refused_since, hold_refusal = _held(
        patience.refused_since, bool(refusal) and _was_true(before, ConditionType.REDIS), snapshot.now
    )
    unserved = snapshot.unserved if _some_ready(snapshot, names.LOAD_BALANCER) else ""
    entrance_since, hold_entrance = _held(
        patience.entrance_since,
        bool(unserved) and _was_true(before, ConditionType.LOAD_BALANCER),
        snapshot.now,
    )
    demand_worse = (
        snapshot.demand is None
        and bool(cluster.spec.runner_pools)
        and _some_ready(snapshot, names.ORCHESTRATOR)
        and _was_true(before, ConditionType.RUNNERS)
    )
    demand_since, hold_demand = _held(patience.demand_since, demand_worse, snapshot.now)
    checks = _failing_checks(before, snapshot, patience.checks)
    return (
        Told(
            before.postgres if hold_postgres else postgres,
            before.redis if hold_redis else redis,
            "" if hold_refusal else refusal,
            "" if hold_entrance else unserved,
            snapshot.demand is None and not hold_demand,
            {
                name: found.error
                for name, found in checks.items()
                if (found.at - found.since).total_seconds() >= PATIENCE_SECONDS
            },
        ),
        Patience(postgres_since, redis_since, refused_since, entrance_since, demand_since, checks),
    )


def calm_lags(
    before: RunnerHubClusterStatus, told: Told, told_at: datetime | None, now: datetime
) -> tuple[Told, datetime | None]:
    """The same with the lags of before, when nothing but lags has changed and they were told lately, at `told_at`;
    and when lags were told last.
    """
    postgres_moves = told.postgres != before.postgres and _without_lags(told.postgres) == _without_lags(
        before.postgres
    )
    redis_moves = told.redis != before.redis and _without_lags(told.redis) == _without_lags(before.redis)
    if not postgres_moves and not redis_moves:
        return told, told_at
    if told_at is None or (now - told_at).total_seconds() >= LAG_SECONDS:
        return told, now
    return replace(
        told,
        postgres=before.postgres if postgres_moves else told.postgres,
        redis=before.redis if redis_moves else told.redis,
    ), told_at


def deaf_queues(
    before: RedisStatus, snapshot: Snapshot, known: Mapping[str, datetime]
) -> Mapping[str, datetime]:
    """The queues to tell, each with the time when an agent last called it deaf; `known` is empty after a restart."""
    now, found = snapshot.now, snapshot.deaf_queues
    at = {name: known.get(name, now) for name in before.deaf_queues}
    if found is None:
        return dict.fromkeys(at, now)
    lasting = {name for name, told in at.items() if (now - told).total_seconds() < DEAF_SECONDS}
    return {name: now if name in found else at[name] for name in sorted(lasting | found)[:MOST_DEAF_QUEUES]}


def _failing_checks(
    before: RunnerHubClusterStatus, snapshot: Snapshot, known: Mapping[str, Failing]
) -> Mapping[str, Failing]:
    """The checks that fail at any agent; `known` is empty after a restart, so what the status tells lasts on."""
    now, found = snapshot.now, snapshot.failing_checks
    known = known or _checks_told(before, now)
    if found is None:
        return known
    lasting = {
        name: item for name, item in known.items() if (now - item.at).total_seconds() < FAILING_SECONDS
    }
    seen = {
        name: replace(lasting.get(name, Failing(now, now, error)), at=now) for name, error in found.items()
    }
    return {**lasting, **seen}


def _checks_told(before: RunnerHubClusterStatus, now: datetime) -> Mapping[str, Failing]:
    """The failing checks that the status tells, as if seen until now; the first agent that is asked may be well."""
    since = now - timedelta(seconds=PATIENCE_SECONDS)
    return {
        name: Failing(since, now, error)
        for item in before.conditions
        if item.type == ConditionType.ORCHESTRATORS and item.reason == ConditionReason.CHECKS_FAIL
        for name, error in checks_in(item.message).items()
    }


def _without_lags(status: PostgresStatus | RedisStatus) -> PostgresStatus | RedisStatus:
    if isinstance(status, PostgresStatus):
        members = tuple(
            member.model_copy(update={"lag_bytes": None, "lag_seconds": None}) for member in status.instances
        )
        return status.model_copy(update={"instances": members})
    replicas = tuple(
        replica.model_copy(update={"lag_bytes": None, "silent_seconds": None}) for replica in status.replicas
    )
    return status.model_copy(update={"replicas": replicas})


def _some_ready(snapshot: Snapshot, component: str) -> bool:
    return any(pod.ready for pod in snapshot.pods_of(component))


def _was_true(before: RunnerHubClusterStatus, kind: ConditionType) -> bool:
    return any(condition.type == kind and condition.status == "True" for condition in before.conditions)


def _fewer_follow(before: PostgresStatus, now: PostgresStatus) -> bool:
    """Whether fewer replicas stream from the same primary on the same timeline, or fewer of them confirm commits."""
    same = now.primary == before.primary and now.timeline == before.timeline
    return same and any(after < was for after, was in zip(_followers(now), _followers(before), strict=True))


def _followers(status: PostgresStatus) -> tuple[int, int]:
    return (
        sum(item.state == "streaming" and item.timeline == status.timeline for item in status.instances),
        sum(item.role in ("sync_standby", "quorum_standby") for item in status.instances),
    )


def _all_ready(snapshot: Snapshot, component: str, holder: str | None) -> bool:
    pods = snapshot.pods_of(component)
    return holder is not None and bool(pods) and all(pod.ready and not pod.terminating for pod in pods)


def _master_moved(before: RedisStatus, now: RedisStatus, snapshot: Snapshot) -> bool:
    """Whether the Sentinels that answered name another master, or take the last one for dead."""
    dead = any(view.master_down for view in snapshot.sentinels)
    return dead or (now.master is not None and now.master != before.master)


def _strength(status: RedisStatus) -> tuple[int, int]:
    return status.sentinels or 0, sum(replica.link == "ok" for replica in status.replicas)
