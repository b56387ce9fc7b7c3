"""The load balancer: HAProxy in front of the orchestrators, and the Service that people and runners use."""

from __future__ import annotations

from typing import Final

from .. import names
from . import haproxy_config
from .common import (
    BuildContext,
    Manifest,
    config_hash,
    container_security_context,
    disruption_budget,
    metadata,
    pod_security_context,
    resource_requirements,
    service_account,
    spread,
)

# Endpoints leave the Services of all nodes meanwhile, so that no new connection meets a closed port.
DRAIN_SECONDS: Final = 5
TERMINATION_GRACE_SECONDS: Final = DRAIN_SECONDS + haproxy_config.HARD_STOP_SECONDS + 5


def orchestrator_pods_service(cluster: str) -> str:
    """Name of the headless Service by which HAProxy finds the orchestrators."""
    return names.child(cluster, f"{names.ORCHESTRATOR}-pods")


def loadbalancer_manifests(context: BuildContext) -> list[Manifest]:
    """All objects of the load balancer, in the order of their application."""
    return [
        service_account(context, names.LOAD_BALANCER),
        config_map(context),
        service(context),
        disruption_budget(context, names.LOAD_BALANCER),
        deployment(context),
    ]


def configuration(context: BuildContext) -> str:
    """haproxy.cfg."""
    spec = context.cluster.spec.orchestrator
    replicas = context.scaled.get(names.ORCHESTRATOR, spec.replicas)
    if spec.autoscaling is not None:
        # The largest, so that no change of size restarts HAProxy.
        replicas = spec.autoscaling.max_replicas
    return haproxy_config.render(pods_service=orchestrator_pods_service(context.name), replicas=replicas)


def config_map(context: BuildContext) -> Manifest:
    """The configuration of HAProxy."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": metadata(context, names.child(context.name, names.LOAD_BALANCER), names.LOAD_BALANCER),
        "data": {"haproxy.cfg": configuration(context)},
    }


def service(context: BuildContext) -> Manifest:
    """The Service with the cluster's own name: HTTP on 80, the API on 3001 too, WebSockets on 3002."""
    spec = context.cluster.spec.load_balancer.service
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata(
            context,
            names.load_balancer_service(context.name),
            names.LOAD_BALANCER,
            annotations=dict(spec.annotations),
        ),
        "spec": {
            "type": spec.type.value,
            "selector": names.selector_labels(context.name, names.LOAD_BALANCER),
            "ports": [
                _service_port("http", 80),
                _service_port("api", names.PORT_ORCHESTRATOR),
                _service_port("ws", names.PORT_WEBSOCKET),
            ],
        },
    }


def deployment(context: BuildContext) -> Manifest:
    """The HAProxy pods; a new one is ready before an old one goes."""
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": metadata(context, names.child(context.name, names.LOAD_BALANCER), names.LOAD_BALANCER),
        "spec": {
            **context.replicas_field(names.LOAD_BALANCER, context.cluster.spec.load_balancer.replicas),
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
            "selector": {"matchLabels": names.selector_labels(context.name, names.LOAD_BALANCER)},
            "template": {
                "metadata": {
                    "labels": names.labels(context.name, names.LOAD_BALANCER),
                    "annotations": {names.ANNOTATION_CONFIG: config_hash(configuration(context))},
                },
                "spec": _pod_spec(context),
            },
        },
    }


def _service_port(name: str, port: int) -> Manifest:
    return {"name": name, "port": port, "protocol": "TCP", "targetPort": name}


def _pod_spec(context: BuildContext) -> Manifest:
    name = names.child(context.name, names.LOAD_BALANCER)
    return {
        "serviceAccountName": name,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": TERMINATION_GRACE_SECONDS,
        "securityContext": pod_security_context(),
        "topologySpreadConstraints": spread(context.name, names.LOAD_BALANCER),
        "containers": [_container(context)],
        "volumes": [
            {"name": "configuration", "configMap": {"name": name}},
            {"name": "runtime", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}},
        ],
    }


def _container(context: BuildContext) -> Manifest:
    spec = context.cluster.spec.load_balancer
    ports = {
        "http": names.PORT_LB_HTTP,
        "api": names.PORT_ORCHESTRATOR,
        "ws": names.PORT_WEBSOCKET,
        "stats": names.PORT_LB_STATS,
    }
    health = {"httpGet": {"path": "/healthz", "port": "stats"}}
    return {
        "name": "haproxy",
        "image": spec.image or context.images.haproxy,
        "ports": [{"name": name, "containerPort": port, "protocol": "TCP"} for name, port in ports.items()],
        "lifecycle": {"preStop": {"sleep": {"seconds": DRAIN_SECONDS}}},
        "livenessProbe": {**health, "periodSeconds": 10, "timeoutSeconds": 3, "failureThreshold": 3},
        # Up at once, but without a pod to send to until DNS and the first checks have answered.
        "readinessProbe": {
            **health,
            "initialDelaySeconds": 3,
            "periodSeconds": 5,
            "timeoutSeconds": 3,
            "failureThreshold": 2,
        },
        "resources": resource_requirements(spec.resources, cpu="50m", memory="64Mi"),
        "securityContext": container_security_context(),
        "volumeMounts": [
            {"name": "configuration", "mountPath": "/etc/haproxy", "readOnly": True},
            {"name": "runtime", "mountPath": "/run/haproxy"},
        ],
    }
