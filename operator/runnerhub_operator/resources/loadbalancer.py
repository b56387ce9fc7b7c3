"""The load balancer: HAProxy in front of the orchestrators, and the Service that people and runners use."""

from __future__ import annotations

from typing import Final

from .. import names
from ..api import RunnerHubCluster
from . import haproxy_config
from .additions import node_placement
from .common import (
    BuildContext,
    Manifest,
    container_security_context,
    disruption_budget,
    metadata,
    pod_security_context,
    pull_secrets,
    resource_requirements,
    secret_volume,
    service_account,
    spread,
)

# Endpoints leave the Services of all nodes meanwhile, so that no new connection meets a closed port.
DRAIN_SECONDS: Final = 5
TLS_KEYS: Final = ("tls.crt", "tls.key")
# A drain that WebSockets keep open ends here, well before the kubelet kills the pod.
HARD_STOP_SECONDS: Final = 20
TERMINATION_GRACE_SECONDS: Final = DRAIN_SECONDS + HARD_STOP_SECONDS + 5


def orchestrator_pods_service(cluster: str) -> str:
    """Name of the headless Service by which HAProxy finds the orchestrators."""
    return names.child(cluster, f"{names.ORCHESTRATOR}-pods")


def inside_url(cluster: RunnerHubCluster, host: str) -> str:
    """The HTTP API for use inside Kubernetes; with TLS, port 80 would send on to a name that only outside is known."""
    port = f":{names.PORT_ORCHESTRATOR}" if cluster.spec.load_balancer.tls else ""
    return f"http://{host}{port}"


def loadbalancer_manifests(context: BuildContext) -> list[Manifest]:
    """All objects of the load balancer, in the order of their application."""
    return [
        service_account(context, names.LOAD_BALANCER),
        config_map(context),
        service(context),
        queue_service(context),
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
    service = orchestrator_pods_service(context.name)
    return haproxy_config.render(
        context.cluster.spec.load_balancer,
        cluster=f"{context.cluster.namespace}/{context.name}",
        pods_service=service,
        replicas=replicas,
        queue_services=names.members(context.name, names.REDIS, context.cluster.spec.redis.replicas),
        default_image=spec.image is None,
    )


def config_map(context: BuildContext) -> Manifest:
    """The configuration of HAProxy."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": metadata(context, names.child(context.name, names.LOAD_BALANCER), names.LOAD_BALANCER),
        "data": {"haproxy.cfg": configuration(context)},
    }


def service(context: BuildContext) -> Manifest:
    """The Service with the cluster's own name: HTTP on 80, TLS on 443, the API on 3001 too, WebSockets on 3002."""
    spec = context.cluster.spec.load_balancer.service
    given: Manifest = {
        "externalTrafficPolicy": spec.external_traffic_policy and spec.external_traffic_policy.value,
        "loadBalancerClass": spec.load_balancer_class,
        "loadBalancerSourceRanges": list(spec.load_balancer_source_ranges),
    }
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
            **{name: value for name, value in given.items() if value},
            "selector": names.selector_labels(context.name, names.LOAD_BALANCER),
            "ports": [
                _service_port("http", 80),
                *([_service_port("https", 443)] if context.cluster.spec.load_balancer.tls else []),
                _service_port("api", names.PORT_ORCHESTRATOR),
                _service_port("ws", names.PORT_WEBSOCKET),
            ],
        },
    }


def queue_service(context: BuildContext) -> Manifest:
    """The Redis master for clients that cannot ask Sentinel; never a way in from outside, whatever the other one is."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata(context, names.redis_master_service(context.name), names.LOAD_BALANCER),
        "spec": {
            "type": "ClusterIP",
            "selector": names.selector_labels(context.name, names.LOAD_BALANCER),
            "ports": [_service_port("redis", names.PORT_REDIS)],
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
                },
                "spec": _pod_spec(context),
            },
        },
    }


def _service_port(name: str, port: int) -> Manifest:
    return {"name": name, "port": port, "protocol": "TCP", "targetPort": name}


def _pod_spec(context: BuildContext) -> Manifest:
    name = names.child(context.name, names.LOAD_BALANCER)
    tls = context.cluster.spec.load_balancer.tls
    # Without the Secret the pod starts all the same, and its log tells what is missing.
    certificate = [secret_volume("tls", tls.secret_name, TLS_KEYS, optional=True)] if tls else []
    return {
        "serviceAccountName": name,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": TERMINATION_GRACE_SECONDS,
        "securityContext": pod_security_context(),
        **pull_secrets(context),
        **node_placement(context.cluster.spec.load_balancer.pod_template),
        "topologySpreadConstraints": spread(context.name, names.LOAD_BALANCER),
        "containers": [_container(context)],
        "volumes": [
            {"name": "configuration", "configMap": {"name": name}},
            *certificate,
            {
                "name": "runtime",
                "emptyDir": {"medium": "Memory", "sizeLimit": "4Mi"},
            },
        ],
    }


def _container(context: BuildContext) -> Manifest:
    spec = context.cluster.spec.load_balancer
    ports = {
        "http": names.PORT_LB_HTTP,
        **({"https": names.PORT_LB_HTTPS} if spec.tls else {}),
        "api": names.PORT_ORCHESTRATOR,
        "ws": names.PORT_WEBSOCKET,
        "stats": names.PORT_LB_STATS,
        "state": names.PORT_LB_STATE,
        "redis": names.PORT_REDIS,
    }
    stop = {"name": "HARD_STOP_SECONDS", "value": str(HARD_STOP_SECONDS)}
    certificate = [{"name": "tls", "mountPath": "/etc/haproxy-tls", "readOnly": True}] if spec.tls else []
    health = {"httpGet": {"path": "/healthz", "port": "stats"}}
    return {
        "name": "haproxy",
        "image": spec.image or context.images.haproxy,
        "env": [stop],
        "ports": [{"name": name, "containerPort": port, "protocol": "TCP"} for name, port in ports.items()],
        "lifecycle": {"preStop": {"sleep": {"seconds": DRAIN_SECONDS}}},
        "livenessProbe": {**health, "periodSeconds": 10, "timeoutSeconds": 3, "failureThreshold": 3},
        "readinessProbe": {
            "httpGet": {"path": "/readyz", "port": "stats"},
            "periodSeconds": 5,
            "timeoutSeconds": 3,
            "failureThreshold": 2,
        },
        "resources": resource_requirements(spec.resources, cpu="50m", memory="64Mi"),
        "securityContext": container_security_context(),
        "volumeMounts": [
            {"name": "configuration", "mountPath": "/etc/haproxy", "readOnly": True},
            *certificate,
            {"name": "runtime", "mountPath": "/run/haproxy"},
        ],
    }
