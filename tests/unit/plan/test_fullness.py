"""Volumes that run full: told early, and not made worse."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from runnerhub_operator.plan import fullness
from runnerhub_operator.plan.conditions import postgres_verdict
from runnerhub_operator.plan.planner import make_plan
from runnerhub_operator.plan.status import postgres_status
from runnerhub_operator.probes.patroni import PatroniCluster, parse_cluster
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
    before = postgres_status(cluster(), snapshot(patroni=used(_1=80)))
    early = postgres_status(cluster(), snapshot(patroni=used(_1=90)))
    late = postgres_status(cluster(), snapshot(patroni=used(_1=96)))
    assert [event.reason for event in fullness.events(before, early)] == ["VolumeNearlyFull"]
    assert fullness.events(early, early) == []
    assert [event.reason for event in fullness.events(early, late)] == ["VolumeFull"]
    assert [event.reason for event in fullness.events(before, late)] == ["VolumeNearlyFull", "VolumeFull"]


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
