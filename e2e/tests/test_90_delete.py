"""Trouble with what a cluster needs, and its end."""

from __future__ import annotations

import json

from e2e.lab.bed import CLIENT_IMAGE, Bed, apply_example
from e2e.lab.hub import Hub
from e2e.lab.kubectl import wait_for
from e2e.lab.load import LoadClient, now


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


def test_a_deleted_secret_comes_back_and_the_orchestrators_follow(hub: Hub, load: LoadClient) -> None:
    """The passwords of a running database cannot be made anew, so only the token secret is deleted here."""
    name = "hub-orchestrator-credentials"
    before = hub.kubectl.get("secret", name)
    assert before is not None
    old = _uids(hub, "orchestrator")
    hub.kubectl("delete", "secret", name)
    wait_for("the secret to come back", lambda: hub.kubectl.get("secret", name), 30)
    wait_for("the orchestrators to be renewed", lambda: not old & _uids(hub, "orchestrator"), 120)
    hub.wait_settled(120)
    # Tokens that were signed with the old key are worth nothing any more.
    load.start(CLIENT_IMAGE)


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
    hub.wait_settled(240)
    # A job that was under way is given to another runner when its lease and the lock on its queue entry have run out.
    verdict = load.verify(since, now(), wait_seconds=180)
    assert verdict["probes"]["rows"]["acknowledged"] >= 20
    # As text: pytest shortens objects, and what is lost tells whose fault it is.
    assert verdict["lost"] == 0, json.dumps(verdict["probes"])
