"""The database: a StatefulSet of Postgres under Patroni, and Patroni's configuration.

Patroni keeps its state in ConfigMaps `<cluster>-postgres-{config,leader,failover,sync}`. They belong to the
volumes, not to the cluster (the image's `postgres-state` ties them to the claims), so they have no builder
here.
"""

from __future__ import annotations

import json
from typing import Final

from .. import names
from ..api import MAX_MEMBERS
from .additions import node_placement
from .common import (
    BuildContext,
    Manifest,
    config_hash,
    container_security_context,
    disruption_budget,
    field_env,
    metadata,
    pod_security_context,
    pull_secrets,
    resource_requirements,
    role_with_binding,
    secret_volume,
    service_account,
    spread,
)
from .patroni import (
    CONFIG_DIRECTORY,
    CREDENTIALS_DIRECTORY,
    DATA_MOUNT,
    EFFECTIVE_CONFIG_DIRECTORY,
    MAX_REPLICA_LAG_BYTES,
    POOLER_ADMIN_USER,
    RUN_DIRECTORY,
    dynamic_config_patch,
    patroni_dynamic_config,
    patroni_labels,
    patroni_local_config,
    patroni_scope,
)

__all__ = [
    "dynamic_config_patch",
    "member_names",
    "patroni_dynamic_config",
    "postgres_manifests",
]

# preStop waits for a pooler that stops too and hands over, within 30 s; then Postgres writes its last checkpoint and
# its replicas receive it.
_GRACE_SECONDS: Final = 120


def postgres_manifests(context: BuildContext) -> list[Manifest]:
    """All objects of the database, in the order in which they are applied."""
    return [
        service_account(context, names.POSTGRES),
        *role_with_binding(context, names.POSTGRES, _rules(context)),
        _config_map(context),
        _pods_service(context),
        *(_member_service(context, name) for name in member_names(context)),
        disruption_budget(context, names.POSTGRES),
        _stateful_set(context),
    ]


def member_names(context: BuildContext) -> list[str]:
    """Pods that the database can ever have, each also the name of the member's own Service."""
    return [names.member(context.name, names.POSTGRES, ordinal) for ordinal in range(MAX_MEMBERS)]


def _instances(context: BuildContext) -> int:
    told = context.postgres_instances
    return context.cluster.spec.postgres.instances if told is None else told


def _rules(context: BuildContext) -> list[Manifest]:
    scope = patroni_scope(context)
    members = member_names(context)
    return [
        # Neither a list, nor a watch, nor a creation can be limited to names.
        {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["create", "list", "watch"]},
        {
            "apiGroups": [""],
            "resources": ["configmaps"],
            "resourceNames": [f"{scope}-{suffix}" for suffix in ("config", "failover", "leader", "sync")],
            "verbs": ["delete", "get", "patch"],
        },
        # The pods have it mounted; before the primary changes a role it asks whether its copy is the latest.
        {
            "apiGroups": [""],
            "resources": ["secrets"],
            "resourceNames": [names.credentials(context.name, names.POSTGRES)],
            "verbs": ["get"],
        },
        {"apiGroups": [""], "resources": ["pods"], "verbs": ["list", "watch"]},
        {"apiGroups": [""], "resources": ["pods"], "resourceNames": members, "verbs": ["patch"]},
        {
            "apiGroups": [""],
            "resources": ["persistentvolumeclaims"],
            "resourceNames": [
                names.claim(context.name, names.POSTGRES, ordinal) for ordinal in range(MAX_MEMBERS)
            ],
            "verbs": ["get"],
        },
    ]


def _config_map(context: BuildContext) -> Manifest:
    bootstrap = {
        "dcs": patroni_dynamic_config(context),
        # The builtin provider sorts alike in every version of the C library, so no index breaks with an
        # image.
        "initdb": [
            "data-checksums",
            {"encoding": "UTF8"},
            {"locale-provider": "builtin"},
            {"locale": "C.UTF-8"},
            {"auth": "scram-sha-256"},
        ],
        "post_bootstrap": "/usr/local/bin/postgres-post-bootstrap",
    }
    content = {**patroni_local_config(context), "bootstrap": bootstrap}
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": metadata(context, _config_name(context), names.POSTGRES),
        # JSON is YAML.
        "data": {"patroni.yml": json.dumps(content, indent=2, sort_keys=True) + "\n"},
    }


def _config_name(context: BuildContext) -> str:
    # `<cluster>-postgres-config` is Patroni's own.
    return names.child(context.name, "postgres-patroni")


# --- Services ---

_PORTS: Final = (("postgres", names.PORT_POSTGRES), ("patroni", names.PORT_PATRONI))


def _pods_service_name(context: BuildContext) -> str:
    return names.child(context.name, "postgres-pods")


def _pods_service(context: BuildContext) -> Manifest:
    """Headless Service that gives the StatefulSet's pods their names."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata(context, _pods_service_name(context), names.POSTGRES),
        "spec": {
            "clusterIP": "None",
            "publishNotReadyAddresses": True,
            "selector": names.selector_labels(context.name, names.POSTGRES),
            "ports": _service_ports(),
        },
    }


def _member_service(context: BuildContext, name: str) -> Manifest:
    """A stable address for one member: names in a cluster's DNS are cached for 30 s, a new pod must be found
    at once.

    Also for a member that is not there: HAProxy takes a server whose name has just been found for up until its first
    check, and would send writes to a replica that is new.
    """
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata(context, name, names.POSTGRES),
        "spec": {
            "type": "ClusterIP",
            "publishNotReadyAddresses": True,
            "selector": {"statefulset.kubernetes.io/pod-name": name},
            "ports": _service_ports(),
        },
    }


def _service_ports() -> list[Manifest]:
    return [{"name": name, "port": port, "protocol": "TCP", "targetPort": name} for name, port in _PORTS]


# --- StatefulSet ---


def _stateful_set(context: BuildContext) -> Manifest:
    return {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": metadata(context, patroni_scope(context), names.POSTGRES),
        "spec": {
            "replicas": _instances(context),
            "serviceName": _pods_service_name(context),
            "podManagementPolicy": "Parallel",
            "updateStrategy": {"type": "OnDelete"},
            "persistentVolumeClaimRetentionPolicy": {"whenDeleted": "Retain", "whenScaled": "Retain"},
            "selector": {"matchLabels": names.selector_labels(context.name, names.POSTGRES)},
            "template": {
                "metadata": {
                    "labels": {**names.labels(context.name, names.POSTGRES), **patroni_labels(context)},
                    "annotations": {names.ANNOTATION_CONFIG: config_hash(patroni_local_config(context))},
                },
                "spec": _pod_spec(context),
            },
            "volumeClaimTemplates": [_claim_template(context)],
        },
    }


def _claim_template(context: BuildContext) -> Manifest:
    storage = context.cluster.spec.postgres.storage
    claim: Manifest = {
        "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": storage.size}},
    }
    if storage.storage_class_name is not None:
        claim["storageClassName"] = storage.storage_class_name
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": names.CLAIM_TEMPLATE, "labels": names.labels(context.name, names.POSTGRES)},
        "spec": claim,
    }


def _pod_spec(context: BuildContext) -> Manifest:
    return {
        "serviceAccountName": patroni_scope(context),
        # Patroni's store is the API server.
        "automountServiceAccountToken": True,
        "enableServiceLinks": False,
        "securityContext": pod_security_context(),
        **pull_secrets(context),
        **node_placement(context.cluster.spec.postgres.pod_template),
        "terminationGracePeriodSeconds": _GRACE_SECONDS,
        "topologySpreadConstraints": spread(context.name, names.POSTGRES),
        "containers": [_container(context)],
        "volumes": [
            {"name": "config", "configMap": {"name": _config_name(context)}},
            secret_volume("credentials", names.credentials(context.name, names.POSTGRES)),
            # Sockets and Patroni's password file, never on a disk.
            {"name": "run", "emptyDir": {"medium": "Memory", "sizeLimit": "16Mi"}},
            # initdb reads the first password from a file here.
            {"name": "tmp", "emptyDir": {"medium": "Memory", "sizeLimit": "16Mi"}},
            # Parallel queries share memory here; the default of 64 MB is soon too small.
            {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": "256Mi"}},
        ],
    }


def _container(context: BuildContext) -> Manifest:
    spec = context.cluster.spec.postgres
    return {
        "name": "postgres",
        "image": spec.image or context.images.postgres,
        "imagePullPolicy": "IfNotPresent",
        "env": _environment(context),
        "ports": [{"name": name, "containerPort": port, "protocol": "TCP"} for name, port in _PORTS],
        "resources": resource_requirements(spec.resources, cpu="100m", memory="256Mi"),
        "securityContext": container_security_context(),
        # Patroni answers as soon as it has reached its store; a long recovery does not matter here.
        "startupProbe": _probe("/liveness", period=2, timeout=5, failures=150),
        "livenessProbe": _probe("/liveness", period=10, timeout=5, failures=6),
        "readinessProbe": _probe(f"/readiness?lag={MAX_REPLICA_LAG_BYTES}", period=3, timeout=3, failures=3),
        "lifecycle": {"preStop": {"exec": {"command": ["/usr/local/bin/postgres-prestop"]}}},
        "volumeMounts": [
            {"name": names.CLAIM_TEMPLATE, "mountPath": DATA_MOUNT},
            {"name": "config", "mountPath": CONFIG_DIRECTORY, "readOnly": True},
            {"name": "credentials", "mountPath": CREDENTIALS_DIRECTORY, "readOnly": True},
            {"name": "run", "mountPath": RUN_DIRECTORY},
            {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 - a path inside the pod
            {"name": "shm", "mountPath": "/dev/shm"},  # noqa: S108 - a path inside the pod
        ],
    }


def _probe(path: str, *, period: int, timeout: int, failures: int) -> Manifest:
    return {
        "httpGet": {"path": path, "port": "patroni", "scheme": "HTTP"},
        "periodSeconds": period,
        "timeoutSeconds": timeout,
        "failureThreshold": failures,
    }


def _environment(context: BuildContext) -> list[Manifest]:
    return [
        field_env("PATRONI_NAME", "metadata.name"),
        field_env("PATRONI_KUBERNETES_NAMESPACE", "metadata.namespace"),
        field_env("PATRONI_KUBERNETES_POD_IP", "status.podIP"),
        # No password is in the environment, which a running process cannot be given anew.
        {"name": "CREDENTIALS_DIR", "value": CREDENTIALS_DIRECTORY},
        {"name": "CREDENTIALS_SECRET", "value": names.credentials(context.name, names.POSTGRES)},
        {"name": "PATRONICTL_CONFIG_FILE", "value": EFFECTIVE_CONFIG_DIRECTORY},
        # The pod asks the poolers to hold their clients back while it hands its role over.
        {
            "name": "POOLER_PODS",
            "value": f"{names.pooler_pods_service(context.name)}.{context.cluster.namespace}.svc",
        },
        {"name": "POOLER_AGENT_PORT", "value": str(names.PORT_POOLER_AGENT)},
        {"name": "POOLER_AGENT_USERNAME", "value": POOLER_ADMIN_USER},
    ]
