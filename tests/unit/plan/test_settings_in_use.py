"""Settings of the queue that take effect without a restart: pods are marked once, and what is left is told."""

from __future__ import annotations

from typing import Any

from runnerhub_operator.actions import MarkPods
from runnerhub_operator.plan import Plan, make_plan, settings_in_use
from runnerhub_operator.plan.planner import ClusterMemory
from runnerhub_operator.probes.redis_pod import RedisPodState
from tests.generate import IMAGES
from tests.unit.plan.builders import children, cluster, snapshot

DATA = children()["ConfigMap", "hub-redis"]["data"]
WANTED = settings_in_use.digest(DATA["redis.conf"], DATA["settings.json"])


def plan(
    told: dict[str, str], memory: ClusterMemory | None = None, spec: dict[str, Any] | None = None
) -> Plan:
    states = tuple(RedisPodState(pod, configuration=text) for pod, text in told.items())
    return make_plan(cluster(spec), snapshot(redis_pods=states), IMAGES, memory)


def progressing(found: Plan) -> tuple[str, str]:
    condition = next(item for item in found.status.conditions if item.type == "Progressing")
    return condition.status, condition.message


def test_pods_that_run_with_the_settings_of_today_are_left_alone() -> None:
    found = plan({"hub-redis-0": WANTED, "hub-redis-1": WANTED})
    assert found.marks == ()
    assert found.settled
    assert progressing(found)[0] == "False"


def test_those_behind_are_marked_once_and_told_until_they_follow() -> None:
    told = {"hub-redis-0": WANTED, "hub-redis-1": "old", "hub-redis-2": "old"}
    found = plan(told)
    assert found.marks == (MarkPods(("hub-redis-1", "hub-redis-2"), f"settings-{WANTED}"),)
    assert progressing(found) == ("True", "new settings are about to take effect in hub-redis-1, hub-redis-2")
    assert not found.settled
    assert found.rollout is None
    again = plan(told, found.memory)
    assert again.marks == ()
    assert progressing(again)[0] == "True"


def test_the_next_change_marks_them_again() -> None:
    found = plan({"hub-redis-0": "old"}, ClusterMemory({}, marked_settings="older"))
    assert found.marks


def test_a_pod_that_tells_nothing_is_not_waited_for() -> None:
    found = plan({"hub-redis-0": ""})
    assert found.marks == ()
    assert found.settled


def test_a_paused_cluster_is_not_touched() -> None:
    found = plan({"hub-redis-0": "old"}, None, {"paused": True})
    assert found.marks == ()
    assert found.memory.marked_settings == ""
