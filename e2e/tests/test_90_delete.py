"""Trouble with what a cluster needs, and its end."""

from __future__ import annotations

import base64
import json

from e2e.lab.bed import CLIENT_IMAGE, Bed, apply_example
from e2e.lab.hub import Hub
from e2e.lab.kubectl import wait_for
from e2e.lab.load import LoadClient, now
from e2e.tests.short_form import keeps_its_promises


def test_a_missing_storage_class_is_told_and_retried(bed: Bed) -> None:
    kubectl = bed.create_namespace("runnerhub-e2e-storage")
    kubectl.apply(
        {
            "apiVersion": "runnerhub.io/v1alpha1",
            "kind": "RunnerHubCluster",
            "metadata": {"name": "homeless"},
            "spec": {
                "orchestrator": {"replicas": 1},
                "loadBalancer": {"replicas": 1},
                "postgres": {
                    "instances": 1,
                    "storage": {"storageClassName": "nowhere"},
                    "pooler": {"replicas": 1},
                },
                "redis": {"storage": {"storageClassName": "nowhere"}},
            },
        }
    )
    hub = Hub(kubectl, "homeless")

    def told() -> bool:
        condition = hub.condition("PostgresReady")
        return condition.get("status") == "False" and condition.get("reason") == "Unschedulable"

    wait_for("a condition that tells it", told, 60)
    assert "persistentvolumeclaim" in hub.condition("PostgresReady")["message"].lower()
    assert hub.status()["phase"] == "Creating"
    bed.delete_namespace("runnerhub-e2e-storage")


def test_a_deleted_key_of_tokens_is_made_anew_and_no_orchestrator_restarts(
    hub: Hub, load: LoadClient
) -> None:
    """The passwords of a running database cannot be made anew, so only this Secret is deleted here."""
    name = "hub-orchestrator-credentials"
    old = _uids(hub, "orchestrator")
    before = _data(hub, name)
    hub.kubectl("delete", "secret", name)
    wait_for("the Secret to come back", lambda: _data(hub, name), 30)
    assert _data(hub, name) != before
    wait_for(
        "both keys to count", lambda: len(json.loads(_data(hub, "hub-token-keys")["keys.json"])) == 2, 30
    )
    # Its tokens are signed with the new key, which the orchestrators learn of when Kubernetes renews their files.
    load.start(CLIENT_IMAGE)
    assert _uids(hub, "orchestrator") == old
    hub.wait_settled(60)


def _data(hub: Hub, name: str) -> dict[str, str]:
    found = hub.kubectl.get("secret", name) or {}
    return {key: base64.b64decode(value).decode() for key, value in found.get("data", {}).items()}


def _uids(hub: Hub, component: str) -> set[str]:
    return {pod["metadata"]["uid"] for pod in hub.pods(component)}


def _names(hub: Hub, kind: str) -> set[str]:
    return {item["metadata"]["name"] for item in hub.kubectl.items(kind, OURS)}


OURS = "runnerhub.io/cluster=hub,app.kubernetes.io/managed-by=runnerhub-operator"


def test_deleting_the_cluster_keeps_volumes_and_passwords_and_a_new_one_finds_its_data(
    hub: Hub, load: LoadClient
) -> None:
    hub.wait_settled(180)
    since = now()
    wait_for("rows to be found again", lambda: load.acknowledged("rows", since) >= 20, 30)
    hub.kubectl("delete", "rhc", "hub", "--wait=true")
    wait_for("the pods to go", lambda: not hub.kubectl.items("pod", "runnerhub.io/cluster=hub"), 180)
    for kind in (
        "service",
        "configmap",
        "deployment",
        "statefulset",
        "role",
        "rolebinding",
        "serviceaccount",
        "pdb",
    ):
        wait_for(
            f"no {kind} to be left", lambda kind=kind: set() == _names(hub, kind) - {"hub-redis-state"}, 30
        )  # type: ignore[misc]
    claims = {claim["metadata"]["name"] for claim in hub.kubectl.items("persistentvolumeclaim")}
    assert claims == {f"data-hub-{kind}-{i}" for kind in ("postgres", "redis") for i in range(3)}
    secrets = {item["metadata"]["name"] for item in hub.kubectl.items("secret", OURS)}
    assert secrets == {f"hub-{component}-credentials" for component in ("postgres", "redis", "orchestrator")}

    apply_example("hub", hub.kubectl, "minimal")
    hub.wait_settled(900)
    # A job that was under way is given to another runner when its lease and the lock on its queue entry have run out.
    verdict = load.verify(since, now(), wait_seconds=180)
    assert verdict["probes"]["rows"]["acknowledged"] >= 20
    keeps_its_promises({"lost": verdict["lost"], "probes": verdict["probes"]})
