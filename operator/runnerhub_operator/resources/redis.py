"""The queue: a StatefulSet of Redis with a Sentinel beside each, and a Service of its own for each pod.

Each pod announces the literal ClusterIP of its own Service: the address survives the pod, and no name has to
be looked up while Sentinel decides.
"""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Final

from .. import names
from ..api import RedisSpec
from ..quantities import quantity
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
    service_account,
    spread,
    unowned,
)

DATA_PATH: Final = "/data"
RUNTIME_PATH: Final = "/run/redis"
CONFIGURATION_PATH: Final = "/etc/runnerhub/redis"
CREDENTIALS_PATH: Final = "/etc/runnerhub/credentials"
STATE_PATH: Final = "/etc/runnerhub/state"

# Hand-over 8 s, then Redis' own shutdown-timeout of 10 s, then a reserve.
TERMINATION_GRACE_SECONDS: Final = 30
# Bounds each step of a failover; a failed try (a split vote) is repeated after twice this time.
FAILOVER_TIMEOUT_MILLISECONDS: Final = 3000
# The rest is for replication buffers and for what a fork copies while it writes a snapshot.
MAXMEMORY_SHARE: Final = Decimal("0.7")
# Of the volume, where memory has no limit. Data takes about half as much room there as in memory, up to four times: the
# append-only file grows to twice the data and is rewritten beside the old one, and there is a snapshot.
MAXMEMORY_VOLUME_SHARE: Final = Decimal("0.5")
# What a replica may miss and still catch up without a copy of everything: a minute of 1 MB/s.
BACKLOG_BYTES: Final = 64 * 1024 * 1024
# It counts as used memory, so a small limit gets a small one.
BACKLOG_SHARE: Final = Decimal("0.0625")
# An append-only file is not rewritten below this size (Redis' default), which is less on a small volume.
REWRITE_BYTES: Final = 64 * 1024 * 1024
REWRITE_VOLUME_SHARE: Final = Decimal("0.0625")

# Keys of the state ConfigMap that hold the addresses of the pods' own Services.
ADDRESS_PREFIX: Final = "address."
# Setting of the pods: of how many a majority is, fewer than there are to be while some have yet to come.
MAJORITY_OF: Final = "majorityOf"


def state_config_map_name(cluster: str) -> str:
    """Name of the ConfigMap that tells the pods whether the cluster has had a master."""
    return names.child(cluster, f"{names.REDIS}-state")


def pods_service_name(cluster: str) -> str:
    """Name of the headless Service over all Redis pods."""
    return names.child(cluster, f"{names.REDIS}-pods")


def sentinel_service_name(cluster: str) -> str:
    """Name of the Service over the ready Sentinels."""
    return names.child(cluster, f"{names.REDIS}-sentinel")


def redis_manifests(context: BuildContext) -> list[Manifest]:
    """All objects of the queue, in the order of their application."""
    return [
        service_account(context, names.REDIS),
        # Before the pods are told how many they are: one that starts waits for the addresses of all.
        *(pod_service(context, ordinal) for ordinal in range(context.cluster.spec.redis.replicas)),
        configuration_config_map(context),
        state_config_map(context),
        pods_service(context),
        sentinel_service(context),
        disruption_budget(context, names.REDIS),
        stateful_set(context),
    ]


def redis_configuration(context: BuildContext) -> str:
    """The part of redis.conf that is the same for all pods; each line is one that CONFIG SET takes as well."""
    spec, volume_bytes = context.cluster.spec.redis, _volume_bytes(context)
    lines = [
        # Passwords protect it; protected mode would refuse every other pod.
        "protected-mode no",
        "bind * -::*",
        "tcp-keepalive 60",
        # Every confirmed write is in a file before its answer goes out; with everysec a power cut may take the
        # last second.
        "appendonly yes",
        f"appendfsync {spec.append_fsync}",
        "aof-use-rdb-preamble yes",
        "aof-load-truncated yes",
        "auto-aof-rewrite-percentage 100",
        f"auto-aof-rewrite-min-size {min(REWRITE_BYTES, int(volume_bytes * REWRITE_VOLUME_SHARE))}",
        # A master whose volume is full refuses writes. A replica would end by default, and end again when it is
        # started; so it goes on in memory, and writes down what it could not when there is room.
        "replica-ignore-disk-write-errors yes",
        "save 3600 1 300 100 60 10000",
        # What counts is the append-only file, whose own errors refuse writes whatever this says.
        "stop-writes-on-bgsave-error no",
        # The append-only file is flushed on shutdown; a snapshot on top would only take time.
        "shutdown-on-sigterm nosave",
        "shutdown-timeout 10",
        # With the master they are a majority: one that is cut off with a minority must not go on confirming what the
        # master that the others elect has not.
        f"min-replicas-to-write {min_replicas_to_write(_counted(context))}",
        f"min-replicas-max-lag {replica_max_lag_seconds(spec)}",
        "repl-diskless-sync yes",
        "repl-diskless-sync-delay 0",
        f"repl-backlog-size {_backlog_bytes(spec, volume_bytes)}",
        # Sentinel's failover re-points replicas; this bounds a link that dies without a sign otherwise.
        "repl-ping-replica-period 3",
        "repl-timeout 20",
        "client-output-buffer-limit replica 256mb 64mb 60",
        # A queue must refuse new jobs rather than forget old ones.
        "maxmemory-policy noeviction",
    ]
    if _memory_limit(spec) is None:
        lines.append(f"maxmemory {int(volume_bytes * MAXMEMORY_VOLUME_SHARE)}")
    return "\n".join(lines) + "\n"


def max_memory_bytes(spec: RedisSpec) -> int:
    """Memory at which Redis refuses writes by the container's limit, 0 when it has none: then the volume's size tells.

    In the pod template and not in the configuration, which running pods follow: it must not change before the
    container's own limit does.
    """
    limit = _memory_limit(spec)
    return int(limit * MAXMEMORY_SHARE) if limit is not None else 0


def _backlog_bytes(spec: RedisSpec, volume_bytes: int) -> int:
    """Memory for the writes that replicas may still ask for."""
    limit = _memory_limit(spec)
    return min(BACKLOG_BYTES, int((volume_bytes if limit is None else limit) * BACKLOG_SHARE))


def _memory_limit(spec: RedisSpec) -> Decimal | None:
    limit = spec.resources.limits.memory if spec.resources.limits else None
    return quantity(limit) if limit is not None else None


def _volume_bytes(context: BuildContext) -> int:
    """Size of the pods' volumes: what the spec says, or less as long as one of them has not grown so far."""
    wanted = int(quantity(context.cluster.spec.redis.storage.size))
    smallest = context.redis_volume_bytes
    return wanted if smallest is None else min(wanted, smallest)


def _counted(context: BuildContext) -> int:
    told = context.redis_counted
    return context.cluster.spec.redis.replicas if told is None else told


def min_replicas_to_write(counted: int) -> int:
    """How many replicas must follow the master for it to take writes, where a majority is of so many pods."""
    return counted // 2


def replica_max_lag_seconds(spec: RedisSpec) -> int:
    """Silence after which a replica no longer counts for `min-replicas-to-write`, in seconds.

    Shorter than Sentinel's down-after by the second in which a replica confirms and the second in which the
    master looks, so that a master cut off from the others stops before they elect another: what it confirmed
    meanwhile would be lost. From 3 s of down-after on; below that Redis' clock is too coarse.
    """
    return max(1, min(10, spec.down_after_milliseconds // 1000 - 2))


def settings(context: BuildContext) -> dict[str, int | str | bool]:
    """What the start program of the pods reads."""
    cluster, counted = context.cluster.spec, _counted(context)
    spec = cluster.redis
    nameless = spec.nameless_clients
    return {
        "masterName": names.REDIS_MASTER_NAME,
        "replicas": spec.replicas,
        MAJORITY_OF: counted,
        "quorum": counted // 2 + 1,
        "downAfterMilliseconds": spec.down_after_milliseconds,
        "failoverTimeoutMilliseconds": FAILOVER_TIMEOUT_MILLISECONDS,
        "parallelSyncs": 1,
        "namelessClients": cluster.orchestrator.image is not None if nameless is None else nameless,
    }


def configuration_config_map(context: BuildContext) -> Manifest:
    """Configuration of Redis and settings of the start program."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": metadata(context, names.child(context.name, names.REDIS), names.REDIS),
        "data": _configuration_data(context),
    }


def state_config_map(context: BuildContext) -> Manifest:
    """Whether the cluster has had a master, and the pods' addresses; not in the pod template: no pod restarts.

    The volumes hold the addresses too, so it outlives the cluster with them.
    """
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": unowned(metadata(context, state_config_map_name(context.name), names.REDIS)),
        "data": {
            "bootstrapped": "true" if context.redis_bootstrapped else "false",
            **{
                f"{ADDRESS_PREFIX}{name}": address
                for name, address in sorted(context.redis_addresses.items())
            },
        },
    }


def pod_service(context: BuildContext, ordinal: int) -> Manifest:
    """The Service of one pod; its ClusterIP is the pod's identity for Sentinel, ready or not.

    A Service that somebody deleted is made again with the address that the running pods announce.
    """
    name = names.member(context.name, names.REDIS, ordinal)
    address = context.redis_addresses.get(name)
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata(context, name, names.REDIS),
        "spec": {
            "type": "ClusterIP",
            **({"clusterIP": address} if address else {}),
            "publishNotReadyAddresses": True,
            "selector": {
                **names.selector_labels(context.name, names.REDIS),
                "statefulset.kubernetes.io/pod-name": name,
            },
            "ports": [
                _service_port("redis", names.PORT_REDIS),
                _service_port("sentinel", names.PORT_SENTINEL),
                _service_port("state", names.PORT_REDIS_STATE),
            ],
        },
    }


def pods_service(context: BuildContext) -> Manifest:
    """The headless Service that the StatefulSet needs for its pods' names."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata(context, pods_service_name(context.name), names.REDIS),
        "spec": {
            "type": "ClusterIP",
            "clusterIP": "None",
            "publishNotReadyAddresses": True,
            "selector": names.selector_labels(context.name, names.REDIS),
            "ports": [
                _service_port("redis", names.PORT_REDIS),
                _service_port("sentinel", names.PORT_SENTINEL),
            ],
        },
    }


def sentinel_service(context: BuildContext) -> Manifest:
    """One address for clients that know a single Sentinel; the full list is better."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata(context, sentinel_service_name(context.name), names.REDIS),
        "spec": {
            "type": "ClusterIP",
            "selector": names.selector_labels(context.name, names.REDIS),
            "ports": [_service_port("sentinel", names.PORT_SENTINEL)],
        },
    }


def stateful_set(context: BuildContext) -> Manifest:
    """The pods, started together; the operator itself replaces them one by one (OnDelete)."""
    spec = context.cluster.spec.redis
    claim: Manifest = {
        "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": spec.storage.size}},
    }
    if spec.storage.storage_class_name is not None:
        claim["storageClassName"] = spec.storage.storage_class_name
    return {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": metadata(context, names.child(context.name, names.REDIS), names.REDIS),
        "spec": {
            "replicas": spec.replicas if context.redis_pods is None else context.redis_pods,
            "serviceName": pods_service_name(context.name),
            "podManagementPolicy": "Parallel",
            "updateStrategy": {"type": "OnDelete"},
            "persistentVolumeClaimRetentionPolicy": {"whenDeleted": "Retain", "whenScaled": "Retain"},
            "selector": {"matchLabels": names.selector_labels(context.name, names.REDIS)},
            "template": {
                "metadata": {
                    "labels": names.labels(context.name, names.REDIS),
                    # All else in the configuration comes into effect while the pods run. With another number of
                    # pods each looks for the others anew, and Sentinels forget those that have gone.
                    "annotations": {names.ANNOTATION_CONFIG: config_hash({"replicas": spec.replicas})},
                },
                "spec": _pod_spec(context),
            },
            "volumeClaimTemplates": [
                {
                    "apiVersion": "v1",
                    "kind": "PersistentVolumeClaim",
                    "metadata": {
                        "name": names.CLAIM_TEMPLATE,
                        "labels": names.selector_labels(context.name, names.REDIS),
                    },
                    "spec": claim,
                }
            ],
        },
    }


def _configuration_data(context: BuildContext) -> dict[str, str]:
    return {
        "redis.conf": redis_configuration(context),
        "settings.json": json.dumps(settings(context), indent=2, sort_keys=True) + "\n",
    }


def _service_port(name: str, port: int) -> Manifest:
    return {"name": name, "port": port, "protocol": "TCP", "targetPort": name}


def _pod_spec(context: BuildContext) -> Manifest:
    return {
        "serviceAccountName": names.child(context.name, names.REDIS),
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": TERMINATION_GRACE_SECONDS,
        "securityContext": pod_security_context(),
        **pull_secrets(context),
        **node_placement(context.cluster.spec.redis.pod_template),
        "topologySpreadConstraints": spread(context.name, names.REDIS),
        "containers": [_redis_container(context), _sentinel_container(context)],
        "volumes": [
            {"name": "configuration", "configMap": {"name": names.child(context.name, names.REDIS)}},
            {"name": "state", "configMap": {"name": state_config_map_name(context.name), "optional": True}},
            {
                "name": "credentials",
                "secret": {
                    "secretName": names.credentials(context.name, names.REDIS),
                    "defaultMode": 0o440,
                },
            },
            # In memory: the configuration that Redis starts with has the password in it.
            {"name": "runtime", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}},
        ],
    }


def _redis_container(context: BuildContext) -> Manifest:
    spec = context.cluster.spec.redis
    return {
        "name": "redis",
        "image": spec.image or context.images.redis,
        "args": ["redis"],
        "env": [*_identity_env(), {"name": "REDIS_MAXMEMORY", "value": str(max_memory_bytes(spec))}],
        "ports": [
            {"name": "redis", "containerPort": names.PORT_REDIS, "protocol": "TCP"},
            {"name": "state", "containerPort": names.PORT_REDIS_STATE, "protocol": "TCP"},
        ],
        # Alive also while it waits for its role or loads; a Redis that answers nothing for 30 s is restarted.
        "livenessProbe": {
            "httpGet": {"path": "/live", "port": "state"},
            "periodSeconds": 10,
            "timeoutSeconds": 5,
            "failureThreshold": 3,
        },
        # A failover cuts the replicas' links for some seconds; that alone makes no pod unready.
        "readinessProbe": {
            "httpGet": {"path": "/ready", "port": "state"},
            "periodSeconds": 5,
            "timeoutSeconds": 3,
            "failureThreshold": 3,
        },
        "resources": resource_requirements(spec.resources, cpu="50m", memory="96Mi"),
        "securityContext": container_security_context(),
        "volumeMounts": [*_common_mounts(), {"name": "runtime", "mountPath": RUNTIME_PATH}],
    }


def _sentinel_container(context: BuildContext) -> Manifest:
    port = {"port": "sentinel"}
    return {
        "name": "sentinel",
        "image": context.cluster.spec.redis.image or context.images.redis,
        "args": ["sentinel"],
        "env": _identity_env(),
        "ports": [{"name": "sentinel", "containerPort": names.PORT_SENTINEL, "protocol": "TCP"}],
        # One that lost its memory waits until the others or a running Redis tell the master.
        "startupProbe": {"tcpSocket": port, "periodSeconds": 2, "failureThreshold": 300},
        "livenessProbe": {"tcpSocket": port, "periodSeconds": 10, "failureThreshold": 6},
        "readinessProbe": {"tcpSocket": port, "periodSeconds": 5, "failureThreshold": 3},
        "resources": {"requests": {"cpu": "25m", "memory": "32Mi"}},
        "securityContext": container_security_context(),
        "volumeMounts": _common_mounts(),
    }


def _identity_env() -> list[Manifest]:
    return [field_env("POD_NAME", "metadata.name"), field_env("POD_NAMESPACE", "metadata.namespace")]


def _common_mounts() -> list[Manifest]:
    return [
        {"name": names.CLAIM_TEMPLATE, "mountPath": DATA_PATH},
        {"name": "configuration", "mountPath": CONFIGURATION_PATH, "readOnly": True},
        {"name": "state", "mountPath": STATE_PATH, "readOnly": True},
        {"name": "credentials", "mountPath": CREDENTIALS_PATH, "readOnly": True},
    ]
