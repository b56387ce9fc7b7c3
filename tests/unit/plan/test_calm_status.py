"""A settled cluster's status stays as it is, however its readings wobble."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from runnerhub_operator.api import RunnerHubClusterStatus
from runnerhub_operator.plan.conditions import checks_in
from runnerhub_operator.plan.planner import Plan, make_plan
from runnerhub_operator.probes.redis_pod import QueueDepth, RedisPodState, ReplicaLag
from runnerhub_operator.probes.runners import Demand
from tests.unit.plan.builders import IMAGES, NOW, address, cluster, patroni, sentinels, snapshot

SPEC = {"runnerPools": [{"name": "small", "minReplicas": 0, "maxReplicas": 2}]}
NO_JOBS = Demand(waiting=(), busy=frozenset())
LAG = 32 * 1024 * 1024


def redis_pods(
    *, lag: int = 0, silent: int = 1, memory: int = 5, volume: int = 45
) -> tuple[RedisPodState, ...]:
    master = RedisPodState(
        "hub-redis-0",
        volume_used_percent=volume,
        memory_used_percent=memory,
        lags={address(i): ReplicaLag(lag, silent) for i in (1, 2)},
        depth=QueueDepth(0, 0, 0, 0),
    )
    return (master, *(RedisPodState(f"hub-redis-{i}", volume_used_percent=volume) for i in (1, 2)))


def database(volume: int = 45, **changes: Any) -> Any:
    view = patroni(**changes)
    return replace(view, members=tuple(replace(m, volume_used_percent=volume) for m in view.members))


def visit(seconds: float, before: Plan | None, **readings: Any) -> Plan:
    known = cluster(SPEC)
    if before is not None:
        known = replace(known, status=before.status)
    values = {"redis_pods": redis_pods(), "patroni": database(), "demand": NO_JOBS} | readings
    seen = snapshot(now=NOW + timedelta(seconds=seconds), **values)
    return make_plan(known, seen, IMAGES, before.memory if before is not None else None)


def settled() -> Plan:
    plan = visit(0, None)
    for seconds in (5, 10):
        plan = visit(seconds, plan)
    assert {item.type: item.status for item in plan.status.conditions}["RunnersReady"] == "True"
    return plan


@pytest.mark.parametrize(
    "reading",
    [
        {"redis_pods": ()},
        {"redis_pods": redis_pods()[1:]},
        {"redis_pods": redis_pods(silent=4)},
        {"redis_pods": redis_pods(memory=4)},
        {"redis_pods": redis_pods(volume=40)},
        {"patroni": database(volume=40)},
        {"patroni": None},
        {"patroni": database(hub_postgres_1={"state": "running"})},
        {"patroni": database(hub_postgres_1={"timeline": None})},
        {"patroni": database(hub_postgres_1={"role": "replica"})},
        {"sentinels": sentinels()[1:]},
        {"sentinels": ()},
        {"demand": None, "demand_error": "no orchestrator tells it"},
        {"unserved": "port 3001 is silent"},
        {"failing_checks": {"storage": "no answer in 5 s"}},
    ],
)
def test_a_reading_that_wobbles_is_not_told(reading: dict[str, Any]) -> None:
    before = settled()
    wobbling = visit(60, before, **reading)
    assert wobbling.status == before.status
    assert visit(65, wobbling).status == before.status


@pytest.mark.parametrize(
    "reading",
    [
        {"patroni": database(hub_postgres_1={"state": "running"})},
        {"demand": None, "demand_error": "no orchestrator tells it"},
        {"redis_pods": redis_pods(silent=12)},
        {"redis_pods": redis_pods(memory=1)},
        {"redis_pods": redis_pods(volume=35)},
    ],
)
def test_one_that_lasts_is(reading: dict[str, Any]) -> None:
    before = settled()
    plan = visit(60, before, **reading)
    assert visit(76, plan, **reading).status != before.status


def test_lags_that_move_all_the_time_are_told_twice_a_minute() -> None:
    def lags(status: RunnerHubClusterStatus) -> tuple[int | None, int | None]:
        return status.postgres.instances[1].lag_bytes, status.redis.replicas[0].lag_bytes

    plan, told = settled(), []
    for second in range(60, 130, 5):
        lag = LAG * (second // 5)
        reading = {
            "patroni": database(hub_postgres_1={"lag_bytes": lag, "lag_seconds": second}),
            "redis_pods": redis_pods(lag=lag),
        }
        plan = visit(second, plan, **reading)
        told.append(lags(plan.status))
    changes = [at for at in range(1, len(told)) if told[at] != told[at - 1]]
    assert changes == [6, 12]
    assert told[0] == (LAG * 12, LAG * 12)


def test_who_lags_no_longer_follows_is_told_with_its_lag() -> None:
    plan = visit(60, settled(), redis_pods=redis_pods(lag=LAG))
    views = sentinels()
    cut = tuple(
        replace(view, replicas=tuple(replace(item, link_ok=False) for item in view.replicas))
        for view in views
    )
    for second in (65, 81):
        plan = visit(second, plan, redis_pods=redis_pods(lag=2 * LAG), sentinels=cut)
    assert [(item.link, item.lag_bytes) for item in plan.status.redis.replicas] == [("err", 2 * LAG)] * 2


STALE = {"storage": "an earlier access still hangs"}


def orchestrators(plan: Plan) -> tuple[str, str, str]:
    found = {item.type: item for item in plan.status.conditions}["OrchestratorsReady"]
    return found.status, found.reason, found.message


def lost_storage() -> Plan:
    return visit(
        80, visit(65, visit(60, settled(), failing_checks={}), failing_checks=STALE), failing_checks=STALE
    )


def test_a_lost_shared_storage_degrades_a_cluster_that_goes_on_serving() -> None:
    plan = lost_storage()
    status, reason, message = orchestrators(plan)
    assert (status, reason) == ("True", "ChecksFail")
    assert "the check of storage fails: an earlier access still hangs" in message
    found = {item.type: item for item in plan.status.conditions}
    assert found["Ready"].status == "True", "requests are served"
    assert found["Degraded"].status == "True"
    assert "storage" in found["Degraded"].message


def test_a_storage_that_one_pod_alone_has_lost_is_told_without_flickering() -> None:
    plan = lost_storage()
    first = plan.status
    for second, seen in ((85, {}), (100, {"storage": "no answer in 5 s"}), (120, None), (155, {})):
        plan = visit(second, plan, failing_checks=seen)
        assert plan.status == first, second
        assert not plan.events
    plan = visit(161, plan, failing_checks={})
    assert orchestrators(plan)[1] == "Available"


def test_a_check_that_failed_for_a_moment_is_not_told_later_either() -> None:
    plan = visit(60, settled(), failing_checks=STALE)
    before = plan.status
    for second in range(65, 130, 5):
        plan = visit(second, plan, failing_checks={})
        assert plan.status == before, second
    assert not plan.memory.patience.checks


@pytest.mark.parametrize("first", [STALE, {}, None])
def test_after_a_restart_of_the_operator_a_lost_storage_is_told_on(first: dict[str, str] | None) -> None:
    """Also when the agent that is asked first is well, or none answers."""
    plan = lost_storage()
    known = replace(cluster(SPEC), status=plan.status)
    seen = snapshot(
        now=NOW + timedelta(seconds=85),
        redis_pods=redis_pods(),
        patroni=database(),
        demand=NO_JOBS,
        failing_checks=first,
    )
    again = make_plan(known, seen, IMAGES, None)
    assert again.status == plan.status
    again = visit(144, visit(120, again, failing_checks=None), failing_checks={})
    assert again.status == plan.status
    assert orchestrators(visit(146, again, failing_checks={}))[1] == "Available"


def test_the_failing_checks_of_a_message_are_read_as_they_were_told() -> None:
    message = (
        "3 of 3 ready, leader a; the check of canary fails: no; the row: gone; the check of storage fails: x"
    )
    message += "; since 2026-01-01T12:01:20Z"
    assert checks_in(message) == {"canary": "no; the row: gone", "storage": "x"}
    assert checks_in("3 of 3 ready, leader a") == {}


def test_a_storage_that_is_lost_keeps_no_new_cluster_from_being_ready() -> None:
    plan = visit(20, visit(0, None, failing_checks=STALE), failing_checks=STALE)
    assert {item.type: item.status for item in plan.status.conditions}["Ready"] == "True"
