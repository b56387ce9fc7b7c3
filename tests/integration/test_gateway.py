"""The way in by the Gateway API, whose definitions an API server may have, get or lose."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from e2e.lab.kubectl import Kubectl, wait_for
from tests.integration.conftest import Operator, Start, wait_until_time_passed
from tests.integration.gateway_api import DEFINITION, GATEWAY_DEFINITION, GROUP
from tests.integration.test_reconcile import created, manifest

# By default a minute.
LOOK_AGAIN_SECONDS = 10
GATEWAY: dict[str, Any] = {
    "ingress": {
        "host": "hub.example.com",
        "gateway": {"parentRefs": [{"name": "public"}]},
    }
}


@pytest.fixture
def no_gateway_api(admin: Kubectl) -> Iterator[None]:
    both = [f"httproutes.{GROUP}", f"gateways.{GROUP}"]
    delete = ("delete", "crd", *both, "--ignore-not-found", "--wait=true")
    # Other tests leave it.
    admin(*delete)
    yield
    admin(*delete)


@pytest.fixture
def operator(start_operator: Start, no_gateway_api: None) -> Operator:
    """One active operator, with a Lease that an API server busy with new definitions does not cost it."""
    times = {"LEASE_DURATION": 60, "RENEW_DEADLINE": 40, "RETRY_PERIOD": 2, "LOOK_AGAIN": LOOK_AGAIN_SECONDS}
    found = start_operator(
        "operator-0", **{f"RUNNERHUB_{name}_SECONDS": str(value) for name, value in times.items()}
    )

    def leading() -> bool:
        try:
            return found.leads()
        except OSError:
            return False

    wait_for("the operator to lead", leading, 90)
    return found


def requests_for_routes(operator: Operator) -> float:
    """How often the operator has asked for HTTPRoutes."""
    found = re.findall(
        r"^runnerhub_operator_api_calls_total\{.*HTTPRoute.*\} (\S+)$", operator.metrics(), re.MULTILINE
    )
    return sum(map(float, found))


def test_a_route_follows_the_definitions_of_the_gateway_api(
    operator: Operator, namespace: Kubectl, admin: Kubectl
) -> None:
    hub = created(namespace, GATEWAY)
    wait_for("the reason", lambda: hub.condition("IngressReady")["reason"] == "GatewayApiMissing", 60)
    before = requests_for_routes(operator)
    assert before > 0, "the metric has another name"
    wait_until_time_passed(0.8 * LOOK_AGAIN_SECONDS)
    assert requests_for_routes(operator) - before <= 1, "it is not tried again and again"
    assert hub.condition("Accepted")["status"] == "True"

    gateway = {"apiVersion": f"{GROUP}/v1", "kind": "Gateway", "metadata": {"name": "public"}, "spec": {}}
    for definition in (GATEWAY_DEFINITION, DEFINITION):
        admin("apply", "--server-side", "-f", "-", stdin=json.dumps(definition))
    wait_for("Gateways to be served", lambda: admin("get", "gateways", "-A") is not None, 60)
    namespace.apply(gateway)
    wait_for("the HTTPRoute", lambda: route(namespace) is not None, 60)
    assert route(namespace)["spec"]["hostnames"] == ["hub.example.com"]
    wait_for("nobody's answer", lambda: hub.condition("IngressReady")["reason"] == "RouteNotAccepted", 60)
    conditions = [
        {"type": kind, "status": "True", "reason": "x", "message": ""}
        for kind in ("Accepted", "ResolvedRefs")
    ]
    parents = [{"parentRef": {"name": "public"}, "conditions": conditions}]
    patch = json.dumps({"status": {"parents": parents}})
    namespace("patch", "httproute", "hub-ingress", "--subresource=status", "--type=merge", "-p", patch)
    wait_for("the Gateway's silence", lambda: hub.condition("IngressReady")["reason"] == "NoAddress", 30)
    programmed = {"type": "Programmed", "status": "True", "reason": "x", "message": ""}
    status = {"conditions": [programmed], "addresses": [{"value": "192.0.2.1"}]}
    patch = json.dumps({"status": status})
    namespace("patch", "gateway", "public", "--subresource=status", "--type=merge", "-p", patch)
    wait_for("the Gateway's yes", lambda: hub.condition("IngressReady")["status"] == "True", 60)
    assert "at 192.0.2.1" in hub.condition("IngressReady")["message"]

    admin("delete", "crd", f"httproutes.{GROUP}", "--wait=true")
    wait_for("the reason", lambda: hub.condition("IngressReady")["reason"] == "GatewayApiMissing", 60)
    namespace.apply(manifest("hub", {"ingress": {"host": "hub.example.com"}}))
    wait_for("the Ingress", lambda: namespace.get("ingress", "hub-ingress") is not None, 90)


def route(kubectl: Kubectl) -> Any:
    """The HTTPRoute, None as long as there is none or none of the kind."""
    return next(iter(kubectl.items("httproute")), None)
