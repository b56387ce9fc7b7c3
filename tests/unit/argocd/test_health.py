"""The health check for Argo CD, run by Lua 5.1 with no more libraries than Argo CD gives."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
import yaml
from lupa import lua51

from runnerhub_operator.api import ConditionReason, RunnerHubClusterStatus
from runnerhub_operator.plan import make_plan, rejected_status
from tests.generate import IMAGES, ROOT
from tests.unit.plan.builders import NOW, children, cluster, patroni, pods, sentinels, snapshot

CONFIG = ROOT / "examples" / "argocd" / "argocd-cm.yaml"
RECORDED = ROOT / "tests" / "unit" / "argocd" / "recorded"
SCRIPT = yaml.safe_load(CONFIG.read_text())["data"][
    "resource.customizations.health.runnerhub.io_RunnerHubCluster"
]
# Argo CD opens base, package and table, and an os library of its own (util/lua/lua.go of v3.2).
_SANDBOX = 'getmetatable("").__index = nil; string, math, io, os, debug, coroutine = nil'


def health(body: dict[str, Any]) -> tuple[str, str]:
    """Status and message for an object."""
    lua = lua51.LuaRuntime(register_eval=False, unpack_returned_tuples=True)
    lua.execute(_SANDBOX)
    lua.globals().obj = lua.table_from(body, recursive=True)
    found = dict(lua.execute(SCRIPT))
    assert set(found) == {"status", "message"}
    assert found["message"], "people want to know why"
    return found["status"], found["message"]


def body(
    status: RunnerHubClusterStatus | None, *, generation: int = 3, paused: bool = False
) -> dict[str, Any]:
    """A cluster as Argo CD reads it."""
    found: dict[str, Any] = {
        "apiVersion": "runnerhub.io/v1alpha1",
        "kind": "RunnerHubCluster",
        "metadata": {"name": "hub", "generation": generation},
        "spec": {"paused": paused},
    }
    if status is not None:
        found["status"] = status.model_dump(mode="json", by_alias=True, exclude_none=True)
    return found


def visited(
    before: RunnerHubClusterStatus | None = None, spec: dict[str, Any] | None = None, **seen: Any
) -> RunnerHubClusterStatus:
    """The status that the operator writes."""
    old = before.model_dump(mode="json", by_alias=True, exclude_none=True) if before else None
    return make_plan(cluster(spec, old), snapshot(**seen), IMAGES, None).status


@pytest.fixture(scope="module")
def ready() -> RunnerHubClusterStatus:
    return visited()


def test_without_a_status_it_is_progressing() -> None:
    for status in (None, RunnerHubClusterStatus()):
        assert health(body(status)) == ("Progressing", "the operator has not looked at it yet")
    bare = {"metadata": {"name": "hub", "generation": 1}}
    assert health(bare)[0] == "Progressing"


def test_during_creation_it_is_progressing_and_says_what_is_missing() -> None:
    nothing = visited(children={}, pods=(), patroni=None, sentinels=())
    status, message = health(body(nothing))
    assert status == "Progressing"
    assert "no primary" in message
    almost = visited(pods=pods(hub_postgres_2={"ready": False}))
    assert health(body(almost))[0] == "Progressing"


def test_complete_it_is_healthy(ready: RunnerHubClusterStatus) -> None:
    assert health(body(ready)) == ("Healthy", "all components serve")


def test_an_older_generation_in_the_status_is_not_believed(ready: RunnerHubClusterStatus) -> None:
    assert health(body(ready, generation=4)) == (
        "Progressing",
        "the operator has not looked at this generation yet",
    )


def test_a_missing_member_degrades_it(ready: RunnerHubClusterStatus) -> None:
    status, message = health(body(visited(ready, pods=pods(hub_redis_2={"ready": False}))))
    assert status == "Degraded"
    assert "2 of 3 pods ready" in message


def test_without_a_primary_it_is_degraded(ready: RunnerHubClusterStatus) -> None:
    lost = visited(
        ready,
        now=NOW + timedelta(minutes=5),
        patroni=patroni(leader=None),
        sentinels=sentinels(),
    )
    lost = visited(lost, now=NOW + timedelta(minutes=6), patroni=patroni(leader=None))
    assert {item.type: item.status for item in lost.conditions}["Ready"] == "False"
    status, message = health(body(lost))
    assert status == "Degraded"
    assert "no primary" in message


def test_a_change_that_is_being_written_is_progressing(ready: RunnerHubClusterStatus) -> None:
    missing = {key: value for key, value in children().items() if key != ("Service", "hub")}
    changing = visited(ready, children=missing)
    assert {item.type: item.reason for item in changing.conditions}["Progressing"] == "Changing"
    assert health(body(changing))[0] == "Progressing"


def test_a_rolling_change_is_progressing_though_a_member_is_away() -> None:
    recorded = yaml.safe_load((RECORDED / "rolling-change.yaml").read_text())
    conditions = {item["type"]: item["status"] for item in recorded["status"]["conditions"]}
    assert conditions["Degraded"] == "True", "or the test would prove nothing"
    status, message = health(recorded)
    assert status == "Progressing"
    assert message.startswith("rolling change of postgres")


@pytest.mark.parametrize("served_before", [True, False])
def test_a_spec_that_is_not_accepted_is_degraded(served_before: bool, ready: RunnerHubClusterStatus) -> None:
    before = ready if served_before else RunnerHubClusterStatus()
    rejected = rejected_status(before, ConditionReason.INVALID_SPEC, "postgres.instances: too many", 3, NOW)
    assert health(body(rejected)) == ("Degraded", "postgres.instances: too many")


@pytest.mark.parametrize("reason", [ConditionReason.VOLUME_GROWTH_REFUSED, ConditionReason.MIGRATION_FAILED])
def test_a_part_of_the_spec_that_stays_without_effect_degrades_it(
    reason: ConditionReason, ready: RunnerHubClusterStatus
) -> None:
    refused = ready.model_copy(
        update={
            "conditions": tuple(
                item.model_copy(update={"reason": reason, "message": "forbidden"})
                if item.type == "Progressing"
                else item
                for item in ready.conditions
            )
        }
    )
    assert health(body(refused)) == ("Degraded", "forbidden")


def test_paused_it_is_suspended_whatever_else_is_true(ready: RunnerHubClusterStatus) -> None:
    lost = visited(ready, {"paused": True}, patroni=patroni(leader=None))
    status, message = health(body(lost, paused=True))
    assert status == "Suspended"
    assert message.startswith("spec.paused is true: ")
    assert health(body(None, paused=True)) == ("Suspended", "spec.paused is true")
    assert health(body(ready, paused=True, generation=9)) == ("Suspended", "spec.paused is true")
