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
    ObjectName,
    QueueStorage,
    ResourceRequirements,
    Rule,
    Storage,
    cel_string,
)
from .runners import GithubSpec, RunnerPoolSpec

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


class OrchestratorSpec(ApiModel):
    """The orchestrators: stateless instances of the RunnerHub service with an elected leader."""

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
    resources: ResourceRequirements = Field(
        default_factory=ResourceRequirements,
        description="CPU and memory of the orchestrator container. Default requests: 50m CPU, 128Mi memory.",
    )


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
    pool_size: Integer = Field(
        default=20,
        ge=1,
        le=500,
        description="Server connections that each pooler pod opens per route; clients beyond it wait. Raising it "
        "can raise max_connections of Postgres, which restarts the members one at a time.",
    )
    resources: ResourceRequirements = Field(
        default_factory=ResourceRequirements,
        description="CPU and memory of the read-write PgBouncer container. Default requests: 50m CPU, 32Mi memory.",
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
_POOLED_CEL = "2 * (self.pooler.replicas + 1) * (self.pooler.poolSize + 5) + 20"


def _pooled_connections(spec: PostgresSpec) -> int:
    return 2 * (spec.pooler.replicas + 1) * (spec.pooler.pool_size + 5) + 20


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
            'self.synchronous != "required" || self.instances > 1',
            "postgres.synchronous: required needs at least two instances, or no write would ever be confirmed",
            lambda spec: spec.synchronous is not Synchronous.REQUIRED or spec.instances > 1,
            ".synchronous",
        ),
        Rule(
            '!has(self.parameters) || !("max_connections" in self.parameters) || '
            'self.parameters["max_connections"].matches("^[1-9][0-9]{0,5}$") && '
            f'int(self.parameters["max_connections"]) >= {_POOLED_CEL}',
            "postgres.parameters.max_connections must be a number of at least "
            "2 * (pooler.replicas + 1) * (pooler.poolSize + 5) + 20; leave it out to have it computed",
            _has_room_for_poolers,
            ".parameters",
        ),
    )

    instances: Integer = Field(
        default=3,
        ge=1,
        le=9,
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
            "preferred: a commit waits for one replica while any is there. required: a commit waits also when none "
            "is there, so writes stop rather than be unsafe. disabled: asynchronous, a failover can lose "
            "acknowledged writes."
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
    pooler: PoolerSpec = Field(default_factory=PoolerSpec, description="The connection pooler.")


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
        ge=3,
        le=9,
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
        "is cut off may confirm writes that the failover loses. A change renews the pods.",
    )
    resources: ResourceRequirements = Field(
        default_factory=ResourceRequirements,
        description="CPU and memory of the Redis container. Redis refuses new jobs before it reaches the memory "
        "limit. Default requests: 50m CPU, 96Mi memory.",
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


class LoadBalancerServiceSpec(ApiModel):
    """The Service in front of HAProxy."""

    rules: ClassVar[tuple[Rule, ...]] = ANNOTATION_RULES

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


class LoadBalancerSpec(ApiModel):
    """HAProxy in front of the orchestrators."""

    replicas: Integer = Field(default=2, ge=1, le=20, description="Number of HAProxy pods.")
    image: ImageReference | None = Field(
        default=None,
        description="Container image. A change renews the pods. Default: the operator's own.",
    )
    service: LoadBalancerServiceSpec = Field(
        default_factory=LoadBalancerServiceSpec, description="The Service in front of HAProxy."
    )
    resources: ResourceRequirements = Field(
        default_factory=ResourceRequirements,
        description="CPU and memory of the HAProxy container. Default requests: 50m CPU, 64Mi memory.",
    )


# The last label starts with a letter, or an IP address would pass for a name.
HOST_PATTERN = r"^(\*\.)?([a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?\.)+[a-z]([-a-z0-9]{0,61}[a-z0-9])?$"
Host = Annotated[str, StringConstraints(max_length=253)]


class IngressSpec(ApiModel):
    """An Ingress to the load balancer."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            f"self.host.matches({cel_string(HOST_PATTERN)})",
            "ingress.host must be a DNS name of at least two labels, such as runnerhub.example.com or *.example.com, "
            "in lower case and without a port or path",
            lambda spec: re.fullmatch(HOST_PATTERN, spec.host) is not None,
            ".host",
        ),
        *ANNOTATION_RULES,
        Rule(
            f'!has(self.annotations) || !("{INGRESS_CLASS_ANNOTATION}" in self.annotations)',
            f"ingress.annotations must not have {INGRESS_CLASS_ANNOTATION}: set ingress.className",
            lambda spec: INGRESS_CLASS_ANNOTATION not in spec.annotations,
            ".annotations",
        ),
    )

    host: Host = Field(
        description="Host name that people and runners use, such as runnerhub.example.com or *.example.com; a DNS "
        "name of at least two labels in lower case, without port or path."
    )
    class_name: ObjectName | None = Field(
        default=None,
        description="IngressClass that serves it. Default: the default class of the Kubernetes cluster.",
    )
    tls_secret_name: ObjectName | None = Field(
        default=None,
        description="Secret of type kubernetes.io/tls with the certificate of the host, in the cluster's namespace. "
        "Default: no TLS.",
    )
    annotations: dict[AnnotationName, AnnotationValue] = Field(
        default_factory=dict, max_length=50, description="Annotations of the Ingress, for its controller."
    )


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
        description="Failed checks in a row after which a dependency counts as down.",
    )


class RunnerHubClusterSpec(ApiModel):
    """A highly available RunnerHub installation. Every section has safe defaults."""

    paused: Boolean = Field(
        default=False,
        description=(
            "While true the operator changes nothing but the status: it goes on observing and telling, failovers go "
            "on without it, and a rolling change stops after the step that is under way."
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
        description="An Ingress to the load balancer; removing the section removes it. Default: none.",
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
