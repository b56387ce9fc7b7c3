"""Putting the plan together."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

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
    events,
    failovers,
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

    def unmarked(self, before: ClusterMemory | None) -> ClusterMemory:
        """As it is when pods could not be marked: what they were to be marked for is new to the next visit, too."""
        if before is None:
            return replace(self, passwords=rotation.Known(), marked_settings="")
        return replace(self, passwords=before.passwords, marked_settings=before.marked_settings)


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

    @property
    def calm(self) -> bool:
        """Whether nothing that was read has to last before it is told."""
        return self.patience == Patience() and not self.silence.looks


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
class _Disruption:
    """The deliberate disruption that is due, and what can ask for one without a change of the spec.

    `change` is what people are told of: also while a repair goes first.
    """

    request: switchover.Request
    repairs: repair.Repair
    rollout: Rollout | None
    change: Rollout | None


@dataclass(frozen=True, slots=True)
class _InPlace:
    """What pods take over while they run: passwords, settings of the queue, larger volumes."""

    passwords: rotation.Rotation
    settings: settings_in_use.InUse
    growth: volumes.Growth

    @property
    def marks(self) -> tuple[MarkPods, ...]:
        """The pods that are to look at what they mount."""
        return (*self.passwords.marks, *([self.settings.mark] if self.settings.mark is not None else ()))


@dataclass(frozen=True, slots=True)
class _Judgement:
    """The conditions; since when components have not been full, by condition type, and whether all are now."""

    conditions: tuple[Condition, ...]
    since: Mapping[str, str]
    full: bool


@dataclass(frozen=True, slots=True)
class _Report:
    """What people are told, and what it was made of, to be remembered."""

    status: RunnerHubClusterStatus
    events: tuple[EventNote, ...]
    moves: tuple[Failover, ...]
    judgement: _Judgement
    roles: failovers.Memory


def make_plan(
    cluster: RunnerHubCluster, snapshot: Snapshot, images: Images, memory: ClusterMemory | None
) -> Plan:
    """Plan one visit. A paused cluster is told of as any other, and left as it is."""
    memory = memory or ClusterMemory(failovers.initial_memory(cluster.status))
    context, paused = BuildContext(cluster, images), cluster.spec.paused
    sections = _sections(cluster, snapshot, memory)
    changes = _changes(cluster, snapshot, images, sections, memory)
    disruption = _disruption(cluster, snapshot, sections, changes, memory)
    in_place = _in_place(cluster, snapshot, sections, memory)
    crew = pools.look(context, snapshot, memory.runners)
    tokens = _tokens(context, snapshot, crew)
    report = _report(cluster, snapshot, sections, changes, disruption, in_place, crew, memory)

    rollout = None if paused else disruption.rollout
    orphan = () if paused else _orphan(changes.anew, snapshot)
    under_way = _is_under_way(changes, disruption, in_place, crew, tokens)
    return Plan(
        secrets=() if paused else changes.secrets,
        passwords=in_place.passwords.generate,
        marks=in_place.marks,
        objects=(
            # Also of a paused cluster: a token that ran out would part the runners from the orchestrators.
            *(_there(tokens, snapshot) if paused else (*tokens, *changes.objects)),
            *_observed_leases(context, snapshot, sections),
        ),
        prune=() if paused else (*changes.prune, *crew.prune),
        orphan=orphan,
        growth=in_place.growth.steps,
        runners=RunnerSteps() if paused else crew.steps,
        patroni_patch=None if paused else _patroni_patch(cluster, snapshot, changes),
        rollout=rollout,
        disruption_lease=_disruption_lease(context, snapshot, rollout),
        status=report.status,
        events=(*report.events, *(events.of_replacement(action) for action in orphan)),
        failovers=report.moves,
        memory=_remember(memory, sections, changes, disruption, in_place, crew, report),
        settled=report.judgement.full and sections.calm and (paused or not under_way),
    )


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
        sections.scaled,
        snapshot.volumes,
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


def _disruption(
    cluster: RunnerHubCluster,
    snapshot: Snapshot,
    sections: _Sections,
    changes: _Changes,
    memory: ClusterMemory,
) -> _Disruption:
    refused = memory.last_step.refusal(snapshot.now)
    request = switchover.follow(cluster, snapshot, sections.postgres.primary, refused)
    repairs = repair.look(cluster, snapshot, memory.repair)
    # A StatefulSet that is about to be written makes pods due that come before those of Deployments.
    first = any(item["kind"] == "StatefulSet" for item in (*changes.objects, *changes.anew))
    renewals = () if first else changes.renewals
    other = leases.held_by_other(cluster, snapshot)

    def due(repairing: Rollout | None) -> Rollout | None:
        found = plan_rollout(
            cluster, snapshot, sections.seen_redis, memory.last_step, renewals, request.rollout, repairing
        )
        if found is None or other is None:
            return found
        waiting_for = f"{other}, which holds {names.disruption_lease(cluster.name)}"
        return replace(found, step=None, waiting_for=waiting_for)

    rollout = change = due(repairs.rollout)
    if repairs.rollout is not None:
        change = due(None) or rollout
    return _Disruption(switchover.behind(request, change), repairs, rollout, change)


def _in_place(
    cluster: RunnerHubCluster, snapshot: Snapshot, sections: _Sections, memory: ClusterMemory
) -> _InPlace:
    growth = volumes.plan_growth(cluster, snapshot, _holders(sections), memory.refusals)
    if cluster.spec.paused:
        # Nothing of it is done, and so none is remembered as done; how far volumes are is told all the same.
        return _InPlace(
            rotation.Rotation(known=memory.passwords),
            settings_in_use.InUse(marked=memory.marked_settings),
            replace(growth, steps=()),
        )
    return _InPlace(
        rotation.look(cluster, snapshot, memory.passwords),
        settings_in_use.look(cluster, snapshot, memory.marked_settings),
        growth,
    )


def _tokens(context: BuildContext, snapshot: Snapshot, crew: pools.Crew) -> tuple[Manifest, ...]:
    """The Secrets with the runners' token and the keys that judge it, those that differ from what is there."""
    keys = credentials.token_keys(context, snapshot, pools.runner_token(context, snapshot))
    return objects.differing((*keys, *crew.secrets), snapshot)


def _report(
    cluster: RunnerHubCluster,
    snapshot: Snapshot,
    sections: _Sections,
    changes: _Changes,
    disruption: _Disruption,
    in_place: _InPlace,
    crew: pools.Crew,
    memory: ClusterMemory,
) -> _Report:
    before, request = cluster.status, disruption.request
    judgement = _judge(cluster, snapshot, sections, changes, disruption, in_place, crew, memory)
    roles, moves = _track_roles(cluster, snapshot, sections, disruption, memory)
    new_status = RunnerHubClusterStatus(
        observed_generation=cluster.generation,
        phase=_phase(judgement.conditions),
        conditions=judgement.conditions,
        postgres=sections.postgres.model_copy(update={"switchover": request.status}),
        redis=sections.redis,
        orchestrator=sections.orchestrator,
        runners=pools.status(before.runners, crew, snapshot.now, jobs_known=snapshot.demand is not None),
        failovers=(*reversed(moves), *before.failovers)[: failovers.MAX_FAILOVERS],
        pending_updates=(*changes.waiting, *crew.waiting),
        endpoints=status.endpoints(cluster, entrance.service_addresses(cluster, snapshot)),
    )
    notes = (
        *request.events,
        *disruption.repairs.events,
        *in_place.passwords.events,
        *events.of_fullness(before, sections.postgres, sections.redis),
        *events.of_queue(before.redis, sections.redis),
        *(() if cluster.spec.paused else events.of_migration(changes.migration, memory.failed_migration)),
        *(events.of_failover(failover) for failover in moves),
        *events.of_conditions(before.conditions, judgement.conditions),
    )
    return _Report(new_status, notes, moves, judgement, roles)


def _judge(
    cluster: RunnerHubCluster,
    snapshot: Snapshot,
    sections: _Sections,
    changes: _Changes,
    disruption: _Disruption,
    in_place: _InPlace,
    crew: pools.Crew,
    memory: ClusterMemory,
) -> _Judgement:
    before, now = cluster.status, snapshot.now
    creating = before.phase in ("Pending", "Creating", "Invalid", "Paused") and not _was_ready(before)
    components = _components(cluster, snapshot, sections, changes, disruption.repairs, creating=creating)
    creating = creating and any(verdict.status != "True" for verdict in components)
    since: Mapping[str, str] = {}
    if not creating:
        since = conditions.reduced_since(components, memory.since, before, now)
        components = conditions.with_since(components, since)
    progressing = conditions.progressing_verdict(
        components,
        disruption.change,
        in_place.growth,
        changes.migration,
        in_place.settings.behind,
        paused=cluster.spec.paused,
        creating=creating,
        differing=len(changes.objects) + len(changes.renewals) + len(changes.anew),
    )
    verdicts = [
        *conditions.overall_verdicts(components, creating, progressing),
        _accepted(memory.rejection),
        *components,
        entrance.ingress_verdict(cluster, snapshot),
        pools.verdict(cluster, snapshot, crew, demand_lost=sections.told.demand_lost),
    ]
    written = conditions.with_times(verdicts, before, cluster.generation, now)
    return _Judgement(written, since, all(verdict.full for verdict in components))


def _components(
    cluster: RunnerHubCluster,
    snapshot: Snapshot,
    sections: _Sections,
    changes: _Changes,
    repairs: repair.Repair,
    *,
    creating: bool,
) -> list[conditions.Verdict]:
    """The verdicts on the components that Ready rests on."""
    components = [
        conditions.postgres_verdict(
            cluster, snapshot, sections.postgres, creating, repairs.told, repairs.refused
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
    return credentials.with_lost_credentials(components, changes.lost)


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


def _causes(
    cluster: RunnerHubCluster, snapshot: Snapshot, disruption: _Disruption, memory: ClusterMemory
) -> dict[str, str]:
    """The roles that the operator itself moves now, each with what is told as the cause."""
    found = {
        component: "RollingChange"
        for component in (names.POSTGRES, names.REDIS)
        if memory.last_step.has_moved(memory.roles.get(component, failovers.Role()).holder, snapshot.now)
    }
    # Inside a Deployment Kubernetes takes the steps.
    live = snapshot.children.live("Deployment", names.child(cluster.name, names.ORCHESTRATOR))
    if live is not None and has_old_pods(live):
        found[names.ORCHESTRATOR] = "RollingChange"
    if switchover.is_followed(cluster.status.postgres.switchover, disruption.request.status):
        found[names.POSTGRES] = "Requested"
    return found


def _last_heard(
    component: str, known: failovers.Role, holder: str | None, snapshot: Snapshot
) -> datetime | None:
    """When the former holder of a role was last heard from, where anybody listens; None: not now."""
    if component == names.REDIS:
        return failovers.last_heard(snapshot, known.holder)
    if component != names.POSTGRES:
        return None
    patroni, key = snapshot.patroni, snapshot.leader_key
    if patroni is not None and patroni.by_leader and holder == known.holder:
        return snapshot.now
    if key is None or key.holder != known.holder:
        return None
    heard = min(key.renewed_at, snapshot.now)
    return heard if (snapshot.now - heard).total_seconds() <= failovers.AWAY_SECONDS else None


def _track_roles(
    cluster: RunnerHubCluster,
    snapshot: Snapshot,
    sections: _Sections,
    disruption: _Disruption,
    memory: ClusterMemory,
) -> tuple[dict[str, failovers.Role], tuple[Failover, ...]]:
    """Who has which role now, and the moves since the last visit."""
    causes = _causes(cluster, snapshot, disruption, memory)
    roles, moves = {}, []
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
            moves.append(failover)
    roles[names.POSTGRES] = replace(roles[names.POSTGRES], silence=sections.silence)
    return roles, tuple(moves)


def _orphan(anew: tuple[Manifest, ...], snapshot: Snapshot) -> tuple[OrphanPods, ...]:
    """The live StatefulSets that are in the way of those to be made anew and are not going yet."""
    found = []
    for item in anew:
        live = snapshot.child(item["kind"], item["metadata"]["name"])
        if live is not None and "deletionTimestamp" not in live["metadata"]:
            found.append(OrphanPods(live, item["metadata"]["labels"][names.LABEL_COMPONENT]))
    return tuple(found)


def _is_under_way(
    changes: _Changes,
    disruption: _Disruption,
    in_place: _InPlace,
    crew: pools.Crew,
    tokens: tuple[Manifest, ...],
) -> bool:
    """Whether anything is being done, whose end is to be seen soon."""
    return bool(
        disruption.rollout is not None
        or changes.objects
        or changes.secrets
        or in_place.passwords.generate
        or changes.prune
        or changes.anew
        or in_place.growth.steps
        or in_place.settings.behind
        or (changes.migration.holds and not changes.migration.failed)
        or tokens
        or crew.moving
    )


def _there(manifests: Iterable[Manifest], snapshot: Snapshot) -> Iterator[Manifest]:
    """Those of which there is an object."""
    for manifest in manifests:
        if (manifest["kind"], manifest["metadata"]["name"]) in snapshot.children:
            yield manifest


def _observed_leases(context: BuildContext, snapshot: Snapshot, sections: _Sections) -> tuple[Manifest, ...]:
    """The Leases that tell who has a role, those that differ from what is there."""
    wanted = leases.observed_leases(context, snapshot, sections.postgres, sections.redis)
    return objects.differing(wanted, snapshot)


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
        or any(pod.terminating for pod in snapshot.pods_of(names.POOLER) if not pod.is_overdue(snapshot.now))
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


def _remember(
    memory: ClusterMemory,
    sections: _Sections,
    changes: _Changes,
    disruption: _Disruption,
    in_place: _InPlace,
    crew: pools.Crew,
    report: _Report,
) -> ClusterMemory:
    return replace(
        memory,
        roles=report.roles,
        patience=sections.patience,
        lags_told=sections.lags_told,
        deaf_queues=sections.deaf_queues,
        since=report.judgement.since,
        unchanged=changes.unchanged,
        matches=changes.matches,
        repair=disruption.repairs.memory,
        refusals=in_place.growth.refusals,
        passwords=in_place.passwords.known,
        marked_settings=in_place.settings.marked,
        failed_migration=changes.migration.failed,
        runners=crew.memory,
    )
