"""The way in from outside: an Ingress to the load balancer, or an HTTPRoute of the Gateway API.

One path serves all: the load balancer tells WebSocket upgrades apart itself.
"""

from __future__ import annotations

from typing import Final

from .. import names
from ..api import GatewaySpec, IngressSpec, PathType
from .common import BuildContext, Manifest, metadata

HTTP_PORT: Final = 80


def ingress_manifests(context: BuildContext) -> list[Manifest]:
    """What the spec asks for: nothing, the Ingress, or the HTTPRoute where the API server knows such objects."""
    spec = context.cluster.spec.ingress
    if spec is None:
        return []
    if spec.gateway is not None:
        return [_http_route(context, spec, spec.gateway)] if context.serves_http_routes else []
    return [_ingress(context, spec)]


def _port(context: BuildContext) -> tuple[str, int]:
    """The Service's port that serves what a proxy sends plainly.

    With TLS, port 80 would send on to https what it does not believe to have come by it: round in a circle.
    """
    return ("api", names.PORT_ORCHESTRATOR) if context.cluster.spec.load_balancer.tls else ("http", HTTP_PORT)


def _ingress(context: BuildContext, spec: IngressSpec) -> Manifest:
    port, _ = _port(context)
    backend = {"service": {"name": names.load_balancer_service(context.name), "port": {"name": port}}}
    path_type = (spec.path_type or PathType.PREFIX).value
    paths = [{"path": "/", "pathType": path_type, "backend": backend}]
    body: Manifest = {"rules": [{"host": host, "http": {"paths": paths}} for host in spec.every_host]}
    if spec.class_name is not None:
        body["ingressClassName"] = spec.class_name
    if spec.tls_secret_name is not None:
        body["tls"] = [{"hosts": list(spec.every_host), "secretName": spec.tls_secret_name}]
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "Ingress",
        "metadata": _metadata(context, spec),
        "spec": body,
    }


def _http_route(context: BuildContext, spec: IngressSpec, gateway: GatewaySpec) -> Manifest:
    """Source: https://gateway-api.sigs.k8s.io/reference/spec/#httproute"""
    parents = [ref.model_dump(by_alias=True, exclude_none=True) for ref in gateway.parent_refs]
    _, port = _port(context)
    backend = {"name": names.load_balancer_service(context.name), "port": port}
    return {
        "apiVersion": names.GATEWAY_API,
        "kind": names.HTTP_ROUTE,
        "metadata": _metadata(context, spec),
        "spec": {
            "parentRefs": parents,
            "hostnames": list(spec.every_host),
            "rules": [
                {"matches": [{"path": {"type": "PathPrefix", "value": "/"}}], "backendRefs": [backend]},
            ],
        },
    }


def _metadata(context: BuildContext, spec: IngressSpec) -> Manifest:
    name = names.child(context.name, names.INGRESS)
    return metadata(context, name, names.INGRESS, annotations=dict(spec.annotations))
