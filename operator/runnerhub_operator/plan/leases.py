"""Leases that tell people and tools who has a role and how often it moved. Nobody is elected by them."""

from __future__ import annotations

from datetime import datetime

from .. import names
from ..actions import Rollout
from ..api import PostgresStatus, RedisStatus, RunnerHubCluster
from ..resources.common import BuildContext, Manifest, metadata
from ..snapshot import Snapshot


def observed_leases(
    context: BuildContext, snapshot: Snapshot, postgres: PostgresStatus, redis: RedisStatus
) -> list[Manifest]:
    """The Leases `<cluster>-postgres-primary` and `<cluster>-redis-master`, for roles that somebody holds.

    leaseTransitions follow Patroni's timeline and Sentinel's epoch, so moves that happened while the operator was
    down are counted too.
    """
    cluster = context.cluster
    result = []
    if postgres.primary is not None and postgres.timeline is not None:
        name = names.postgres_primary_lease(cluster.name)
        result.append(
            _lease(context, snapshot, name, names.POSTGRES, postgres.primary, postgres.timeline - 1)
        )
    if redis.master is not None and redis.epoch is not None:
        name = names.redis_master_lease(cluster.name)
        result.append(_lease(context, snapshot, name, names.REDIS, redis.master, redis.epoch))
    return result


def _lease(
    context: BuildContext, snapshot: Snapshot, name: str, component: str, holder: str, transitions: int
) -> Manifest:
    live = (snapshot.child("Lease", name) or {}).get("spec", {})
    unchanged = live.get("holderIdentity") == holder and live.get("leaseTransitions") == transitions
    acquired = live.get("acquireTime") if unchanged else None
    return {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": metadata(context, name, component),
        "spec": {
            "holderIdentity": holder,
            "leaseTransitions": transitions,
            "acquireTime": acquired or micro_time(snapshot.now),
        },
    }


def micro_time(moment: datetime) -> str:
    """A time as the Kubernetes type MicroTime."""
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


_ROLLING_CHANGE = "operator/rolling-change-"
_REPAIR = "operator/repair-"


def held_by_other(cluster: RunnerHubCluster, snapshot: Snapshot) -> str | None:
    """Who else holds the disruption Lease; None when it is free or held for a disruption of the operator's.

    The planner plans one disruption at a time, so one that follows another takes the Lease over.
    """
    holder = disruption_holder(cluster, snapshot)
    return None if not holder or is_own(holder) else holder


def disruption_holder(cluster: RunnerHubCluster, snapshot: Snapshot) -> str:
    """Holder of the disruption Lease, "" when it is free."""
    live = snapshot.child("Lease", names.disruption_lease(cluster.name))
    holder: str = (live or {}).get("spec", {}).get("holderIdentity") or ""
    return holder


def is_own(holder: str) -> bool:
    """Whether a holder is a rolling change or repair of the operator, this process's or an earlier one's."""
    return holder.startswith((_ROLLING_CHANGE, _REPAIR))


def rollout_holder(rollout: Rollout) -> str:
    """Holder identity of the disruption Lease during one of the operator's own disruptions."""
    return (_REPAIR if rollout.repairs else _ROLLING_CHANGE) + rollout.component


def disruption_lease(context: BuildContext, snapshot: Snapshot, holder: str) -> Manifest:
    """The disruption Lease with a holder, "" for free."""
    name = names.disruption_lease(context.name)
    live = (snapshot.child("Lease", name) or {}).get("spec", {})
    transitions = int(live.get("leaseTransitions") or 0)
    same = (live.get("holderIdentity") or "") == holder
    acquired = live.get("acquireTime") if same else None
    return {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": metadata(context, name, "disruption"),
        "spec": {
            "holderIdentity": holder,
            "leaseTransitions": transitions if same or not holder else transitions + 1,
            "acquireTime": acquired or micro_time(snapshot.now),
        },
    }
