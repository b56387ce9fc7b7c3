"""With an autoscaler of the spec the size of the orchestrators is its business, and no step on the way loses a pod."""

from __future__ import annotations

from typing import Any

import pytest

from runnerhub_operator import names
from runnerhub_operator.errors import InvalidSpecError
from runnerhub_operator.plan import Plan, make_plan
from tests.generate import IMAGES, context, desired_objects
from tests.unit.plan.builders import children, cluster, pods, snapshot

AUTOSCALED = {"orchestrator": {"autoscaling": {"minReplicas": 2, "maxReplicas": 8}}}
KEY = ("Deployment", "hub-orchestrator")
HPA = "HorizontalPodAutoscaler"


def written(spec: dict[str, Any], kind: str) -> dict[str, Any] | None:
    objects = desired_objects(context("hub", spec))
    return next(
        (item for item in objects if item["kind"] == kind and "orchestrator" in item["metadata"]["name"]),
        None,
    )


def live(
    spec: dict[str, Any] | None, replicas: int, scaled_by: str = ""
) -> dict[tuple[str, str], dict[str, Any]]:
    """All objects as written for a spec, with the size that the Deployment has now, and who set it."""
    found = children(spec=spec)
    body = found[KEY]
    fields = {"manager": scaled_by, "subresource": "scale", "fieldsV1": {"f:spec": {"f:replicas": {}}}}
    managed = [fields] if scaled_by else []
    status = {"observedGeneration": 1, "replicas": replicas, "updatedReplicas": replicas}
    return {
        **found,
        KEY: {
            **body,
            "metadata": {**body["metadata"], "managedFields": managed},
            "spec": {**body["spec"], "replicas": replicas},
            "status": status,
        },
    }


def deployment(spec: dict[str, Any], there: dict[tuple[str, str], dict[str, Any]]) -> dict[str, Any] | None:
    found: Plan = make_plan(cluster(spec), snapshot(children=there), IMAGES, None)
    return next((item for item in found.objects if (item["kind"], item["metadata"]["name"]) == KEY), None)


def test_a_new_cluster_begins_with_the_least_number() -> None:
    found = written(AUTOSCALED, "Deployment")
    assert found is not None
    assert found["spec"]["replicas"] == 2
    autoscaler = written(AUTOSCALED, HPA)
    assert autoscaler is not None
    assert autoscaler["spec"]["scaleTargetRef"]["name"] == found["metadata"]["name"]
    assert (autoscaler["spec"]["minReplicas"], autoscaler["spec"]["maxReplicas"]) == (2, 8)
    (metric,) = autoscaler["spec"]["metrics"]
    assert metric["containerResource"]["container"] == names.ORCHESTRATOR
    assert metric["containerResource"]["target"]["averageUtilization"] == 70


def test_without_the_section_there_is_none() -> None:
    assert written({}, HPA) is None


def test_the_number_that_is_there_stays_when_the_autoscaler_comes() -> None:
    found = deployment(AUTOSCALED, live(None, 5))
    assert found is not None, "it gets a mark"
    assert found["spec"]["replicas"] == 5, "a field left out now would fall back to 1"


def test_the_number_is_not_ours_once_the_autoscaler_has_set_one() -> None:
    there = live(AUTOSCALED, 7, "kube-controller-manager")
    found = deployment(AUTOSCALED, there)
    assert found is not None
    assert "replicas" not in found["spec"]
    lowered = {"orchestrator": {**AUTOSCALED["orchestrator"], "replicas": 3}}
    found = deployment(lowered, there)
    assert found is not None
    assert "replicas" not in found["spec"]


def test_replicas_counts_again_when_the_section_goes() -> None:
    found = deployment({}, live(AUTOSCALED, 7, "kube-controller-manager"))
    assert found is not None
    assert found["spec"]["replicas"] == 3
    assert names.ANNOTATION_AUTOSCALED not in found["metadata"]["annotations"]
    plan = make_plan(
        cluster(), snapshot(children=live(AUTOSCALED, 7, "kube-controller-manager")), IMAGES, None
    )
    assert [item["kind"] for item in plan.prune] == [HPA]


def test_a_size_of_somebody_elses_autoscaler_is_left_alone_as_before() -> None:
    assert deployment({}, live(None, 7, "kube-controller-manager")) is not None
    found = deployment({}, live(None, 7, "kube-controller-manager"))
    assert found is not None
    assert "replicas" not in found["spec"]


def test_ready_counts_what_the_autoscaler_wants() -> None:
    plan = make_plan(cluster(AUTOSCALED), snapshot(children=live(AUTOSCALED, 3), pods=pods()), IMAGES, None)
    message = next(item.message for item in plan.status.conditions if item.type == "OrchestratorsReady")
    assert message.startswith("3 of 3 ready (set by the autoscaler)")


def test_haproxy_has_room_for_the_largest_number() -> None:
    def config(spec: dict[str, Any]) -> str:
        found = next(
            item
            for item in desired_objects(context("hub", spec))
            if item["metadata"]["name"] == "hub-loadbalancer" and item["kind"] == "ConfigMap"
        )
        text: str = found["data"]["haproxy.cfg"]
        return text

    assert config({"orchestrator": {"autoscaling": {"maxReplicas": 20}}}) == config(
        {"orchestrator": {"replicas": 20}}
    )


@pytest.mark.parametrize("given", [{"minReplicas": 5, "maxReplicas": 4}, {"maxReplicas": 2}])
def test_bounds_that_cross_are_refused(given: dict[str, int]) -> None:
    with pytest.raises(InvalidSpecError, match="must not be above"):
        cluster({"orchestrator": {"autoscaling": given}})
