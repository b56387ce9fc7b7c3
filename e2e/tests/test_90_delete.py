"""Trouble with what a cluster needs, and its end."""

from __future__ import annotations

from e2e.lab.bed import Bed
from e2e.lab.hub import Hub
from e2e.lab.kubectl import wait_for


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


def test_a_deleted_secret_comes_back(hub: Hub) -> None:
    """The passwords of a running database cannot be made anew, so only the token secret is deleted here."""
    name = "hub-orchestrator-credentials"
    before = hub.kubectl.get("secret", name)
    assert before is not None
    hub.kubectl("delete", "secret", name)
    wait_for("the secret to come back", lambda: hub.kubectl.get("secret", name), 30)


def test_deleting_the_cluster_removes_the_pods_and_keeps_the_volumes_and_passwords(hub: Hub) -> None:
    hub.kubectl("delete", "rhc", "hub", "--wait=true")
    wait_for("the pods to go", lambda: not hub.kubectl.items("pod", "runnerhub.io/cluster=hub"), 180)
    claims = {claim["metadata"]["name"] for claim in hub.kubectl.items("persistentvolumeclaim")}
    assert claims == {f"data-hub-{kind}-{i}" for kind in ("postgres", "redis") for i in range(3)}
    for kind in ("service", "configmap", "deployment", "statefulset", "role", "serviceaccount"):
        assert not hub.kubectl.items(kind, "runnerhub.io/cluster=hub"), kind
    assert {item["metadata"]["name"] for item in hub.kubectl.items("secret", "runnerhub.io/cluster=hub")} >= {
        "hub-postgres-credentials",
        "hub-redis-credentials",
    }
