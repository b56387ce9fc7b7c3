"""The spec of a RunnerHubCluster: the single source of the CRD's schema and of its reference.

A description says what the field does and in which unit; default, bounds and immutability are told beside it by the
generator. `rules` carry what the API server understands beyond JSON Schema: CEL.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from enum import StrEnum
from typing import Annotated, Any, ClassVar, Self

from pydantic import Field, StringConstraints, model_validator

from .. import names
from .base import (
    ANNOTATION_NAME_PATTERN,
    IMMUTABLE_CLASS,
    RULES,
    ApiModel,
    Boolean,
    ImageReference,
    Integer,
    Network,
    ObjectName,
    QueueStorage,
    ResourceRequirements,
    Rule,
    Storage,
    StorageSize,
    cel_string,
)
from .pod import (
    BUCKET_VARIABLES,
    POD_RULES,
    Environment,
    InitContainer,
    Mounts,
    Placement,
    PodTemplate,
    PullSecret,
    VariablesSource,
    Volume,
    distinct,
    exactly_one,
    map_of,
)
from .pod import Text as CommandPart
from .runners import GithubSpec, RunnerPoolSpec

# Postgres members, and Redis pods. Rules, Services and the poolers name all that there can be: scaling changes none.
MAX_MEMBERS = 9
# With fewer no majority is left when one fails.
MIN_REDIS_REPLICAS = 3

# Only the API server knows the old object, so the operator has no counterpart of these rules. Whether the class is set
# at all only the section around it can compare: a rule of a field is not asked when the field comes or goes.
_GROWING_STORAGE: dict[str, Any] = {
    RULES: [
        {
            "rule": "quantity(self.size).compareTo(quantity(oldSelf.size)) >= 0",
            "message": "storage.size may only grow, because Kubernetes cannot shrink a volume; create a new cluster "
            "to have smaller ones",
            "fieldPath": ".size",
        },
        {
            "rule": "has(self.storageClassName) == has(oldSelf.storageClassName)",
            "message": IMMUTABLE_CLASS,
            "fieldPath": ".storageClassName",
        },
    ]
}


# Of metadata.name, which is not part of the spec; `holds` gets the name.
NAME_RULES = (
    Rule(
        f"self.metadata.name.size() <= {names.MAX_CLUSTER_NAME_LENGTH}",
        f"metadata.name must have at most {names.MAX_CLUSTER_NAME_LENGTH} characters, because the names of its pods "
        "and Services are made from it",
        lambda name: len(name) <= names.MAX_CLUSTER_NAME_LENGTH,
    ),
    Rule(
        'self.metadata.name.matches("^[a-z]([-a-z0-9]*[a-z0-9])?$")',
        "metadata.name must start with a letter and have only a-z, 0-9 and -, because it is the name of a Service",
        lambda name: re.fullmatch("[a-z]([-a-z0-9]*[a-z0-9])?", name) is not None,
    ),
)


class Synchronous(StrEnum):
    """How Postgres confirms a commit."""

    PREFERRED = "preferred"
    REQUIRED = "required"
    DISABLED = "disabled"


class UpdatePolicy(StrEnum):
    """When pods move to the templates and default images of a newer operator."""

    ON_CHANGE = "OnChange"
    IMMEDIATE = "Immediate"


class ServiceType(StrEnum):
    """Types of Service that the load balancer can have."""

    CLUSTER_IP = "ClusterIP"
    NODE_PORT = "NodePort"
    LOAD_BALANCER = "LoadBalancer"


class MigrationsSpec(ApiModel):
    """How the database's schema comes to the version of the orchestrators' image."""

    command: tuple[CommandPart, ...] | None = Field(
        default=None,
        max_length=50,
        description="Program and arguments that bring the schema to the image's version, run in the image by a Job "
        "once for each image and command, before pods of that image start; it must do nothing when there is nothing "
        "to do. An empty list: none. Default: with the operator's own image what that brings, with another image none.",
    )
    timeout_seconds: Integer = Field(
        default=3600,
        ge=30,
        le=604800,
        description="Time in seconds after which a migration counts as failed, with its retries.",
    )


class AutoscalingSpec(ApiModel):
    """A HorizontalPodAutoscaler for the orchestrators."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "self.minReplicas <= self.maxReplicas",
            "autoscaling.minReplicas must not be above autoscaling.maxReplicas",
            lambda spec: spec.min_replicas <= spec.max_replicas,
            ".minReplicas",
        ),
    )

    min_replicas: Integer = Field(default=3, ge=1, le=50, description="Least number of orchestrators.")
    max_replicas: Integer = Field(ge=1, le=50, description="Largest number of orchestrators.")
    target_cpu_utilization_percentage: Integer = Field(
        default=70,
        ge=1,
        le=1000,
        alias="targetCPUUtilizationPercentage",
        description="Use of CPU that is aimed at, in percent of what the orchestrator container requests.",
    )


class ExternalTrafficPolicy(StrEnum):
    """Which nodes hand traffic from outside on."""

    CLUSTER = "Cluster"
    LOCAL = "Local"


class Balance(StrEnum):
    """How the load balancer chooses the orchestrator of a request."""

    ROUND_ROBIN = "roundrobin"
    LEAST_CONNECTIONS = "leastconn"


class PathType(StrEnum):
    """How an Ingress controller compares paths."""

    PREFIX = "Prefix"
    IMPLEMENTATION_SPECIFIC = "ImplementationSpecific"


class OrchestratorSpec(ApiModel):
    """The orchestrators: stateless instances of the RunnerHub service with an elected leader."""

    rules: ClassVar[tuple[Rule, ...]] = POD_RULES

    replicas: Integer = Field(
        default=3,
        ge=1,
        le=50,
        description="Number of orchestrators. Three survive the loss of two. Also set by `kubectl scale` and by a "
        "HorizontalPodAutoscaler of the RunnerHubCluster.",
    )
    image: ImageReference | None = Field(
        default=None,
        description="Container image; any that keeps the contract of the HTTP and WebSocket API works. A change "
        "renews the orchestrators. Default: the operator's own.",
    )
    command: tuple[CommandPart, ...] = Field(
        default=(),
        max_length=50,
        description="Program of the orchestrator container and its arguments. Default: what the image says.",
    )
    args: tuple[CommandPart, ...] = Field(
        default=(), max_length=50, description="Arguments of that program. Default: what the image says."
    )
    resources: ResourceRequirements = Field(
        default_factory=ResourceRequirements,
        description="CPU and memory of the orchestrator container. Default requests: 50m CPU, 128Mi memory.",
    )
    autoscaling: AutoscalingSpec | None = Field(
        default=None,
        description="A HorizontalPodAutoscaler that sets the number of orchestrators instead of replicas; it needs the "
        "metrics of pods in Kubernetes, as of metrics-server. Default: none.",
    )
    migrations: MigrationsSpec = Field(
        default_factory=MigrationsSpec,
        description="Migrations of the database; one that fails keeps the pods of the former image serving.",
    )
    env: Environment = Field(
        default=(),
        description="Further variables of the orchestrator's environment; those that the operator sets are refused.",
    )
    env_from: tuple[VariablesSource, ...] = Field(
        default=(),
        max_length=20,
        description="Secrets and ConfigMaps whose keys become variables; what the operator and env set comes first.",
    )
    volumes: tuple[Volume, ...] = Field(
        default=(),
        max_length=20,
        description="Further volumes of the pods.",
        json_schema_extra=map_of("name"),
    )
    volume_mounts: Mounts = Field(default=(), description="Where the orchestrator sees these volumes.")
    init_containers: tuple[InitContainer, ...] = Field(
        default=(),
        max_length=10,
        description="Containers that must end well, one after the other, before the orchestrator starts.",
        json_schema_extra=map_of("name"),
    )
    pod_template: PodTemplate = Field(
        default_factory=PodTemplate,
        description="What the pods have beside what the operator decides: labels, placement, identity.",
    )


DEFAULT_POOL_SIZE = 20
MAX_POOL_SIZE = 500


class PoolerSpec(ApiModel):
    """The connection pooler: PgBouncer in transaction mode, with an HAProxy that follows the primary."""

    replicas: Integer = Field(
        default=2,
        ge=1,
        le=20,
        description="Number of pooler pods. Each adds to the connections that Postgres must have room for.",
    )
    image: ImageReference | None = Field(
        default=None,
        description="Container image. A change renews the poolers. Default: the operator's own.",
    )
    max_client_connections: Integer = Field(
        default=1000,
        ge=10,
        le=20000,
        description="Client connections that each pooler pod accepts per route (read-write, read-only); more are "
        "refused.",
    )
    pool_size: Integer | None = Field(
        default=None,
        ge=1,
        le=MAX_POOL_SIZE,
        description="Server connections that each pooler pod opens per route; clients beyond it wait. Raising it "
        "can raise max_connections of Postgres, which restarts the members one at a time. Default: 20, or what "
        "parameters.max_connections has room for. In effect: status.postgres.poolSize.",
    )
    resources: ResourceRequirements = Field(
        default_factory=ResourceRequirements,
        description="CPU and memory of the read-write PgBouncer container. Default requests: 50m CPU, 32Mi memory.",
    )
    pod_template: Placement = Field(
        default_factory=Placement, description="On which nodes the poolers may run."
    )


ParameterName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_.]{0,62}$", max_length=63)]
# A line break would end the line of postgresql.conf, and Postgres would not start any more.
ParameterValue = Annotated[str, StringConstraints(pattern=r"^[^\x00-\x1f\x7f]*$", max_length=256)]

# Parameters that Patroni or the operator sets; overriding them breaks replication, fencing, failover or durability.
OPERATOR_OWNED_PARAMETERS = (
    "archive_mode",
    "cluster_name",
    "config_file",
    "data_directory",
    "external_pid_file",
    "fsync",
    "full_page_writes",
    "hba_file",
    "hot_standby",
    "ident_file",
    "listen_addresses",
    "max_replication_slots",
    "max_wal_senders",
    "password_encryption",
    "port",
    "primary_conninfo",
    "primary_slot_name",
    "recovery_target_timeline",
    "reserved_connections",
    "restore_command",
    "superuser_reserved_connections",
    "synchronous_commit",
    "synchronous_standby_names",
    "track_commit_timestamp",
    "unix_socket_directories",
    "wal_level",
    "wal_log_hints",
)

# What the poolers open (one pod more during their renewal, two routes, a margin of 5 each) and what is kept for
# Patroni and monitoring.
_POOLED_CEL = (
    "2 * (self.pooler.replicas + 1) * "
    f"((has(self.pooler.poolSize) ? self.pooler.poolSize : {DEFAULT_POOL_SIZE}) + 5) + 20"
)


def _pooled_connections(spec: PostgresSpec) -> int:
    size = spec.pooler.pool_size or DEFAULT_POOL_SIZE
    return 2 * (spec.pooler.replicas + 1) * (size + 5) + 20


def _has_room_for_poolers(spec: PostgresSpec) -> bool:
    told = spec.parameters.get("max_connections")
    if told is None:
        return True
    return re.fullmatch(r"[1-9][0-9]{0,5}", told) is not None and int(told) >= _pooled_connections(spec)


class PostgresSpec(ApiModel):
    """The database: Postgres 17 under Patroni, one primary and streaming replicas."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            f"!has(self.parameters) || self.parameters.all(name, !(name in {json.dumps(OPERATOR_OWNED_PARAMETERS)}))",
            "postgres.parameters must not set a parameter that the operator owns: "
            + ", ".join(OPERATOR_OWNED_PARAMETERS),
            lambda spec: not set(spec.parameters) & set(OPERATOR_OWNED_PARAMETERS),
            ".parameters",
        ),
        Rule(
            'self.synchronous != "required" || self.instances > 2',
            "postgres.synchronous: required needs at least three instances: with two, writes would stop whenever one "
            "restarts, as in each update",
            # Clusters from before this rule go on: only the API server refuses, what is new or changed.
            lambda _spec: True,
            ".synchronous",
        ),
        Rule(
            '!has(self.parameters) || !("max_connections" in self.parameters) || '
            'self.parameters["max_connections"].matches("^[1-9][0-9]{0,5}$") && '
            f'int(self.parameters["max_connections"]) >= {_POOLED_CEL}',
            "postgres.parameters.max_connections must be a number of at least "
            "2 * (pooler.replicas + 1) * (pooler.poolSize + 5) + 20, where a poolSize that is left out counts as "
            f"{DEFAULT_POOL_SIZE}; leave max_connections out to have it computed",
            _has_room_for_poolers,
            ".parameters",
        ),
    )

    instances: Integer = Field(
        default=3,
        ge=1,
        le=MAX_MEMBERS,
        description="Number of Postgres members, each with a volume; one is the primary. Three are advised: with two "
        "a fault leaves no replica, with one it stops the database.",
    )
    image: ImageReference | None = Field(
        default=None,
        description="Container image with Postgres 17 and Patroni. A change renews the members one at a time, the "
        "primary last after a switchover. Default: the operator's own.",
    )
    storage: Storage = Field(
        default_factory=Storage, description="Volume of each member.", json_schema_extra=_GROWING_STORAGE
    )
    synchronous: Synchronous = Field(
        default=Synchronous.PREFERRED,
        description=(
            "preferred: a commit waits for one replica while any is there. required, with three instances or more: a "
            "commit waits also when none is there, so writes stop rather than be unsafe. disabled: asynchronous, a "
            "failover can lose acknowledged writes."
        ),
    )
    parameters: dict[ParameterName, ParameterValue] = Field(
        default_factory=dict,
        max_length=100,
        description="Postgres parameters by name, as in postgresql.conf; those that Patroni or the operator owns are "
        "refused. They are reloaded; one that needs a restart restarts the members one at a time. Names that "
        "Postgres does not know are left out by Patroni.",
    )
    resources: ResourceRequirements = Field(
        default_factory=ResourceRequirements,
        description="CPU and memory of the Postgres container. shared_buffers is a quarter of the memory limit "
        "unless it is set. Default requests: 100m CPU, 256Mi memory.",
    )
    pod_template: Placement = Field(
        default_factory=Placement,
        description="On which nodes the members may run. A volume that is bound to a node or "
        "zone stays there, and its pod waits unless the node fits.",
    )
    pooler: PoolerSpec = Field(default_factory=PoolerSpec, description="The connection pooler.")

    @property
    def pool_size(self) -> int:
        """Server connections that each pooler pod opens per route: as told, or as many as there is room for."""
        told, room = self.pooler.pool_size, self.parameters.get("max_connections")
        if told is not None or room is None:
            return told or DEFAULT_POOL_SIZE
        # The largest for which `_pooled_connections` is not more.
        return min((int(room) - 20) // (2 * (self.pooler.replicas + 1)) - 5, MAX_POOL_SIZE)


class AppendFsync(StrEnum):
    """Redis' values of `appendfsync`."""

    EVERY_SECOND = "everysec"
    ALWAYS = "always"


class RedisSpec(ApiModel):
    """The queue: Redis with Sentinel, one master and replicas."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "self.replicas % 2 == 1",
            "redis.replicas must be odd (3, 5, 7 or 9): Sentinel decides by majority",
            lambda spec: spec.replicas % 2 == 1,
            ".replicas",
        ),
    )

    replicas: Integer = Field(
        default=3,
        ge=MIN_REDIS_REPLICAS,
        le=MAX_MEMBERS,
        description="Number of Redis pods, each with its Sentinel; odd, for a majority.",
    )
    image: ImageReference | None = Field(
        default=None,
        description="Container image. A change renews the pods one at a time, the master last. Default: the "
        "operator's own.",
    )
    storage: QueueStorage = Field(
        default_factory=QueueStorage,
        description="Volume of each pod.",
        json_schema_extra=_GROWING_STORAGE,
    )
    down_after_milliseconds: Integer = Field(
        default=5000,
        ge=1000,
        le=60000,
        description="Silence in milliseconds after which Sentinel takes a master for dead. Below 3000 a master that "
        "is cut off may confirm writes that the failover loses.",
    )
    append_fsync: AppendFsync = Field(
        default=AppendFsync.EVERY_SECOND,
        description="When Redis has its append-only file written to the disk. everysec: once a second, so a power "
        "cut of all nodes at once can take the last second. always: before each answer, at the cost of speed.",
    )
    nameless_clients: Boolean | None = Field(
        default=None,
        description="Whether clients that give a password and no user name get in, as the application's user app. "
        "Default: only when orchestrator.image is set, because such images may know no user name.",
    )
    resources: ResourceRequirements = Field(
        default_factory=ResourceRequirements,
        description="CPU and memory of the Redis container. Redis refuses new jobs before it reaches the memory "
        "limit; without one, when its memory is half as large as its volume. Default requests: 50m CPU, 96Mi memory.",
    )
    pod_template: Placement = Field(
        default_factory=Placement,
        description="On which nodes the pods may run. A volume that is bound to a node or "
        "zone stays there, and its pod waits unless the node fits.",
    )


AnnotationName = Annotated[str, StringConstraints(max_length=317)]
AnnotationValue = Annotated[str, StringConstraints(max_length=1024)]

INGRESS_CLASS_ANNOTATION = "kubernetes.io/ingress.class"


def _all_match(given: Iterable[str]) -> bool:
    return all(len(name) <= 317 and re.fullmatch(ANNOTATION_NAME_PATTERN, name) for name in given)


ANNOTATION_RULES = (
    Rule(
        "!has(self.annotations) || self.annotations.all(name, "
        f"name.size() <= 317 && name.matches({cel_string(ANNOTATION_NAME_PATTERN)}))",
        "annotations must have names like example.com/name: a DNS name in lower case and a slash, both may be left "
        "out, then at most 63 letters, digits, -, _ or .",
        lambda spec: _all_match(spec.annotations),
        ".annotations",
    ),
    Rule(
        '!has(self.annotations) || self.annotations.all(name, !name.startsWith("runnerhub.io/"))',
        "annotations must not start with runnerhub.io/: those belong to the operator",
        lambda spec: not any(name.startswith("runnerhub.io/") for name in spec.annotations),
        ".annotations",
    ),
)


# As the API server does of a Service that stays one of this type.
_SAME_CLASS: dict[str, Any] = {
    RULES: [
        {
            "rule": 'self.type != "LoadBalancer" || oldSelf.type != "LoadBalancer" || '
            "(has(self.loadBalancerClass) == has(oldSelf.loadBalancerClass) && "
            "(!has(self.loadBalancerClass) || self.loadBalancerClass == oldSelf.loadBalancerClass))",
            "message": "service.loadBalancerClass cannot be changed while the type is LoadBalancer; set the type to "
            "ClusterIP first",
            "fieldPath": ".loadBalancerClass",
        }
    ]
}


class LoadBalancerServiceSpec(ApiModel):
    """The Service in front of HAProxy."""

    rules: ClassVar[tuple[Rule, ...]] = (
        *ANNOTATION_RULES,
        Rule(
            '!has(self.externalTrafficPolicy) || self.type != "ClusterIP"',
            "service.externalTrafficPolicy needs service.type NodePort or LoadBalancer",
            lambda spec: spec.external_traffic_policy is None or spec.type is not ServiceType.CLUSTER_IP,
            ".externalTrafficPolicy",
        ),
        Rule(
            '!has(self.loadBalancerClass) || self.type == "LoadBalancer"',
            "service.loadBalancerClass needs service.type LoadBalancer",
            lambda spec: spec.load_balancer_class is None or spec.type is ServiceType.LOAD_BALANCER,
            ".loadBalancerClass",
        ),
        Rule(
            "!has(self.loadBalancerSourceRanges) || self.loadBalancerSourceRanges.size() == 0 || "
            'self.type == "LoadBalancer"',
            "service.loadBalancerSourceRanges needs service.type LoadBalancer",
            lambda spec: not spec.load_balancer_source_ranges or spec.type is ServiceType.LOAD_BALANCER,
            ".loadBalancerSourceRanges",
        ),
    )

    type: ServiceType = Field(
        default=ServiceType.CLUSTER_IP,
        description="Type of the Service: ClusterIP inside Kubernetes only, NodePort on each node, LoadBalancer by "
        "the cloud's load balancer.",
    )
    annotations: dict[AnnotationName, AnnotationValue] = Field(
        default_factory=dict,
        max_length=50,
        description="Annotations of the Service, for a cloud's load balancer.",
    )
    external_traffic_policy: ExternalTrafficPolicy | None = Field(
        default=None,
        description="Local: only nodes with an HAProxy pod take traffic from outside, so that HAProxy sees the "
        "addresses of clients. Cluster: every node does. For type NodePort or LoadBalancer. Default: that of "
        "Kubernetes, Cluster.",
    )
    load_balancer_class: AnnotationName | None = Field(
        default=None,
        pattern=ANNOTATION_NAME_PATTERN,
        description="Which implementation provides the load balancer, such as example.com/internal, for type "
        "LoadBalancer. Default: the cloud's own.",
    )
    load_balancer_source_ranges: tuple[Network, ...] = Field(
        default=(),
        max_length=50,
        description="Networks of clients that may connect, such as 192.0.2.0/24, for type LoadBalancer and where the "
        "cloud supports it. Without any, all may.",
    )


class LoadBalancerTlsSpec(ApiModel):
    """TLS that ends at HAProxy."""

    secret_name: ObjectName = Field(
        description="Secret of type kubernetes.io/tls, in the cluster's namespace. HAProxy takes a renewed certificate "
        "up within two minutes and drops no connection."
    )


class LoadBalancerTimeoutsSpec(ApiModel):
    """HAProxy's timeouts. A change is reloaded and drops no connection."""

    connect_seconds: Integer = Field(
        default=1, ge=1, le=60, description="Time in seconds for a connection to an orchestrator to open."
    )
    client_seconds: Integer = Field(
        default=60,
        ge=1,
        le=3600,
        description="Time in seconds that a client may be silent in a request or while it takes an answer.",
    )
    server_seconds: Integer = Field(
        default=60,
        ge=1,
        le=3600,
        description="Time in seconds that an orchestrator may be silent before it answers. A request that may be sent "
        "twice is then sent to another one, four times at most.",
    )
    queue_seconds: Integer = Field(
        default=10,
        ge=1,
        le=600,
        description="Time in seconds that a request waits where all orchestrators have as many as "
        "maxConnectionsPerOrchestrator allows; then it is answered with 503. Without that limit nothing waits.",
    )
    tunnel_seconds: Integer = Field(
        default=3600,
        ge=10,
        le=604800,
        description="Time in seconds that a WebSocket may be silent in both directions.",
    )


class LoadBalancerSpec(ApiModel):
    """HAProxy in front of the orchestrators."""

    replicas: Integer = Field(default=2, ge=1, le=20, description="Number of HAProxy pods.")
    image: ImageReference | None = Field(
        default=None,
        description="Container image. A change renews the pods. Default: the operator's own.",
    )
    service: LoadBalancerServiceSpec = Field(
        default_factory=LoadBalancerServiceSpec,
        description="The Service in front of HAProxy.",
        json_schema_extra=_SAME_CLASS,
    )
    tls: LoadBalancerTlsSpec | None = Field(
        default=None,
        description="TLS that ends at HAProxy: port 443 is served, and port 80 redirects to it but for /health; 3001 "
        "and 3002 stay plain, for use inside Kubernetes. Setting or removing it renews the pods. Default: none.",
    )
    balance: Balance = Field(
        default=Balance.ROUND_ROBIN,
        description="How the orchestrator of a request is chosen: each in turn, or the one with the fewest "
        "connections. WebSockets always stick to the client's address. A change is reloaded.",
    )
    max_connections: Integer = Field(
        default=4096,
        ge=100,
        le=50000,
        description="Client connections that each HAProxy pod serves at once; more wait in the kernel's queue. Busy "
        "ones take up to 70 KiB of memory each. A change is reloaded.",
    )
    max_connections_per_orchestrator: Integer | None = Field(
        default=None,
        ge=1,
        le=50000,
        description="Requests that each HAProxy pod has under way at one orchestrator; more wait for "
        "timeouts.queueSeconds at most. A runner that waits for a job counts, a WebSocket does not. Default: no limit. "
        "A change is reloaded.",
    )
    slow_start_seconds: Integer = Field(
        default=10,
        ge=0,
        le=600,
        description="Time in seconds over which an orchestrator that has come up gets its full share of requests. "
        "0: at once, and so with maxConnectionsPerOrchestrator, which HAProxy would let grow with the share. A change "
        "is reloaded.",
    )
    timeouts: LoadBalancerTimeoutsSpec = Field(
        default_factory=LoadBalancerTimeoutsSpec,
        description="HAProxy's timeouts. A change is reloaded and drops no connection.",
    )
    trusted_proxies: tuple[Network, ...] | None = Field(
        default=None,
        max_length=50,
        description="Networks of proxies whose X-Forwarded-* headers are believed, such as that of the ingress "
        "controller's pods; an empty list: of nobody. The first address in X-Forwarded-For is then the client. "
        "Default: of everybody while service.type is ClusterIP, where only pods can connect, otherwise of nobody. A "
        "change is reloaded.",
    )
    resources: ResourceRequirements = Field(
        default_factory=ResourceRequirements,
        description="CPU and memory of the HAProxy container. Default requests: 50m CPU, 64Mi memory.",
    )
    pod_template: Placement = Field(default_factory=Placement, description="On which nodes the pods may run.")


# The last label starts with a letter, or an IP address would pass for a name.
HOST_PATTERN = r"^(\*\.)?([a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?\.)+[a-z]([-a-z0-9]{0,61}[a-z0-9])?$"
Host = Annotated[str, StringConstraints(max_length=253)]
_A_HOST = (
    "a DNS name of at least two labels, such as runnerhub.example.com or *.example.com, in lower case and without a "
    "port or path"
)
# Source: https://gateway-api.sigs.k8s.io/reference/spec/, SectionName; Namespace
LABEL_PATTERN = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"


class ParentRefSpec(ApiModel):
    """A Gateway that an HTTPRoute is attached to."""

    name: ObjectName = Field(description="Name of the Gateway.")
    namespace: str | None = Field(
        default=None,
        pattern=LABEL_PATTERN,
        min_length=1,
        max_length=63,
        description="Namespace of the Gateway, whose listener must allow routes from the cluster's. Default: the "
        "cluster's own.",
    )
    section_name: ObjectName | None = Field(
        default=None, description="Listener of the Gateway. Default: all that fit the hosts."
    )


class GatewaySpec(ApiModel):
    """An HTTPRoute of the Gateway API."""

    parent_refs: tuple[ParentRefSpec, ...] = Field(
        min_length=1, max_length=8, description="The Gateways; TLS ends there, or not at all."
    )


class IngressSpec(ApiModel):
    """The way in to the load balancer from outside."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "has(self.host) || has(self.hosts) && self.hosts.size() > 0",
            "ingress needs host or hosts",
            lambda spec: bool(spec.every_host),
        ),
        Rule(
            f"!has(self.host) || self.host.matches({cel_string(HOST_PATTERN)})",
            f"ingress.host must be {_A_HOST}",
            lambda spec: spec.host is None or re.fullmatch(HOST_PATTERN, spec.host) is not None,
            ".host",
        ),
        Rule(
            f"!has(self.hosts) || self.hosts.all(host, host.matches({cel_string(HOST_PATTERN)}))",
            f"each of ingress.hosts must be {_A_HOST}",
            lambda spec: all(re.fullmatch(HOST_PATTERN, host) for host in spec.hosts or ()),
            ".hosts",
        ),
        *ANNOTATION_RULES,
        Rule(
            f'!has(self.annotations) || !("{INGRESS_CLASS_ANNOTATION}" in self.annotations)',
            f"ingress.annotations must not have {INGRESS_CLASS_ANNOTATION}: set ingress.className",
            lambda spec: INGRESS_CLASS_ANNOTATION not in spec.annotations,
            ".annotations",
        ),
        Rule(
            "!has(self.gateway) || !has(self.className) && !has(self.tlsSecretName) && !has(self.pathType)",
            "ingress.gateway makes an HTTPRoute instead of an Ingress, so className, tlsSecretName and pathType must "
            "be left out; TLS is set at the Gateway",
            lambda spec: (
                spec.gateway is None
                or (spec.class_name is None and spec.tls_secret_name is None and spec.path_type is None)
            ),
            ".gateway",
        ),
    )

    host: Host | None = Field(
        default=None,
        description="Host name that people and runners use, such as runnerhub.example.com or *.example.com; a DNS "
        "name of at least two labels in lower case, without port or path. host or hosts is required.",
    )
    hosts: tuple[Host, ...] | None = Field(
        default=None, max_length=15, description="Several host names, beside or instead of host."
    )
    path_type: PathType | None = Field(
        default=None,
        description="How the Ingress controller compares the path /, which is all paths with both; some controllers "
        "want ImplementationSpecific. Default: Prefix.",
    )
    class_name: ObjectName | None = Field(
        default=None,
        description="IngressClass that serves it. Default: the default class of the Kubernetes cluster.",
    )
    tls_secret_name: ObjectName | None = Field(
        default=None,
        description="Secret of type kubernetes.io/tls with the certificate of all hosts, in the cluster's namespace, "
        "for TLS that ends at the Ingress controller. Default: no TLS there.",
    )
    annotations: dict[AnnotationName, AnnotationValue] = Field(
        default_factory=dict,
        max_length=50,
        description="Annotations of the Ingress or HTTPRoute, for its controller.",
    )
    gateway: GatewaySpec | None = Field(
        default=None,
        description="An HTTPRoute of the Gateway API instead of an Ingress. Default: an Ingress.",
    )

    @property
    def every_host(self) -> tuple[str, ...]:
        """All host names, each once."""
        return tuple(dict.fromkeys([*([self.host] if self.host is not None else []), *(self.hosts or ())]))


class LeaderElectionSpec(ApiModel):
    """Timing of the orchestrators' leader election over the Lease `<cluster>-leader`."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "self.leaseDurationSeconds > self.renewDeadlineSeconds "
            "&& self.renewDeadlineSeconds > self.retryPeriodSeconds",
            "leaderElection must keep leaseDurationSeconds > renewDeadlineSeconds > retryPeriodSeconds, so that a "
            "leader steps down before another is elected",
            lambda spec: (
                spec.lease_duration_seconds > spec.renew_deadline_seconds > spec.retry_period_seconds
            ),
        ),
    )

    lease_duration_seconds: Integer = Field(
        default=15,
        ge=5,
        le=300,
        description="Time in seconds without renewal after which another orchestrator may take over: the longest "
        "gap after a crash of the leader.",
    )
    renew_deadline_seconds: Integer = Field(
        default=10,
        ge=2,
        le=299,
        description="Time in seconds without renewal after which a leader steps down by itself.",
    )
    retry_period_seconds: Integer = Field(
        default=2, ge=1, le=60, description="Time in seconds between two renewals, or two tries to take over."
    )


class CheckTimingSpec(ApiModel):
    """Timing of one check; what is left out is as for all."""

    interval_seconds: Integer | None = Field(
        default=None,
        ge=1,
        le=300,
        description="Time in seconds from the end of this check to the next. Default: as for all checks.",
    )
    timeout_seconds: Integer | None = Field(
        default=None,
        ge=1,
        le=60,
        description="Deadline of this check in seconds. Default: as for all checks.",
    )
    retries: Integer | None = Field(
        default=None,
        ge=1,
        le=10,
        description="Failures of this check in a row that count. Default: as for all checks.",
    )


class HealthChecksSpec(ApiModel):
    """Timing of the ha-agent's checks behind /health, /health/database, /health/redis."""

    interval_seconds: Integer = Field(
        default=10, ge=1, le=300, description="Time in seconds from the end of a check to the next."
    )
    timeout_seconds: Integer = Field(
        default=5,
        ge=1,
        le=60,
        description="Deadline of one check in seconds; it may be longer than the interval.",
    )
    retries: Integer = Field(
        default=3,
        ge=1,
        le=10,
        description="Failed checks in a row after which a dependency, or the orchestrator itself, counts as down.",
    )
    database: CheckTimingSpec = Field(
        default_factory=CheckTimingSpec,
        description="The check that writes a row through the pooler.",
    )
    redis: CheckTimingSpec = Field(
        default_factory=CheckTimingSpec,
        description="The check that asks the Sentinels and writes to the master; also when the queues are looked at.",
    )
    storage: CheckTimingSpec = Field(
        default_factory=CheckTimingSpec,
        description="The check that writes a file or an object to the shared storage and reads it.",
    )
    canary: CheckTimingSpec = Field(
        default_factory=CheckTimingSpec,
        description="The check that sends a job of its own through database and queue and back.",
    )


NfsServer = Annotated[
    str,
    StringConstraints(pattern=r"^[A-Za-z0-9]([-A-Za-z0-9.:]*[A-Za-z0-9])?$", min_length=1, max_length=253),
]
NfsPath = Annotated[
    str, StringConstraints(pattern=r"^(/|(/\.?[A-Za-z0-9_@+-][A-Za-z0-9._@+-]*)+)$", max_length=255)
]


class NfsSpec(ApiModel):
    """A share of an NFS server."""

    server: NfsServer = Field(description="Host name or address of the server, as nodes reach it.")
    path: NfsPath = Field(
        description="The exported folder; user and group 1001, or those of podTemplate, must be able to write there."
    )


class SharedClaimSpec(ApiModel):
    """A PersistentVolumeClaim whose volume several nodes may mount (ReadWriteMany)."""

    rules: ClassVar[tuple[Rule, ...]] = (
        exactly_one("sharedStorage.claim", "name", "size"),
        Rule(
            "!has(self.storageClassName) || has(self.size)",
            "sharedStorage.claim.storageClassName goes with size: an existing claim has its class",
            lambda given: given.storage_class_name is None or given.size is not None,
        ),
    )

    name: ObjectName | None = Field(
        default=None,
        description="An existing claim in the cluster's namespace. Default: one is made of size.",
    )
    size: StorageSize | None = Field(
        default=None,
        description="Size in Mi, Gi or Ti of a claim that the operator makes; it may grow, and never shrink. The claim "
        "survives the deletion of the cluster.",
    )
    storage_class_name: ObjectName | None = Field(
        default=None,
        description="StorageClass of the claim that is made; its volumes must allow ReadWriteMany. Default: the "
        "default class of the Kubernetes cluster.",
    )


_GROWING_CLAIM: dict[str, Any] = {
    RULES: [
        {
            "rule": "!has(self.size) || !has(oldSelf.size) || "
            "quantity(self.size).compareTo(quantity(oldSelf.size)) >= 0",
            "message": "sharedStorage.claim.size may only grow, because Kubernetes cannot shrink a volume",
            "fieldPath": ".size",
        },
        {
            "rule": "!has(self.size) || !has(oldSelf.size) || "
            "(has(self.storageClassName) == has(oldSelf.storageClassName) && "
            "(!has(self.storageClassName) || self.storageClassName == oldSelf.storageClassName))",
            "message": "sharedStorage.claim.storageClassName is immutable while there is a size",
            "fieldPath": ".storageClassName",
        },
    ]
}


# Source: https://docs.aws.amazon.com/AmazonS3/latest/userguide/bucketnamingrules.html; other stores take the same.
BucketName = Annotated[
    str, StringConstraints(pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])$", min_length=3, max_length=63)
]
# Characters that need no escape in a URL, in parts that are neither . nor ..
BucketPrefix = Annotated[
    str,
    StringConstraints(
        pattern=r"^\.?[A-Za-z0-9_-][A-Za-z0-9._-]*(/\.?[A-Za-z0-9_-][A-Za-z0-9._-]*)*$",
        min_length=1,
        max_length=255,
    ),
]
Region = Annotated[
    str, StringConstraints(pattern=r"^[A-Za-z0-9]([-A-Za-z0-9_]*[A-Za-z0-9])?$", min_length=1, max_length=63)
]
Endpoint = Annotated[
    str,
    StringConstraints(
        pattern=r"^https?://([A-Za-z0-9]([-A-Za-z0-9.]*[A-Za-z0-9])?|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?$",
        min_length=1,
        max_length=255,
    ),
]
# What a store takes that has no regions, and what programs ask for all the same.
DEFAULT_REGION = "us-east-1"


class S3Spec(ApiModel):
    """A bucket of Amazon S3 or of a store that speaks its protocol."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            '!has(self.caConfigMapName) || has(self.endpoint) && self.endpoint.startsWith("https://")',
            "sharedStorage.s3.caConfigMapName goes with an endpoint of https: Amazon's certificates are known",
            lambda given: given.ca_config_map_name is None or (given.endpoint or "").startswith("https://"),
            ".caConfigMapName",
        ),
    )

    bucket: BucketName = Field(description="Name of the bucket, which must be there.")
    prefix: BucketPrefix | None = Field(
        default=None,
        description="First part of the names of all objects, without / at the beginning and the end. Default: none.",
    )
    region: Region | None = Field(
        default=None,
        description=f"Region of the bucket. Default: with endpoint {DEFAULT_REGION}; otherwise the pods' environment "
        f"decides, as a cloud's webhook sets it, and without that {DEFAULT_REGION}.",
    )
    endpoint: Endpoint | None = Field(
        default=None,
        description="URL of another store than Amazon's, without a path, such as https://minio.example.com:9000.",
    )
    path_style: Boolean | None = Field(
        default=None,
        description="Whether the bucket stands in the path of a URL, and not before its host. Default: with endpoint "
        "true, otherwise false.",
    )
    credentials_secret_name: ObjectName | None = Field(
        default=None,
        description="Secret in the cluster's namespace with the keys AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, and "
        "AWS_SESSION_TOKEN if there is one. Default: the identity that the cloud gives to the ServiceAccount in "
        "orchestrator.podTemplate.serviceAccountName, or to the node.",
    )
    ca_config_map_name: ObjectName | None = Field(
        default=None,
        description="ConfigMap in the cluster's namespace whose key ca.crt has the certificates, in PEM, of those who "
        "sign for the endpoint. Default: those that the images know.",
    )

    @property
    def effective_region(self) -> str | None:
        """The region, if it is not left to the environment of the pods."""
        return self.region or (DEFAULT_REGION if self.endpoint else None)

    @property
    def uses_path_style(self) -> bool:
        """Whether the bucket stands in the path."""
        return self.endpoint is not None if self.path_style is None else self.path_style


class SharedStorageSpec(ApiModel):
    """Storage that all orchestrators share, for logs and artifacts: mounted at /mnt/shared/runnerhub, or a bucket."""

    rules: ClassVar[tuple[Rule, ...]] = (exactly_one("sharedStorage", "claim", "nfs", "s3"),)

    claim: SharedClaimSpec | None = Field(
        default=None,
        description="A PersistentVolumeClaim, existing or made by the operator.",
        json_schema_extra=_GROWING_CLAIM,
    )
    nfs: NfsSpec | None = Field(
        default=None,
        description="A share of an NFS server. The operator makes a PersistentVolume for it, which it may only when "
        "its chart is installed with nfsVolumes: true.",
    )
    s3: S3Spec | None = Field(
        default=None,
        description="A bucket of Amazon S3 or of a store that speaks its protocol. Nothing is mounted: the "
        "orchestrators get the variables S3_BUCKET, S3_PREFIX, S3_FORCE_PATH_STYLE and, as all programs for S3 know "
        "them, AWS_REGION, AWS_ENDPOINT_URL_S3, AWS_CA_BUNDLE and the credentials.",
    )


def _bucket_variables_free(spec: RunnerHubClusterSpec) -> bool:
    storage = spec.shared_storage
    if storage is None or storage.s3 is None:
        return True
    return not {variable.name for variable in spec.orchestrator.env} & set(BUCKET_VARIABLES)


class RunnerHubClusterSpec(ApiModel):
    """A highly available RunnerHub installation. Every section has safe defaults."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "!has(self.sharedStorage) || !has(self.sharedStorage.s3) || !has(self.orchestrator) || "
            "!has(self.orchestrator.env) || "
            f"self.orchestrator.env.all(item, !(item.name in {json.dumps(BUCKET_VARIABLES)}))",
            "with sharedStorage.s3, orchestrator.env must not set a variable that it decides: "
            + ", ".join(BUCKET_VARIABLES),
            _bucket_variables_free,
            ".orchestrator.env",
        ),
        distinct("imagePullSecrets", "name"),
    )

    paused: Boolean = Field(
        default=False,
        description=(
            "While true the operator changes nothing but the status, its Leases, and keys and tokens by which the pods "
            "know each other: it goes on observing and telling, failovers go on without it, and a rolling change "
            "stops after the step that is under way."
        ),
    )
    update_policy: UpdatePolicy = Field(
        default=UpdatePolicy.ON_CHANGE,
        description=(
            "When pods move to the templates and default images of a newer operator. OnChange: with the next change "
            "of the spec that renews them anyway; until then status.pendingUpdates names the components that wait. "
            "Immediate: as soon as the newer operator sees them, one at a time."
        ),
    )
    image_pull_secrets: tuple[PullSecret, ...] = Field(
        default=(),
        max_length=10,
        description="Secrets in the cluster's namespace with the login at registries, for all pods of the cluster. A "
        "change renews them one after the other, runners when they are idle.",
        json_schema_extra=map_of("name"),
    )
    orchestrator: OrchestratorSpec = Field(
        default_factory=OrchestratorSpec,
        description="The orchestrators: the service itself, stateless, with an elected leader.",
    )
    postgres: PostgresSpec = Field(
        default_factory=PostgresSpec,
        description="The database: Postgres 17 under Patroni, one primary and streaming replicas, behind a pooler.",
    )
    redis: RedisSpec = Field(
        default_factory=RedisSpec, description="The queue: Redis with Sentinel, one master and replicas."
    )
    load_balancer: LoadBalancerSpec = Field(
        default_factory=LoadBalancerSpec, description="HAProxy in front of the orchestrators."
    )
    ingress: IngressSpec | None = Field(
        default=None,
        description="An Ingress or HTTPRoute to the load balancer; removing the section removes it. Default: none.",
    )
    shared_storage: SharedStorageSpec | None = Field(
        default=None,
        description="Storage that all orchestrators share, for logs and artifacts. A change renews the orchestrators. "
        "Default: none.",
    )
    github: GithubSpec = Field(
        default_factory=GithubSpec, description="GitHub, where the runners of the pools register."
    )
    runner_pools: tuple[RunnerPoolSpec, ...] = Field(
        default=(),
        max_length=20,
        description="Pools of runners, each with its labels and its size, which follows the jobs that wait.",
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
    )
    leader_election: LeaderElectionSpec = Field(
        default_factory=LeaderElectionSpec,
        description="Timing of the orchestrators' leader election over the Lease `<cluster>-leader`. A change renews "
        "the orchestrators.",
    )
    health_checks: HealthChecksSpec = Field(
        default_factory=HealthChecksSpec,
        description="Timing of the checks behind /health, /health/database and /health/redis. A change renews the "
        "orchestrators.",
    )

    @model_validator(mode="after")
    def _pools_differ(self) -> Self:
        """The API server takes the name for the key of a list of maps."""
        names_of_pools = [pool.name for pool in self.runner_pools]
        if len(set(names_of_pools)) < len(names_of_pools):
            raise ValueError("runnerPools must have distinct names")
        return self
