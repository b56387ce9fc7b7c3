"""What the operator keeps as it should be, and what it leaves alone."""

from __future__ import annotations

import json

import pytest

from e2e.lab.bed import OPERATOR_NAMESPACE, Bed
from e2e.lab.hub import Hub
from e2e.lab.kubectl import wait_for
from e2e.lab.load import LoadClient, now
from e2e.tests.short_form import keeps_its_promises


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("service", "hub-postgres"),
        ("configmap", "hub-loadbalancer"),
        ("deployment", "hub-pooler"),
        ("poddisruptionbudget", "hub-redis"),
        ("service", "hub-redis-1"),
    ],
)
def test_a_child_deleted_by_hand_comes_back(hub: Hub, kind: str, name: str) -> None:
    before = hub.kubectl.get(kind, name)
    assert before is not None
    hub.kubectl("delete", kind, name, "--wait=false")

    def back() -> bool:
        found = hub.kubectl.get(kind, name)
        return found is not None and found["metadata"]["uid"] != before["metadata"]["uid"]

    wait_for(f"{kind} {name} to come back", back, 30)
    if name.startswith("hub-redis-"):
        after = hub.kubectl.get(kind, name)
        assert after is not None
        assert after["spec"]["clusterIP"] == before["spec"]["clusterIP"], "the address is the pod's identity"


def test_a_child_changed_by_hand_is_put_right(hub: Hub) -> None:
    hub.wait_settled(180)
    hub.kubectl(
        "patch", "service", "hub-postgres", "--type=json", "-p", '[{"op":"remove","path":"/spec/ports/1"}]'
    )
    wait_for(
        "the port to come back",
        lambda: len((hub.kubectl.get("service", "hub-postgres") or {})["spec"]["ports"]) == 2,
        30,
    )


def test_losing_the_active_operator_changes_nothing(bed: Bed, hub: Hub) -> None:
    hub.wait_settled(180)
    operator = bed.kubectl.in_namespace(OPERATOR_NAMESPACE)

    def pods() -> set[str]:
        """Uids of all that stay: a pooler of before may still wait for its clients to leave."""
        found = hub.kubectl.items("pod", "runnerhub.io/cluster=hub")
        return {pod["metadata"]["uid"] for pod in found if "deletionTimestamp" not in pod["metadata"]}

    before = pods()

    def holder() -> str:
        lease = operator.get("lease", "runnerhub-operator") or {}
        found: str = lease.get("spec", {}).get("holderIdentity") or ""
        return found

    active = holder()
    operator.delete_pod_now(active)
    wait_for("the other replica to take over", lambda: holder() not in ("", active), 40)
    hub.kubectl("delete", "service", "hub-redis-sentinel", "--wait=false")
    wait_for("the new one to work", lambda: hub.kubectl.get("service", "hub-redis-sentinel"), 40)
    assert pods() == before


def test_a_rolling_change_moves_the_roles_and_loses_nothing(hub: Hub, load: LoadClient) -> None:
    hub.wait_settled(180)
    primary, master = hub.role_holder("postgres"), hub.role_holder("redis")
    old = {pod["metadata"]["uid"] for kind in ("postgres", "redis") for pod in hub.pods(kind)}
    since = now()
    change = {
        "spec": {
            "postgres": {"resources": {"requests": {"memory": "200Mi"}}},
            "redis": {"resources": {"requests": {"memory": "50Mi"}}},
        }
    }
    hub.kubectl("patch", "rhc", "hub", "--type=merge", "-p", json.dumps(change))

    def renewed() -> bool:
        uids = {pod["metadata"]["uid"] for kind in ("postgres", "redis") for pod in hub.pods(kind)}
        return len(uids) == 6 and not uids & old and hub.is_settled()

    wait_for("all pods to be renewed", renewed, 900)
    assert hub.role_holder("postgres") != primary
    assert hub.role_holder("redis") != master
    lease = hub.kubectl.get("lease", "hub-disruption")
    assert lease is not None
    assert not lease["spec"].get("holderIdentity"), "given back"
    assert lease["spec"]["leaseTransitions"] >= 1
    verdict = load.verify(since, now())
    assert verdict["acknowledged"] > 0
    keeps_its_promises({"lost": verdict["lost"], "probes": verdict["probes"]})
