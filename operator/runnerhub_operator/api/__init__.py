"""The API `runnerhub.io/v1alpha1`: pydantic models, the single source of the CRD."""

from .base import ResourceRequirements, Storage
from .cluster import RunnerHubCluster, parse_cluster, parse_status
from .spec import (
    HealthChecksSpec,
    IngressSpec,
    LeaderElectionSpec,
    LoadBalancerSpec,
    OrchestratorSpec,
    PoolerSpec,
    PostgresSpec,
    RedisSpec,
    RunnerHubClusterSpec,
    ServiceType,
    Synchronous,
)
from .status import (
    Condition,
    ConditionType,
    Endpoints,
    Failover,
    OrchestratorStatus,
    PostgresInstanceStatus,
    PostgresStatus,
    RedisReplicaStatus,
    RedisStatus,
    RunnerHubClusterStatus,
)

__all__ = [
    "Condition",
    "ConditionType",
    "Endpoints",
    "Failover",
    "HealthChecksSpec",
    "IngressSpec",
    "LeaderElectionSpec",
    "LoadBalancerSpec",
    "OrchestratorSpec",
    "OrchestratorStatus",
    "PoolerSpec",
    "PostgresInstanceStatus",
    "PostgresSpec",
    "PostgresStatus",
    "RedisReplicaStatus",
    "RedisSpec",
    "RedisStatus",
    "ResourceRequirements",
    "RunnerHubCluster",
    "RunnerHubClusterSpec",
    "RunnerHubClusterStatus",
    "ServiceType",
    "Storage",
    "Synchronous",
    "parse_cluster",
    "parse_status",
]
