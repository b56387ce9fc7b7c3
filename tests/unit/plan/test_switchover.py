"""The switchover that an annotation asks for: once, only to a member that loses nothing, and not for ever."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from runnerhub_operator import names
from runnerhub_operator.actions import SwitchPostgres
from runnerhub_operator.api import RunnerHubCluster, parse_cluster
from runnerhub_operator.plan import LastStep, Plan, make_plan
from runnerhub_operator.plan.rollout import BACK_SECONDS, MAX_POSTPONEMENTS, POSTPONED_SECONDS
from tests.generate import IMAGES
from tests.unit.plan.builders import NOW, children, cluster, patroni, pod, pods, snapshot

WANTED = "hub-postgres-1"
STREAMS = {"role": "replica", "state": "streaming"}


def asked(
    wanted: str | None = WANTED, spec: dict[str, Any] | None = None, before: Plan | None = None
) -> RunnerHubCluster:
    """A cluster with the annotation, and the status that an earlier visit wrote."""
    plain = cluster(spec)
    status = before.status if before is not None else plain.status
    return replace(plain, switch_primary_to=wanted, status=status)


def plan(wanted: RunnerHubCluster, before: Plan | None = None, **changes: Any) -> Plan:
    return make_plan(wanted, snapshot(**changes), IMAGES, before.memory if before is not None else None)


def step(found: Plan) -> Any:
    return found.rollout.step if found.rollout is not None else None


def told(found: Plan) -> tuple[str, str]:
    status = found.status.postgres.switchover
    assert status is not None
    return status.result, status.message


def reasons(found: Plan) -> set[str]:
    return {note.reason for note in found.events}


def test_a_healthy_member_takes_over_under_the_lease() -> None:
    found = plan(asked())
    assert step(found) == SwitchPostgres("hub-postgres-0", "asked for by an annotation", WANTED)
    assert told(found)[0] == "Pending"
    assert found.disruption_lease is not None
    assert not found.settled


def test_without_the_annotation_nothing_is_told() -> None:
    found = plan(asked(None))
    assert found.rollout is None
    assert found.status.postgres.switchover is None


def test_it_is_done_when_the_member_is_the_primary_and_the_move_is_told_as_requested() -> None:
    first = plan(asked())
    done = plan(asked(before=first), first, patroni=patroni(WANTED, timeline=2))
    assert told(done) == ("Done", f"{WANTED} is the primary")
    assert done.rollout is None
    assert [item.cause for item in done.failovers] == ["Requested"]


def test_a_member_that_takes_over_is_waited_for_without_alarm() -> None:
    first = plan(asked())
    taking_over = patroni(WANTED, timeline=2, hub_postgres_1={"state": "starting"})
    found = plan(asked(before=first), first, patroni=taking_over)
    assert told(found) == ("Pending", f"{WANTED} is taking over")
    assert step(found) is None
    assert "SwitchoverWaits" not in reasons(found)


def test_a_request_that_is_done_does_not_fight_a_failover() -> None:
    first = plan(asked())
    done = plan(asked(before=first), first, patroni=patroni(WANTED, timeline=2))
    later = plan(asked(before=done), done, patroni=patroni("hub-postgres-2", timeline=3))
    assert later.rollout is None
    assert told(later)[0] == "Done"


def test_another_request_and_the_same_one_after_it_was_taken_away_count_anew() -> None:
    done = plan(asked("hub-postgres-0"))
    assert told(done)[0] == "Done"
    assert step(plan(asked(before=done), done)) is not None
    elsewhere = {"patroni": patroni("hub-postgres-2", timeline=2)}
    assert step(plan(asked("hub-postgres-0", before=done), done, **elsewhere)) is None
    away = plan(asked(None, before=done), done, **elsewhere)
    assert step(plan(asked("hub-postgres-0", before=away), away, **elsewhere)).candidate == "hub-postgres-0"


@pytest.mark.parametrize("unknown", ["hub-postgres-3", "hub-postgres-x", "nobody", "x" * 63])
def test_a_member_that_there_is_not_is_refused_and_told_once(unknown: str) -> None:
    found = plan(asked(unknown))
    assert told(found) == ("Refused", f"the cluster has no Postgres member {unknown!r}")
    assert "SwitchoverRefused" in reasons(found)
    assert found.rollout is None
    again = plan(asked(unknown, before=found), found)
    assert "SwitchoverRefused" not in reasons(again)
    assert again.settled


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"pods": pods(hub_postgres_1={"ready": False})}, "not ready"),
        ({"patroni": patroni(hub_postgres_1={"state": "starting"})}, "does not stream"),
        ({"patroni": patroni(hub_postgres_1={"timeline": 7})}, "does not stream"),
        ({"patroni": patroni(hub_postgres_1={"lag_bytes": 2**30})}, "too far behind"),
        ({"patroni": patroni(hub_postgres_1={"lag_bytes": None})}, "too far behind"),
        ({"patroni": patroni(hub_postgres_1=STREAMS)}, "no synchronous replica"),
        ({"patroni": patroni(hub_postgres_0={"state": "stopped"})}, "no running primary"),
        ({"patroni": None}, "Patroni does not answer"),
    ],
)
def test_a_member_that_cannot_take_over_now_is_waited_for_and_then_given_up(
    changes: dict[str, Any], why: str
) -> None:
    found = plan(asked(), **changes)
    assert step(found) is None
    assert told(found)[0] == "Pending"
    assert why in told(found)[1]
    assert "SwitchoverWaits" in reasons(found)
    again = plan(asked(before=found), found, now=NOW + timedelta(seconds=5), **changes)
    assert "SwitchoverWaits" not in reasons(again), "told once"
    late = plan(asked(before=again), again, now=NOW + timedelta(minutes=11), **changes)
    assert told(late)[0] == "Refused"
    assert why in told(late)[1]
    whole_again = plan(asked(before=late), late, now=NOW + timedelta(minutes=12))
    assert step(whole_again) is None


def test_without_synchronous_replication_any_replica_in_step_may_take_over() -> None:
    spec = {"postgres": {"synchronous": "disabled"}}
    found = make_plan(
        asked(spec=spec),
        snapshot(children=children(spec=spec), patroni=patroni(hub_postgres_1=STREAMS)),
        IMAGES,
        None,
    )
    assert step(found).candidate == WANTED


def test_a_paused_cluster_leaves_the_request_for_later() -> None:
    found = plan(asked(spec={"paused": True}))
    assert step(found) is None
    assert found.status.postgres.switchover is None


def test_a_rolling_change_goes_first_and_takes_the_request_along() -> None:
    old = {"revision": "old"}
    assert step(plan(asked(), pods=pods(hub_postgres_2=old))).pod == "hub-postgres-2"
    last = step(plan(asked(), pods=pods(hub_postgres_0=old)))
    assert (last.reason, last.candidate) == ("rolling change", WANTED)


def test_a_request_that_waits_holds_no_rolling_change_up() -> None:
    lagging = patroni(hub_postgres_1={"lag_bytes": 2**30})
    found = plan(asked(spec={"loadBalancer": {"image": "example.test/other:2"}}), patroni=lagging)
    assert found.rollout is not None
    assert found.rollout.component == names.LOAD_BALANCER


def test_the_lease_of_a_person_is_respected() -> None:
    lease = {
        "kind": "Lease",
        "metadata": {"name": "hub-disruption"},
        "spec": {"holderIdentity": "alice/drill"},
    }
    found = plan(asked(), children=children(lease))
    assert step(found) is None
    assert found.rollout is not None
    assert "alice/drill" in found.rollout.waiting_for
    assert told(found) == ("Pending", "alice/drill holds hub-disruption")


@pytest.mark.parametrize("at", ["2026-99-99T00:00:00Z", "2999-01-01T00:00:00Z", "0001-01-01T00:00:00+23:59"])
def test_a_time_that_somebody_scribbled_does_no_harm(at: str) -> None:
    scribbled = {"request": WANTED, "result": "Pending", "message": "", "at": at}
    plain = cluster(status={"postgres": {"switchover": scribbled}})
    found = plan(replace(plain, switch_primary_to=WANTED))
    assert told(found)[0] in ("Pending", "Refused")


def test_the_annotation_is_read_and_bounded() -> None:
    def wanted(annotations: dict[str, str] | None) -> str | None:
        metadata = {"name": "hub", "namespace": "d", "uid": "u", "annotations": annotations}
        return parse_cluster({"metadata": metadata, "spec": {}}).switch_primary_to

    assert wanted({names.ANNOTATION_SWITCH_PRIMARY: f" {WANTED}\n"}) == WANTED
    assert wanted({names.ANNOTATION_SWITCH_PRIMARY: ""}) is None
    assert wanted(None) is None
    assert wanted({names.ANNOTATION_SWITCH_PRIMARY: "x" * 1000}) == "x" * 63


# --- Together with other changes ---

OLD = {"revision": "old"}
AWAY = {"ready": False}


def half_way(component: str) -> dict[str, Any]:
    """A Deployment whose new pods are not ready and never get so."""
    status = {"observedGeneration": 1, "replicas": 3, "updatedReplicas": 1}
    return {"kind": "Deployment", "metadata": {"name": f"hub-{component}"}, "status": status}


@pytest.mark.parametrize(
    "changes",
    [
        *(
            {"children": children(half_way(component))}
            for component in (names.ORCHESTRATOR, names.LOAD_BALANCER, names.POOLER)
        ),
        {"pods": pods(hub_redis_2=OLD)},
        {"pods": pods(hub_redis_1=OLD, hub_redis_2=OLD | AWAY | {"terminating": True})},
        {"pods": pods(hub_redis_1=OLD, hub_redis_2=AWAY)},
    ],
)
def test_it_waits_for_no_change_that_the_database_does_not_rest_on(changes: dict[str, Any]) -> None:
    before = plan(asked(None), **changes)
    assert before.rollout is not None
    assert before.rollout.component != names.POSTGRES
    assert step(plan(asked(), **changes)).candidate == WANTED


def test_it_waits_for_poolers_that_stop_while_they_are_renewed_and_says_so() -> None:
    renewing: dict[str, Any] = {"children": children(half_way(names.POOLER))}
    stopping = pod("hub-pooler-old", names.POOLER, ready=False, terminating=True)
    found = plan(asked(), pods=(*pods(), stopping), **renewing)
    assert step(found) is None
    why = "it waits for the rolling change of pooler, which waits for its new pods: 1 of 3 are there"
    assert told(found) == ("Pending", why)
    # Nobody ends one on a node that is dead.
    lost = replace(stopping, gone_by=(NOW - timedelta(minutes=5)).isoformat())
    assert step(plan(asked(), pods=(*pods(), lost), **renewing)).candidate == WANTED
    # A pooler that stops for another reason holds nobody up, as when a node is drained.
    assert step(plan(asked(), pods=(*pods(), stopping))).candidate == WANTED


PENDING = patroni(hub_postgres_0={"pending_restart": True}, hub_postgres_1={"pending_restart": True})


def test_it_does_not_wait_for_a_change_that_waits_for_a_member_on_a_dead_node() -> None:
    changes: dict[str, Any] = {"patroni": PENDING, "pods": pods(hub_postgres_2=AWAY)}
    assert "hub-postgres-2 to become healthy" in str(plan(asked(None), **changes).rollout)
    assert step(plan(asked(), **changes)).candidate == WANTED


def test_it_does_not_come_between_the_steps_of_a_change_of_the_database_that_gets_on() -> None:
    first = plan(asked(), pods=pods(hub_postgres_1=OLD, hub_postgres_2=OLD))
    assert step(first).pod == "hub-postgres-2"
    memory = replace(first.memory, last_step=LastStep.done(step(first), NOW, "uid-hub-postgres-2"))
    coming = pods(hub_postgres_1=OLD, hub_postgres_2=AWAY | {"uid": "another"})

    def later(seconds: float, **beside: Any) -> Plan:
        seen = snapshot(now=NOW + timedelta(seconds=seconds), pods=coming, **beside)
        return make_plan(asked(before=first), seen, IMAGES, memory)

    held = later(BACK_SECONDS - 1)
    assert step(held) is None
    why = "it waits for the rolling change of postgres, which waits for hub-postgres-2 to become healthy"
    assert told(held) == ("Pending", why)
    moving = children(half_way(names.ORCHESTRATOR))
    assert step(later(60, children=moving)) is None, "whatever else comes first"
    assert step(later(BACK_SECONDS + 1)).candidate == WANTED, "it does not come back"


@pytest.mark.parametrize("stopped", ["hub-postgres-0", "hub-postgres-3", "hub-redis-1"])
def test_it_does_not_wait_for_another_member_than_that_of_the_last_step(stopped: str) -> None:
    last = LastStep(at=NOW - timedelta(seconds=60), stopped=stopped)
    memory = replace(plan(asked(None)).memory, last_step=last)
    seen = snapshot(patroni=PENDING, pods=pods(hub_postgres_2=AWAY))
    assert step(make_plan(asked(), seen, IMAGES, memory)).candidate == WANTED


def test_a_request_that_is_given_up_tells_what_it_waited_for() -> None:
    changes: dict[str, Any] = {"pods": pods(hub_postgres_2=OLD)}
    found = plan(asked(), **changes)
    assert told(found)[1] == "it waits for the rolling change of postgres, which waits for hub-postgres-2"
    late = plan(asked(before=found), found, now=NOW + timedelta(minutes=11), **changes)
    assert told(late) == ("Refused", f"given up after 10 minutes: {told(found)[1]}")


def test_a_leader_that_changes_meanwhile_is_told_as_that_of_a_rolling_change() -> None:
    renewing: dict[str, Any] = {"children": children(half_way(names.ORCHESTRATOR))}
    first = plan(asked(), **renewing)
    moved = pods(hub_orchestrator_0={"leads": False}, hub_orchestrator_1={"leads": True})
    found = plan(asked(before=first), first, pods=moved, **renewing)
    assert isinstance(step(found), SwitchPostgres)
    assert [item.cause for item in found.failovers] == ["RollingChange"]


# --- Switchovers that are put off ---


def after(last: LastStep, seconds: float) -> Plan:
    first = plan(asked())
    memory = replace(first.memory, last_step=last)
    later = snapshot(now=NOW + timedelta(seconds=seconds))
    return make_plan(asked(before=first), later, IMAGES, memory)


def test_a_switchover_that_was_put_off_is_tried_again_later_and_in_the_end_without_a_pause() -> None:
    last = LastStep()
    now = NOW
    for _ in range(MAX_POSTPONEMENTS):
        last = last.postponed(now)
        waits = after(last, (now - NOW).total_seconds() + POSTPONED_SECONDS / 2)
        assert step(waits) is None
        assert waits.rollout is not None
        assert "transactions to end" in waits.rollout.waiting_for
        now += timedelta(seconds=POSTPONED_SECONDS + 1)
    assert step(after(last, (now - NOW).total_seconds())).pause is False
    assert step(after(LastStep().postponed(NOW), POSTPONED_SECONDS + 1)).pause is True


def test_a_refusal_of_patroni_is_tried_again_soon_and_with_a_pause() -> None:
    last = LastStep()
    for _ in range(MAX_POSTPONEMENTS + 1):
        last = last.refused(NOW, "409: nobody can")
    held, again = after(last, 5), after(last, 11)
    assert step(held) is None
    assert step(again).pause is True
    # The status does not go back and forth between the tries.
    assert held.rollout.waiting_for == again.rollout.waiting_for
    assert "409: nobody can" in held.rollout.waiting_for
    assert told(held) == told(again) == ("Pending", "409: nobody can")


def test_tries_of_another_occasion_do_not_count() -> None:
    last = replace(LastStep().postponed(NOW), postponements=MAX_POSTPONEMENTS)
    assert step(after(last, 301)).pause is True
    assert last.postponed(NOW + timedelta(seconds=301)).postponements == 1
