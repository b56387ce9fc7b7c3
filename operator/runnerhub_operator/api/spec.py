"""The spec of a RunnerHubCluster: the single source of the CRD's schema.

`json_schema_extra` carries what the API server understands beyond JSON Schema: CEL rules.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any

from pydantic import Field, StringConstraints, model_validator

from .base import ApiModel, ImageReference, ObjectName, QueueStorage, ResourceRequirements, Storage


def _rule(rule: str, message: str, field_path: str | None = None) -> dict[str, Any]:
    entry = {"rule": rule, "message": message}
    if field_path is not None:
        entry["fieldPath"] = field_path
    return entry


def _rules(*rules: dict[str, Any]) -> dict[str, Any]:
    return {"x-kubernetes-validations": list(rules)}


_IMMUTABLE_STORAGE = _rules(
    _rule("self == oldSelf", "storage is immutable; create a new cluster to change it")
)


class Synchronous(StrEnum):
    """How Postgres confirms a commit."""

    PREFERRED = "preferred"
    REQUIRED = "required"
    DISABLED = "disabled"


class ServiceType(StrEnum):
    """Types of Service that the load balancer can have."""

    CLUSTER_IP = "ClusterIP"
    NODE_PORT = "NodePort"
    LOAD_BALANCER = "LoadBalancer"


class OrchestratorSpec(ApiModel):
    """The orchestrators: stateless instances of the RunnerHub service with an elected leader."""

    replicas: int = Field(
        default=3, ge=1, le=50, description="Number of orchestrators, 1 to 50. Three survive the loss of two."
    )
    image: ImageReference | None = Field(
        default=None,
        description="Container image. Any image that keeps the contract works. Default: the operator's own.",
    )
    resources: ResourceRequirements = Field(
        default_factory=ResourceRequirements, description="CPU and memory of the orchestrator container."
    )


class PoolerSpec(ApiModel):
    """The connection pooler: PgBouncer in transaction mode, with an HAProxy that follows the primary."""

    replicas: int = Field(default=2, ge=1, le=20, description="Number of pooler pods, 1 to 20.")
    image: ImageReference | None = Field(
        default=None, description="Container image. Default: the operator's own."
    )
    max_client_connections: int = Field(
        default=1000,
        ge=10,
        le=20000,
        description="Client connections that each pooler pod accepts, 10 to 20000.",
    )
    pool_size: int = Field(
        default=20,
        ge=1,
        le=500,
        description="Server connections that each pooler pod opens per route (read-write, read-only), 1 to 500.",
    )
    resources: ResourceRequirements = Field(
        default_factory=ResourceRequirements,
        description="CPU and memory of the read-write PgBouncer container.",
    )


ParameterName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_.]*$", max_length=63)]
ParameterValue = Annotated[str, StringConstraints(max_length=256)]

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
    "restore_command",
    "synchronous_commit",
    "synchronous_standby_names",
    "track_commit_timestamp",
    "unix_socket_directories",
    "wal_level",
    "wal_log_hints",
)


class PostgresSpec(ApiModel):
    """The database: Postgres 17 under Patroni, one primary and streaming replicas."""

    instances: int = Field(
        default=3, ge=1, le=9, description="Number of Postgres members, 1 to 9; three are advised."
    )
    image: ImageReference | None = Field(
        default=None, description="Container image. Default: the operator's own."
    )
    storage: Storage = Field(
        default_factory=Storage, description="Volume of each member.", json_schema_extra=_IMMUTABLE_STORAGE
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
        description="Postgres parameters by name; those that Patroni or the operator owns are refused.",
        json_schema_extra=_rules(
            _rule(
                f"self.all(name, !(name in {list(OPERATOR_OWNED_PARAMETERS)}))".replace("'", '"'),
                "postgres.parameters must not set a parameter that the operator owns: "
                + ", ".join(OPERATOR_OWNED_PARAMETERS),
            )
        ),
    )
    resources: ResourceRequirements = Field(
        default_factory=ResourceRequirements, description="CPU and memory of the Postgres container."
    )
    pooler: PoolerSpec = Field(default_factory=PoolerSpec, description="The connection pooler.")


class RedisSpec(ApiModel):
    """The queue: Redis with Sentinel, one master and replicas."""

    replicas: int = Field(
        default=3,
        ge=3,
        le=9,
        description="Number of Redis pods, each with its Sentinel; an odd number of 3 to 9, for a majority.",
        json_schema_extra=_rules(
            _rule("self % 2 == 1", "redis.replicas must be odd (3, 5, 7 or 9): Sentinel decides by majority")
        ),
    )
    image: ImageReference | None = Field(
        default=None, description="Container image. Default: the operator's own."
    )
    storage: QueueStorage = Field(
        default_factory=QueueStorage,
        description="Volume of each pod.",
        json_schema_extra=_IMMUTABLE_STORAGE,
    )
    down_after_milliseconds: int = Field(
        default=5000,
        ge=1000,
        le=60000,
        description="Silence after which Sentinel takes a master for dead, in milliseconds, 1000 to 60000.",
    )
    resources: ResourceRequirements = Field(
        default_factory=ResourceRequirements, description="CPU and memory of the Redis container."
    )

    @model_validator(mode="after")
    def _odd(self) -> RedisSpec:
        if self.replicas % 2 == 0:
            raise ValueError("redis.replicas must be odd (3, 5, 7 or 9): Sentinel decides by majority")
        return self


AnnotationValue = Annotated[str, StringConstraints(max_length=1024)]
AnnotationName = Annotated[str, StringConstraints(max_length=317)]


class LoadBalancerServiceSpec(ApiModel):
    """The Service in front of HAProxy."""

    type: ServiceType = Field(default=ServiceType.CLUSTER_IP, description="Type of the Service.")
    annotations: dict[AnnotationName, AnnotationValue] = Field(
        default_factory=dict,
        max_length=50,
        description="Annotations of the Service, for a cloud's load balancer.",
    )


class LoadBalancerSpec(ApiModel):
    """HAProxy in front of the orchestrators."""

    replicas: int = Field(default=2, ge=1, le=20, description="Number of HAProxy pods, 1 to 20.")
    image: ImageReference | None = Field(
        default=None, description="Container image. Default: the operator's own."
    )
    service: LoadBalancerServiceSpec = Field(
        default_factory=LoadBalancerServiceSpec, description="The Service in front of HAProxy."
    )
    resources: ResourceRequirements = Field(
        default_factory=ResourceRequirements, description="CPU and memory of the HAProxy container."
    )


HOST_PATTERN = r"^(\*\.)?[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?(\.[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?)+$"
Host = Annotated[str, StringConstraints(pattern=HOST_PATTERN, max_length=253)]


class IngressSpec(ApiModel):
    """An Ingress to the load balancer."""

    host: Host = Field(
        description="Host name, such as runnerhub.example.com.",
        json_schema_extra=_rules(
            _rule(
                f"self.matches({HOST_PATTERN!r})",
                "ingress.host must be a DNS name of at least two labels, such as runnerhub.example.com or "
                "*.example.com, in lower case and without a port or path",
            )
        ),
    )
    class_name: ObjectName | None = Field(
        default=None, description="IngressClass. Default: the cluster's default class."
    )
    tls_secret_name: ObjectName | None = Field(
        default=None, description="Secret of type kubernetes.io/tls for the host. Default: no TLS."
    )
    annotations: dict[AnnotationName, AnnotationValue] = Field(
        default_factory=dict, max_length=50, description="Annotations of the Ingress, for its controller."
    )


class LeaderElectionSpec(ApiModel):
    """Timing of the orchestrators' leader election over the Lease `<cluster>-leader`."""

    lease_duration_seconds: int = Field(
        default=15,
        ge=5,
        le=300,
        description="Time after which another orchestrator may take over, 5 to 300 s.",
    )
    renew_deadline_seconds: int = Field(
        default=10,
        ge=2,
        le=299,
        description="Time without renewal after which a leader steps down by itself, 2 to 299 s.",
    )
    retry_period_seconds: int = Field(
        default=2, ge=1, le=60, description="Time between two tries, 1 to 60 s."
    )

    @model_validator(mode="after")
    def _ordered(self) -> LeaderElectionSpec:
        if not self.lease_duration_seconds > self.renew_deadline_seconds > self.retry_period_seconds:
            raise ValueError(LEADER_ELECTION_ORDER)
        return self


LEADER_ELECTION_ORDER = (
    "leaderElection must keep leaseDurationSeconds > renewDeadlineSeconds > retryPeriodSeconds, "
    "so that a leader steps down before another is elected"
)


class HealthChecksSpec(ApiModel):
    """Timing of the ha-agent's checks behind /health, /health/database, /health/redis."""

    interval_seconds: int = Field(
        default=10, ge=1, le=300, description="Time between two checks, 1 to 300 s."
    )
    timeout_seconds: int = Field(default=5, ge=1, le=60, description="Deadline of one check, 1 to 60 s.")
    retries: int = Field(
        default=3,
        ge=1,
        le=10,
        description="Failed checks in a row after which a dependency counts as down, 1 to 10.",
    )


class RunnerHubClusterSpec(ApiModel):
    """A highly available RunnerHub installation. Every section has safe defaults."""

    orchestrator: OrchestratorSpec = Field(default_factory=OrchestratorSpec, description="The orchestrators.")
    postgres: PostgresSpec = Field(default_factory=PostgresSpec, description="The database.")
    redis: RedisSpec = Field(default_factory=RedisSpec, description="The queue.")
    load_balancer: LoadBalancerSpec = Field(
        default_factory=LoadBalancerSpec, description="HAProxy in front of the orchestrators."
    )
    ingress: IngressSpec | None = Field(
        default=None, description="An Ingress to the load balancer. Default: none."
    )
    leader_election: LeaderElectionSpec = Field(
        default_factory=LeaderElectionSpec,
        description="Timing of the orchestrators' leader election.",
        json_schema_extra=_rules(
            _rule(
                "self.leaseDurationSeconds > self.renewDeadlineSeconds "
                "&& self.renewDeadlineSeconds > self.retryPeriodSeconds",
                LEADER_ELECTION_ORDER,
            )
        ),
    )
    health_checks: HealthChecksSpec = Field(
        default_factory=HealthChecksSpec, description="Timing of the ha-agent's checks."
    )
