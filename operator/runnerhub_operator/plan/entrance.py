"""The addresses by which people come in, or why there are none. IngressReady tells them; it does not gate Ready."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from .. import names
from ..api import ConditionReason, ConditionType, GatewaySpec, IngressSpec, RunnerHubCluster, ServiceType
from ..snapshot import Gateway, Snapshot
from .conditions import Verdict

# Both must hold for each Gateway: it takes the route, and finds the Service behind it.
_ASKED = ("Accepted", "ResolvedRefs")


def ingress_verdict(cluster: RunnerHubCluster, snapshot: Snapshot) -> Verdict:
    """What the ingress controller or the Gateways made of it."""
    spec = cluster.spec.ingress
    if spec is None:
        return Verdict(
            ConditionType.INGRESS, "True", ConditionReason.NOT_REQUESTED, "spec.ingress is not set"
        )
    if spec.gateway is not None:
        return _of_route(cluster, snapshot, spec, spec.gateway)
    return _of_ingress(cluster, snapshot, spec)


def _not_ready(reason: ConditionReason, message: str) -> Verdict:
    return Verdict(ConditionType.INGRESS, "False", reason, message)


def _ready(message: str) -> Verdict:
    return Verdict(ConditionType.INGRESS, "True", ConditionReason.AVAILABLE, message)


def _of_ingress(cluster: RunnerHubCluster, snapshot: Snapshot, spec: IngressSpec) -> Verdict:
    ingress = snapshot.child("Ingress", names.child(cluster.name, names.INGRESS))
    if ingress is None:
        return _not_ready(ConditionReason.CREATING, "the Ingress does not exist yet")
    hosts = ", ".join(spec.every_host)
    addresses = ", ".join(_addresses(ingress))
    if addresses:
        return _ready(f"{hosts} at {addresses}")
    wanted = f"class {spec.class_name}" if spec.class_name else "the default class"
    return _not_ready(
        ConditionReason.NO_ADDRESS,
        f"no ingress controller has given {hosts} an address; is one running for {wanted}?",
    )


def _of_route(
    cluster: RunnerHubCluster, snapshot: Snapshot, spec: IngressSpec, gateway: GatewaySpec
) -> Verdict:
    if not snapshot.http_routes:
        return _not_ready(
            ConditionReason.GATEWAY_API_MISSING,
            f"the API server has no HTTPRoutes of {names.GATEWAY_API}, or the operator may not read them; install the "
            "Gateway API's definitions and a controller, or leave spec.ingress.gateway out to have an Ingress",
        )
    route = snapshot.child(names.HTTP_ROUTE, names.child(cluster.name, names.INGRESS))
    if route is None:
        return _not_ready(ConditionReason.CREATING, "the HTTPRoute does not exist yet")
    if problems := list(_problems(cluster, gateway, route)):
        return _not_ready(ConditionReason.ROUTE_NOT_ACCEPTED, "; ".join(problems))
    places = dict.fromkeys((ref.namespace or cluster.namespace, ref.name) for ref in gateway.parent_refs)
    found = {place: snapshot.gateways.get(place) for place in places}
    if mute := [
        f"Gateway {'/'.join(at)}: {each.problem}" for at, each in found.items() if each and each.problem
    ]:
        return _not_ready(ConditionReason.NO_ADDRESS, f"people do not get in; {'; '.join(mute)}")
    ways = (f"Gateway {'/'.join(at)} {_whereabouts(each)}" for at, each in found.items())
    return _ready(f"{', '.join(spec.every_host)} through {', '.join(ways)}")


def _whereabouts(gateway: Gateway | None) -> str:
    if gateway is None:
        return "(its address is not known yet)"
    if not gateway.readable:
        return "(the operator may not read its address)"
    return f"at {', '.join(gateway.addresses)}" if gateway.addresses else "(it tells no address)"


def _problems(cluster: RunnerHubCluster, gateway: GatewaySpec, route: Mapping[str, Any]) -> Iterator[str]:
    """What each Gateway that is asked for has against the route."""
    generation = route["metadata"].get("generation", 0)
    answers: dict[tuple[str, str, str | None], list[Mapping[str, Any]]] = {}
    for answer in route.get("status", {}).get("parents") or ():
        ref = answer.get("parentRef", {})
        key = ref.get("namespace") or cluster.namespace, ref.get("name", ""), ref.get("sectionName")
        answers.setdefault(key, []).append(answer)
    for ref in gateway.parent_refs:
        name = _name(cluster, ref.name, ref.namespace)
        given = answers.get((ref.namespace or cluster.namespace, ref.name, ref.section_name), [])
        if not given:
            yield f"Gateway {name} has not answered; does it exist, and does its controller run?"
        for answer in given:
            told = {item.get("type"): item for item in answer.get("conditions") or ()}
            for kind in _ASKED:
                condition = told.get(kind, {})
                if condition.get("observedGeneration", generation) < generation or not condition:
                    yield f"Gateway {name} has not told yet whether it has {kind}"
                elif condition.get("status") != "True":
                    why = condition.get("message") or condition.get("reason") or "no reason given"
                    yield f"Gateway {name}, {kind}={condition.get('status')}: {str(why)[:300]}"


def service_addresses(cluster: RunnerHubCluster, snapshot: Snapshot) -> tuple[str, ...] | None:
    """Where the load balancer's Service can be reached from outside, none yet; None: its type gives it no address."""
    if cluster.spec.load_balancer.service.type is not ServiceType.LOAD_BALANCER:
        return None
    return _addresses(snapshot.child("Service", names.load_balancer_service(cluster.name)) or {})


def _addresses(live: Mapping[str, Any]) -> tuple[str, ...]:
    """Of an Ingress or a Service."""
    points: list[dict[str, Any]] = live.get("status", {}).get("loadBalancer", {}).get("ingress", [])
    return tuple(point.get("hostname") or point.get("ip") or "?" for point in points)


def _name(cluster: RunnerHubCluster, name: str, namespace: str | None) -> str:
    return f"{namespace or cluster.namespace}/{name}"
