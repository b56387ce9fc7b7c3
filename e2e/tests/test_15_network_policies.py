"""A cluster in a namespace that is closed to others, as examples/network-policies/closed.yaml closes it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from e2e.lab.bed import CLIENT_IMAGE, Bed
from e2e.lab.hub import Hub
from e2e.lab.kubectl import Kubectl, KubectlError
from kindbed import paths

POLICIES = paths.REPOSITORY / "examples" / "network-policies" / "closed.yaml"
CLOSED, FOREIGN = "runnerhub-e2e-closed", "runnerhub-e2e-foreign"
SMALL = {
    "orchestrator": {"replicas": 1},
    "loadBalancer": {"replicas": 1},
    "postgres": {"instances": 2, "storage": {"size": "1Gi"}, "pooler": {"replicas": 1}},
    "redis": {"storage": {"size": "1Gi"}},
}


@pytest.fixture(scope="module")
def closed(bed: Bed) -> Iterator[Hub]:
    """A small cluster that becomes complete with the policies in place."""
    if not bed.cluster.engine.is_docker:
        pytest.skip(
            "the pod network of nodes made from packages enforces no NetworkPolicy; upstream's kindnet does"
        )
    kubectl = bed.create_namespace(CLOSED)
    kubectl("apply", "-f", str(POLICIES))
    kubectl.apply(
        {
            "apiVersion": "runnerhub.io/v1alpha1",
            "kind": "RunnerHubCluster",
            "metadata": {"name": "hub"},
            "spec": SMALL,
        }
    )
    hub = Hub(kubectl, "hub")
    hub.wait_settled(420)
    yield hub
    bed.delete_namespace(CLOSED)


@pytest.fixture(scope="module")
def pods(bed: Bed, closed: Hub) -> Iterator[dict[str, Kubectl]]:
    """A pod inside and one in another namespace."""
    places = {"inside": closed.kubectl, "outside": bed.create_namespace(FOREIGN)}
    for kubectl in places.values():
        kubectl.apply(_visitor())
        kubectl("wait", "pod/visitor", "--for=condition=Ready", "--timeout=60s")
    yield places
    bed.delete_namespace(FOREIGN)


@pytest.mark.parametrize(
    ("service", "port", "from_outside"),
    [
        ("hub", 80, True),
        ("hub-postgres", 5432, False),
        ("hub-redis-0", 6379, False),
        ("hub-redis-0", 26379, False),
    ],
)
def test_only_the_entrance_can_be_reached_from_other_namespaces(
    pods: dict[str, Kubectl], service: str, port: int, from_outside: bool
) -> None:
    host = f"{service}.{CLOSED}.svc"
    assert _reaches(pods["inside"], host, port), "the Service is there"
    assert _reaches(pods["outside"], host, port) is from_outside


def test_a_failover_works_behind_the_policies(closed: Hub) -> None:
    """Members, Sentinels, poolers and the operator reach each other, also on the ways that only a failover takes."""
    primary, master = closed.role_holder("postgres"), closed.role_holder("redis")
    assert primary is not None
    assert master is not None
    for pod in (primary, master):
        closed.kubectl("delete", "pod", pod, "--wait=true")
    closed.wait_settled(240)
    assert closed.role_holder("postgres") != primary
    assert closed.role_holder("redis") != master


def _reaches(kubectl: Kubectl, host: str, port: int) -> bool:
    code = f"import socket; socket.create_connection(({host!r}, {port}), timeout=5)"
    try:
        kubectl("exec", "visitor", "--", "python3", "-c", code)
    except KubectlError as error:
        # Anything else would be a test that passes for another reason than the policy.
        if "timed out" in str(error) or "refused" in str(error):
            return False
        raise
    return True


def _visitor() -> dict[str, Any]:
    context = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    container = {
        "name": "visitor",
        "image": CLIENT_IMAGE,
        "imagePullPolicy": "IfNotPresent",
        "command": ["sleep", "infinity"],
        "securityContext": context,
    }
    security = {"runAsNonRoot": True, "runAsUser": 1001, "seccompProfile": {"type": "RuntimeDefault"}}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "visitor"},
        "spec": {
            "automountServiceAccountToken": False,
            "terminationGracePeriodSeconds": 0,
            "securityContext": security,
            "containers": [container],
        },
    }
