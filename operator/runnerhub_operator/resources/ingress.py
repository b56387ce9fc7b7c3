"""The Ingress to the load balancer."""

from __future__ import annotations

from .. import names
from .common import BuildContext, Manifest, metadata


def ingress_manifests(context: BuildContext) -> list[Manifest]:
    """The Ingress, when the spec asks for one.

    One path serves all: the load balancer tells WebSocket upgrades apart itself.
    """
    spec = context.cluster.spec.ingress
    if spec is None:
        return []
    backend = {"service": {"name": names.load_balancer_service(context.name), "port": {"name": "http"}}}
    ingress: Manifest = {
        "rules": [
            {"host": spec.host, "http": {"paths": [{"path": "/", "pathType": "Prefix", "backend": backend}]}}
        ]
    }
    if spec.class_name is not None:
        ingress["ingressClassName"] = spec.class_name
    if spec.tls_secret_name is not None:
        ingress["tls"] = [{"hosts": [spec.host], "secretName": spec.tls_secret_name}]
    return [
        {
            "apiVersion": "networking.k8s.io/v1",
            "kind": "Ingress",
            "metadata": metadata(
                context,
                names.child(context.name, names.INGRESS),
                names.INGRESS,
                annotations=dict(spec.annotations),
            ),
            "spec": ingress,
        }
    ]
