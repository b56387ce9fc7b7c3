"""Volumes that run full: told early, and not made worse."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from runnerhub_operator.api import RedisStatus, RunnerHubClusterStatus
from runnerhub_operator.plan import events, fullness
from runnerhub_operator.plan.conditions import postgres_verdict, redis_verdict
from runnerhub_operator.plan.planner import make_plan
from runnerhub_operator.plan.status import postgres_status, redis_status
from runnerhub_operator.probes.patroni import PatroniCluster, parse_cluster
from runnerhub_operator.probes.redis_pod import RedisPodState
from runnerhub_operator.snapshot import Snapshot

from .builders import IMAGES, cluster, patroni, pods, snapshot


def used(**percent: int) -> PatroniCluster:
    """Patroni's view with volumes so full, by ordinal as in `_1=90`."""
    view = patroni()
    by_name = {f"hub-postgres{key}".replace("_", "-"): value for key, value in percent.items()}
    members = tuple(
        replace(member, volume_used_percent=by_name.get(member.name, 40)) for member in view.members
    )
    return replace(view, members=members)


def told(view: PatroniCluster) -> Any:
    seen = snapshot(patroni=view)
    return postgres_verdict(cluster(), seen, postgres_status(cluster(), seen), creating=False)


def outdated(view: PatroniCluster) -> Snapshot:
    """The same, with pods of an older template."""
    old = {"revision": "old"}
    renewed = pods(hub_postgres_0=old, hub_postgres_1=old, hub_postgres_2=old)
    return snapshot(patroni=view, pods=renewed)


def test_the_tag_of_a_member_is_read() -> None:
    body = {
        "members": [
            {"name": "a", "role": "leader", "state": "running", "tags": {"volume_used_percent": 91}},
            {"name": "b", "role": "replica", "state": "streaming", "tags": {"volume_used_percent": "many"}},
            {"name": "c", "role": "replica", "state": "streaming", "tags": []},
        ]
    }
    assert [member.volume_used_percent for member in parse_cluster(body).members] == [91, None, None]


def test_a_volume_is_told_early_and_is_a_degradation_late() -> None:
    assert "volumes" not in told(used(_1=84)).message
    early = told(used(_1=85))
    assert "volumes nearly full: hub-postgres-1 (85 %)" in early.message
    assert early.full
    late = told(used(_1=95))
    assert not late.full
    assert late.status == "True"


def test_each_mark_is_told_once() -> None:
    before, early, late = (
        postgres_status(cluster(), snapshot(patroni=used(_1=percent))).instances for percent in (80, 90, 96)
    )

    def reasons(first: Any, then: Any) -> list[str]:
        return [event.reason for event in fullness.events(first, then, fullness.POSTGRES_SIZE)]

    assert reasons(before, early) == ["VolumeNearlyFull"]
    assert reasons(early, early) == []
    assert reasons(early, late) == ["VolumeFull"]
    assert reasons(before, late) == ["VolumeNearlyFull", "VolumeFull"]


def test_no_member_is_renewed_while_a_volume_is_full() -> None:
    due = make_plan(cluster(), outdated(used(_1=94)), IMAGES, None).rollout
    assert due is not None
    assert due.step is not None
    held = make_plan(cluster(), outdated(used(_1=95)), IMAGES, None).rollout
    assert held is not None
    assert held.step is None
    assert held.waiting_for == "room on the volume of hub-postgres-1"
    assert not held.holds_up


def test_the_role_does_not_move_to_a_full_volume() -> None:
    asked = replace(cluster(), switch_primary_to="hub-postgres-1")
    plan = make_plan(asked, snapshot(patroni=used(_1=97)), IMAGES, None)
    assert plan.rollout is None or plan.rollout.step is None
    assert plan.status.postgres.switchover is not None
    assert "97 % full" in plan.status.postgres.switchover.message


def test_what_waits_for_room_holds_no_switchover_up_to_a_member_that_has_it() -> None:
    asked = replace(cluster(), switch_primary_to="hub-postgres-2")
    plan = make_plan(asked, outdated(used(_0=97)), IMAGES, None)
    assert plan.rollout is not None
    assert plan.rollout.step is not None
    assert "hub-postgres-2" in str(plan.rollout.step)


# --- The queue ---


def redis_pods(memory: int | None = None, **volumes: int) -> tuple[RedisPodState, ...]:
    """What the Redis pods tell: volumes so full, by ordinal as in `_1=90`; memory of the master."""
    return tuple(
        RedisPodState(
            f"hub-redis-{ordinal}",
            volume_used_percent=volumes.get(f"_{ordinal}", 40),
            memory_used_percent=memory if ordinal == 0 else 1,
        )
        for ordinal in range(3)
    )


def queue_told(states: tuple[RedisPodState, ...]) -> Any:
    seen = snapshot(redis_pods=states)
    return redis_verdict(cluster(), seen, redis_status(cluster(), seen), creating=False)


def test_a_volume_of_the_queue_is_told_early_and_is_a_degradation_late() -> None:
    assert "volumes" not in queue_told(redis_pods(_1=84)).message
    early = queue_told(redis_pods(_1=85))
    assert "volumes nearly full: hub-redis-1 (85 %); raise spec.redis.storage.size" in early.message
    assert early.full
    late = queue_told(redis_pods(_1=95))
    assert not late.full
    assert late.status == "True"


def test_a_master_whose_memory_runs_full_is_told() -> None:
    assert "memory" not in queue_told(redis_pods(memory=84)).message
    assert (
        "memory 85 % full: the master refuses new jobs at 100 %" in queue_told(redis_pods(memory=87)).message
    )
    assert "memory 100 % full: the master refuses new jobs;" in queue_told(redis_pods(memory=102)).message


def test_memory_that_passes_the_mark_is_told_once() -> None:
    calm, tight = (
        redis_status(cluster(), snapshot(redis_pods=redis_pods(memory=percent))) for percent in (70, 87)
    )
    postgres = postgres_status(cluster(), snapshot())

    def told_after(before: RedisStatus, now: RedisStatus) -> list[str]:
        known = RunnerHubClusterStatus(postgres=postgres, redis=before)
        return [event.reason for event in events.of_fullness(known, postgres, now)]

    assert told_after(calm, tight) == ["MemoryNearlyFull"]
    assert told_after(tight, tight) == []
    assert told_after(tight, calm) == []


def test_no_pod_of_the_queue_is_renewed_while_a_volume_is_full() -> None:
    old = {"revision": "old"}
    renewed = pods(hub_redis_0=old, hub_redis_1=old, hub_redis_2=old)
    due = make_plan(cluster(), snapshot(redis_pods=redis_pods(_1=94), pods=renewed), IMAGES, None).rollout
    assert due is not None
    assert due.step is not None
    held = make_plan(cluster(), snapshot(redis_pods=redis_pods(_1=95), pods=renewed), IMAGES, None).rollout
    assert held is not None
    assert held.step is None
    assert held.waiting_for == "room on the volume of hub-redis-1"


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("20261126T060505Z-offset-7.rdb", "FormerMasterSaved"),
        ("20261126T060505Z-offset-7.not-saved", "FormerMasterNotSaved"),
        ("20261126T060505Z.damaged", "AppendOnlyFileDamaged"),
    ],
)
def test_what_a_pod_put_aside_is_told_once(name: str, reason: str) -> None:
    before = redis_status(cluster(), snapshot(redis_pods=redis_pods()))
    states = (RedisPodState("hub-redis-1", snapshots=(name,)),)
    after = redis_status(cluster(), snapshot(redis_pods=states))
    (event,) = events.of_queue(before, after)
    assert event.reason == reason
    assert name in event.message
    assert list(events.of_queue(after, after)) == []
