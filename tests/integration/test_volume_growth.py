"""Volumes grow under running pods: a real operator, real controllers and admission, and a played storage driver."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from e2e.lab.hub import Hub
from e2e.lab.kubectl import Kubectl, KubectlError, wait_for
from e2e.stage import OperatorProcess, Stage
from e2e.stage.volumes import FIXED, SLOW
from runnerhub_operator import names
from tests.integration.conftest import PATIENT

SETS = ("hub-postgres", "hub-redis")


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    with Stage() as running:
        yield running


@pytest.fixture(scope="module")
def operator(stage: Stage) -> OperatorProcess:
    return stage.start_operator("operator-0", **PATIENT)


def made(stage: Stage, namespace: str, storage_class: str | None = None) -> Hub:
    """A cluster that is Ready, with volumes of 1 GiB."""
    storage: dict[str, Any] = {"size": "1Gi"}
    if storage_class is not None:
        storage["storageClassName"] = storage_class
    body = {
        "apiVersion": f"{names.API_GROUP}/{names.API_VERSION}",
        "kind": names.KIND,
        "metadata": {"name": "hub", "namespace": namespace},
        "spec": {"postgres": {"instances": 2, "storage": storage}, "redis": {"storage": storage}},
    }
    stage.create_namespaces(namespace)
    kubectl = stage.kubectl.in_namespace(namespace)
    kubectl("apply", "--server-side", "-f", "-", stdin=yaml.safe_dump(body))
    hub = Hub(kubectl, "hub")
    wait_for("the cluster to be Ready", hub.is_settled, 240)
    return hub


def edit(hub: Hub, spec: dict[str, Any]) -> None:
    hub.kubectl("patch", "rhc", "hub", "--type=merge", "-p", json.dumps({"spec": spec}))


def grow(hub: Hub, size: str, *sections: str) -> None:
    edit(hub, {section: {"storage": {"size": size}} for section in sections or ("postgres", "redis")})


def uids(hub: Hub, *kinds: str) -> dict[str, str]:
    return {
        item["metadata"]["name"]: item["metadata"]["uid"]
        for kind in kinds
        for item in hub.kubectl.items(kind)
    }


def asked(hub: Hub) -> dict[str, str]:
    """What each claim asks for."""
    return {
        item["metadata"]["name"]: item["spec"]["resources"]["requests"]["storage"]
        for item in hub.kubectl.items("persistentvolumeclaim")
    }


def template(hub: Hub, name: str) -> str:
    """What the claim template of a StatefulSet asks for, "" while there is none."""
    body = hub.kubectl.get("statefulset", name)
    if body is None or "deletionTimestamp" in body["metadata"]:
        return ""
    size: str = body["spec"]["volumeClaimTemplates"][0]["spec"]["resources"]["requests"]["storage"]
    return size


def is_in_effect(hub: Hub) -> bool:
    body = hub.body()
    told = hub.condition("Progressing")
    return bool(
        told["reason"] == "Settled" and told["observedGeneration"] == body["metadata"]["generation"]
    ) and all(status(hub, name).get("updatedReplicas") for name in SETS)


def status(hub: Hub, name: str) -> dict[str, Any]:
    found: dict[str, Any] = (hub.kubectl.get("statefulset", name) or {}).get("status", {})
    return found


def reasons(hub: Hub) -> set[str]:
    return {item["reason"] for item in hub.kubectl.items("event")}


def test_volumes_grow_and_no_pod_restarts(stage: Stage, operator: OperatorProcess) -> None:
    hub = made(stage, "grows")
    pods, sets = uids(hub, "pod"), uids(hub, "statefulset")
    revisions = {name: status(hub, name)["updateRevision"] for name in SETS}
    grow(hub, "2Gi")
    wait_for("the growth", lambda: is_in_effect(hub) and set(asked(hub).values()) == {"2Gi"}, 60)
    assert {template(hub, name) for name in SETS} == {"2Gi"}
    assert uids(hub, "pod") == pods
    now = uids(hub, "statefulset")
    assert not set(now.values()) & set(sets.values()), "both were made anew"
    for pod in (*hub.pods("postgres"), *hub.pods("redis")):
        controllers = [item["uid"] for item in pod["metadata"]["ownerReferences"] if item.get("controller")]
        assert controllers == [now[pod["metadata"]["name"].rpartition("-")[0]]]
    assert {name: status(hub, name)["updateRevision"] for name in SETS} == revisions
    assert {"VolumeGrows", "StatefulSetReplaced"} <= reasons(hub)
    # A StatefulSet that has taken its pods over replaces one that is lost, as ever.
    hub.kubectl("delete", "pod", "hub-postgres-1", "--wait=false")
    before = {pods["hub-postgres-1"], None}
    wait_for("another pod", lambda: uids(hub, "pod").get("hub-postgres-1") not in before, 60)
    wait_for("the cluster to be Ready", hub.is_settled, 60)


def test_one_volume_grows_after_the_other_and_it_is_told_which(
    stage: Stage, operator: OperatorProcess
) -> None:
    hub = made(stage, "slow", SLOW)
    primary = hub.role_holder("postgres")
    (replica,) = {"hub-postgres-0", "hub-postgres-1"} - {primary}
    grow(hub, "3Gi", "postgres")

    def progress() -> str:
        told = hub.condition("Progressing")
        return str(told["message"]) if told["reason"] == "VolumesGrowing" else ""

    for number, pod in enumerate((replica, primary)):
        wait_for(f"{pod} to grow", lambda pod=pod: f"{pod} waits for its node" in progress(), 60)  # type: ignore[misc]
        assert f"{number} of 2 done" in progress()
        assert list(asked(hub).values()).count("3Gi") == number + 1
        done = json.dumps({"status": {"capacity": {"storage": "3Gi"}, "conditions": None}})
        hub.kubectl(
            "patch",
            "persistentvolumeclaim",
            f"data-{pod}",
            "--subresource=status",
            "--type=merge",
            "-p",
            done,
        )
    wait_for("the end", lambda: is_in_effect(hub), 60)


def test_a_class_that_cannot_grow_is_told_and_holds_nothing_else_up(
    stage: Stage, operator: OperatorProcess
) -> None:
    hub = made(stage, "fixed", FIXED)
    members = {pod["metadata"]["name"]: pod["metadata"]["uid"] for pod in hub.pods("postgres")}
    grow(hub, "2Gi", "postgres")
    wait_for("the refusal", lambda: hub.condition("Progressing").get("reason") == "VolumeGrowthRefused", 60)
    message = hub.condition("Progressing")["message"]
    assert "cannot grow to 2Gi: StorageClass fixed does not let volumes grow" in message
    assert "VolumeGrowthRefused" in reasons(hub)
    assert hub.condition("Accepted")["status"] == "True"
    edit(hub, {"orchestrator": {"replicas": 4}, "postgres": {"instances": 3}})
    wait_for("4 orchestrators", lambda: len(hub.pods("orchestrator")) == 4, 60)
    # A new member gets a volume of the new size.
    wait_for("the third member", lambda: asked(hub).get("data-hub-postgres-2") == "2Gi", 60)
    wait_for("the cluster to be Ready", hub.is_settled, 60)
    assert members.items() <= uids(hub, "pod").items()
    assert asked(hub)["data-hub-postgres-0"] == "1Gi"
    hub.kubectl(
        "patch", "storageclass", FIXED, "--type=merge", "-p", json.dumps({"allowVolumeExpansion": True})
    )
    wait_for("the growth", lambda: is_in_effect(hub) and asked(hub)["data-hub-postgres-0"] == "2Gi", 60)
    assert members.items() <= uids(hub, "pod").items()


@pytest.mark.parametrize(
    ("storage", "words"),
    [
        ({"size": "1023Mi"}, "size may only grow"),
        ({"storageClassName": "other"}, "storageClassName is immutable"),
        ({"storageClassName": None}, "storageClassName is immutable"),
    ],
)
@pytest.mark.parametrize("section", ["postgres", "redis"])
def test_what_a_volume_cannot_do_is_refused(
    stage: Stage, section: str, storage: dict[str, Any], words: str
) -> None:
    stage.create_namespaces("refused")
    kubectl = stage.kubectl.in_namespace("refused")
    spec = {part: {"storage": {"size": "2Gi", "storageClassName": SLOW}} for part in ("postgres", "redis")}
    body = {
        "apiVersion": f"{names.API_GROUP}/{names.API_VERSION}",
        "kind": names.KIND,
        "metadata": {"name": "hub"},
        "spec": {**spec, "paused": True},
    }
    kubectl.apply(body)
    refused(kubectl, {section: {"storage": storage}}, words)
    kubectl("patch", "rhc", "hub", "--type=merge", "-p", json.dumps({"spec": {"paused": True}}))


def refused(kubectl: Kubectl, spec: dict[str, Any], words: str) -> None:
    with pytest.raises(KubectlError, match=words):
        kubectl("patch", "rhc", "hub", "--type=merge", "--dry-run=server", "-p", json.dumps({"spec": spec}))


def test_an_operator_that_finds_pods_without_a_statefulset_keeps_them(
    stage: Stage, operator: OperatorProcess
) -> None:
    """As after a death between deletion and creation; the next operator would build another template by itself."""
    hub = made(stage, "between")
    pods = uids(hub, "pod")
    operator.stop()
    hub.kubectl("delete", "statefulset", *SETS, "--cascade=orphan")
    newer = {f"image_{name}": f"example.test/{name}:9" for name in ("postgres", "redis")}
    stage.start_operator("operator-1", **newer, **PATIENT)
    wait_for("both to be there", lambda: set(uids(hub, "statefulset")) == set(SETS), 60)
    wait_for("the old layout to be told", lambda: len(hub.status().get("pendingUpdates", ())) == 2, 60)
    wait_for("the cluster to be Ready", lambda: is_in_effect(hub) and hub.is_settled(), 60)
    assert uids(hub, "pod") == pods
