"""The jobs in the queue as the status tells them: as the master counts, and not at each job."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

from runnerhub_operator.api import QueueStatus
from runnerhub_operator.plan.status import redis_status
from runnerhub_operator.probes.redis_pod import QueueDepth, RedisPodState
from tests.unit.plan.builders import NOW, cluster, snapshot


def queue(before: QueueStatus | None, depth: QueueDepth | None, seconds: float = 0) -> QueueStatus | None:
    """What is told so many seconds after NOW, when `before` was told last."""
    known = cluster()
    redis = known.status.redis.model_copy(update={"queue": before})
    known = replace(known, status=known.status.model_copy(update={"redis": redis}))
    empty = snapshot()
    master = redis_status(known, empty).master
    assert master is not None
    states: Any = (RedisPodState("hub-redis-9"), RedisPodState(master, depth=depth))
    return redis_status(known, replace(empty, now=NOW + timedelta(seconds=seconds), redis_pods=states)).queue


FEW, MANY = QueueDepth(3, 1, 0, 0), QueueDepth(120, 10, 4, 2)


def told(depth: QueueDepth, seconds: float = 0) -> QueueStatus:
    at = (NOW + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")
    return QueueStatus(
        waiting=depth.waiting, active=depth.active, delayed=depth.delayed, failed=depth.failed, at=at
    )


def test_the_masters_count_is_told() -> None:
    assert queue(None, FEW) == told(FEW)


def test_a_busy_queue_is_told_every_half_minute() -> None:
    assert queue(told(FEW), MANY, 29) == told(FEW)
    assert queue(told(FEW), MANY, 31) == told(MANY, 31)


def test_numbers_that_stay_move_no_time() -> None:
    assert queue(told(FEW), FEW, 600) == told(FEW)


def test_without_a_count_the_last_one_stays() -> None:
    assert queue(told(FEW), None, 600) == told(FEW)
    assert queue(None, None) is None
