"""Conditions: what is wrong, in words that a person can act on.

A component's condition is True while it serves. Redundancy is told by Degraded. During creation a component counts
as ready only when it is complete, so that `kubectl wait --for=condition=Ready` means a cluster that survives a fault.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Literal

from .. import names
from ..actions import Rollout
from ..api import (
    FULL_PERCENT,
    Condition,
    ConditionReason,
    ConditionType,
    OrchestratorStatus,
    PostgresStatus,
    RedisStatus,
    RunnerHubCluster,
    RunnerHubClusterStatus,
)
from ..probes.haproxy import configuration_digest
from ..probes.sentinel import can_fail_over
from ..resources.redis import min_replicas_to_write
from ..snapshot import Pod, Scaled, Snapshot
from . import fullness, resize_redis
from .fullness import fullest
from .migration import Migration
from .volumes import Growth

# cert-manager renews well before: at two thirds of a certificate's life, which are thirty days of ninety.
CERTIFICATE_WARNING = timedelta(days=14)
ConditionStatus = Literal["True", "False", "Unknown"]

# Why a pod cannot start by itself, and what to do, in the order in which people want to hear of it.
_REMEDIES = {
    ConditionReason.UNSCHEDULABLE: "add or free nodes, or ask for less in the spec's resources",
    ConditionReason.INVALID_IMAGE_NAME: "correct the image in the spec",
    ConditionReason.ERR_IMAGE_PULL: "check the image in the spec and the node's access to its registry",
    ConditionReason.IMAGE_PULL_BACK_OFF: "check the image in the spec and the node's access to its registry",
    ConditionReason.CREATE_CONTAINER_CONFIG_ERROR: "restore the Secret or ConfigMap that it names",
    ConditionReason.CRASH_LOOP_BACK_OFF: "read its last words with kubectl logs --previous",
}


@dataclass(frozen=True, slots=True)
class Verdict:
    """A condition before its times are known; `full` tells whether nothing of the component is missing."""

    type: ConditionType
    status: ConditionStatus
    reason: ConditionReason
    message: str
    full: bool = True


def blocked_by(pods: tuple[Pod, ...]) -> tuple[ConditionReason, str] | None:
    """Why the first pod that cannot start by itself does not, and what to do; None when there is none."""
    for reason, remedy in _REMEDIES.items():
        for pod in pods:
            if pod.waiting_reason == reason:
                detail = f": {pod.message}" if pod.message else ""
                return reason, f"pod {pod.name}: {reason}{detail}"[:500] + f" ({remedy})"
    return None


def _verdict(
    kind: ConditionType, *, serves: bool, full: bool, creating: bool, detail: str, pods: tuple[Pod, ...]
) -> Verdict:
    blocked = blocked_by(pods)
    if full and blocked is None:
        return Verdict(kind, "True", ConditionReason.AVAILABLE, detail)
    told = f"{detail}; {blocked[1]}" if blocked else detail
    if (serves and not creating) or full:
        return Verdict(kind, "True", ConditionReason.REDUCED_REDUNDANCY, told, full=False)
    waiting = ConditionReason.CREATING if creating else ConditionReason.UNAVAILABLE
    return Verdict(kind, "False", blocked[0] if blocked else waiting, told, full=False)


def _size(replicas: int, scaled: Scaled | None) -> tuple[int, str]:
    """The wanted size, and a word about who wants it when it is not the spec."""
    if scaled is None:
        return replicas, ""
    if scaled.asked_for:
        return scaled.replicas, " (set by the autoscaler)"
    return scaled.replicas, f" (scaled by {scaled.by}; the spec says {replicas})"


def _refused(cluster: RunnerHubCluster, snapshot: Snapshot, component: str) -> str:
    """Why the API server lets a Deployment have no more pods, such as a quota; "" when it does.

    Such a pod does not exist, so no pod can tell.
    """
    live = snapshot.children.live("Deployment", names.child(cluster.name, component))
    conditions = (live.status().get("conditions") or ()) if live is not None else ()
    found = next(
        (
            item
            for item in conditions
            if item.get("type") == "ReplicaFailure" and item.get("status") == "True"
        ),
        None,
    )
    return f"pods of {component} are refused: {found.get('message', '')[:400]}" if found is not None else ""


def _clauses(*parts: str) -> str:
    return "; ".join(part for part in parts if part)


def _ready(pods: tuple[Pod, ...]) -> int:
    return sum(pod.ready for pod in pods)


def postgres_verdict(
    cluster: RunnerHubCluster,
    snapshot: Snapshot,
    status: PostgresStatus,
    creating: bool,
    broken: Sequence[str] = (),
    refused: str = "",
) -> Verdict:
    """PostgresReady: a primary that accepts writes behind at least one pooler; full with all replicas streaming.

    `broken`: clauses about members that are broken and what is done about them. `refused`: about parameters.
    """
    paused = _is_patroni_paused(cluster, snapshot)
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
        serves
        and streaming >= wanted - 1
        and _ready(members) >= wanted
        and ready_poolers >= wanted_poolers
        and not fullest(status.instances, FULL_PERCENT)
        and not refused
        and not paused
    )
    primary = f"primary {status.primary}" if status.primary else "no primary"
    detail = (
        f"{primary}, {_ready(members)} of {wanted} members ready, {streaming} of {wanted - 1} replicas streaming, "
        f"{ready_poolers} of {wanted_poolers} poolers ready"
    )
    detail = _clauses(detail, _refused(cluster, snapshot, names.POOLER))
    if paused:
        resume = f"kubectl exec {names.member(cluster.name, names.POSTGRES, 0)} -- patronictl resume"
        detail += f"; Patroni is paused: no replica takes over by itself ({resume})"
    detail = _clauses(detail, refused)
    detail = "; ".join((detail, *broken, *fullness.told(status.instances, fullness.POSTGRES_SIZE)))
    verdict = _verdict(
        ConditionType.POSTGRES,
        serves=serves,
        full=full,
        creating=creating,
        detail=detail,
        pods=members + poolers,
    )
    if (refused or paused) and verdict.reason in (
        ConditionReason.REDUCED_REDUNDANCY,
        ConditionReason.UNAVAILABLE,
    ):
        reason = ConditionReason.PARAMETERS_REFUSED if refused else ConditionReason.PATRONI_PAUSED
        return replace(verdict, reason=reason)
    return verdict


def _is_patroni_paused(cluster: RunnerHubCluster, snapshot: Snapshot) -> bool:
    """Whether Patroni is paused; what was told before holds while it does not answer."""
    if snapshot.patroni is not None:
        return snapshot.patroni.paused
    return any(
        condition.type == ConditionType.POSTGRES and condition.reason == ConditionReason.PATRONI_PAUSED
        for condition in cluster.status.conditions
    )


def redis_verdict(
    cluster: RunnerHubCluster, snapshot: Snapshot, status: RedisStatus, creating: bool, refusal: str = ""
) -> Verdict:
    """RedisReady: a master that a majority of Sentinels agrees on, which takes writes, and with replicas to do so.

    `refusal`: the master's answer to a write that it refuses.
    """
    now, counted = resize_redis.replicas(cluster, snapshot), resize_redis.counted(cluster, snapshot)
    wanted = max(now, cluster.spec.redis.replicas)
    pods = snapshot.pods_of(names.REDIS)
    linked = sum(replica.link == "ok" for replica in status.replicas)
    sentinels = status.sentinels or 0
    majority = counted // 2 + 1
    needed = min_replicas_to_write(counted)
    followed = linked >= needed
    serves = status.master is not None and followed and not refusal
    full = serves and linked >= wanted - 1 and sentinels >= wanted and _ready(pods) >= wanted
    master = f"master {status.master}" if status.master else "no master"
    detail = (
        f"{master}, {_ready(pods)} of {wanted} pods ready, {linked} of {wanted - 1} replicas linked, "
        f"{sentinels} of {wanted} sentinels agree"
    )
    if serves and (sentinels < majority or not can_fail_over(snapshot.sentinels, now)):
        detail += "; no majority of sentinels: a failover is not possible now"
        if tilted := sum(view.tilt for view in snapshot.sentinels):
            detail += f" ({tilted} stood still and do nothing for half a minute)"
    crowded = fullest(status.instances, FULL_PERCENT)
    full = full and not crowded
    detail = _clauses(
        detail,
        f"the master refuses writes: {refusal}" if refusal else "",
        f"too few replicas follow the master, so it takes no writes (it needs {needed})"
        if status.master and not followed and not refusal
        else "",
        *fullness.told(status.instances, fullness.REDIS_SIZE),
        *fullness.memory_told(status),
        deafness_told(status.deaf_queues),
    )
    verdict = _verdict(
        ConditionType.REDIS, serves=serves, full=full, creating=creating, detail=detail, pods=pods
    )
    if refusal and verdict.reason == ConditionReason.UNAVAILABLE:
        return replace(verdict, reason=ConditionReason.WRITES_REFUSED)
    if status.deaf_queues and verdict.status == "True":
        return replace(verdict, reason=ConditionReason.WORKERS_DEAF, full=False)
    return verdict


def deafness_told(queues: Sequence[str]) -> str:
    """A clause about queues whose workers take no job, "" when there are none."""
    return f"workers take no job of {', '.join(queues)}, although jobs wait: restart them" if queues else ""


def orchestrators_verdict(
    cluster: RunnerHubCluster,
    snapshot: Snapshot,
    status: OrchestratorStatus,
    creating: bool,
    scaled: Scaled | None = None,
    migration: str = "",
    failing_checks: Mapping[str, str] = MappingProxyType({}),
) -> Verdict:
    """OrchestratorsReady: at least one serves; full with all ready, a leader and no check that fails.

    `migration`: what a new image waits for. `failing_checks`: what their ha-agents say of checks without which
    requests are served, by name.
    """
    wanted, told = _size(cluster.spec.orchestrator.replicas, scaled)
    pods = snapshot.pods_of(names.ORCHESTRATOR)
    full = status.ready >= max(wanted, 1) and status.leader is not None
    leader = f"leader {status.leader}" if status.leader else "no leader"
    detail = _clauses(
        f"{status.ready} of {wanted} ready{told}, {leader}",
        _refused(cluster, snapshot, names.ORCHESTRATOR),
        migration,
        *(f"{_check_fails(name)}{error}" for name, error in sorted(failing_checks.items())),
    )
    verdict = _verdict(
        ConditionType.ORCHESTRATORS,
        serves=status.ready > 0,
        full=full,
        creating=creating,
        detail=detail,
        pods=pods,
    )
    if failing_checks and verdict.reason == ConditionReason.AVAILABLE:
        return replace(verdict, reason=ConditionReason.CHECKS_FAIL, full=False)
    return verdict


def _check_fails(name: str) -> str:
    return f"the check of {name} fails: "


def checks_in(message: str) -> dict[str, str]:
    """The failing checks that a message of OrchestratorsReady tells, with their errors, by name."""
    start = _check_fails(f"({'|'.join(names.HEALTH_BESIDE)})")
    return dict(re.findall(f"{start}(.*?)(?=; the check of |; since |$)", message))


def load_balancer_verdict(
    cluster: RunnerHubCluster,
    snapshot: Snapshot,
    creating: bool,
    scaled: Scaled | None = None,
    *,
    unserved: str = "",
    outside: Sequence[str] | None = None,
) -> Verdict:
    """LoadBalancerReady: at least one HAProxy serves; full with all ready, none of which refuses its settings.

    `unserved`: why no request through those that are ready is served. `outside`: addresses of the Service from outside,
    None where it is to have none.
    """
    wanted, told = _size(cluster.spec.load_balancer.replicas, scaled)
    pods = snapshot.pods_of(names.LOAD_BALANCER)
    ready = _ready(pods)
    refusals = sorted({state.refused for state in snapshot.balancers if state.refused})
    parts = [f"{ready} of {wanted} ready{told}"]
    if unserved:
        parts.append(f"no request is served: {unserved}")
    if outside is not None and not outside:
        service = names.load_balancer_service(cluster.name)
        parts.append(f"nobody has given Service {service} of type LoadBalancer an address from outside yet")
    if refusals:
        parts.append(f"HAProxy goes on with its former settings: {refusals[0]}")
    elif late := _without_latest_settings(cluster, snapshot):
        parts.append(f"{late} of {len(pods)} will load the latest settings within two minutes")
    tls = cluster.spec.load_balancer.tls
    ends = [state.certificate_until for state in snapshot.balancers if state.certificate_until is not None]
    expired = tls is not None and any(end <= snapshot.now for end in ends)
    if tls is not None and ends and min(ends) - snapshot.now < CERTIFICATE_WARNING:
        tense = "has ended" if expired else "ends"
        parts.append(
            f"the certificate in Secret {tls.secret_name} {tense} at {stamp(min(ends))}; put another one there, which "
            "takes effect without a restart"
        )
    return _verdict(
        ConditionType.LOAD_BALANCER,
        serves=ready > 0 and not unserved,
        full=ready >= max(wanted, 1) and not refusals and not unserved and not expired,
        creating=creating,
        detail=_clauses(*parts, _refused(cluster, snapshot, names.LOAD_BALANCER)),
        pods=pods,
    )


def _without_latest_settings(cluster: RunnerHubCluster, snapshot: Snapshot) -> int:
    """Number of HAProxy pods that tell of another configuration than the one in their ConfigMap."""
    name = names.child(cluster.name, names.LOAD_BALANCER)
    text = ((snapshot.child("ConfigMap", name) or {}).get("data") or {}).get("haproxy.cfg", "")
    return sum(state.loaded != configuration_digest(text) for state in snapshot.balancers)


def overall_verdicts(components: list[Verdict], creating: bool, progressing: Verdict) -> list[Verdict]:
    """Ready, Progressing and Degraded from the components' verdicts (without the Ingress)."""
    failing = [verdict for verdict in components if verdict.status != "True"]
    reduced = [verdict for verdict in components if not verdict.full]
    if failing:
        reason = ConditionReason.CREATING if creating else ConditionReason.COMPONENTS_NOT_READY
        ready = Verdict(ConditionType.READY, "False", reason, _list(failing))
    else:
        message = _list(reduced) or "all components serve"
        ready = Verdict(ConditionType.READY, "True", ConditionReason.AVAILABLE, message)
    if creating:
        degraded = Verdict(
            ConditionType.DEGRADED, "False", ConditionReason.CREATING, "the cluster is being created"
        )
    elif reduced:
        degraded = Verdict(ConditionType.DEGRADED, "True", ConditionReason.REDUCED_REDUNDANCY, _list(reduced))
    else:
        degraded = Verdict(ConditionType.DEGRADED, "False", ConditionReason.AS_EXPECTED, "nothing is missing")
    return [ready, progressing, degraded]


def progressing_verdict(
    components: list[Verdict],
    rollout: Rollout | None,
    growth: Growth,
    migration: Migration,
    behind: Sequence[str] = (),
    *,
    paused: bool,
    creating: bool,
    differing: int,
) -> Verdict:
    """Progressing: what is under way; `differing` is the number of objects that are not yet as the spec wants.

    `behind`: pods that still run with older settings.
    """
    kind = ConditionType.PROGRESSING
    grows = "; ".join(part for part in (growth.under_way, growth.refused) if part)
    due = f"a {rollout.kind} of {rollout.component} is due" if rollout is not None else ""
    written = f"{differing} objects differ from the spec" if differing else ""
    if paused:
        held_back = "; ".join(part for part in (written, due, grows) if part) or "nothing is held back"
        return Verdict(kind, "False", ConditionReason.PAUSED, f"spec.paused is true: {held_back}")
    if creating:
        reduced = [verdict for verdict in components if not verdict.full]
        return Verdict(kind, "True", ConditionReason.CREATING, _list(reduced))
    # A repair is told with the component: the spec is in effect, as far as that lies with the operator.
    if rollout is not None and not rollout.repairs:
        message = f"rolling change of {rollout.component}, waiting for {rollout.waiting_for}"
        message = "; ".join(part for part in (message, grows) if part)
        return Verdict(kind, "True", ConditionReason.ROLLING_CHANGE, message)
    if migration.holds:
        reason = ConditionReason.MIGRATION_FAILED if migration.failed else ConditionReason.MIGRATING
        message = "; ".join(part for part in (migration.told, grows) if part)
        return Verdict(kind, "False" if migration.failed else "True", reason, message)
    if growth.under_way:
        return Verdict(kind, "True", ConditionReason.VOLUMES_GROWING, grows)
    if differing:
        return Verdict(kind, "True", ConditionReason.CHANGING, f"{differing} objects are being changed")
    if behind:
        message = f"new settings are about to take effect in {', '.join(behind)}"
        return Verdict(kind, "True", ConditionReason.CHANGING, message)
    if growth.refused:
        return Verdict(kind, "False", ConditionReason.VOLUME_GROWTH_REFUSED, growth.refused)
    return Verdict(kind, "False", ConditionReason.SETTLED, "the spec is in effect")


def _list(verdicts: list[Verdict]) -> str:
    return "; ".join(f"{verdict.type.removesuffix('Ready')}: {verdict.message}" for verdict in verdicts)


def reduced_since(
    verdicts: list[Verdict],
    known: Mapping[str, str],
    previous: RunnerHubClusterStatus,
    now: datetime,
) -> dict[str, str]:
    """Since when each component that is not full has been so, by condition type, RFC 3339.

    After a restart of the operator, `known` is empty and the times of the last written conditions are the best guess.
    """
    before = {condition.type: condition for condition in previous.conditions}
    degraded = before.get(ConditionType.DEGRADED)
    found = {}
    for verdict in verdicts:
        if verdict.full:
            continue
        own = before.get(verdict.type)
        told = own if own is not None and own.status == "False" else degraded
        lasting = told is not None and told.status == ("False" if told is own else "True")
        found[str(verdict.type)] = known.get(verdict.type) or (
            told.last_transition_time if told is not None and lasting else stamp(now)
        )
    return found


def with_since(verdicts: list[Verdict], since: Mapping[str, str]) -> list[Verdict]:
    """The verdicts, each that is not full with the time since when."""
    return [
        replace(verdict, message=f"{verdict.message}; since {since[verdict.type]}")
        if verdict.type in since
        else verdict
        for verdict in verdicts
    ]


def stamp(moment: datetime) -> str:
    """A time as the Kubernetes type Time."""
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def with_times(
    verdicts: list[Verdict], previous: RunnerHubClusterStatus, generation: int, now: datetime
) -> tuple[Condition, ...]:
    """Conditions in a fixed order; lastTransitionTime moves only when the status does."""
    before = {condition.type: condition for condition in previous.conditions}
    by_type = {verdict.type: verdict for verdict in verdicts}
    result = []
    for kind in ConditionType:
        verdict = by_type.get(kind) or Verdict(
            kind, "Unknown", ConditionReason.NOT_OBSERVED, "not looked at yet"
        )
        old = before.get(kind.value)
        same = old is not None and old.status == verdict.status
        result.append(
            Condition(
                type=kind.value,
                status=verdict.status,
                reason=verdict.reason,
                message=verdict.message,
                last_transition_time=old.last_transition_time if old is not None and same else stamp(now),
                observed_generation=generation,
            )
        )
    return tuple(result)
