"""What was read of one cluster, and what judgements are made from: its components with their members. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, NamedTuple

from runnerhub_operator import names
from runnerhub_operator.api import (
    Condition,
    ConditionReason,
    ConditionType,
    PostgresInstanceStatus,
    RunnerHubClusterSpec,
    RunnerHubClusterStatus,
    parse_cluster,
    parse_status,
)
from runnerhub_operator.errors import InvalidSpecError

from .kubectl import Unknown
from .objects import Lease, Pod
from .times import age, seconds_since, span

# The operator renews every two seconds. Compared with this machine's clock, so with room for a wrong one.
OPERATOR_SILENT_SECONDS: Final = 60
COMPONENTS: Final = (
    names.POSTGRES,
    names.POOLER,
    names.REDIS,
    names.ORCHESTRATOR,
    names.LOAD_BALANCER,
    names.RUNNER,
)

# What Ready and Degraded are made of. Runners are none of it.
_COMPONENT_CONDITIONS: Final = {
    ConditionType.POSTGRES: names.POSTGRES,
    ConditionType.REDIS: names.REDIS,
    ConditionType.ORCHESTRATORS: names.ORCHESTRATOR,
    ConditionType.LOAD_BALANCER: names.LOAD_BALANCER,
}
# Of Progressing: nothing goes on, and nothing will until a person acts.
STUCK: Final = (ConditionReason.MIGRATION_FAILED, ConditionReason.VOLUME_GROWTH_REFUSED)


@dataclass(frozen=True, slots=True)
class Picture:
    """All that was read. `operator`: the operator's Lease, None when there is none."""

    now: datetime
    body: Mapping[str, Any]
    pods: tuple[Pod, ...]
    leases: tuple[Lease, ...]
    operator: Lease | Unknown | None

    @property
    def name(self) -> str:
        """Name of the cluster."""
        return str(self.body["metadata"]["name"])

    @property
    def namespace(self) -> str:
        """Namespace of the cluster."""
        return str(self.body["metadata"]["namespace"])

    def lease(self, name: str) -> Lease | None:
        """A Lease in the cluster's namespace."""
        return next((lease for lease in self.leases if lease.name == name), None)


@dataclass(frozen=True, slots=True)
class Member:
    """One pod of a component. `lag` is "" where there is none to tell."""

    name: str
    role: str
    state: str
    ready: bool
    lag: str
    volume_used_percent: int | None
    restarts: int
    created: str | None
    node: str
    ip: str
    message: str


@dataclass(frozen=True, slots=True)
class Component:
    """`wanted` is None when the spec cannot be read by this version. `facts`: what there is to tell of the whole."""

    name: str
    ready: int
    wanted: int | None
    facts: tuple[str, ...]
    members: tuple[Member, ...]


class FullestVolume(NamedTuple):
    """How full a volume is, in percent, whose it is, and the name of the member's component."""

    used_percent: int
    member: str
    component: str


@dataclass(frozen=True, slots=True)
class View:
    """What judgements are made from."""

    picture: Picture
    status: RunnerHubClusterStatus
    spec: RunnerHubClusterSpec | None
    components: tuple[Component, ...]

    def condition(self, kind: ConditionType) -> Condition | None:
        """A condition by its type."""
        return condition_of(self.status, kind)

    def holds(self, kind: ConditionType) -> bool:
        """Whether a condition is True."""
        found = self.condition(kind)
        return found is not None and found.status == "True"


def look(picture: Picture) -> View:
    """Read the status and put the components together."""
    status, spec = parse_status(picture.body), spec_of(picture.body)
    components = (_component(name, picture, status, spec) for name in COMPONENTS)
    # Few clusters have runners of their own.
    shown = (item for item in components if item.name != names.RUNNER or item.members or status.runners.pools)
    return View(picture, status, spec, tuple(shown))


def condition_of(status: RunnerHubClusterStatus, kind: ConditionType) -> Condition | None:
    """A condition by its type."""
    return next((item for item in status.conditions if item.type == kind), None)


def spec_of(body: Mapping[str, Any]) -> RunnerHubClusterSpec | None:
    """The spec; None when this version cannot read it."""
    try:
        return parse_cluster(body).spec
    except InvalidSpecError:
        return None


def short_components(status: RunnerHubClusterStatus) -> list[str]:
    """Components of which something is missing."""
    return [
        name
        for kind, name in _COMPONENT_CONDITIONS.items()
        if (found := condition_of(status, kind)) is not None and found.reason != ConditionReason.AVAILABLE
    ]


def stuck(view: View) -> Condition | None:
    """Progressing, when a part of the spec stays without effect until a person acts."""
    found = view.condition(ConditionType.PROGRESSING)
    return found if found is not None and found.reason in STUCK else None


def lacking_runners(view: View) -> Condition | None:
    """RunnersReady, when something keeps pools from their size; runners that are just being made do not count."""
    found = view.condition(ConditionType.RUNNERS)
    if found is None or found.status != "False" or found.reason == ConditionReason.CREATING:
        return None
    return found


def operator_silence(picture: Picture) -> float | None:
    """Seconds since the operator renewed its Lease, by this machine's clock; None when that is not known."""
    if isinstance(picture.operator, Unknown) or picture.operator is None:
        return None
    return seconds_since(picture.operator.renewed, picture.now)


def operator_is_away(picture: Picture) -> bool:
    """Whether no operator looks after the cluster."""
    if isinstance(picture.operator, Unknown):
        return False
    if picture.operator is None or not picture.operator.holder:
        return True
    silence = operator_silence(picture)
    return silence is None or silence > OPERATOR_SILENT_SECONDS


def is_paused(view: View) -> bool:
    """Whether the operator is told to leave everything as it is."""
    return bool((view.picture.body.get("spec") or {}).get("paused"))


def fullest_volume(components: Sequence[Component]) -> FullestVolume:
    """The volume that is fullest; of no member and 0 when nothing is known."""
    known = [
        FullestVolume(member.volume_used_percent, member.name, component.name)
        for component in components
        for member in component.members
        if member.volume_used_percent is not None
    ]
    return max(known, default=FullestVolume(0, "", ""))


# --- Components ---


def _component(
    name: str, picture: Picture, status: RunnerHubClusterStatus, spec: RunnerHubClusterSpec | None
) -> Component:
    pods = {pod.name: pod for pod in sorted(picture.pods, key=lambda pod: pod.name) if pod.component == name}
    told: Mapping[str, tuple[str, str, str, int | None]] = {}
    facts: list[str] = []
    if name == names.POSTGRES:
        told = {item.name: _postgres_member(item, status) for item in status.postgres.instances}
        facts = _postgres_facts(status)
    elif name == names.REDIS:
        told = _redis_members(status)
        facts = _redis_facts(status)
    elif name == names.ORCHESTRATOR:
        told = {pod: ("leader", "", "", None) for pod in pods if pod == status.orchestrator.leader}
        facts = _orchestrator_facts(status, picture.now)
    elif name == names.RUNNER:
        facts = [f"{status.runners.busy} busy", f"{status.runners.queued} jobs wait"]
    members = tuple(_member(member, pods.get(member), told.get(member)) for member in sorted({*pods, *told}))
    return Component(
        name=name,
        ready=sum(pod.ready for pod in pods.values()),
        wanted=_wanted(name, spec, status),
        facts=tuple(facts),
        members=members,
    )


def _wanted(name: str, spec: RunnerHubClusterSpec | None, status: RunnerHubClusterStatus) -> int | None:
    if spec is None:
        return None
    return {
        names.POSTGRES: spec.postgres.instances,
        names.POOLER: spec.postgres.pooler.replicas,
        names.REDIS: spec.redis.replicas,
        names.ORCHESTRATOR: spec.orchestrator.replicas,
        names.LOAD_BALANCER: spec.load_balancer.replicas,
        names.RUNNER: status.runners.desired,
    }[name]


def _member(name: str, pod: Pod | None, told: tuple[str, str, str, int | None] | None) -> Member:
    role, state, lag, volume = told or ("", "", "", None)
    if pod is None:
        return Member(name, role, "no pod", False, lag, volume, 0, None, "", "", "")
    # What the program says counts only while its pod runs.
    shown = state if state and pod.ready else pod.state
    return Member(
        name=name,
        role=role,
        state=shown,
        ready=pod.ready,
        lag=lag,
        volume_used_percent=volume,
        restarts=pod.restarts,
        created=pod.created,
        node=pod.node,
        ip=pod.ip,
        message=pod.message,
    )


def _postgres_member(
    item: PostgresInstanceStatus, status: RunnerHubClusterStatus
) -> tuple[str, str, str, int | None]:
    lag = ""
    if item.lag_bytes is not None:
        lag = size(item.lag_bytes) + (f", {span(item.lag_seconds)}" if item.lag_seconds else "")
    timeline = status.postgres.timeline
    astray = item.timeline is not None and timeline is not None and item.timeline != timeline
    state = f"{item.state}, timeline {item.timeline}" if astray else item.state
    return item.role.replace("_", " "), state, lag, item.volume_used_percent


def _postgres_facts(status: RunnerHubClusterStatus) -> list[str]:
    found = [f"Postgres {status.postgres.version}"] if status.postgres.version else []
    found += [f"timeline {status.postgres.timeline}"] if status.postgres.timeline is not None else []
    return [*found, *([] if status.postgres.primary else ["no primary"])]


def _redis_members(status: RunnerHubClusterStatus) -> dict[str, tuple[str, str, str, int | None]]:
    volumes = {item.name: item.volume_used_percent for item in status.redis.instances}
    replicas = {item.name: item for item in status.redis.replicas}
    found = {}
    for name in {*volumes, *replicas, *([status.redis.master] if status.redis.master else [])}:
        if name == status.redis.master:
            found[name] = "master", "ready", "", volumes.get(name)
            continue
        replica = replicas.get(name)
        if replica is None:
            found[name] = "", "not a replica", "", volumes.get(name)
            continue
        lag = "" if replica.lag_bytes is None else size(replica.lag_bytes)
        if replica.silent_seconds:
            lag = ", ".join(part for part in (lag, f"silent {span(replica.silent_seconds)}") if part)
        state = "linked" if replica.link == "ok" else "link down"
        found[name] = "replica", state, lag, volumes.get(name)
    return found


def _redis_facts(status: RunnerHubClusterStatus) -> list[str]:
    redis = status.redis
    found = [] if redis.master else ["no master"]
    found += [f"{redis.sentinels} Sentinels agree"] if redis.sentinels is not None else []
    found += [f"memory {redis.memory_used_percent} % full"] if redis.memory_used_percent is not None else []
    if (queue := redis.queue) is not None:
        jobs = {
            "waiting": queue.waiting,
            "active": queue.active,
            "delayed": queue.delayed,
            "failed": queue.failed,
        }
        found.append(f"jobs: {', '.join(f'{count} {state}' for state, count in jobs.items())}")
    kept = [f"{item.name}: {len(item.snapshots)}" for item in redis.instances if item.snapshots]
    return [*found, *([f"data put aside on {', '.join(kept)}"] if kept else [])]


def _orchestrator_facts(status: RunnerHubClusterStatus, now: datetime) -> list[str]:
    if status.orchestrator.leader is None:
        return ["no leader"]
    return [f"leader for {age(status.orchestrator.since, now)}"]


def size(amount: int) -> str:
    """Bytes for people."""
    for unit, factor in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if amount >= factor:
            return f"{amount / factor:.1f} {unit}".replace(".0 ", " ")
    return f"{amount} B"
