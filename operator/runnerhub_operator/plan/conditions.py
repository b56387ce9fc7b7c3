"""Conditions: what is wrong, in words that a person can act on.

A component's condition is True while it serves. Redundancy is told by Degraded. During creation a component counts
as ready only when it is complete, so that `kubectl wait --for=condition=Ready` means a cluster that survives a fault.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from .. import names
from ..actions import Rollout
from ..api import (
    Condition,
    ConditionType,
    OrchestratorStatus,
    PostgresStatus,
    RedisStatus,
    RunnerHubCluster,
    RunnerHubClusterStatus,
)
from ..snapshot import Pod, Snapshot

ConditionStatus = Literal["True", "False", "Unknown"]

# Reasons for which a pod cannot start by itself, in the order in which people want to hear of them.
_BLOCKING = (
    "Unschedulable",
    "ErrImagePull",
    "ImagePullBackOff",
    "CreateContainerConfigError",
    "CrashLoopBackOff",
)


@dataclass(frozen=True, slots=True)
class Verdict:
    """A condition before its times are known; `full` tells whether nothing of the component is missing."""

    type: ConditionType
    status: ConditionStatus
    reason: str
    message: str
    full: bool = True


def _blocked(pods: tuple[Pod, ...]) -> tuple[str, str] | None:
    for reason in _BLOCKING:
        for pod in pods:
            if pod.waiting_reason == reason:
                detail = f": {pod.message}" if pod.message else ""
                return reason, f"pod {pod.name}: {reason}{detail}"[:500]
    return None


def _verdict(
    kind: ConditionType, *, serves: bool, full: bool, creating: bool, detail: str, pods: tuple[Pod, ...]
) -> Verdict:
    blocked = _blocked(pods)
    if full and blocked is None:
        return Verdict(kind, "True", "Available", detail)
    told = f"{detail}; {blocked[1]}" if blocked else detail
    if (serves and not creating) or full:
        return Verdict(kind, "True", "ReducedRedundancy", told, full=False)
    reason = blocked[0] if blocked else "Creating" if creating else "Unavailable"
    return Verdict(kind, "False", reason, told, full=False)


def _ready(pods: tuple[Pod, ...]) -> int:
    return sum(pod.ready for pod in pods)


def postgres_verdict(
    cluster: RunnerHubCluster, snapshot: Snapshot, status: PostgresStatus, creating: bool
) -> Verdict:
    """PostgresReady: a primary that accepts writes behind at least one pooler; full with all replicas streaming."""
    wanted = cluster.spec.postgres.instances
    poolers, wanted_poolers = snapshot.pods_of(names.POOLER), cluster.spec.postgres.pooler.replicas
    members = snapshot.pods_of(names.POSTGRES)
    # Streaming from another timeline is following a primary that has been replaced.
    streaming = sum(
        item.state == "streaming" and item.timeline == status.timeline
        for item in status.instances
        if item.role != "primary"
    )
    ready_poolers = _ready(poolers)
    serves = status.primary is not None and ready_poolers > 0
    full = (
        serves and streaming >= wanted - 1 and _ready(members) >= wanted and ready_poolers >= wanted_poolers
    )
    primary = f"primary {status.primary}" if status.primary else "no primary"
    detail = (
        f"{primary}, {_ready(members)} of {wanted} members ready, {streaming} of {wanted - 1} replicas streaming, "
        f"{ready_poolers} of {wanted_poolers} poolers ready"
    )
    return _verdict(
        ConditionType.POSTGRES,
        serves=serves,
        full=full,
        creating=creating,
        detail=detail,
        pods=members + poolers,
    )


def redis_verdict(
    cluster: RunnerHubCluster, snapshot: Snapshot, status: RedisStatus, creating: bool
) -> Verdict:
    """RedisReady: a master that a majority of Sentinels agrees on, with a replica that lets it accept writes."""
    wanted = cluster.spec.redis.replicas
    pods = snapshot.pods_of(names.REDIS)
    linked = sum(replica.link == "ok" for replica in status.replicas)
    sentinels = status.sentinels or 0
    majority = wanted // 2 + 1
    serves = status.master is not None and linked >= 1
    full = serves and linked >= wanted - 1 and sentinels >= wanted and _ready(pods) >= wanted
    master = f"master {status.master}" if status.master else "no master"
    detail = (
        f"{master}, {_ready(pods)} of {wanted} pods ready, {linked} of {wanted - 1} replicas linked, "
        f"{sentinels} of {wanted} sentinels agree"
    )
    if serves and sentinels < majority:
        detail += "; no majority of sentinels: a failover is not possible now"
    return _verdict(
        ConditionType.REDIS, serves=serves, full=full, creating=creating, detail=detail, pods=pods
    )


def orchestrators_verdict(
    cluster: RunnerHubCluster, snapshot: Snapshot, status: OrchestratorStatus, creating: bool
) -> Verdict:
    """OrchestratorsReady: at least one serves; full with all ready and a leader."""
    wanted = cluster.spec.orchestrator.replicas
    pods = snapshot.pods_of(names.ORCHESTRATOR)
    full = status.ready >= wanted and status.leader is not None
    leader = f"leader {status.leader}" if status.leader else "no leader"
    detail = f"{status.ready} of {wanted} ready, {leader}"
    return _verdict(
        ConditionType.ORCHESTRATORS,
        serves=status.ready > 0,
        full=full,
        creating=creating,
        detail=detail,
        pods=pods,
    )


def load_balancer_verdict(cluster: RunnerHubCluster, snapshot: Snapshot, creating: bool) -> Verdict:
    """LoadBalancerReady: at least one HAProxy serves."""
    wanted = cluster.spec.load_balancer.replicas
    pods = snapshot.pods_of(names.LOAD_BALANCER)
    ready = _ready(pods)
    return _verdict(
        ConditionType.LOAD_BALANCER,
        serves=ready > 0,
        full=ready >= wanted,
        creating=creating,
        detail=f"{ready} of {wanted} ready",
        pods=pods,
    )


def ingress_verdict(cluster: RunnerHubCluster, snapshot: Snapshot) -> Verdict:
    """IngressReady: the address that the ingress controller gave, or why there is none. It does not gate Ready."""
    kind = ConditionType.INGRESS
    if cluster.spec.ingress is None:
        return Verdict(kind, "True", "NotRequested", "spec.ingress is not set")
    ingress = snapshot.child("Ingress", names.child(cluster.name, names.INGRESS))
    if ingress is None:
        return Verdict(kind, "False", "Creating", "the Ingress does not exist yet")
    points: list[dict[str, Any]] = ingress.get("status", {}).get("loadBalancer", {}).get("ingress", [])
    addresses = ", ".join(point.get("hostname") or point.get("ip") or "?" for point in points)
    if addresses:
        return Verdict(kind, "True", "Available", f"{cluster.spec.ingress.host} at {addresses}")
    name = cluster.spec.ingress.class_name
    wanted = f"class {name}" if name else "the default class"
    return Verdict(
        kind,
        "False",
        "NoAddress",
        f"no ingress controller has given {cluster.spec.ingress.host} an address; is one running for {wanted}?",
    )


def deployments_updating(cluster: RunnerHubCluster, snapshot: Snapshot) -> str | None:
    """Which Deployment is on its way to a new template or size, None when none is."""
    for component in (names.POOLER, names.ORCHESTRATOR, names.LOAD_BALANCER):
        live = snapshot.child("Deployment", names.child(cluster.name, component))
        if live is None:
            continue
        status = live.get("status", {})
        seen = status.get("observedGeneration") == live["metadata"].get("generation")
        updated, total = status.get("updatedReplicas", 0), status.get("replicas", 0)
        # A pod that is missing is no change under way; one of the old template is.
        if not seen or updated < total:
            return f"rolling change of {component}, {updated} of {total} pods are new"
    return None


def overall_verdicts(
    components: list[Verdict], rollout: Rollout | None, creating: bool, changing: str | None
) -> list[Verdict]:
    """Ready, Progressing and Degraded from the components' verdicts (without the Ingress).

    `changing` tells what else is under way: objects about to be written, Deployments being renewed.
    """
    failing = [verdict for verdict in components if verdict.status != "True"]
    reduced = [verdict for verdict in components if not verdict.full]
    if failing:
        reason = "Creating" if creating else "ComponentsNotReady"
        ready = Verdict(ConditionType.READY, "False", reason, _list(failing))
    else:
        ready = Verdict(ConditionType.READY, "True", "Available", _list(reduced) or "all components serve")
    if creating:
        progressing = Verdict(ConditionType.PROGRESSING, "True", "Creating", _list(reduced))
    elif rollout is not None:
        message = f"rolling change of {rollout.component}, waiting for {rollout.waiting_for}"
        progressing = Verdict(ConditionType.PROGRESSING, "True", "RollingChange", message)
    elif changing is not None:
        progressing = Verdict(ConditionType.PROGRESSING, "True", "Changing", changing)
    else:
        progressing = Verdict(ConditionType.PROGRESSING, "False", "Settled", "the spec is in effect")
    if creating or not reduced:
        degraded = Verdict(ConditionType.DEGRADED, "False", "AsExpected", "nothing is missing")
        if creating:
            degraded = Verdict(ConditionType.DEGRADED, "False", "Creating", "the cluster is being created")
    else:
        degraded = Verdict(ConditionType.DEGRADED, "True", "ReducedRedundancy", _list(reduced))
    return [ready, progressing, degraded]


def _list(verdicts: list[Verdict]) -> str:
    return "; ".join(f"{verdict.type.removesuffix('Ready')}: {verdict.message}" for verdict in verdicts)


def with_times(
    verdicts: list[Verdict], previous: RunnerHubClusterStatus, generation: int, now: datetime
) -> tuple[Condition, ...]:
    """Conditions in a fixed order; lastTransitionTime moves only when the status does."""
    before = {condition.type: condition for condition in previous.conditions}
    by_type = {verdict.type: verdict for verdict in verdicts}
    stamp = now.strftime("%Y-%m-%dT%H:%M:%SZ")
    result = []
    for kind in ConditionType:
        verdict = by_type.get(kind) or Verdict(kind, "Unknown", "NotObserved", "not looked at yet")
        old = before.get(kind.value)
        same = old is not None and old.status == verdict.status
        result.append(
            Condition(
                type=kind.value,
                status=verdict.status,
                reason=verdict.reason,
                message=verdict.message,
                last_transition_time=old.last_transition_time if old is not None and same else stamp,
                observed_generation=generation,
            )
        )
    return tuple(result)
