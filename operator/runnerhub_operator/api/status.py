"""The status of a RunnerHubCluster."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import ConfigDict, Field, StringConstraints

from .base import ApiModel

# From here on people are told of a volume, or of the queue's memory.
NEARLY_FULL_PERCENT = 85
# From here on a component lacks something, and none of its members is renewed.
FULL_PERCENT = 95

# RFC 3339, as the operator and Kubernetes write it.
Timestamp = Annotated[
    str,
    StringConstraints(
        pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]+)?(Z|[+-][0-9]{2}:[0-9]{2})$"
    ),
    Field(json_schema_extra={"format": "date-time"}),
]
Count = Annotated[int, Field(ge=0, le=2**63 - 1)]


class StatusModel(ApiModel):
    """Base of the parts of a status. Fields of a newer operator are left out when an older one reads them."""

    model_config = ConfigDict(extra="ignore")


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
    RUNNERS = "RunnersReady"


class ConditionReason(StrEnum):
    """Every reason that a condition can have. The words are part of the API: none is renamed or given a new sense."""

    # Of Ready and of the components
    AVAILABLE = "Available"
    REDUCED_REDUNDANCY = "ReducedRedundancy"
    CREATING = "Creating"
    UNAVAILABLE = "Unavailable"
    COMPONENTS_NOT_READY = "ComponentsNotReady"
    WRITES_REFUSED = "WritesRefused"
    WORKERS_DEAF = "WorkersDeaf"
    CHECKS_FAIL = "ChecksFail"
    CREDENTIALS_MISSING = "CredentialsMissing"
    PATRONI_PAUSED = "PatroniPaused"
    PARAMETERS_REFUSED = "ParametersRefused"
    NOT_REQUESTED = "NotRequested"
    NO_ADDRESS = "NoAddress"
    GATEWAY_API_MISSING = "GatewayApiMissing"
    ROUTE_NOT_ACCEPTED = "RouteNotAccepted"
    NOT_OBSERVED = "NotObserved"
    DEMAND_UNKNOWN = "DemandUnknown"
    REJECTED_BY_KUBELET = "RejectedByKubelet"
    # Of a component whose pods cannot start, in the words of Kubernetes
    UNSCHEDULABLE = "Unschedulable"
    ERR_IMAGE_PULL = "ErrImagePull"
    IMAGE_PULL_BACK_OFF = "ImagePullBackOff"
    INVALID_IMAGE_NAME = "InvalidImageName"
    CREATE_CONTAINER_CONFIG_ERROR = "CreateContainerConfigError"
    CRASH_LOOP_BACK_OFF = "CrashLoopBackOff"
    # Of Progressing
    ROLLING_CHANGE = "RollingChange"
    CHANGING = "Changing"
    VOLUMES_GROWING = "VolumesGrowing"
    VOLUME_GROWTH_REFUSED = "VolumeGrowthRefused"
    MIGRATING = "Migrating"
    MIGRATION_FAILED = "MigrationFailed"
    SETTLED = "Settled"
    PAUSED = "Paused"
    # Of Degraded
    AS_EXPECTED = "AsExpected"
    # Of Accepted
    VALID = "Valid"
    INVALID_SPEC = "InvalidSpec"
    NAME_TAKEN = "NameTaken"
    REFUSED_BY_API_SERVER = "RefusedByApiServer"


class Condition(StatusModel):
    """One condition, after the Kubernetes API conventions."""

    type: str = Field(
        description="Name of the condition: Ready, Progressing, Degraded, Accepted, or one of a component."
    )
    status: Literal["True", "False", "Unknown"] = Field(description="Whether it holds.")
    reason: str = Field(description="Why, in one CamelCase word for programs; the reference lists all.")
    message: str = Field(
        default="", description="Why, in a sentence for people: what is wrong, since when, what to do."
    )
    last_transition_time: Timestamp = Field(description="When the status last changed, RFC 3339.")
    observed_generation: Count = Field(
        default=0, description="The generation that the condition was computed from."
    )


class PostgresInstanceStatus(StatusModel):
    """One Postgres member as Patroni reports it."""

    name: str = Field(description="Pod name.")
    role: str = Field(description="primary, sync_standby, quorum_standby or replica.")
    state: str = Field(description="Patroni's state, such as running or streaming.")
    timeline: Count | None = Field(default=None, description="Timeline that the member follows.")
    lag_bytes: Count | None = Field(
        default=None,
        description="Bytes behind the primary, in steps of 16 MiB; absent when unknown and of the primary. Lags that "
        "alone change are told at most twice a minute.",
    )
    lag_seconds: Count | None = Field(
        default=None,
        description=(
            "Age in seconds of the last transaction that a replica has replayed, 0 while it is less than 16 MiB "
            "behind; absent when unknown and of the primary."
        ),
    )
    volume_used_percent: Count | None = Field(
        default=None,
        description="How full the member's volume is in percent, in steps of 5 below 80; one step less is not told; "
        "absent when unknown.",
    )


class SwitchoverResult(StrEnum):
    """What became of a request to switch the primary over."""

    PENDING = "Pending"
    DONE = "Done"
    REFUSED = "Refused"


class SwitchoverStatus(StatusModel):
    """The request of the annotation `runnerhub.io/switch-primary-to`, which is followed once."""

    request: str = Field(description="The value of the annotation that was looked at.")
    result: SwitchoverResult = Field(
        description="Pending until the switchover takes place, for ten minutes at most; then Done or Refused."
    )
    message: str = Field(default="", description="Why, in a sentence for people.")
    at: Timestamp = Field(
        description="When the request was first seen, or when it was done or refused, RFC 3339."
    )


class PostgresStatus(StatusModel):
    """The database as observed."""

    primary: str | None = Field(default=None, description="Pod that accepts writes.")
    timeline: Count | None = Field(
        default=None, description="Patroni's current timeline; grows with each failover."
    )
    version: str | None = Field(
        default=None,
        description="Postgres version of the primary, such as 17.6; the first number is the major one.",
    )
    pool_size: Count | None = Field(
        default=None,
        description="Server connections that each pooler pod opens per route: spec.postgres.pooler.poolSize, or what "
        "was computed.",
    )
    instances: tuple[PostgresInstanceStatus, ...] = Field(
        default=(), max_length=16, description="The members."
    )
    switchover: SwitchoverStatus | None = Field(
        default=None,
        description="What became of the annotation `runnerhub.io/switch-primary-to`; absent without it.",
    )


class RedisReplicaStatus(StatusModel):
    """One Redis replica as Sentinel reports it."""

    name: str = Field(description="Pod name.")
    link: str = Field(description="State of the link to the master: ok or err.")
    lag_bytes: Count | None = Field(
        default=None,
        description="What it has not confirmed yet, in bytes and whole MiB; as it was while the master does not tell, "
        "and told at most twice a minute.",
    )
    silent_seconds: Count | None = Field(
        default=None,
        description="Seconds since it confirmed anything, in steps of five; the master refuses writes when fewer "
        "than half of the replicas, one of two, have for some seconds.",
    )


class RedisInstanceStatus(StatusModel):
    """One Redis pod by its own word."""

    name: str = Field(description="Pod name.")
    volume_used_percent: Count | None = Field(
        default=None,
        description="How full its volume is, in per cent and in steps of five below 80; one step less is not told.",
    )
    snapshots: tuple[str, ...] = Field(
        default=(),
        max_length=8,
        description="Files in /data/diverged of the pod: what it alone had as a master that others had replaced, word "
        "of what could not be saved (.not-saved), append-only files that were damaged (.damaged).",
    )


class QueueStatus(StatusModel):
    """The jobs in the queue `github-jobs`, told at most twice a minute."""

    waiting: Count = Field(default=0, description="Jobs that wait for a runner.")
    active: Count = Field(default=0, description="Jobs that a runner has.")
    delayed: Count = Field(
        default=0,
        description="Jobs that wait for a time, such as that of another try, or for a runner with their labels.",
    )
    failed: Count = Field(
        default=0, description="Jobs that have failed for good and are still remembered, a thousand at most."
    )
    at: Timestamp = Field(description="When they were counted, RFC 3339; moves only when a number does.")


class RedisStatus(StatusModel):
    """The queue as observed."""

    master: str | None = Field(default=None, description="Pod that accepts writes.")
    epoch: Count | None = Field(
        default=None, description="Sentinel's configuration epoch; grows with each failover."
    )
    sentinels: Count | None = Field(default=None, description="Sentinels that agree on this master.")
    bootstrapped: bool = Field(
        default=False,
        description="Whether a master was ever seen; afterwards a pod with an empty volume never becomes master.",
    )
    replicas: tuple[RedisReplicaStatus, ...] = Field(default=(), max_length=16, description="The replicas.")
    instances: tuple[RedisInstanceStatus, ...] = Field(default=(), max_length=16, description="The pods.")
    memory_used_percent: Count | None = Field(
        default=None,
        description="How full the master's memory is, of what it takes before it refuses new jobs, in steps of five.",
    )
    deaf_queues: tuple[str, ...] = Field(
        default=(),
        max_length=16,
        description="BullMQ queues whose workers are there and take no job although jobs wait: restart the workers. By "
        "the ha-agents' word, and as it was while they do not tell.",
    )
    queue: QueueStatus | None = Field(
        default=None, description="The jobs in the queue; as they were while the master does not tell."
    )


class OrchestratorStatus(StatusModel):
    """The orchestrators as observed."""

    leader: str | None = Field(default=None, description="Pod that does the singleton work.")
    since: Timestamp | None = Field(default=None, description="Since when it leads, RFC 3339.")
    ready: Count = Field(default=0, description="Orchestrators that are ready.")
    replicas: Count = Field(
        default=0, description="Orchestrators that there are, ready or not; the scale subresource tells it."
    )
    selector: str | None = Field(
        default=None,
        description="Label selector of the orchestrators' pods, for a HorizontalPodAutoscaler of the "
        "RunnerHubCluster.",
    )


class RunnerPoolStatus(StatusModel):
    """One pool of runners as observed."""

    name: str = Field(description="Name of the pool.")
    desired: Count = Field(default=0, description="Runners that the pool should have now.")
    ready: Count = Field(
        default=0, description="Runners that are ready: registered, and in touch with an orchestrator."
    )
    busy: Count = Field(default=0, description="Runners that have a job.")
    queued: Count = Field(default=0, description="Jobs that wait and that the pool could take.")


class RunnersStatus(StatusModel):
    """The runners as observed."""

    desired: Count = Field(default=0, description="Runners that all pools should have now.")
    ready: Count = Field(default=0, description="Runners that are ready.")
    busy: Count = Field(default=0, description="Runners that have a job.")
    queued: Count = Field(default=0, description="Jobs that wait, also those that no pool can take.")
    at: Timestamp | None = Field(
        default=None,
        description="When this was told, RFC 3339. Runners that are ready are told at once, the rest at most twice a "
        "minute.",
    )
    pools: tuple[RunnerPoolStatus, ...] = Field(default=(), max_length=64, description="The pools.")


class Failover(StatusModel):
    """One election that the operator saw."""

    component: str = Field(description="postgres, redis or orchestrator.")
    from_: str | None = Field(default=None, alias="from", description="Pod that had the role before.")
    to: str = Field(description="Pod that has it now.")
    at: Timestamp = Field(description="When it was seen, RFC 3339.")
    duration_seconds: float | None = Field(
        default=None,
        allow_inf_nan=False,
        description=(
            "Until the new one was seen in its role, from the first sign of the old one's failure; of Redis from when "
            "the Sentinels last heard from the old one, of Postgres from when the operator did, or, where that was "
            "away as well, Patroni. Absent when there was no sign, and when it was over before the operator looked."
        ),
    )
    cause: str = Field(
        description="What the operator saw of the old one: PodDeleted, PodNotReady, NodeLost, ..."
    )


class Endpoints(StatusModel):
    """Where to reach the cluster, from inside Kubernetes unless said otherwise."""

    api: str | None = Field(default=None, description="HTTP API, through the load balancer.")
    database: str | None = Field(default=None, description="Read-write database address, through the pooler.")
    database_read_only: str | None = Field(default=None, description="Read-only database address.")
    sentinels: str | None = Field(default=None, description="Sentinel addresses, comma separated.")
    queue: str | None = Field(
        default=None, description="Address of the Redis master, for clients that cannot ask Sentinel."
    )
    external: str | None = Field(
        default=None,
        description="Addresses of the load balancer from outside Kubernetes, comma separated. Absent unless "
        "spec.loadBalancer.service.type is LoadBalancer and somebody has given it one.",
    )


class RunnerHubClusterStatus(StatusModel):
    """What the operator observed."""

    observed_generation: Count = Field(
        default=0, description="Generation of the spec that was last acted upon."
    )
    phase: str = Field(
        default="Pending",
        description=(
            "One word for people, derived from the conditions: Pending, Creating, Ready, Updating, Degraded, "
            "Unavailable, Paused or Invalid. Programs read the conditions."
        ),
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
    runners: RunnersStatus = Field(default_factory=RunnersStatus, description="The runners.")
    failovers: tuple[Failover, ...] = Field(
        default=(), max_length=10, description="The last ten elections, newest first."
    )
    pending_updates: tuple[str, ...] = Field(
        default=(),
        max_length=16,
        description=(
            "Components whose pods still have the template or default image of an older operator; they follow with "
            "the next change, or at once with updatePolicy: Immediate."
        ),
    )
    endpoints: Endpoints = Field(default_factory=Endpoints, description="Where to reach the cluster.")
