"""Fewer Redis pods: one at a time, and those that stay can always elect a master."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from runnerhub_operator.actions import RestartPod, ShrinkRedis
from runnerhub_operator.api import ConditionType
from runnerhub_operator.plan import Plan, make_plan, resize_redis
from runnerhub_operator.plan.preview import preview
from runnerhub_operator.probes.sentinel import ReplicaView, SentinelView
from runnerhub_operator.snapshot import Snapshot
from tests.generate import IMAGES
from tests.unit.plan.builders import (
    NOW,
    address,
    children,
    cluster,
    pod,
    pods,
    snapshot,
    stateful_set,
    step,
    waits_for,
)

SPEC: dict[str, Any] = {"redis": {"replicas": 3}}
OLD = {"revision": "old"}


def member(ordinal: int) -> str:
    return f"hub-redis-{ordinal}"


def there(
    now: int, *, counted: int | None = None, master: int = 0, named: int | None = None, **changes: Any
) -> Snapshot:
    """So many pods, whose Sentinels count `counted`; `p1={"ready": False}` changes a pod.

    `named`: only so many Sentinels answer.
    """
    odd = now if now % 2 else now + 1
    others = [item for item in pods() if item.component != "redis"]
    members = [pod(member(i), "redis", **changes.get(f"p{i}", {})) for i in range(now)]
    replicas = tuple(ReplicaView(address(i), True, 100, frozenset()) for i in range(now) if i != master)
    views = tuple(
        SentinelView(member(i), address(master), 0, True, replicas, counted or now, frozenset())
        for i in range(now if named is None else named)
    )
    spec = {"redis": {"replicas": odd}}
    live = stateful_set("redis")
    live["spec"] = {**children(spec=spec)["StatefulSet", "hub-redis"]["spec"], "replicas": now}
    return snapshot(children=children(live, spec=spec), pods=(*others, *members), sentinels=views)


def plan(snap: Snapshot, spec: dict[str, Any] | None = None) -> Plan:
    return make_plan(cluster(spec or SPEC, {"phase": "Ready"}), snap, IMAGES, None)


def test_the_smaller_number_is_told_one_at_a_time() -> None:
    found = plan(there(7))
    assert step(found) == ShrinkRedis(member(6), 6)
    # Neither the StatefulSet nor the quorum changes before, and the pods keep their Services.
    written = {item["kind"] for item in found.objects if item["metadata"]["name"].startswith("hub-redis")}
    assert written <= {"Lease"}
    assert found.prune == ()
    assert found.disruption_lease is not None
    assert not found.settled


def test_settings_follow_the_number_of_pods_that_there_are() -> None:
    found = plan(there(6))
    configuration = next(
        item
        for item in found.objects
        if (item["kind"], item["metadata"]["name"]) == ("ConfigMap", "hub-redis")
    )
    assert '"quorum": 4' in configuration["data"]["settings.json"]
    assert '"replicas": 6' in configuration["data"]["settings.json"]
    assert "min-replicas-to-write 3" in configuration["data"]["redis.conf"]
    (queue,) = [
        item
        for item in found.objects
        if (item["kind"], item["metadata"]["name"]) == ("StatefulSet", "hub-redis")
    ]
    assert queue["spec"]["replicas"] == 6


@pytest.mark.parametrize("wanted", [3, 5, 7])
@pytest.mark.parametrize("first", [5, 7, 9])
def test_those_that_stay_can_elect_at_each_step_also_without_one_more(first: int, wanted: int) -> None:
    """Renewed are those that stay as often as the Sentinels must forget, and at the end."""
    now, counted, renewals = first, first, 0
    old = {f"p{i}": OLD for i in range(wanted)}
    while now > wanted:
        changes = old if counted > now else {}
        found = step(plan(there(now, counted=counted, **changes), {"redis": {"replicas": wanted}}))
        if isinstance(found, ShrinkRedis):
            assert found == ShrinkRedis(member(now - 1), now - 1)
            now -= 1
        else:
            assert isinstance(found, RestartPod)
            counted, renewals = now, renewals + 1
        spare = now - (counted // 2 + 1)
        assert spare >= 1 or (spare == 0 and now == wanted == 3)
    assert renewals == {(7, 3): 1, (9, 3): 2, (9, 5): 1}.get((first, wanted), 0)


def test_without_old_pods_it_waits_until_sentinels_forget() -> None:
    found = plan(there(5, counted=7))
    assert "the Sentinels to forget" in waits_for(found)
    assert found.rollout is not None
    assert not found.rollout.holds_up


def test_a_master_that_is_to_go_is_no_obstacle_as_it_hands_over() -> None:
    assert step(plan(there(7, master=6))) == ShrinkRedis(member(6), 6)
    assert step(plan(there(7, master=2))) == ShrinkRedis(member(6), 6)


@pytest.mark.parametrize(
    ("snap", "what"),
    [
        (there(7, p1={"ready": False}), "hub-redis-1 to become healthy"),
        (there(7, p1={"terminating": True, "ready": False}), "hub-redis-1 to become healthy"),
        # Three of seven that name a master are no majority.
        (there(7, named=3), "to become healthy"),
        (replace(there(7), sentinels=tuple(replace(v, tilt=True) for v in there(7).sentinels)), "Sentinels"),
    ],
)
def test_nobody_goes_while_those_that_stay_are_not_well(snap: Snapshot, what: str) -> None:
    found = plan(snap)
    assert what in waits_for(found)
    told = next(item for item in found.status.conditions if item.type == ConditionType.PROGRESSING)
    assert what in told.message


@pytest.mark.parametrize(
    "snap",
    [
        there(5, counted=7, p0=OLD, p1={"ready": False}),
        there(5, p0=OLD, p1={"ready": False}),
        # Between two masters, as during a hand-over.
        there(5, p0=OLD, named=1),
    ],
)
def test_nothing_else_is_renewed_while_one_that_was_renewed_is_not_back(snap: Snapshot) -> None:
    found = plan(snap, {**SPEC, "orchestrator": {"image": "example.test/other:2"}})
    assert "to become healthy" in waits_for(found)
    assert found.rollout is not None
    assert found.rollout.holds_up


def test_one_that_is_broken_may_go() -> None:
    assert step(plan(there(7, p6={"ready": False}))) == ShrinkRedis(member(6), 6)
    never = {"ready": False, "waiting_reason": "Unschedulable"}
    assert step(plan(there(7, p1={"ready": False}, p6=never))) == ShrinkRedis(member(6), 6)


def test_those_that_are_to_go_are_not_renewed_first() -> None:
    assert step(plan(there(7, p1=OLD, p6=OLD))) == ShrinkRedis(member(6), 6)
    assert step(plan(there(5, counted=7, p1=OLD, p4=OLD))) == RestartPod(
        member(1), f"uid-{member(1)}", "new pod template"
    )


LEAVES: dict[str, Any] = {"terminating": True, "ready": False, "gone_by": "2026-01-01T12:01:00Z"}


def test_each_one_is_gone_before_the_next_goes() -> None:
    snap = there(6)
    leaving = replace(snap, pods=(*snap.pods, pod(member(6), "redis", **LEAVES)))
    assert waits_for(plan(leaving)) == "hub-redis-6 to terminate"
    # Nobody ends it on a node that is dead.
    assert step(plan(replace(leaving, now=NOW + timedelta(minutes=2)))) == ShrinkRedis(member(5), 5)


def test_at_the_end_those_that_stay_are_renewed_and_forget() -> None:
    snap = there(3, counted=4, p0=OLD, p1=OLD, p2=OLD)
    assert step(plan(snap)) == RestartPod(member(1), f"uid-{member(1)}", "new pod template")
    assert step(plan(there(3))) is None
    assert resize_redis.of_now(cluster(SPEC), there(3)) == cluster(SPEC)


def test_more_pods_come_at_once() -> None:
    found = plan(there(3), {"redis": {"replicas": 5}})
    written = [item for item in found.objects if item["metadata"]["name"] == "hub-redis"]
    assert [item["spec"]["replicas"] for item in written if item["kind"] == "StatefulSet"] == [5]


def test_what_is_told_beforehand_is_the_end_of_it() -> None:
    found = preview(cluster(SPEC), there(7), IMAGES)
    change = next(item for item in found.changes if item.kind == "StatefulSet")
    assert "spec.replicas" in change.paths
