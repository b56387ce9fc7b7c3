"""IngressReady tells the address, or why there is none and what to do; HAProxy's refusals are told with the pods."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from runnerhub_operator import names
from runnerhub_operator.plan import Plan, make_plan
from runnerhub_operator.probes.haproxy import BalancerState, configuration_digest
from runnerhub_operator.snapshot import Gateway
from tests.generate import IMAGES
from tests.unit.plan.builders import NOW, children, cluster, pods, snapshot

PARENTS = [{"name": "public", "namespace": "gateways", "sectionName": "https"}, {"name": "own"}]
GATEWAY = {"ingress": {"host": "hub.example.com", "gateway": {"parentRefs": PARENTS}}}
INGRESS = {"ingress": {"hosts": ["a.example.com", "b.example.com"]}}


def plan(spec: dict[str, Any], **changes: Any) -> Plan:
    return make_plan(cluster(spec), snapshot(**changes), IMAGES, None)


def told(found: Plan, kind: str = "IngressReady") -> tuple[str, str, str]:
    item = next(item for item in found.status.conditions if item.type == kind)
    return item.status, item.reason, item.message


def route(*parents: dict[str, Any], generation: int = 1) -> dict[tuple[str, str], dict[str, Any]]:
    status = {"status": {"parents": list(parents)}} if parents else {}
    body = {"kind": "HTTPRoute", "metadata": {"name": "hub-ingress", "generation": generation}, **status}
    return children(body, spec=GATEWAY)


def answer(ref: dict[str, Any], observed: int = 1, **conditions: tuple[str, str]) -> dict[str, Any]:
    """What the controller of one Gateway writes; it fills in group and kind."""
    both = {"Accepted": ("True", ""), "ResolvedRefs": ("True", ""), **conditions}
    return {
        "parentRef": {"group": "gateway.networking.k8s.io", "kind": "Gateway", **ref},
        "controllerName": "example.com/controller",
        "conditions": [
            {"type": kind, "status": status, "message": message, "observedGeneration": observed}
            for kind, (status, message) in both.items()
        ],
    }


def test_an_ingress_tells_the_address_of_all_hosts() -> None:
    points = {"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}}
    live = children({"kind": "Ingress", "metadata": {"name": "hub-ingress"}, "status": points}, spec=INGRESS)
    found = plan(INGRESS, children=live)
    assert told(found) == ("True", "Available", "a.example.com, b.example.com at 192.0.2.1")


def test_where_the_gateway_api_is_missing_nothing_is_written_and_it_is_told() -> None:
    found = plan(GATEWAY, children=children(spec={}))
    assert "HTTPRoute" not in {item["kind"] for item in found.objects}
    status, reason, message = told(found)
    assert (status, reason) == ("False", "GatewayApiMissing")
    assert "install" in message
    assert told(found, "Ready")[0] == "True"
    assert found.settled, "it is not tried again and again"


def test_where_the_gateway_api_is_the_route_is_written() -> None:
    found = plan(GATEWAY, children=children(spec={}), http_routes=True)
    assert [item["metadata"]["name"] for item in found.objects if item["kind"] == "HTTPRoute"] == [
        "hub-ingress"
    ]
    assert told(found)[1] == "Creating"


def test_the_ingress_stays_until_the_route_can_be_made() -> None:
    owner = {"metadata": {"name": "hub-ingress", "uid": "1", "ownerReferences": [{"uid": "u"}]}}
    live = children({"kind": "Ingress", **owner}, spec={})
    assert not plan(GATEWAY, children=live).prune
    later = plan(GATEWAY, children=live, http_routes=True)
    assert [item["kind"] for item in later.prune] == ["Ingress"]


def test_a_route_that_is_no_longer_asked_for_goes() -> None:
    owner = {"metadata": {"name": "hub-ingress", "uid": "1", "ownerReferences": [{"uid": "u"}]}}
    live = children({"apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute", **owner}, spec={})
    assert [item["kind"] for item in plan({}, children=live, http_routes=True).prune] == ["HTTPRoute"]


def test_a_route_is_ready_when_every_gateway_has_taken_it() -> None:
    everyone = route(answer({**PARENTS[0]}), answer({"name": "own"}))
    refused = {("gateways", "public"): Gateway(readable=False)}
    status, reason, message = told(plan(GATEWAY, children=everyone, http_routes=True, gateways=refused))
    assert (status, reason) == ("True", "Available")
    assert message == (
        "hub.example.com through Gateway gateways/public (the operator may not read its address), "
        "Gateway d/own (its address is not known yet)"
    )


def gateway(programmed: str, *addresses: str) -> Gateway:
    conditions = (
        [{"type": "Programmed", "status": programmed, "message": "no free address"}] if programmed else []
    )
    listed = [{"type": "IPAddress", "value": address} for address in addresses]
    return Gateway.of({"status": {"conditions": conditions, "addresses": listed}})


@pytest.mark.parametrize(
    ("public", "expected", "words"),
    [
        (
            gateway("True", "192.0.2.1"),
            ("True", "Available"),
            "Gateway gateways/public at 192.0.2.1, Gateway d/own",
        ),
        (gateway("True"), ("True", "Available"), "Gateway gateways/public (it tells no address)"),
        (gateway("", "192.0.2.1"), ("True", "Available"), "at 192.0.2.1"),
        (gateway("False"), ("False", "NoAddress"), "Gateway gateways/public: no free address"),
        (gateway("Unknown", "192.0.2.1"), ("False", "NoAddress"), "no free address"),
        (gateway(""), ("False", "NoAddress"), "no controller has given it an address"),
    ],
)
def test_a_gateway_that_has_taken_the_route_must_listen_too(
    public: Gateway, expected: tuple[str, str], words: str
) -> None:
    everyone = route(answer({**PARENTS[0]}), answer({"name": "own"}))
    found = plan(GATEWAY, children=everyone, http_routes=True, gateways={("gateways", "public"): public})
    status, reason, message = told(found)
    assert (status, reason) == expected
    assert words in message


def test_a_service_that_waits_for_its_address_from_outside_says_so() -> None:
    spec = {"loadBalancer": {"service": {"type": "LoadBalancer"}}}
    service = {"kind": "Service", "metadata": {"name": "hub"}}
    waiting = plan(spec, children=children(service, spec=spec))
    assert "Service hub of type LoadBalancer an address from outside" in told(waiting, "LoadBalancerReady")[2]
    assert waiting.status.endpoints.external is None
    points = [{"ip": "192.0.2.1"}, {"hostname": "lb.example.com"}]
    service["status"] = {"loadBalancer": {"ingress": points}}
    found = plan(spec, children=children(service, spec=spec))
    assert told(found, "LoadBalancerReady")[2] == "2 of 2 ready"
    assert found.status.endpoints.external == "192.0.2.1, lb.example.com"
    assert plan({}).status.endpoints.external is None


@pytest.mark.parametrize(
    ("parents", "words"),
    [
        ([], "Gateway gateways/public has not answered; does it exist"),
        ([answer({**PARENTS[0]})], "Gateway d/own has not answered"),
        (
            [answer({"name": "public", "namespace": "gateways"}), answer({"name": "own"})],
            "public has not answered",
        ),
        (
            [answer({**PARENTS[0]}, Accepted=("False", "not allowed by listener")), answer({"name": "own"})],
            "Gateway gateways/public, Accepted=False: not allowed by listener",
        ),
        (
            [answer({**PARENTS[0]}), answer({"name": "own"}, ResolvedRefs=("False", "no Service"))],
            "Gateway d/own, ResolvedRefs=False: no Service",
        ),
        (
            [answer({**PARENTS[0]}, observed=0), answer({"name": "own"})],
            "has not told yet whether it has Accepted",
        ),
        ([{"parentRef": {"name": "own"}}], "has not told yet whether it has Accepted"),
    ],
)
def test_a_route_that_a_gateway_has_not_taken_tells_why(parents: list[dict[str, Any]], words: str) -> None:
    status, reason, message = told(plan(GATEWAY, children=route(*parents), http_routes=True))
    assert (status, reason) == ("False", "RouteNotAccepted")
    assert words in message


def _loaded() -> str:
    return configuration_digest(children()["ConfigMap", "hub-loadbalancer"]["data"]["haproxy.cfg"])


def test_settings_that_haproxy_refuses_are_told_and_degrade_the_cluster() -> None:
    states = (
        BalancerState("hub-loadbalancer-0", _loaded(), "no certificate in tls.crt"),
        BalancerState("hub-loadbalancer-1", _loaded()),
    )
    ready = cluster({}, plan({}).status.model_dump(mode="json", by_alias=True, exclude_none=True))
    found = make_plan(ready, snapshot(balancers=states), IMAGES, None)
    status, reason, message = told(found, "LoadBalancerReady")
    assert (status, reason) == ("True", "ReducedRedundancy")
    assert "goes on with its former settings: no certificate in tls.crt" in message
    assert told(found, "Degraded")[0] == "True"


def test_settings_on_their_way_are_told_and_degrade_nothing() -> None:
    states = (BalancerState("hub-loadbalancer-0", "older"), BalancerState("hub-loadbalancer-1", _loaded()))
    found = plan({}, balancers=states)
    status, reason, message = told(found, "LoadBalancerReady")
    assert (status, reason) == ("True", "Available")
    assert "1 of 2 will load the latest settings" in message
    assert told(plan({}), "LoadBalancerReady")[2] == "2 of 2 ready"


def test_ready_is_false_when_requests_come_back_without_an_answer_for_a_while() -> None:
    ready = cluster({}, plan({}).status.model_dump(mode="json", by_alias=True, exclude_none=True))
    silent = {"unserved": "port 3001 is silent"}
    first = make_plan(ready, snapshot(**silent), IMAGES, None)
    assert told(first, "Ready")[0] == "True", "one request that is late is no outage"
    assert not first.settled, "it is looked at again soon"
    later = make_plan(
        ready, snapshot(unserved="port 3001 is silent", now=NOW + timedelta(seconds=16)), IMAGES, first.memory
    )
    status, reason, message = told(later, "LoadBalancerReady")
    assert (status, reason) == ("False", "Unavailable")
    assert "no request is served: port 3001 is silent" in message
    assert told(later, "Ready")[0] == "False"
    again = make_plan(ready, snapshot(now=NOW + timedelta(seconds=17)), IMAGES, later.memory)
    assert told(again, "Ready")[0] == "True"


def test_no_request_is_missed_where_no_load_balancer_is_ready() -> None:
    unready = tuple(
        replace(pod, ready=False) if pod.component == names.LOAD_BALANCER else pod for pod in pods()
    )
    found = plan({}, unserved="port 3001 is silent", pods=unready)
    found = make_plan(
        cluster({}),
        snapshot(unserved="port 3001 is silent", pods=unready, now=NOW + timedelta(seconds=16)),
        IMAGES,
        found.memory,
    )
    assert "no request" not in told(found, "LoadBalancerReady")[2]


@pytest.mark.parametrize(
    ("days", "words", "full"),
    [(15, "", True), (13, "the certificate in Secret tls ends at", True), (-1, "has ended at", False)],
)
def test_a_certificate_that_ends_is_told_and_one_that_has_ended_degrades(
    days: int, words: str, full: bool
) -> None:
    spec = {"loadBalancer": {"tls": {"secretName": "tls"}}}
    states = tuple(
        BalancerState(f"hub-loadbalancer-{number}", "", None, NOW + timedelta(days=days + number))
        for number in range(2)
    )
    found = plan(spec, balancers=states, children=children(spec=spec))
    _, reason, message = told(found, "LoadBalancerReady")
    assert words in message
    assert bool(words) == ("certificate" in message)
    assert (reason == "Available") is full


def test_a_cluster_that_served_no_request_is_not_called_ready_after_a_restart_of_the_operator() -> None:
    first = plan({}, unserved="port 3001 is silent")
    assert told(first, "LoadBalancerReady")[0] == "False", "a new cluster has to serve one first"
    again = cluster({}, first.status.model_dump(mode="json", by_alias=True, exclude_none=True))
    found = make_plan(again, snapshot(unserved="port 3001 is silent"), IMAGES, None)
    assert told(found, "LoadBalancerReady")[0] == "False"
