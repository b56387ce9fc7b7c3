"""A queue that is there and serves nobody: a master that refuses writes, workers that take no job."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

from runnerhub_operator.plan.planner import Plan, make_plan
from tests.unit.plan.builders import IMAGES, NOW, cluster, sentinels, snapshot

REFUSAL = "NOREPLICAS Not enough good replicas to write."


def visit(seconds: float, before: Plan | None, **readings: Any) -> Plan:
    known = cluster()
    if before is not None:
        known = replace(known, status=before.status)
    seen = snapshot(now=NOW + timedelta(seconds=seconds), **readings)
    return make_plan(known, seen, IMAGES, before.memory if before is not None else None)


def told(plan: Plan, kind: str) -> tuple[str, str, str]:
    found = next(item for item in plan.status.conditions if item.type == kind)
    return found.status, found.reason, found.message


def refused_for_long() -> Plan:
    plan = visit(0, None)
    assert told(plan, "RedisReady")[:2] == ("True", "Available")
    return visit(20, visit(5, plan, writes_refused=REFUSAL), writes_refused=REFUSAL)


def test_a_master_that_refuses_writes_does_not_serve() -> None:
    plan = refused_for_long()
    status, reason, message = told(plan, "RedisReady")
    assert (status, reason) == ("False", "WritesRefused")
    assert f"the master refuses writes: {REFUSAL}" in message
    assert told(plan, "Ready")[0] == "False"
    assert told(visit(21, plan, writes_refused=REFUSAL), "RedisReady")[1] == "WritesRefused"
    assert told(visit(21, plan), "RedisReady")[:2] == ("True", "Available")


def test_a_refusal_that_only_an_agent_beside_a_fenced_master_hears_for_a_moment_is_not_told() -> None:
    before = visit(0, None)
    plan = visit(5, before, writes_refused=REFUSAL)
    assert plan.status == before.status
    assert not plan.settled, "it is looked at again soon"
    plan = visit(19, plan, writes_refused=REFUSAL)
    assert plan.status == before.status
    plan = visit(30, visit(20, plan), writes_refused=REFUSAL)
    assert plan.status == before.status


def test_without_a_master_the_refusal_is_no_more_than_a_clause() -> None:
    plan = visit(5, visit(0, None), writes_refused=REFUSAL, sentinels=sentinels(flags=frozenset({"s_down"})))
    assert told(plan, "RedisReady")[0] == "False"
    assert "no master" in told(plan, "RedisReady")[2]


def test_deaf_workers_are_told_until_no_agent_has_called_them_so_for_a_while() -> None:
    plan = visit(0, None, deaf_queues=frozenset())
    plan = visit(5, plan, deaf_queues=frozenset({"mail"}))
    assert plan.status.redis.deaf_queues == ("mail",)
    assert [note.reason for note in plan.events if "mail" in note.message] == ["WorkersDeaf", "Degraded"]
    status, reason, message = told(plan, "RedisReady")
    assert (status, reason) == ("True", "WorkersDeaf")
    assert "restart them" in message
    assert told(plan, "Ready")[0] == "True", "requests are served"
    first = plan.status
    for second, found in ((10, set()), (34, set()), (36, {"mail"}), (60, set()), (70, None), (90, set())):
        plan = visit(second, plan, deaf_queues=None if found is None else frozenset(found))
        assert plan.status == first, second
        assert not plan.events
    plan = visit(101, plan, deaf_queues=frozenset())
    assert plan.status.redis.deaf_queues == ()
    assert told(plan, "RedisReady")[:2] == ("True", "Available")


def test_deaf_workers_keep_no_new_cluster_from_being_ready() -> None:
    plan = visit(0, None, deaf_queues=frozenset({"mail"}))
    assert told(plan, "Ready")[0] == "True"


def test_after_a_restart_of_the_operator_deaf_workers_are_told_on() -> None:
    plan = visit(5, visit(0, None), deaf_queues=frozenset({"mail"}))
    known = replace(cluster(), status=plan.status)
    again = make_plan(known, snapshot(now=NOW + timedelta(seconds=6), deaf_queues=frozenset()), IMAGES, None)
    assert again.status.redis.deaf_queues == ("mail",)
