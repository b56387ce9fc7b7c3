"""Fewer members of the database: one at a time, and only as long as those that stay have all that was confirmed."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from runnerhub_operator.actions import RenewDeployment, ShrinkPostgres, SwitchPostgres
from runnerhub_operator.api import ConditionType
from runnerhub_operator.plan import Plan, make_plan, shrink
from runnerhub_operator.plan.preview import preview
from runnerhub_operator.probes.patroni import PatroniCluster, PatroniMember
from runnerhub_operator.snapshot import Snapshot
from tests.generate import IMAGES
from tests.unit.plan.builders import (
    NOW,
    children,
    cluster,
    pod,
    pods,
    snapshot,
    stateful_set,
    step,
    waits_for,
)

SPEC: dict[str, Any] = {"postgres": {"instances": 3}}


def member(ordinal: int) -> str:
    return f"hub-postgres-{ordinal}"


def view(count: int, leader: int, **changes: dict[str, Any]) -> PatroniCluster:
    members = []
    for ordinal in range(count):
        values: dict[str, Any] = {
            "name": member(ordinal),
            "role": "primary" if ordinal == leader else "quorum_standby",
            "state": "running" if ordinal == leader else "streaming",
            "timeline": 1,
            "lag_bytes": None if ordinal == leader else 0,
        }
        members.append(PatroniMember(**(values | changes.get(f"p{ordinal}", {}))))
    return PatroniCluster(tuple(members), member(leader), 1, by_leader=True)


def there(
    count: int = 5,
    leader: int = 0,
    *,
    patroni: PatroniCluster | None = None,
    config: dict[str, Any] | None = None,
    **changes: dict[str, Any],
) -> Snapshot:
    """So many members, the StatefulSet as it was written for them; `p3={"ready": False}` changes a pod."""
    others = [item for item in pods() if item.component != "postgres"]
    members = [pod(member(i), "postgres", **changes.get(f"p{i}", {})) for i in range(count)]
    spec = {"postgres": {"instances": count}}
    return snapshot(
        children=children(spec=spec),
        pods=(*members, *others),
        patroni=patroni or view(count, leader),
        patroni_config=config,
    )


def plan(snap: Snapshot, spec: dict[str, Any] | None = None) -> Plan:
    return make_plan(cluster(spec or SPEC, {"phase": "Ready"}), snap, IMAGES, None)


def replicas_written(found: Plan) -> list[int]:
    return [item["spec"]["replicas"] for item in found.objects if item["metadata"]["name"] == "hub-postgres"]


def test_the_stateful_set_is_never_told_the_smaller_number_at_once() -> None:
    found = plan(there())
    assert replicas_written(found) == []
    assert found.prune == ()
    assert step(found) == ShrinkPostgres(member(4), 4)
    assert found.rollout is not None
    assert found.rollout.rests_on == (member(0), member(1), member(2))
    assert found.disruption_lease is not None
    assert not found.settled


def test_it_ends_with_as_many_as_the_spec_says() -> None:
    for count, expected in ((5, 4), (4, 3)):
        assert step(plan(there(count))).instances == expected
    assert step(plan(there(3))) is None
    assert shrink.look(cluster(SPEC), there(3)) is None


def test_a_primary_that_is_to_go_hands_over_to_one_that_stays() -> None:
    found = step(plan(there(leader=4, patroni=view(5, 4, p0={"lag_bytes": 4096}, p1={"lag_bytes": 0}))))
    assert isinstance(found, SwitchPostgres)
    assert (found.primary, found.candidate, found.pause) == (member(4), member(1), True)
    # It need not move as long as it is not its turn.
    assert step(plan(there(leader=3))) == ShrinkPostgres(member(4), 4)


@pytest.mark.parametrize(
    ("snap", "what"),
    [
        (there(p1={"ready": False}), "hub-postgres-1 to become healthy"),
        (there(p1={"terminating": True, "ready": False}), "hub-postgres-1 to become healthy"),
        (there(patroni=view(5, 0, p1={"state": "starting"})), "hub-postgres-1 to become healthy"),
        # On a node that stands still.
        (there(patroni=view(5, 0, p1={"role": "replica"})), "hub-postgres-1 to become healthy"),
        (there(patroni=replace(view(5, 0), leader=None)), "a primary"),
        (there(patroni=replace(view(5, 0), paused=True)), "Patroni to be resumed"),
    ],
)
def test_nobody_goes_while_those_that_stay_are_not_well(snap: Snapshot, what: str) -> None:
    found = plan(snap)
    assert what in waits_for(found)
    assert replicas_written(found) == []
    told = next(item for item in found.status.conditions if item.type == ConditionType.PROGRESSING)
    assert (told.status, told.reason) == ("True", "RollingChange")
    assert what in told.message


def test_what_cannot_get_smaller_holds_nothing_else_up() -> None:
    waiting = there(p1={"ready": False})
    found = plan(waiting, SPEC | {"loadBalancer": {"resources": {"requests": {"cpu": "250m"}}}})
    assert isinstance(step(found), RenewDeployment)


def test_silence_of_patroni_lets_nobody_go() -> None:
    found = plan(replace(there(), patroni=None))
    assert "Patroni to answer" in waits_for(found)


LEAVES: dict[str, Any] = {"terminating": True, "ready": False, "gone_by": "2026-01-01T12:01:00Z"}


def test_each_one_is_gone_before_the_next_goes() -> None:
    snap = there(4)
    leaving = (*snap.pods, pod(member(4), "postgres", **LEAVES))
    assert waits_for(plan(replace(snap, pods=leaving))) == "hub-postgres-4 to terminate"
    # Nobody ends it on a node that is dead.
    later = replace(snap, pods=leaving, now=NOW + timedelta(minutes=2))
    assert step(plan(later)) == ShrinkPostgres(member(3), 3)


def test_the_last_one_on_a_dead_node_ends_nothing_but_itself() -> None:
    snap = there(3)
    leaving = (*snap.pods, pod(member(3), "postgres", **LEAVES))
    assert waits_for(plan(replace(snap, pods=leaving))) == "hub-postgres-3 to terminate"
    assert shrink.look(cluster(SPEC), replace(snap, pods=leaving, now=NOW + timedelta(minutes=2))) is None


@pytest.mark.parametrize("broken", [{"ready": False}, {"ready": False, "waiting_reason": "Unschedulable"}])
def test_a_broken_one_may_go(broken: dict[str, Any]) -> None:
    assert step(plan(there(p4=broken))) == ShrinkPostgres(member(4), 4)
    # Nor does one that has yet to go hold up the one before it.
    assert step(plan(there(p3=broken))) == ShrinkPostgres(member(4), 4)


def test_what_never_started_goes_whatever_the_others_are() -> None:
    never = {"ready": False, "waiting_reason": "Unschedulable"}
    assert step(plan(there(p1={"ready": False}, p4=never))) == ShrinkPostgres(member(4), 4)


def test_the_last_replica_goes_only_when_commits_need_none() -> None:
    one = {"postgres": {"instances": 1}}
    strict = there(2, config={"synchronous_mode_strict": True, "synchronous_node_count": 1})
    assert "without a replica" in waits_for(plan(strict, one))
    relaxed = there(2, config={"synchronous_mode_strict": False})
    assert step(plan(relaxed, one)) == ShrinkPostgres(member(1), 1)


def test_those_that_are_to_go_are_not_renewed_first() -> None:
    old = {"revision": "old"}
    assert step(plan(there(p1=old, p3=old, p4=old))) == ShrinkPostgres(member(4), 4)


def test_a_stateful_set_that_is_made_anew_keeps_all_pods_that_there_are() -> None:
    snap = there()
    without = {
        key: item
        for key, item in children(spec={"postgres": {"instances": 5}}).items()
        if key != ("StatefulSet", "hub-postgres")
    }
    anew = snapshot(children=without, pods=snap.pods, patroni=snap.patroni)
    assert replicas_written(plan(anew)) == [5]
    assert replicas_written(plan(snapshot(children=without, pods=pods()))) == [3]


def test_more_members_come_at_once() -> None:
    found = plan(there(3), {"postgres": {"instances": 5}})
    assert replicas_written(found) == [5]


def test_what_is_told_beforehand_is_the_end_of_it() -> None:
    found = preview(cluster(SPEC), there(), IMAGES)
    change = next(item for item in found.changes if item.kind == "StatefulSet")
    assert change.paths == ("spec.replicas",)


def test_a_number_that_somebody_set_on_the_stateful_set_is_undone_one_at_a_time() -> None:
    more = stateful_set("postgres") | {"spec": {"replicas": 5}}
    snap = there(5)
    changed = snapshot(
        children=children(more, spec={"postgres": {"instances": 5}}), pods=snap.pods, patroni=snap.patroni
    )
    assert step(plan(changed)) == ShrinkPostgres(member(4), 4)
