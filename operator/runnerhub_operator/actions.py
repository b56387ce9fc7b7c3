"""What a plan asks to be done beyond applying objects; carried out by `act`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class PatchPatroniConfig:
    """Change Patroni's dynamic configuration; Patroni applies it to all members.

    `renews_poolers`: some poolers still have to make way for new pods, which have other settings.
    """

    patch: Mapping[str, Any]
    renews_poolers: bool = False


@dataclass(frozen=True, slots=True)
class RestartPod:
    """Delete a pod so that its StatefulSet makes it anew from the current template.

    A Redis master that is told to stop hands its role over first, without losing what it confirmed. `pause`: it is the
    Postgres primary and nobody can take over; the poolers hold their clients back for a while.
    """

    pod: str
    uid: str
    reason: str
    pause: bool = False

    def __str__(self) -> str:
        return f"restart pod {self.pod}: {self.reason}"


@dataclass(frozen=True, slots=True)
class SwitchPostgres:
    """Hand the Postgres primary role over to the candidate.

    It is named, because two replicas that reach for the lock cost time: the one that does not get it begins its watches
    of the API server anew before it follows, and synchronous commits wait for it. `instead`: who may take over when the
    candidate does not answer or is too far behind. `pause`: the poolers hold their clients back meanwhile; when one of
    them cannot, nothing is done.
    """

    primary: str
    reason: str
    candidate: str
    instead: tuple[str, ...] = ()
    pause: bool = True

    def __str__(self) -> str:
        how = "" if self.pause else ", without holding clients back"
        return f"switch the Postgres primary {self.primary} over to {self.candidate}: {self.reason}{how}"


@dataclass(frozen=True, slots=True)
class RestartPostgres:
    """Restart Postgres inside a member, for parameters that need it.

    `pause`: it is the primary; the poolers hold their clients back meanwhile.
    """

    member: str
    reason: str
    pause: bool = False

    def __str__(self) -> str:
        return f"restart Postgres in {self.member}: {self.reason}"


@dataclass(frozen=True, slots=True)
class ShrinkPostgres:
    """Let the highest member of the database go: its StatefulSet is told `instances`, one less than before."""

    member: str
    instances: int

    def __str__(self) -> str:
        return f"let {self.member} go: {self.instances} members stay"


@dataclass(frozen=True, slots=True)
class GrowRedis:
    """Let another Redis pod come: its StatefulSet is told `replicas`, one more than before."""

    pod: str
    replicas: int

    def __str__(self) -> str:
        return f"let {self.pod} come: {self.replicas} pods of the queue"


@dataclass(frozen=True, slots=True)
class ShrinkRedis:
    """Let the highest Redis pod go: its StatefulSet is told `replicas`, one less than before.

    A master hands its role over before it stops.
    """

    pod: str
    replicas: int

    def __str__(self) -> str:
        return f"let {self.pod} go: {self.replicas} pods of the queue stay"


@dataclass(frozen=True, slots=True)
class ReinitializePostgres:
    """Have a broken replica throw its data away and copy the primary's."""

    member: str
    reason: str

    def __str__(self) -> str:
        return f"make {self.member} anew from the primary: {self.reason}"


@dataclass(frozen=True, slots=True)
class RenewDeployment:
    """Write a Deployment whose pod template changed; Kubernetes then renews its pods one after the other."""

    manifest: Mapping[str, Any]
    reason: str

    def __str__(self) -> str:
        return f"renew the pods of Deployment {self.manifest['metadata']['name']}: {self.reason}"


@dataclass(frozen=True, slots=True)
class OrphanPods:
    """Delete a StatefulSet and leave the pods of its component running, for the next one of its name to take over."""

    stateful_set: Mapping[str, Any]
    component: str


@dataclass(frozen=True, slots=True)
class GeneratePasswords:
    """Make new passwords for keys of a Secret, and take away the annotation that asked for it."""

    secret: str
    keys: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class MarkPods:
    """Annotate pods with the version of what they mount, whereupon Kubernetes renews their copies at once."""

    pods: tuple[str, ...]
    version: str


@dataclass(frozen=True, slots=True)
class GrowVolume:
    """Have the claim of a pod's volume ask for more; the volume grows while it is in use, which disrupts nobody."""

    pod: str
    claim: str
    uid: str
    size: str
    storage_class: str

    def __str__(self) -> str:
        return f"grow the volume of {self.pod} to {self.size}"


@dataclass(frozen=True, slots=True)
class StopRunner:
    """Delete the pod of a runner.

    `ask`: tell the runner to take no more jobs first, and delete it only when it says that it has none. `force`: also
    when it says nothing; never when it says that it has a job.
    """

    pod: str
    uid: str
    pool: str
    ip: str
    reason: str
    ask: bool = True
    force: bool = False


@dataclass(frozen=True, slots=True)
class MarkRunner:
    """Mark a runner that has a job, so that nobody evicts it, or take the mark away."""

    pod: str
    uid: str
    busy: bool


@dataclass(frozen=True, slots=True)
class RunnerSteps:
    """What is to be done with the runners: pods to create with their pool, to stop, to mark."""

    create: tuple[tuple[str, Mapping[str, Any]], ...] = ()
    stop: tuple[StopRunner, ...] = ()
    mark: tuple[MarkRunner, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.create or self.stop or self.mark)


Disruption = (
    RestartPod
    | SwitchPostgres
    | RestartPostgres
    | ShrinkPostgres
    | GrowRedis
    | ShrinkRedis
    | ReinitializePostgres
    | RenewDeployment
)


@dataclass(frozen=True, slots=True)
class Rollout:
    """A deliberate disruption under way in one component.

    `step` is the next thing to do, None while a started one has not settled yet; `waiting_for` tells people.
    `mends`: the step takes nothing away from what works, so it waits for nothing. `repairs`: it follows from no
    change of the spec, but from a broken member. `requested`: somebody asks for it. `holds_up`: others wait for it,
    also while it waits itself. `rests_on`: members of the database that must answer for themselves just before the
    step.
    """

    component: str
    step: Disruption | None
    waiting_for: str
    mends: bool = False
    repairs: bool = False
    requested: bool = False
    holds_up: bool = True
    rests_on: tuple[str, ...] = ()

    @property
    def kind(self) -> str:
        """What people call it."""
        return "repair" if self.repairs else "rolling change"
