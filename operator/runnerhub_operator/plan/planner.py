"""Putting the plan together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime

from .. import names
from ..actions import PatchPatroniConfig, Rollout
from ..api import Condition, ConditionType, Failover, RunnerHubCluster, RunnerHubClusterStatus
from ..kube.events import EventNote
from ..resources.common import BuildContext, Images, Manifest
from ..resources.credentials import CredentialSecret
from ..resources.patroni import dynamic_config_patch, patroni_dynamic_config
from ..snapshot import Snapshot
from . import conditions, failovers, leases, objects, status
from .patience import Patience, told
from .rollout import LastStep, plan_rollout

# While something moves, look again soon: elections are timed by what is seen.
BUSY_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class ClusterMemory:
    """What the operator remembers of a cluster between two visits; losing it costs only measured durations.

    `rejection`: reason and message of the last apply that was refused, until one passes.
    """

    roles: failovers.Memory
    patience: Patience = field(default_factory=Patience)
    last_step: LastStep = field(default_factory=LastStep)
    rejection: tuple[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """What should be done. Status and Events come first, then secrets, objects, prune, Patroni, rollout.

    `objects` are those that differ from what is there.
    """

    secrets: tuple[CredentialSecret, ...]
    objects: tuple[Manifest, ...]
    prune: tuple[Manifest, ...]
    patroni_patch: PatchPatroniConfig | None
    rollout: Rollout | None
    disruption_lease: Manifest | None
    status: RunnerHubClusterStatus
    events: tuple[EventNote, ...]
    failovers: tuple[Failover, ...]
    memory: ClusterMemory
    requeue_seconds: float


@dataclass(slots=True)
class _Notes:
    events: list[EventNote] = field(default_factory=list)
    failovers: list[Failover] = field(default_factory=list)


def make_plan(
    cluster: RunnerHubCluster,
    snapshot: Snapshot,
    images: Images,
    memory: ClusterMemory | None,
    steady_seconds: float,
) -> Plan:
    """Plan one visit. `steady_seconds` is the time until the next visit when nothing is going on."""
    memory = memory or ClusterMemory(failovers.initial_memory(cluster.status))
    seen_redis = status.redis_status(cluster, snapshot)
    postgres, redis, patience = told(
        cluster, snapshot, status.postgres_status(cluster, snapshot), seen_redis, memory.patience
    )
    orchestrator = status.orchestrator_status(cluster, snapshot)
    context = BuildContext(
        cluster,
        images,
        redis_bootstrapped=redis.bootstrapped or objects.had_redis_master(cluster, snapshot),
        redis_addresses=objects.redis_addresses(cluster, snapshot),
        token_secret_hash=objects.token_secret_hash(cluster, snapshot),
    )
    wanted = objects.desired_objects(context)
    pending = objects.differing(wanted, snapshot)

    rollout = plan_rollout(cluster, snapshot, seen_redis, memory.last_step)
    if rollout is not None and (other := leases.held_by_other(cluster, snapshot)):
        rollout = Rollout(
            rollout.component, None, f"{other}, which holds {names.disruption_lease(cluster.name)}"
        )

    creating = cluster.status.phase in ("Pending", "Creating", "Invalid") and not _was_ready(cluster.status)
    components = [
        conditions.postgres_verdict(cluster, snapshot, postgres, creating),
        conditions.redis_verdict(cluster, snapshot, redis, creating),
        conditions.orchestrators_verdict(cluster, snapshot, orchestrator, creating),
        conditions.load_balancer_verdict(cluster, snapshot, creating),
    ]
    components = objects.with_lost_credentials(components, context, snapshot)
    creating = creating and any(verdict.status != "True" for verdict in components)
    changing = f"{len(pending)} objects are being changed" if pending else None
    changing = changing or conditions.deployments_updating(cluster, snapshot)
    verdicts = [
        *conditions.overall_verdicts(components, rollout, creating, changing),
        _accepted(memory.rejection),
        *components,
        conditions.ingress_verdict(cluster, snapshot),
    ]
    written = conditions.with_times(verdicts, cluster.status, cluster.generation, snapshot.now)

    notes = _Notes()
    roles = _track_roles(
        memory,
        snapshot,
        {
            names.POSTGRES: postgres.primary,
            names.REDIS: redis.master,
            names.ORCHESTRATOR: orchestrator.leader,
        },
        rollout,
        notes,
    )
    _condition_events(cluster.status.conditions, written, notes)
    new_status = RunnerHubClusterStatus(
        observed_generation=cluster.generation,
        phase=_phase(written),
        conditions=written,
        postgres=postgres,
        redis=redis,
        orchestrator=orchestrator,
        failovers=tuple([*reversed(notes.failovers), *cluster.status.failovers][: failovers.MAX_FAILOVERS]),
        endpoints=status.endpoints(cluster),
    )
    settled = all(verdict.full for verdict in components) and not (
        rollout or changing or patience != Patience()
    )
    told_leases = leases.observed_leases(context, snapshot, postgres, redis)
    return Plan(
        secrets=tuple(objects.missing_secrets(context, snapshot)),
        objects=(*pending, *objects.differing(told_leases, snapshot)),
        prune=tuple(objects.surplus(cluster, snapshot, wanted)),
        patroni_patch=_patroni_patch(context, snapshot),
        rollout=rollout,
        disruption_lease=_disruption_lease(context, snapshot, rollout),
        status=new_status,
        events=tuple(notes.events),
        failovers=tuple(notes.failovers),
        memory=replace(memory, roles=roles, patience=patience),
        requeue_seconds=steady_seconds if settled else min(BUSY_SECONDS, steady_seconds),
    )


def _accepted(rejection: tuple[str, str] | None) -> conditions.Verdict:
    if rejection is not None:
        return conditions.Verdict(ConditionType.ACCEPTED, "False", *rejection)
    return conditions.Verdict(ConditionType.ACCEPTED, "True", "Valid", "the spec is valid")


def rejected_status(
    previous: RunnerHubClusterStatus, reason: str, message: str, generation: int, now: datetime
) -> RunnerHubClusterStatus:
    """Status of a resource whose spec the operator does not accept; what was observed before stays."""
    others = [
        conditions.Verdict(ConditionType(item.type), item.status, item.reason, item.message)
        for item in previous.conditions
        if item.type in set(ConditionType) and item.type != ConditionType.ACCEPTED
    ]
    accepted = conditions.Verdict(ConditionType.ACCEPTED, "False", reason, message)
    written = conditions.with_times([*others, accepted], previous, generation, now)
    return previous.model_copy(
        update={"observed_generation": generation, "phase": "Invalid", "conditions": written}
    )


def _was_ready(previous: RunnerHubClusterStatus) -> bool:
    return any(item.type == ConditionType.READY and item.status == "True" for item in previous.conditions)


def _phase(written: tuple[Condition, ...]) -> str:
    by_type = {item.type: item for item in written}
    if by_type[ConditionType.ACCEPTED].status == "False":
        return "Invalid"
    if by_type[ConditionType.PROGRESSING].reason == "Creating":
        return "Creating"
    if by_type[ConditionType.READY].status != "True":
        return "Unavailable"
    if by_type[ConditionType.PROGRESSING].status == "True":
        return "Updating"
    return "Degraded" if by_type[ConditionType.DEGRADED].status == "True" else "Ready"


def _track_roles(
    memory: ClusterMemory,
    snapshot: Snapshot,
    holders: Mapping[str, str | None],
    rollout: Rollout | None,
    notes: _Notes,
) -> dict[str, failovers.Role]:
    roles = {}
    for component, holder in holders.items():
        cause = "RollingChange" if rollout is not None and rollout.component == component else None
        role, failover = failovers.track(
            component, memory.roles.get(component, failovers.Role()), holder, snapshot, cause
        )
        roles[component] = role
        if failover is not None:
            notes.failovers.append(failover)
            notes.events.append(_failover_event(failover))
    return roles


_ROLE_WORDS = {
    names.POSTGRES: ("PrimaryChanged", "Postgres primary"),
    names.REDIS: ("MasterChanged", "Redis master"),
    names.ORCHESTRATOR: ("LeaderChanged", "leading orchestrator"),
}


def _failover_event(failover: Failover) -> EventNote:
    reason, role = _ROLE_WORDS[failover.component]
    took = f" after {failover.duration_seconds} s" if failover.duration_seconds is not None else ""
    return EventNote(
        "Normal",
        reason,
        f"{role} moved from {failover.from_ or 'nobody'} to {failover.to}{took} ({failover.cause})",
    )


_ANNOUNCED = (ConditionType.READY, ConditionType.DEGRADED, ConditionType.ACCEPTED)


def _condition_events(before: tuple[Condition, ...], after: tuple[Condition, ...], notes: _Notes) -> None:
    old = {item.type: item.status for item in before}
    if not before:
        notes.events.append(
            EventNote("Normal", "Creating", "creating database, queue, orchestrators, load balancer")
        )
    for item in after:
        if item.type not in _ANNOUNCED or old.get(item.type) == item.status:
            continue
        if item.type == ConditionType.READY and item.status == "True":
            notes.events.append(EventNote("Normal", "Ready", item.message))
        elif item.type == ConditionType.READY and old.get(item.type) == "True":
            notes.events.append(EventNote("Warning", "NotReady", item.message))
        elif item.type == ConditionType.ACCEPTED and item.status == "False":
            notes.events.append(EventNote("Warning", item.reason, item.message))
        elif item.type == ConditionType.DEGRADED and item.status == "True":
            notes.events.append(EventNote("Warning", "Degraded", item.message))
        elif item.type == ConditionType.DEGRADED and old.get(item.type) == "True":
            notes.events.append(EventNote("Normal", "Recovered", item.message))


def _patroni_patch(context: BuildContext, snapshot: Snapshot) -> PatchPatroniConfig | None:
    if snapshot.patroni_config is None or snapshot.patroni is None or snapshot.patroni.leader is None:
        return None
    patch = dynamic_config_patch(patroni_dynamic_config(context), snapshot.patroni_config)
    return PatchPatroniConfig(patch) if patch else None


def _disruption_lease(context: BuildContext, snapshot: Snapshot, rollout: Rollout | None) -> Manifest | None:
    """The Lease to be written: taken before the first step, given back when nothing is left to do."""
    if rollout is not None and rollout.step is not None:
        wanted = leases.disruption_lease(context, snapshot, leases.rollout_holder(rollout.component))
    elif rollout is None and leases.is_own(leases.disruption_holder(context.cluster, snapshot)):
        wanted = leases.disruption_lease(context, snapshot, "")
    else:
        return None
    return next(iter(objects.differing([wanted], snapshot)), None)
