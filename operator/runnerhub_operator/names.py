"""Names, labels and ports: the one place that decides how anything is called."""

from __future__ import annotations

import hashlib
from typing import Final

API_GROUP: Final = "runnerhub.io"
API_VERSION: Final = "v1alpha1"
KIND: Final = "RunnerHubCluster"
PLURAL: Final = "runnerhubclusters"

FIELD_MANAGER: Final = "runnerhub-operator"
OPERATOR_LEASE: Final = "runnerhub-operator"

# The longest child is the pod label controller-revision-hash, `<cluster>-orchestrator-<10 characters>`,
# bounded by 63; 40 leaves room for components to come.
MAX_CLUSTER_NAME_LENGTH: Final = 40

LABEL_CLUSTER: Final = f"{API_GROUP}/cluster"
LABEL_COMPONENT: Final = f"{API_GROUP}/component"
LABEL_ROLE: Final = f"{API_GROUP}/role"
LABEL_LEADER: Final = f"{API_GROUP}/leader"
# On runner pods: the pool, and, while they have a job, "true".
LABEL_POOL: Final = f"{API_GROUP}/pool"
LABEL_BUSY: Final = f"{API_GROUP}/busy"
LABEL_MANAGED_BY: Final = "app.kubernetes.io/managed-by"
ANNOTATION_APPLIED: Final = f"{API_GROUP}/applied-hash"
# On the orchestrators' Deployment: an autoscaler of ours sets its size.
ANNOTATION_AUTOSCALED: Final = f"{API_GROUP}/autoscaled"
ANNOTATION_LAYOUT: Final = f"{API_GROUP}/layout"
ANNOTATION_TEMPLATE: Final = f"{API_GROUP}/template-hash"
ANNOTATION_CREDENTIALS: Final = f"{API_GROUP}/credentials-hash"
ANNOTATION_CONFIG: Final = f"{API_GROUP}/config-hash"
# On pods: the version of the Secret whose copy they were told to renew.
ANNOTATION_MOUNTED: Final = f"{API_GROUP}/mounted-version"
# On a Secret, by a person: the keys for which a new password is to be made, or "all".
ANNOTATION_ROTATE: Final = f"{API_GROUP}/rotate"
# Source: https://github.com/kubernetes/autoscaler/blob/master/cluster-autoscaler/FAQ.md
ANNOTATION_SAFE_TO_EVICT: Final = "cluster-autoscaler.kubernetes.io/safe-to-evict"
# On a RunnerHubCluster, by people: the Postgres member that shall become the primary.
ANNOTATION_SWITCH_PRIMARY: Final = f"{API_GROUP}/switch-primary-to"

POSTGRES: Final = "postgres"
POOLER: Final = "pooler"
REDIS: Final = "redis"
ORCHESTRATOR: Final = "orchestrator"
LOAD_BALANCER: Final = "loadbalancer"
INGRESS: Final = "ingress"
MIGRATION: Final = "migration"
SHARED: Final = "shared"

# Not part of Kubernetes itself: it is there when somebody has installed the Gateway API's definitions.
GATEWAY_API: Final = "gateway.networking.k8s.io/v1"
HTTP_ROUTE: Final = "HTTPRoute"
GATEWAY: Final = "Gateway"
RUNNER: Final = "runner"

# The volume of each stateful pod, and the claim template that it is made from.
CLAIM_TEMPLATE: Final = "data"

REDIS_MASTER_NAME: Final = "github-runnerhub-redis"
# Users of Redis, as the image makes them (images/redis/runnerhub_redis/access.py).
REDIS_APPLICATION_USER: Final = "app"
REDIS_OPERATOR_USER: Final = "operator"
DATABASE_NAME: Final = "github_runnerhub"
# A role named like a schema would change the search path (public application), so not `runnerhub`.
APP_ROLE: Final = "app"

PORT_POSTGRES: Final = 5432
PORT_POSTGRES_READ_ONLY: Final = 5433
PORT_PATRONI: Final = 8008
PORT_POOLER_AGENT: Final = 8406
PORT_REDIS: Final = 6379
PORT_SENTINEL: Final = 26379
# Of the program in each Redis pod: probes, and what it tells of its volume and its Redis.
PORT_REDIS_STATE: Final = 6380
PORT_ORCHESTRATOR: Final = 3001
PORT_WEBSOCKET: Final = 3002
PORT_AGENT: Final = 9808
PORT_LB_HTTP: Final = 8080
PORT_LB_HTTPS: Final = 8443
PORT_LB_STATS: Final = 8404
PORT_LB_STATE: Final = 8405
# Of the dependencies in the answer of an ha-agent's GET /health, those that each request needs; and those without which
# requests are served.
HEALTH_NEEDED: Final = (ORCHESTRATOR, "database", "redis")
HEALTH_BESIDE: Final = ("storage", "canary")
# Whom a request is for, as namespace/name; the orchestrator has the same one.
HEADER_CLUSTER: Final = "X-RunnerHub-Cluster"
PORT_RUNNER: Final = 9810
# The agents put it before the answer of a Redis master that refuses a write, and the operator looks for it.
WRITE_REFUSED: Final = "is refused: "

# GitHub's bound for the name of a runner is 64, that of a host name 63.
MAX_RUNNER_NAME_LENGTH: Final = 63
# More than any size of a pool has.
MAX_SLOT_DIGITS: Final = 6


def child(cluster: str, component: str) -> str:
    """Name of a component's main object: `<cluster>-<component>`."""
    return f"{cluster}-{component}"


def member(cluster: str, component: str, ordinal: int) -> str:
    """Name of the pod, and of its own Service, of a StatefulSet's member: `<cluster>-<component>-<ordinal>`."""
    return f"{cluster}-{component}-{ordinal}"


def members(cluster: str, component: str, count: int) -> tuple[str, ...]:
    """Names of the first `count` members of a StatefulSet, by ordinal."""
    return tuple(member(cluster, component, ordinal) for ordinal in range(count))


def claim(cluster: str, component: str, ordinal: int) -> str:
    """Name of the PersistentVolumeClaim of a StatefulSet's member: `data-<pod>`."""
    return f"{CLAIM_TEMPLATE}-{member(cluster, component, ordinal)}"


def credentials(cluster: str, component: str) -> str:
    """Name of the Secret with a component's generated passwords."""
    return f"{cluster}-{component}-credentials"


def runner(cluster: str, pool: str, slot: int) -> str:
    """Name of a runner and of its pod: `<cluster>-runner-<pool>-<slot>`, shortened by a hash when too long."""
    name = f"{cluster}-{RUNNER}-{pool}-{slot}"
    if len(name) <= MAX_RUNNER_NAME_LENGTH:
        return name
    digest = hashlib.sha256(f"{cluster}/{pool}".encode()).hexdigest()[:8]
    end = f"-{digest}-{slot}"
    return f"{cluster}-{RUNNER}-{pool}"[: MAX_RUNNER_NAME_LENGTH - len(end)].rstrip("-") + end


def runner_slot(name: str) -> int:
    """The slot that the name of a runner's pod ends with; -1 when it has none."""
    last = name.rpartition("-")[2]
    return int(last) if last.isascii() and last.isdigit() and len(last) < MAX_SLOT_DIGITS else -1


def token_keys(cluster: str) -> str:
    """Secret with the keys by which orchestrators judge tokens."""
    return f"{cluster}-token-keys"


def runner_token(cluster: str) -> str:
    """Secret with the token by which runners log in to the orchestrators."""
    return f"{cluster}-runner-token"


def pooler_pods_service(cluster: str) -> str:
    """Headless Service with the address of each pooler pod, for those who steer the poolers."""
    return child(cluster, "pooler-pods")


def load_balancer_service(cluster: str) -> str:
    """Name of the Service that people and runners use: the cluster's own name."""
    return cluster


def shared_claim(cluster: str) -> str:
    """Name of the claim of the shared storage."""
    return child(cluster, SHARED)


def leader_service(cluster: str) -> str:
    """Service of the leading orchestrator."""
    return child(cluster, "leader")


def leader_lease(cluster: str) -> str:
    """Lease that the leading orchestrator's agent holds."""
    return f"{cluster}-leader"


def postgres_primary_lease(cluster: str) -> str:
    """Lease that tells the observed Postgres primary; its transitions follow Patroni's timeline."""
    return f"{cluster}-postgres-primary"


def redis_master_service(cluster: str) -> str:
    """Name of the Service that leads to the Redis master, for clients that cannot ask Sentinel."""
    return f"{cluster}-redis-master"


def redis_master_lease(cluster: str) -> str:
    """Lease that tells the observed Redis master; its transitions follow Sentinel's epoch."""
    return f"{cluster}-redis-master"


def disruption_lease(cluster: str) -> str:
    """Lease held while one deliberate disruption (rolling restart, switchover) is under way."""
    return f"{cluster}-disruption"


def selector_labels(cluster: str, component: str) -> dict[str, str]:
    """Labels that select the pods of a component; immutable for the life of the cluster."""
    return {LABEL_CLUSTER: cluster, LABEL_COMPONENT: component}


def labels(cluster: str, component: str) -> dict[str, str]:
    """All labels of a child object: the recommended set and our own.

    Source: https://kubernetes.io/docs/concepts/overview/working-with-objects/common-labels/
    """
    return {
        "app.kubernetes.io/name": component,
        "app.kubernetes.io/instance": cluster,
        "app.kubernetes.io/component": component,
        "app.kubernetes.io/part-of": "runnerhub",
        LABEL_MANAGED_BY: FIELD_MANAGER,
        **selector_labels(cluster, component),
    }
