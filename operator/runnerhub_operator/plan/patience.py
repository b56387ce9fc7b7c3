"""Not crying wolf: a reading that got worse while every pod says it is fine must last before it is told.

A probe that takes two seconds on a busy machine is no outage; without this each one would be two Events and two
writes of the status. Decisions about disruptions use the raw reading.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from .. import names
from ..api import ConditionType, PostgresStatus, RedisStatus, RunnerHubCluster
from ..snapshot import Snapshot

PATIENCE_SECONDS: Final = 15.0


@dataclass(frozen=True, slots=True)
class Patience:
    """Since when the readings have been worse than what was last told."""

    postgres_since: datetime | None = None
    redis_since: datetime | None = None
    entrance_since: datetime | None = None


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
) -> tuple[PostgresStatus, RedisStatus, str, Patience]:
    """The statuses to tell, which may still be the last ones; why no request is served, if that is to be told; and the
    next state of patience.
    """
    before = cluster.status
    postgres_worse = snapshot.patroni is None and _all_ready(
        snapshot, names.POSTGRES, before.postgres.primary
    )
    redis_worse = (
        _all_ready(snapshot, names.REDIS, before.redis.master)
        and not _master_moved(before.redis, redis, snapshot)
        and _strength(redis) < _strength(before.redis)
    )
    postgres_since, hold_postgres = _held(patience.postgres_since, postgres_worse, snapshot.now)
    redis_since, hold_redis = _held(patience.redis_since, redis_worse, snapshot.now)
    ready = any(pod.ready for pod in snapshot.pods_of(names.LOAD_BALANCER))
    unserved = snapshot.unserved if ready else ""
    served_before = any(
        condition.type == ConditionType.LOAD_BALANCER and condition.status == "True"
        for condition in before.conditions
    )
    entrance_since, hold_entrance = _held(
        patience.entrance_since, bool(unserved) and served_before, snapshot.now
    )
    return (
        before.postgres if hold_postgres else postgres,
        before.redis if hold_redis else redis,
        "" if hold_entrance else unserved,
        Patience(postgres_since, redis_since, entrance_since),
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
