"""The status of a RunnerHubCluster."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

from pydantic import Field

from .base import ApiModel


class ConditionType(StrEnum):
    """Every condition; all are present from the first visit."""

    READY = "Ready"
    PROGRESSING = "Progressing"
    DEGRADED = "Degraded"
    ACCEPTED = "Accepted"
    POSTGRES = "PostgresReady"
    REDIS = "RedisReady"
    ORCHESTRATORS = "OrchestratorsReady"
    LOAD_BALANCER = "LoadBalancerReady"
    INGRESS = "IngressReady"


class Condition(ApiModel):
    """One condition, after the Kubernetes API conventions."""

    type: str = Field(description="Name of the condition.")
    status: Literal["True", "False", "Unknown"] = Field(description="True, False or Unknown.")
    reason: str = Field(description="One word in CamelCase for programs.")
    message: str = Field(default="", description="A sentence for people: what is wrong and what to do.")
    last_transition_time: str = Field(description="When the status last changed, RFC 3339.")
    observed_generation: int = Field(
        default=0, description="The generation that the condition was computed from."
    )


class PostgresInstanceStatus(ApiModel):
    """One Postgres member as Patroni reports it."""

    name: str = Field(description="Pod name.")
    role: str = Field(description="primary, sync_standby, quorum_standby or replica.")
    state: str = Field(description="Patroni's state, such as running or streaming.")
    timeline: int | None = Field(default=None, description="Timeline that the member follows.")
    lag_bytes: int | None = Field(default=None, description="Bytes behind the primary; absent when unknown.")


class PostgresStatus(ApiModel):
    """The database as observed."""

    primary: str | None = Field(default=None, description="Pod that accepts writes.")
    timeline: int | None = Field(
        default=None, description="Patroni's current timeline; grows with each failover."
    )
    instances: tuple[PostgresInstanceStatus, ...] = Field(
        default=(), max_length=16, description="The members."
    )


class RedisReplicaStatus(ApiModel):
    """One Redis replica as Sentinel reports it."""

    name: str = Field(description="Pod name.")
    link: str = Field(description="State of the link to the master: ok or err.")


class RedisStatus(ApiModel):
    """The queue as observed."""

    master: str | None = Field(default=None, description="Pod that accepts writes.")
    epoch: int | None = Field(
        default=None, description="Sentinel's configuration epoch; grows with each failover."
    )
    sentinels: int | None = Field(default=None, description="Sentinels that agree on this master.")
    bootstrapped: bool = Field(
        default=False,
        description="Whether a master was ever seen; afterwards a pod with an empty volume never becomes master.",
    )
    replicas: tuple[RedisReplicaStatus, ...] = Field(default=(), max_length=16, description="The replicas.")


class OrchestratorStatus(ApiModel):
    """The orchestrators as observed."""

    leader: str | None = Field(default=None, description="Pod that does the singleton work.")
    since: str | None = Field(default=None, description="Since when it leads, RFC 3339.")
    ready: int = Field(default=0, description="Orchestrators that are ready.")


class Failover(ApiModel):
    """One election that the operator saw."""

    component: str = Field(description="postgres, redis or orchestrator.")
    from_: str | None = Field(default=None, alias="from", description="Pod that had the role before.")
    to: str = Field(description="Pod that has it now.")
    at: str = Field(description="When it was seen, RFC 3339.")
    duration_seconds: float | None = Field(
        default=None,
        description=(
            "From the first sign of the old one's failure, or the new one's election, until the new one was seen in "
            "its role; absent when it happened while the operator was not looking."
        ),
    )
    cause: str = Field(
        description="What the operator saw of the old one: PodDeleted, PodNotReady, NodeLost, ..."
    )


class Endpoints(ApiModel):
    """Where to reach the cluster from inside Kubernetes."""

    api: str | None = Field(default=None, description="HTTP API, through the load balancer.")
    database: str | None = Field(default=None, description="Read-write database address, through the pooler.")
    database_read_only: str | None = Field(default=None, description="Read-only database address.")
    sentinels: str | None = Field(default=None, description="Sentinel addresses, comma separated.")


class RunnerHubClusterStatus(ApiModel):
    """What the operator observed."""

    observed_generation: int = Field(
        default=0, description="Generation of the spec that was last acted upon."
    )
    phase: str = Field(
        default="Pending",
        description="One word for people, derived from the conditions; programs read the conditions.",
    )
    conditions: tuple[Condition, ...] = Field(
        default=(),
        max_length=32,
        description="Conditions by type.",
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]},
    )
    postgres: PostgresStatus = Field(default_factory=PostgresStatus, description="The database.")
    redis: RedisStatus = Field(default_factory=RedisStatus, description="The queue.")
    orchestrator: OrchestratorStatus = Field(
        default_factory=OrchestratorStatus, description="The orchestrators."
    )
    failovers: tuple[Failover, ...] = Field(
        default=(), max_length=10, description="The last ten elections, newest first."
    )
    endpoints: Endpoints = Field(default_factory=Endpoints, description="Addresses inside Kubernetes.")
