"""Putting the plan together."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Final

from .. import names
from ..actions import (
    GeneratePasswords,
    GrowVolume,
    MarkPods,
    OrphanPods,
    PatchPatroniConfig,
    Rollout,
    RunnerSteps,
)
from ..api import (
    Condition,
    ConditionReason,
    ConditionType,
    EventReason,
    Failover,
    OrchestratorStatus,
    PostgresStatus,
    RedisStatus,
    RunnerHubCluster,
    RunnerHubClusterStatus,
)
from ..kube.events import EventNote
from ..resources.common import BuildContext, Images, Manifest
from ..resources.credentials import CredentialSecret
from ..resources.patroni import dynamic_config_patch, patroni_dynamic_config
from ..snapshot import Scaled, Snapshot
from . import (
    conditions,
    credentials,
    entrance,
    failovers,
    fullness,
    leases,
    migration,
    objects,
    pools,
    repair,
    resize_redis,
    rotation,
    runners,
    settings_in_use,
    status,
    switchover,
    volumes,
)
from .objects import Matches
from .patience import Patience, Told, calm_lags, deaf_queues, told
from .rollout import LastStep, has_old_pods, plan_rollout


@dataclass(frozen=True, slots=True)
class Unchanged:
    """What building gave when nothing was to be written; it holds as long as what it was made from (`inputs`)."""

    inputs: tuple[object, ...]
    waiting: tuple[str, ...]
    patroni: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ClusterMemory:
    """What the operator remembers of a cluster between two visits; losing it costs only time and measured durations.

    `rejection`: reason and message of the last apply that was refused, until one passes.
    `since`: since when components have not been full, by condition type. `matches`: objects that were found to be as
    they should be. `repair`: members of the database that are broken or were made anew. `refusals`: claims that were
    not allowed to grow. `passwords`: the Secrets as they were. `marked_settings`: the queue's settings that pods were
    marked for. `failed_migration`: the Job whose failure was told. `runners`: since when pools have had too many.
    `lags_told`: when lags were told last that alone had changed. `deaf_queues`: when each was last called deaf.
    """

    roles: failovers.Memory
    patience: Patience = field(default_factory=Patience)
    lags_told: datetime | None = None
    deaf_queues: Mapping[str, datetime] = field(default_factory=dict)
    last_step: LastStep = field(default_factory=LastStep)
    rejection: tuple[ConditionReason, str] | None = None
    since: Mapping[str, str] = field(default_factory=dict)
    unchanged: Unchanged | None = None
    matches: Matches = field(default_factory=dict)
    repair: repair.Memory = field(default_factory=repair.Memory)
    refusals: volumes.Refusals = field(default_factory=dict)
    passwords: rotation.Known = field(default_factory=rotation.Known)
    marked_settings: str = ""
    failed_migration: str = ""
    runners: runners.Memory = field(default_factory=runners.Memory)


@dataclass(frozen=True, slots=True)
class Plan:
    """What should be done, in this order: secrets, passwords, marks, objects, prune, orphan; status and Events; growth;
    Patroni, rollout; runners.

    `objects` are those that differ from what is there. `orphan`: StatefulSets to be deleted without their pods, to be
    made anew at the next visit. `settled`: nothing is going on or missing.
    """

    secrets: tuple[CredentialSecret, ...]
    passwords: tuple[GeneratePasswords, ...]
    marks: tuple[MarkPods, ...]
    objects: tuple[Manifest, ...]
    prune: tuple[Manifest, ...]
    orphan: tuple[OrphanPods, ...]
    growth: tuple[GrowVolume, ...]
    runners: RunnerSteps
    patroni_patch: PatchPatroniConfig | None
    rollout: Rollout | None
    disruption_lease: Manifest | None
    status: RunnerHubClusterStatus
    events: tuple[EventNote, ...]
    failovers: tuple[Failover, ...]
    memory: ClusterMemory
    settled: bool

    @property
    def writes(self) -> bool:
        """Whether anything beyond the status is to be changed, apart from Patroni's configuration.

        That may have to wait for long while all else is settled, and looks for itself whether the cluster is current.
        """
        step = self.rollout.step if self.rollout is not None else None
        return bool(
            self.secrets
            or self.passwords
            or self.marks
            or self.objects
            or self.prune
            or self.orphan
            or self.growth
            or self.runners
            or self.disruption_lease is not None
            or step is not None
        )


@dataclass(frozen=True, slots=True)
class _Sections:
    """The sections of the status. `seen_redis` is the reading itself, which decisions use.

    `silence`: of the Postgres primary.
    """

    told: Told
    seen_redis: RedisStatus
    orchestrator: OrchestratorStatus
    patience: Patience
    lags_told: datetime | None
    deaf_queues: Mapping[str, datetime]
    scaled: Mapping[str, Scaled]
    silence: failovers.Silence

    @property
    def postgres(self) -> PostgresStatus:
        """The database."""
        return self.told.postgres

    @property
    def redis(self) -> RedisStatus:
        """The queue."""
        return self.told.redis


@dataclass(frozen=True, slots=True)
class _Changes:
    """What differs from the spec. `renewals`: Deployments whose writing renews pods, so each waits for its turn.

    `anew`: StatefulSets that can be written only when the one that is there is gone.
    """

    secrets: tuple[CredentialSecret, ...] = ()
    lost: Mapping[ConditionType, str] = field(default_factory=dict)
    objects: tuple[Manifest, ...] = ()
    renewals: tuple[Manifest, ...] = ()
    anew: tuple[Manifest, ...] = ()
    prune: tuple[Manifest, ...] = ()
    waiting: tuple[str, ...] = ()
    patroni: Mapping[str, Any] = field(default_factory=dict)
    unchanged: Unchanged | None = None
    matches: Matches = field(default_factory=dict)
    migration: migration.Migration = field(default_factory=migration.Migration)


@dataclass(frozen=True, slots=True)
class _Asked:
    """Disruptions that follow from no change of the spec: the switchover of an annotation, the repair of a member."""

    switchover: Rollout | None
    repair: Rollout | None


@dataclass(slots=True)
class _Notes:
    events: list[EventNote] = field(default_factory=list)
    failovers: list[Failover] = field(default_factory=list)


def make_plan(
    cluster: RunnerHubCluster, snapshot: Snapshot, images: Images, memory: ClusterMemory | None
) -> Plan:
    """Plan one visit."""
    memory = memory or ClusterMemory(failovers.initial_memory(cluster.status))
    sections = _sections(cluster, snapshot, memory)
    changes = _changes(cluster, snapshot, images, sections, memory)
    refused = memory.last_step.refusal(snapshot.now)
    request = switchover.follow(cluster, snapshot, sections.postgres.primary, refused)
    mending = repair.look(cluster, snapshot, memory.repair)
    asked = _Asked(request.rollout, mending.rollout)
    rollout = _rollout(cluster, snapshot, sections, changes, memory.last_step, asked)
    passwords = rotation.look(cluster, snapshot, memory.passwords)
    in_use = settings_in_use.look(cluster, snapshot, memory.marked_settings)
    growth = volumes.plan_growth(cluster, snapshot, _holders(sections), memory.refusals)
    context = BuildContext(cluster, images)
    crew = pools.look(context, snapshot, memory.runners)
    verdicts, since, full = _verdicts(
        cluster, snapshot, sections, changes, rollout, mending, growth, in_use.behind, memory
    )
    verdicts.append(pools.verdict(cluster, snapshot, crew, demand_lost=sections.told.demand_lost))
    written = conditions.with_times(verdicts, cluster.status, cluster.generation, snapshot.now)

    notes = _Notes(events=[*request.events, *mending.events])
    notes.events += () if cluster.spec.paused else passwords.events
    notes.events += fullness.events(
        cluster.status.postgres.instances, sections.postgres.instances, fullness.POSTGRES_SIZE
    )
    notes.events += fullness.events(
        cluster.status.redis.instances, sections.redis.instances, fullness.REDIS_SIZE
    )
    notes.events += fullness.queue_events(cluster.status.redis, sections.redis)
    causes = _own_causes(memory, rollout, snapshot.now)
    if switchover.is_followed(cluster.status.postgres.switchover, request.status):
        causes[names.POSTGRES] = "Requested"
    failed = changes.migration.failed
    if failed and failed != memory.failed_migration and not cluster.spec.paused:
        notes.events.append(EventNote("Warning", ConditionReason.MIGRATION_FAILED, changes.migration.told))
    roles = _track_roles(memory, snapshot, sections, causes, notes)
    _condition_events(cluster.status.conditions, written, notes)
    new_status = RunnerHubClusterStatus(
        observed_generation=cluster.generation,
        phase=_phase(written),
        conditions=written,
        postgres=sections.postgres.model_copy(update={"switchover": request.status}),
        redis=sections.redis,
        orchestrator=sections.orchestrator,
        runners=pools.status(
            cluster.status.runners, crew, snapshot.now, jobs_known=snapshot.demand is not None
        ),
        failovers=tuple([*reversed(notes.failovers), *cluster.status.failovers][: failovers.MAX_FAILOVERS]),
        pending_updates=(*changes.waiting, *crew.waiting),
        endpoints=status.endpoints(cluster, entrance.service_addresses(cluster, snapshot)),
    )
    told_leases = objects.differing(
        leases.observed_leases(context, snapshot, sections.postgres, sections.redis), snapshot
    )
    keys = credentials.token_keys(context, snapshot, pools.runner_token(context, snapshot))
    tokens = objects.differing((*keys, *crew.secrets), snapshot)
    paused = cluster.spec.paused
    orphan = () if paused else _orphan(changes.anew, snapshot)
    notes.events += [_replacement_event(action) for action in orphan]
    under_way = (
        rollout is not None
        or changes.objects
        or changes.secrets
        or passwords.generate
        or changes.prune
        or changes.anew
        or growth.steps
        or in_use.behind
        or (changes.migration.holds and not failed)
        or tokens
        or crew.moving
    )
    return Plan(
        secrets=() if paused else changes.secrets,
        passwords=() if paused else passwords.generate,
        marks=() if paused else (*passwords.marks, *([in_use.mark] if in_use.mark is not None else ())),
        # Also of a paused cluster: a token that ran out would part the runners from the orchestrators.
        objects=(*_there(tokens, snapshot), *told_leases)
        if paused
        else (*tokens, *changes.objects, *told_leases),
        prune=() if paused else (*changes.prune, *crew.prune),
        orphan=orphan,
        growth=() if paused else growth.steps,
        runners=RunnerSteps() if paused else crew.steps,
        patroni_patch=None if paused else _patroni_patch(cluster, snapshot, changes),
        rollout=None if paused else rollout,
        disruption_lease=_disruption_lease(context, snapshot, None if paused else rollout),
        status=new_status,
        events=tuple(notes.events),
        failovers=tuple(notes.failovers),
        memory=replace(
            memory,
            roles=roles,
            patience=sections.patience,
            lags_told=sections.lags_told,
            deaf_queues=sections.deaf_queues,
            since=since,
            unchanged=changes.unchanged,
            matches=changes.matches,
            repair=mending.memory,
            refusals=growth.refusals,
            passwords=memory.passwords if paused else passwords.known,
            marked_settings=memory.marked_settings if paused else in_use.marked,
            failed_migration=failed,
            runners=crew.memory,
        ),
        settled=full
        and sections.patience == Patience()
        and not sections.silence.looks
        and (paused or not under_way),
    )


def _there(manifests: Iterable[Manifest], snapshot: Snapshot) -> Iterator[Manifest]:
    """Those of which there is an object."""
    for manifest in manifests:
        if (manifest["kind"], manifest["metadata"]["name"]) in snapshot.children:
            yield manifest


def _sections(cluster: RunnerHubCluster, snapshot: Snapshot, memory: ClusterMemory) -> _Sections:
    seen_redis = status.redis_status(cluster, snapshot)
    silence = failovers.silence(memory.roles.get(names.POSTGRES, failovers.Role()), snapshot)
    seen_postgres = status.postgres_status(cluster, snapshot, silence)
    found, patience = told(cluster, snapshot, seen_postgres, seen_redis, memory.patience)
    found, lags_told = calm_lags(cluster.status, found, memory.lags_told, snapshot.now)
    deaf = deaf_queues(cluster.status.redis, snapshot, memory.deaf_queues)
    redis = found.redis.model_copy(update={"deaf_queues": tuple(deaf)})
    return _Sections(
        told=replace(found, redis=redis),
        seen_redis=seen_redis,
        lags_told=lags_told,
        deaf_queues=deaf,
        orchestrator=status.orchestrator_status(cluster, snapshot),
        patience=patience,
        scaled=objects.scaled(cluster, snapshot),
        silence=silence,
    )


def _changes(
    cluster: RunnerHubCluster,
    snapshot: Snapshot,
    images: Images,
    sections: _Sections,
    memory: ClusterMemory,
) -> _Changes:
    redis_counted = resize_redis.counted(cluster, snapshot, sections.seen_redis)
    # Building and comparing forty objects is most of a visit's work; as long as neither the spec nor any object
    # changed there is still nothing to write.
    inputs = (
        cluster.uid,
        cluster.generation,
        snapshot.children.revision,
        snapshot.http_routes,
        sections.redis.bootstrapped,
        redis_counted,
        volumes.smallest_postgres_volume(cluster, snapshot),
        volumes.smallest_redis_volume(resize_redis.of_now(cluster, snapshot), snapshot),
        # What runners share stays for as long as there is one.
        bool(snapshot.pods_of(names.RUNNER)),
    )
    unchanged = memory.unchanged
    if unchanged is not None and unchanged.inputs == inputs:
        return _Changes(
            waiting=unchanged.waiting,
            patroni=unchanged.patroni,
            unchanged=unchanged,
            matches=memory.matches,
        )
    context = objects.context_of(
        cluster,
        snapshot,
        images,
        redis_bootstrapped=sections.redis.bootstrapped,
        redis_counted=redis_counted,
        scaled=sections.scaled,
    )
    desired = objects.desired(context, snapshot)
    serves = sections.postgres.primary is not None and any(
        pod.ready for pod in snapshot.pods_of(names.POOLER)
    )
    migrating = migration.look(desired.orchestrator, snapshot, database_serves=serves)
    compared = objects.compare(_without_held(desired.manifests, migrating), snapshot, memory.matches)
    anew = tuple(item for item in compared.pending if volumes.is_in_the_way(item, snapshot))
    pending = tuple(item for item in compared.pending if item not in anew)
    surplus = objects.surplus(cluster, snapshot, desired.manifests, migrating)
    found = _Changes(
        secrets=tuple(credentials.missing_secrets(context, snapshot)),
        lost=credentials.lost_credentials(context, snapshot),
        objects=tuple(item for item in pending if not objects.renews_pods(item, snapshot)),
        renewals=tuple(item for item in pending if objects.renews_pods(item, snapshot)),
        anew=anew,
        prune=surplus.prune,
        waiting=desired.waiting,
        patroni=patroni_dynamic_config(desired.postgres),
        matches=compared.matches,
        migration=migrating,
    )
    if migrating.holds:
        return found
    if compared.pending or found.secrets or found.lost or found.prune or surplus.held:
        return found
    return replace(found, unchanged=Unchanged(inputs, found.waiting, found.patroni))


def _without_held(manifests: Sequence[Manifest], migrating: migration.Migration) -> Iterator[Manifest]:
    """All but the orchestrators' Deployment while the schema is not ready for it, and the Job that makes it so."""
    if migrating.job is not None:
        yield migrating.job
    for manifest in manifests:
        component = manifest["metadata"]["labels"][names.LABEL_COMPONENT]
        if not (migrating.holds and manifest["kind"] == "Deployment" and component == names.ORCHESTRATOR):
            yield manifest


def _rollout(
    cluster: RunnerHubCluster,
    snapshot: Snapshot,
    sections: _Sections,
    changes: _Changes,
    last: LastStep,
    asked: _Asked,
) -> Rollout | None:
    # A StatefulSet that is about to be written makes pods due that come before those of Deployments.
    first = any(item["kind"] == "StatefulSet" for item in (*changes.objects, *changes.anew))
    renewals = () if first else changes.renewals
    rollout = plan_rollout(
        cluster, snapshot, sections.seen_redis, last, renewals, asked.switchover, asked.repair
    )
    if rollout is not None and (other := leases.held_by_other(cluster, snapshot)):
        waiting_for = f"{other}, which holds {names.disruption_lease(cluster.name)}"
        return replace(rollout, step=None, waiting_for=waiting_for)
    return rollout


def _verdicts(
    cluster: RunnerHubCluster,
    snapshot: Snapshot,
    sections: _Sections,
    changes: _Changes,
    rollout: Rollout | None,
    mending: repair.Repair,
    growth: volumes.Growth,
    behind: Sequence[str],
    memory: ClusterMemory,
) -> tuple[list[conditions.Verdict], Mapping[str, str], bool]:
    """All verdicts, since when components are not full, and whether all are."""
    before = cluster.status
    creating = before.phase in ("Pending", "Creating", "Invalid", "Paused") and not _was_ready(before)
    components = [
        conditions.postgres_verdict(
            cluster, snapshot, sections.postgres, creating, mending.told, mending.refused
        ),
        conditions.redis_verdict(cluster, snapshot, sections.redis, creating, sections.told.refusal),
        conditions.orchestrators_verdict(
            cluster,
            snapshot,
            sections.orchestrator,
            creating,
            sections.scaled.get(names.ORCHESTRATOR),
            changes.migration.told,
            sections.told.failing_checks,
        ),
        conditions.load_balancer_verdict(
            cluster,
            snapshot,
            creating,
            sections.scaled.get(names.LOAD_BALANCER),
            unserved=sections.told.unserved,
            outside=entrance.service_addresses(cluster, snapshot),
        ),
    ]
    components = credentials.with_lost_credentials(components, changes.lost)
    creating = creating and any(verdict.status != "True" for verdict in components)
    since: Mapping[str, str] = {}
    if not creating:
        since = conditions.reduced_since(components, memory.since, before, snapshot.now)
        components = conditions.with_since(components, since)
    progressing = conditions.progressing_verdict(
        components,
        rollout,
        growth,
        changes.migration,
        behind,
        paused=cluster.spec.paused,
        creating=creating,
        differing=len(changes.objects) + len(changes.renewals) + len(changes.anew),
    )
    verdicts = [
        *conditions.overall_verdicts(components, creating, progressing),
        _accepted(memory.rejection),
        *components,
        entrance.ingress_verdict(cluster, snapshot),
    ]
    return verdicts, since, all(verdict.full for verdict in components)


def _accepted(rejection: tuple[ConditionReason, str] | None) -> conditions.Verdict:
    if rejection is not None:
        return conditions.Verdict(ConditionType.ACCEPTED, "False", *rejection)
    return conditions.Verdict(ConditionType.ACCEPTED, "True", ConditionReason.VALID, "the spec is valid")


def rejected_status(
    previous: RunnerHubClusterStatus, reason: ConditionReason, message: str, generation: int, now: datetime
) -> RunnerHubClusterStatus:
    """Status of a resource whose spec the operator does not accept; what was observed before stays."""
    others = [
        conditions.Verdict(ConditionType(item.type), item.status, ConditionReason(item.reason), item.message)
        for item in previous.conditions
        if item.type in set(ConditionType)
        and item.type != ConditionType.ACCEPTED
        and item.reason in set(ConditionReason)
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
    if by_type[ConditionType.PROGRESSING].reason == ConditionReason.PAUSED:
        return "Paused"
    if by_type[ConditionType.PROGRESSING].reason == ConditionReason.CREATING:
        return "Creating"
    if by_type[ConditionType.READY].status != "True":
        return "Unavailable"
    if by_type[ConditionType.PROGRESSING].status == "True":
        return "Updating"
    return "Degraded" if by_type[ConditionType.DEGRADED].status == "True" else "Ready"


def _holders(sections: _Sections) -> dict[str, str | None]:
    return {
        names.POSTGRES: sections.postgres.primary,
        names.REDIS: sections.redis.master,
        names.ORCHESTRATOR: sections.orchestrator.leader,
    }


def _own_causes(memory: ClusterMemory, rollout: Rollout | None, now: datetime) -> dict[str, str]:
    """The roles that the operator itself moves now, each with what is told as the cause."""
    found = {
        component: "RollingChange"
        for component in (names.POSTGRES, names.REDIS)
        if memory.last_step.has_moved(memory.roles.get(component, failovers.Role()).holder, now)
    }
    # Inside a Deployment Kubernetes takes the steps.
    if rollout is not None and rollout.component == names.ORCHESTRATOR:
        found[names.ORCHESTRATOR] = "RollingChange"
    return found


def _last_heard(
    component: str, known: failovers.Role, holder: str | None, snapshot: Snapshot
) -> datetime | None:
    """When the former holder of a role was last heard from, where anybody listens; None: not now."""
    if component == names.REDIS:
        return failovers.last_heard(snapshot, known.holder)
    patroni = snapshot.patroni
    if component == names.POSTGRES and patroni is not None and patroni.by_leader and holder == known.holder:
        return snapshot.now
    return None


def _track_roles(
    memory: ClusterMemory, snapshot: Snapshot, sections: _Sections, causes: Mapping[str, str], notes: _Notes
) -> dict[str, failovers.Role]:
    roles = {}
    answered = {names.POSTGRES: snapshot.patroni is not None, names.REDIS: bool(snapshot.sentinels)}
    for component, holder in _holders(sections).items():
        known = memory.roles.get(component, failovers.Role())
        if component == names.POSTGRES:
            known = replace(known, silence=sections.silence)
        role, failover = failovers.track(
            component,
            known,
            holder,
            snapshot,
            causes.get(component),
            answered=answered.get(component, True),
            heard=_last_heard(component, known, holder, snapshot),
        )
        roles[component] = role
        if failover is not None:
            notes.failovers.append(failover)
            notes.events.append(_failover_event(failover))
    roles[names.POSTGRES] = replace(roles[names.POSTGRES], silence=sections.silence)
    return roles


_ROLE_WORDS: Final[Mapping[str, tuple[EventReason, str]]] = {
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
            notes.events.append(EventNote("Warning", ConditionReason(item.reason), item.message))
        elif item.type == ConditionType.DEGRADED and item.status == "True":
            notes.events.append(EventNote("Warning", "Degraded", item.message))
        elif item.type == ConditionType.DEGRADED and old.get(item.type) == "True":
            notes.events.append(EventNote("Normal", "Recovered", item.message))


def _orphan(anew: tuple[Manifest, ...], snapshot: Snapshot) -> tuple[OrphanPods, ...]:
    """The live StatefulSets that are in the way of those to be made anew and are not going yet."""
    found = []
    for item in anew:
        live = snapshot.child(item["kind"], item["metadata"]["name"])
        if live is not None and "deletionTimestamp" not in live["metadata"]:
            found.append(OrphanPods(live, item["metadata"]["labels"][names.LABEL_COMPONENT]))
    return tuple(found)


def _replacement_event(action: OrphanPods) -> EventNote:
    name = action.stateful_set["metadata"]["name"]
    message = f"StatefulSet {name} is made anew for larger volumes; its pods go on running"
    return EventNote("Normal", "StatefulSetReplaced", message)


def _patroni_patch(
    cluster: RunnerHubCluster, snapshot: Snapshot, changes: _Changes
) -> PatchPatroniConfig | None:
    # Also without a primary: what no server starts with can be corrected.
    if snapshot.patroni_config is None or snapshot.patroni is None:
        return None
    patch = dynamic_config_patch(changes.patroni, snapshot.patroni_config)
    return PatchPatroniConfig(patch, _renews_poolers(cluster, snapshot, changes)) if patch else None


def _renews_poolers(cluster: RunnerHubCluster, snapshot: Snapshot, changes: _Changes) -> bool:
    name = names.child(cluster.name, names.POOLER)
    live = snapshot.children.live("Deployment", name)
    return (
        live is None
        or has_old_pods(live)
        or any(item["metadata"]["name"] == name for item in changes.renewals)
        or any(pod.terminating for pod in snapshot.pods_of(names.POOLER) if not pod.is_lost(snapshot.now))
    )


def _disruption_lease(context: BuildContext, snapshot: Snapshot, rollout: Rollout | None) -> Manifest | None:
    """The Lease to be written: taken before the first step, given back when nothing is left to do."""
    if rollout is not None and rollout.step is not None:
        wanted = leases.disruption_lease(context, snapshot, leases.rollout_holder(rollout))
    elif rollout is None and leases.is_own(leases.disruption_holder(context.cluster, snapshot)):
        wanted = leases.disruption_lease(context, snapshot, "")
    else:
        return None
    return next(iter(objects.differing([wanted], snapshot)), None)
