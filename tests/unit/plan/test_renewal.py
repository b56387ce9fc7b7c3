"""Deployments are renewed one at a time, after the stateful components; the sizes of others are respected."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from runnerhub_operator import names
from runnerhub_operator.actions import RenewDeployment
from runnerhub_operator.plan import LastStep, Plan, make_plan, objects
from tests.generate import IMAGES
from tests.unit.plan.builders import NOW, children, cluster, pod, pods, snapshot, stateful_set

IMAGE = {"orchestrator": {"image": "example.test/other:2"}}
BOTH = {**IMAGE, "loadBalancer": {"image": "example.test/proxy:2"}}


def plan(spec: dict[str, Any] | None = None, **changes: Any) -> Plan:
    return make_plan(cluster(spec), snapshot(**changes), IMAGES, None)


def deployment(component: str, **status: int) -> dict[str, Any]:
    """Other state of a Deployment."""
    full = {"observedGeneration": 1, "replicas": 3, "updatedReplicas": 3} | status
    return {"kind": "Deployment", "metadata": {"name": f"hub-{component}"}, "status": full}


def renewed(found: Plan) -> str | None:
    step = found.rollout.step if found.rollout is not None else None
    return step.manifest["metadata"]["name"] if isinstance(step, RenewDeployment) else None


def written(found: Plan) -> set[str]:
    return {item["metadata"]["name"] for item in found.objects if item["kind"] == "Deployment"}


def test_a_changed_template_waits_for_its_turn_and_the_lease() -> None:
    found = plan(BOTH)
    assert written(found) == set()
    assert renewed(found) == "hub-orchestrator"
    assert found.disruption_lease is not None
    assert found.disruption_lease["spec"]["holderIdentity"] == "operator/rolling-change-orchestrator"


def test_a_template_that_only_loses_something_waits_for_its_turn_too() -> None:
    labelled = {"orchestrator": {"podTemplate": {"labels": {"team": "platform"}}}}
    found = plan(children=children(spec=labelled))
    assert written(found) == set()
    assert renewed(found) == "hub-orchestrator"


def test_the_next_deployment_waits_until_the_last_one_is_complete() -> None:
    other = plan(BOTH, children=children(deployment("pooler", updatedReplicas=1)))
    assert renewed(other) is None
    assert other.rollout is not None
    assert other.rollout.component == names.POOLER


def test_stateful_components_come_first() -> None:
    found = plan(IMAGE, pods=pods(hub_postgres_2={"revision": "old"}))
    assert found.rollout is not None
    assert found.rollout.component == names.POSTGRES
    assert written(found) == set()


def test_a_stateful_set_that_is_written_or_not_yet_seen_comes_first() -> None:
    both = {**IMAGE, "redis": {"image": "example.test/redis:9"}}
    assert renewed(plan(both)) is None
    unseen = children(stateful_set("redis", generation=2, observed=1))
    assert renewed(plan(IMAGE, children=unseen)) is None


def test_a_deployment_under_way_holds_a_stateful_rollout_up_unless_it_is_stuck() -> None:
    half_way = children(deployment("orchestrator", updatedReplicas=1))
    old = pods(hub_redis_2={"revision": "old"})
    waiting = plan(children=half_way, pods=old).rollout
    assert waiting is not None
    assert waiting.component == names.ORCHESTRATOR
    stuck = pod("hub-orchestrator-new", names.ORCHESTRATOR, ready=False, waiting_reason="ImagePullBackOff")
    free = plan(children=half_way, pods=(*old, stuck)).rollout
    assert free is not None
    assert free.component == names.REDIS


def test_a_broken_member_is_mended_while_a_deployment_is_under_way() -> None:
    half_way = children(deployment("orchestrator", updatedReplicas=1))
    broken = {"revision": "old", "ready": False, "waiting_reason": "ImagePullBackOff"}
    found = plan(children=half_way, pods=pods(hub_postgres_1=broken)).rollout
    assert found is not None
    assert found.component == names.POSTGRES
    assert found.mends


def test_a_wrong_template_is_replaced_without_waiting_for_it() -> None:
    half_way = children(deployment("orchestrator", updatedReplicas=1))
    assert renewed(plan(IMAGE, children=half_way)) == "hub-orchestrator"


def test_a_change_of_size_is_written_at_once() -> None:
    found = plan({"loadBalancer": {"replicas": 5}}, pods=pods(hub_postgres_2={"revision": "old"}))
    assert written(found) == {"hub-loadbalancer"}


def test_a_step_settles_before_the_next() -> None:
    memory = plan(IMAGE).memory
    just_now = replace(memory, last_step=LastStep(at=NOW - timedelta(seconds=1)))
    found = make_plan(cluster(IMAGE), snapshot(), IMAGES, just_now)
    assert renewed(found) is None
    assert found.rollout is not None


def scaled(replicas: int, manager: str = "kube-controller-manager") -> dict[str, Any]:
    """The orchestrators' Deployment after somebody used its scale subresource."""
    live = children()["Deployment", "hub-orchestrator"]
    return {
        **live,
        "metadata": {
            **live["metadata"],
            "managedFields": [
                {
                    "manager": manager,
                    "subresource": "scale",
                    "fieldsV1": {"f:spec": {"f:replicas": {}}},
                }
            ],
        },
        "spec": {**live["spec"], "replicas": replicas},
    }


def test_a_size_set_through_the_scale_subresource_is_left_alone_and_told() -> None:
    found = plan(children=children(scaled(5)))
    deployments = {
        item["metadata"]["name"]: item["spec"] for item in found.objects if item["kind"] == "Deployment"
    }
    assert "replicas" not in deployments.get("hub-orchestrator", {})
    told = next(item for item in found.status.conditions if item.type == "OrchestratorsReady")
    assert "3 of 5 ready (scaled by kube-controller-manager; the spec says 3)" in told.message


def test_a_size_set_by_an_edit_is_put_right() -> None:
    edited = scaled(5)
    edited["metadata"]["managedFields"][0]["subresource"] = ""
    assert written(plan(children=children(edited))) == {"hub-orchestrator"}


def test_nobody_serves_when_it_is_scaled_to_nothing() -> None:
    none_left = tuple(item for item in pods() if item.component != names.ORCHESTRATOR)
    found = plan(children=children(scaled(0)), pods=none_left)
    told = next(item for item in found.status.conditions if item.type == "OrchestratorsReady")
    assert told.status == "False"


@pytest.mark.parametrize(
    "spec", [IMAGE, {"orchestrator": {"replicas": 4}}, {"ingress": {"host": "a.example.com"}}]
)
def test_a_paused_cluster_is_told_but_not_changed(spec: dict[str, Any]) -> None:
    found = plan({**spec, "paused": True})
    assert {item["kind"] for item in found.objects} <= {"Lease"}
    assert found.rollout is None
    assert found.prune == ()
    assert found.secrets == ()
    told = {item.type: item for item in found.status.conditions}
    assert told["Progressing"].reason == "Paused"
    assert found.status.phase == "Paused"


OLDER_POOLER = {"postgres": {"pooler": {"image": "example.test/older-pooler:1"}}}
FEWER = {"postgres": {"pooler": {"image": "example.test/older-pooler:1", "poolSize": 10}}}


@pytest.mark.parametrize(
    ("seen", "renews"),
    [
        ({"children": children(spec=FEWER)}, False),
        ({"children": children(spec=OLDER_POOLER)}, True),
        ({"children": children(deployment("pooler", updatedReplicas=1), spec=FEWER)}, True),
        ({"children": children(deployment("pooler", observedGeneration=0), spec=FEWER)}, True),
        ({"children": children(spec=FEWER), "pods": pods(hub_pooler_0={"terminating": True})}, True),
    ],
    ids=["all are there", "one is to be written", "old pods", "not seen yet", "one goes"],
)
def test_patroni_hears_whether_poolers_have_yet_to_make_way_for_others(
    seen: dict[str, Any], renews: bool
) -> None:
    found = plan(FEWER, patroni_config={}, **seen)
    assert found.patroni_patch is not None
    assert found.patroni_patch.renews_poolers is renews


def test_what_patroni_may_hear_of_later_keeps_a_settled_cluster_at_rest() -> None:
    told = plan(FEWER, children=children(spec=FEWER)).objects
    found = plan(FEWER, patroni_config={}, children=children(*told, spec=FEWER))
    assert found.patroni_patch is not None
    assert found.settled
    assert not found.writes, "which would ask the API server at each visit"


def test_a_pause_gives_the_disruption_lease_back() -> None:
    lease = {
        "kind": "Lease",
        "metadata": {"name": "hub-disruption"},
        "spec": {"holderIdentity": "operator/rolling-change-redis", "leaseTransitions": 1},
    }
    found = plan({"paused": True}, children=children(lease), pods=pods(hub_redis_1={"revision": "old"}))
    assert found.disruption_lease is not None
    assert found.disruption_lease["spec"]["holderIdentity"] == ""


def test_what_did_not_change_is_not_built_again(monkeypatch: pytest.MonkeyPatch) -> None:
    first = plan()
    assert first.memory.unchanged is not None

    def fail(*_: object) -> None:
        raise AssertionError("built again")

    monkeypatch.setattr("runnerhub_operator.plan.objects.desired", fail)
    snap = snapshot()
    again = make_plan(cluster(), snap, IMAGES, first.memory)
    assert again.status.phase == "Ready"
    snap.children.revision = 7
    with pytest.raises(AssertionError, match="built again"):
        make_plan(cluster(), snap, IMAGES, first.memory)


def test_what_matched_is_compared_again_only_when_one_side_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    first = plan()
    compared: list[str] = []
    needs_apply = objects.needs_apply

    def spy(manifest: dict[str, Any], live: Any) -> bool:
        compared.append(manifest["metadata"]["name"])
        return needs_apply(manifest, live)

    monkeypatch.setattr(objects, "needs_apply", spy)
    memory = replace(first.memory, unchanged=None)
    edited = make_plan(cluster({"loadBalancer": {"replicas": 5}}), snapshot(), IMAGES, memory)
    assert written(edited) == {"hub-loadbalancer"}
    each_time = {"hub-postgres-primary", "hub-redis-master", "hub-token-keys"}
    assert set(compared) - each_time == {"hub-loadbalancer"}
    compared.clear()
    drifted = {"kind": "Service", "metadata": {"name": "hub"}, "spec": {"type": "NodePort"}}
    again = make_plan(cluster(), snapshot(children=children(drifted)), IMAGES, memory)
    assert "hub" in {item["metadata"]["name"] for item in again.objects}
