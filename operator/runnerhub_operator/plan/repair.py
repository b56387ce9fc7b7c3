"""Broken members of the database: replicas that Patroni does not mend by itself are made anew from the primary.

Patroni starts what crashed, rewinds what diverged (and copies it when that fails), and fills an empty volume. What it
leaves alone is data that no server starts from, a history that pg_rewind cannot bring back, and a replica whose next
piece of the log the primary no longer has. Those are waited for, and then copied: one at a time, only while a primary
runs that can be copied from, and each after a longer time than before. The data of a server that does not start since
its parameters changed is kept, and so is that of one which still replays what it has of the log: Postgres does that
to the end before it connects to the primary. A member that the primary does not let in refuses to be made anew
(images/postgres/bin/patroni-daemon).

Source of the states: patroni/postgresql/misc.py of Patroni 4.1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from .. import names
from ..actions import ReinitializePostgres, Rollout
from ..api import RunnerHubCluster
from ..kube.events import EventNote
from ..probes.patroni import PatroniCluster, PatroniMember
from ..snapshot import Snapshot
from .conditions import stamp

# Twice what Patroni gives a start (pg_ctl_timeout, 60 s); what it does itself after a crash or a failover begins within
# that time, and from then on it refuses to be disturbed.
PATIENCE_SECONDS: Final = 120.0
# When no replica streams, the cause may be the primary or the network, which no copy mends and which make it fail.
LONE_PATIENCE_SECONDS: Final = 600.0
# A start replays max_wal_size at most, which takes minutes; what takes longer waits for log that never comes.
START_PATIENCE_SECONDS: Final = 1800.0
# A replica that cannot go on shows as streaming for the moment of each try to connect, and an answer may be late.
DOUBT_SECONDS: Final = 10.0
# After a member was made anew: until the same is tried again, doubled each time. It is then most likely not the data.
FIRST_PAUSE_SECONDS: Final = 600.0
LONGEST_PAUSE_SECONDS: Final = 6 * 3600.0
# What was broken a day ago was another occasion.
FORGOTTEN_SECONDS: Final = 24 * 3600.0
# Patroni was at work on the member itself.
REFUSED_SECONDS: Final = 10.0
# Until it is told: a failover or a restart passes sooner.
UNTOLD_SECONDS: Final = 30.0


class Sign(StrEnum):
    """What is wrong with a member, as people are told."""

    DOES_NOT_START = "does not start"
    KEEPS_STARTING = "does not come to the end of its start"
    DOES_NOT_STREAM = "does not stream from the primary"
    OTHER_TIMELINE = "is not on the primary's timeline"


# What parameters that changed can be the cause of.
_MAY_REFUSE: Final = (Sign.DOES_NOT_START, Sign.KEEPS_STARTING)
_COPYING: Final = "creating replica"
_FAILED: Final = ("crashed", "restart failed", "start failed", "stopped")
_STARTING: Final = "starting"
_RUNNING: Final = ("in archive recovery", "running", "streaming")


@dataclass(frozen=True, slots=True)
class Illness:
    """What has been wrong with a member's pod, and since when.

    `doubted_since`: since when it looks well, or nobody can tell; it is forgotten when that lasts. `replayed`: how far
    it has come in the log, in bytes, and `advanced_at`: when it last came further than ever since it is ill. A server
    that crashes replays the same again.
    """

    pod_uid: str
    sign: Sign
    since: datetime
    doubted_since: datetime | None = None
    replayed: int = 0
    advanced_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Tries:
    """How often a member was made anew, when last, and whether it has been in step since."""

    count: int
    at: datetime
    back: bool = False

    @property
    def pause(self) -> timedelta:
        """How long it is left alone afterwards."""
        # The count is bounded before it becomes an exponent; the longest pause is reached long before.
        doubled = FIRST_PAUSE_SECONDS * 2 ** (min(self.count, 16) - 1)
        return timedelta(seconds=min(doubled, LONGEST_PAUSE_SECONDS))


@dataclass(frozen=True, slots=True)
class Refusal:
    """A member that refused to be made anew, or could not be asked."""

    member: str
    at: datetime
    why: str


@dataclass(frozen=True, slots=True)
class Memory:
    """What is remembered between two visits; losing it costs time, never data.

    `refusal` is the last one, until a member begins to be made anew. `parameters`: what was told of them. `blameless`:
    members that were ill while no parameter was changed, until they are in step again or copied.
    """

    illnesses: Mapping[str, Illness] = field(default_factory=dict)
    tries: Mapping[str, Tries] = field(default_factory=dict)
    refusal: Refusal | None = None
    parameters: str = ""
    blameless: frozenset[str] = frozenset()

    def tried(self, member: str, now: datetime) -> Memory:
        """As it is after a member began to be made anew."""
        before = self.tries.get(member)
        again = Tries(before.count + 1 if before is not None else 1, now)
        others = {name: illness for name, illness in self.illnesses.items() if name != member}
        # A copy that does not start either may have parameters to blame.
        blameless = self.blameless - {member}
        return Memory(others, {**self.tries, member: again}, parameters=self.parameters, blameless=blameless)

    def refused(self, member: str, why: str, now: datetime) -> Memory:
        """As it is after a member refused."""
        return replace(self, refusal=Refusal(member, now, why))


@dataclass(frozen=True, slots=True)
class Repair:
    """What a look found: the memory, the repair that is due or under way, clauses for people, and Events.

    `refused`: a clause about parameters that a member does not start with, "" when there are none.
    """

    memory: Memory
    rollout: Rollout | None = None
    told: tuple[str, ...] = ()
    events: tuple[EventNote, ...] = ()
    refused: str = ""


def look(cluster: RunnerHubCluster, snapshot: Snapshot, before: Memory) -> Repair:
    """Look at all members; at most one is to be made anew."""
    source = _source(snapshot)
    members = names.members(cluster.name, names.POSTGRES, cluster.spec.postgres.instances)
    illnesses = {
        name: illness
        for name in members
        if (illness := _illness(name, snapshot, source, before.illnesses.get(name))) is not None
    }
    tries, events = _tries(members, snapshot, illnesses, before.tries)
    # A moment without an answer changes nothing of what is told.
    blameless, refused = before.blameless, before.parameters
    if snapshot.patroni is not None:
        blameless = _blameless(snapshot.patroni, source, illnesses, before.blameless.intersection(members))
        refused = _refused(snapshot, snapshot.patroni, illnesses, blameless)
    memory = Memory(illnesses, tries, before.refusal if illnesses else None, refused, blameless)
    if snapshot.patroni is None or source is None:
        return Repair(memory, events=events, refused=refused)
    ward = _Ward(snapshot, snapshot.patroni, source, memory)
    return Repair(memory, ward.rollout(), ward.told(paused=cluster.spec.paused), events, refused)


def _changed(patroni: PatroniCluster) -> tuple[str, ...]:
    """Parameters that those who run were not started with, or would not start with."""
    running = [member for member in patroni.members if patroni.in_step(member.name)]
    pending = {name for member in running for name in member.pending_parameters}
    return tuple(sorted(pending | set(patroni.refused_parameters)))


def _blameless(
    patroni: PatroniCluster, source: str | None, illnesses: Mapping[str, Illness], before: frozenset[str]
) -> frozenset[str]:
    """Members whose illness parameters are not the cause of: it was there before any was changed."""
    # What was changed is known of those who run.
    found = frozenset() if source is None or _changed(patroni) else frozenset(illnesses)
    copied = {member.name for member in patroni.members if member.state == _COPYING}
    return frozenset(name for name in (before | found) - copied if not patroni.in_step(name))


def _refused(
    snapshot: Snapshot,
    patroni: PatroniCluster,
    illnesses: Mapping[str, Illness],
    blameless: frozenset[str],
) -> str:
    """What is told of parameters that Postgres refuses, "" when there are none."""
    # One that does not run tells what it refused last.
    if refused := sorted({name for member in patroni.members for name in member.refused_parameters}):
        return (
            f"Postgres refuses {', '.join(refused)} and would not start anew: correct spec.postgres.parameters; no "
            "member is restarted until then"
        )
    changed = _changed(patroni)
    for name, illness in illnesses.items():
        lasts = (snapshot.now - illness.since).total_seconds() >= UNTOLD_SECONDS
        if changed and lasts and illness.sign in _MAY_REFUSE and name not in blameless:
            return (
                f"{name} {illness.sign} since parameters changed ({', '.join(changed)}): correct them, "
                f"kubectl logs {name} tells what is wrong; if it is its data, delete its claim and its pod"
            )
    return ""


def _source(snapshot: Snapshot) -> str | None:
    """The primary, when it runs and its pod is well, so that it can be copied; None too while Patroni is paused."""
    patroni = snapshot.patroni
    if patroni is None or patroni.paused or patroni.leader is None or not patroni.in_step(patroni.leader):
        return None
    pod = snapshot.pod(patroni.leader)
    return patroni.leader if pod is not None and pod.ready and not pod.terminating else None


def _illness(name: str, snapshot: Snapshot, source: str | None, before: Illness | None) -> Illness | None:
    """What is wrong with a member now, seen together with what was wrong at the last visit."""
    pod, patroni = snapshot.pod(name), snapshot.patroni
    if pod is None or pod.terminating:
        return None
    if before is not None and before.pod_uid != pod.uid:
        before = None
    member = patroni.member(name) if patroni is not None else None
    answers = pod.ready or name in snapshot.alive
    if patroni is None or source is None or member is None or not answers or patroni.in_step(name):
        return _doubted(before, snapshot.now)
    sign = _sign(member, patroni)
    if sign is None:
        return None
    replayed = member.replayed or 0
    if before is None or (before.sign is Sign.KEEPS_STARTING and sign is not Sign.KEEPS_STARTING):
        return Illness(pod.uid, sign, snapshot.now, replayed=replayed)
    if replayed > before.replayed:
        before = replace(before, replayed=replayed, advanced_at=snapshot.now)
    # Between two failed starts Postgres is starting.
    return replace(before, sign=before.sign if sign is Sign.KEEPS_STARTING else sign, doubted_since=None)


def _doubted(before: Illness | None, now: datetime) -> Illness | None:
    if before is None:
        return None
    since = before.doubted_since or now
    return replace(before, doubted_since=since) if (now - since).total_seconds() < DOUBT_SECONDS else None


def _sign(member: PatroniMember, patroni: PatroniCluster) -> Sign | None:
    """What is wrong with a member that is not in step; None while Patroni is at work on it, as with a copy."""
    if member.state in _FAILED:
        return Sign.DOES_NOT_START
    if member.state == _STARTING:
        return Sign.KEEPS_STARTING
    if member.state not in _RUNNING:
        return None
    other = member.timeline is not None and member.timeline != patroni.timeline
    return Sign.OTHER_TIMELINE if other else Sign.DOES_NOT_STREAM


def _tries(
    members: Sequence[str], snapshot: Snapshot, illnesses: Mapping[str, Illness], before: Mapping[str, Tries]
) -> tuple[dict[str, Tries], tuple[EventNote, ...]]:
    """The tries that still count, and Events about members that came back."""
    patroni, now = snapshot.patroni, snapshot.now
    kept: dict[str, Tries] = {}
    events: list[EventNote] = []
    for name, tries in before.items():
        late = (now - tries.at).total_seconds() > FORGOTTEN_SECONDS
        if name not in members or (tries.back and late):
            continue
        kept[name] = tries
        if not tries.back and name not in illnesses and patroni is not None and patroni.in_step(name):
            kept[name] = replace(tries, back=True)
            seconds = round((now - tries.at).total_seconds())
            message = f"{name} is in step again, {seconds} s after it began to be made anew"
            events.append(EventNote("Normal", "MemberRecovered", message))
    return kept, tuple(events)


@dataclass(frozen=True, slots=True)
class _Ward:
    """Those that are ill or being copied, while there is a primary that can be copied."""

    snapshot: Snapshot
    patroni: PatroniCluster
    source: str
    memory: Memory

    def rollout(self) -> Rollout | None:
        """The repair that is due, or the one under way."""
        due = [name for name in self.memory.illnesses if self._is_due(name)]
        if due:
            return self._repair(min(due, key=self._turn))
        copied = [name for name in self.memory.tries if self._is_copied(name)]
        if copied:
            waiting_for = f"{copied[0]} to be copied from {self.source}"
            return Rollout(names.POSTGRES, None, waiting_for, repairs=True)
        return None

    def _repair(self, name: str) -> Rollout:
        obstacle = self._obstacle(name)
        if obstacle is not None:
            return Rollout(names.POSTGRES, None, f"{obstacle}, before {name} is made anew", repairs=True)
        refusal = self._refusal(name)
        if refusal is not None and (self.snapshot.now - refusal.at).total_seconds() < REFUSED_SECONDS:
            return Rollout(names.POSTGRES, None, f"{name} to let itself be made anew", repairs=True)
        illness = self.memory.illnesses[name]
        step = ReinitializePostgres(name, f"it {illness.sign} since {stamp(illness.since)}")
        return Rollout(names.POSTGRES, step, f"{name} to be made anew", repairs=True)

    def _turn(self, name: str) -> tuple[int, datetime, str]:
        tries = self.memory.tries.get(name)
        return tries.count if tries is not None else 0, self.memory.illnesses[name].since, name

    def _is_due(self, name: str) -> bool:
        illness = self.memory.illnesses[name]
        due = illness.doubted_since is None and self._due_at(name) <= self.snapshot.now
        return due and not self._may_refuse(name)

    def _may_refuse(self, name: str) -> bool:
        """Whether a member may not start because of its parameters; a copy would not start with them either."""
        is_sign = self.memory.illnesses[name].sign in _MAY_REFUSE
        return is_sign and name not in self.memory.blameless and bool(_changed(self.patroni))

    def _due_at(self, name: str) -> datetime:
        illness, tries = self.memory.illnesses[name], self.memory.tries.get(name)
        due = (illness.advanced_at or illness.since) + timedelta(seconds=self._patience(name))
        return due if tries is None else max(due, tries.at + tries.pause)

    def _patience(self, name: str) -> float:
        sign = self.memory.illnesses[name].sign
        if sign is Sign.KEEPS_STARTING:
            return START_PATIENCE_SECONDS
        others = (member.name for member in self.patroni.members if member.name not in (name, self.source))
        if sign is Sign.DOES_NOT_START or any(self.patroni.in_step(other) for other in others):
            return PATIENCE_SECONDS
        return LONE_PATIENCE_SECONDS

    def _obstacle(self, name: str) -> str | None:
        """Who must be back before a member is made anew; None: nobody."""
        # Two copies that are thrown away at the same time could be the last but one and the last but two.
        other = next((other for other in self.memory.tries if other != name and self._is_away(other)), None)
        if other is not None:
            return f"{other}, which was made anew and is not back"
        for member in self.patroni.members:
            pod = self.snapshot.pod(member.name)
            if member.name == name or self.patroni.in_step(member.name) or pod is None:
                continue
            # On a node that is dead it is on no way.
            if pod.is_overdue(self.snapshot.now):
                continue
            if pod.terminating or (_sign(member, self.patroni) is None and not pod.node_silent):
                return f"{member.name}, which is on its way ({member.state})"
        return None

    def _refusal(self, name: str) -> Refusal | None:
        refusal = self.memory.refusal
        return refusal if refusal is not None and refusal.member == name else None

    def _is_away(self, name: str) -> bool:
        """Whether a member was made anew and has not come back, although it could: its pod is there."""
        pod = self.snapshot.pod(name)
        there = pod is not None and not pod.on_dead_node(self.snapshot.now)
        return there and not self.memory.tries[name].back

    def _is_copied(self, name: str) -> bool:
        """Whether a member that was made anew is on its way back, as far as can be hoped."""
        tries, member = self.memory.tries[name], self.patroni.member(name)
        if not self._is_away(name):
            return False
        copying = member is not None and _sign(member, self.patroni) is None
        return copying or self.snapshot.now < tries.at + tries.pause

    def told(self, *, paused: bool) -> tuple[str, ...]:
        """A clause for each member that has been ill for a while, or is being copied."""
        ill = {
            name: f"{name} {illness.sign} since {stamp(illness.since)}, {self._done_about(name, paused=paused)}"
            for name, illness in self.memory.illnesses.items()
            if (self.snapshot.now - illness.since).total_seconds() >= UNTOLD_SECONDS
        }
        copied = (
            f"{name} is being copied from {self.source} since {stamp(tries.at)}"
            for name, tries in self.memory.tries.items()
            if name not in ill and self._is_copied(name)
        )
        return (*ill.values(), *copied)

    def _done_about(self, name: str, *, paused: bool) -> str:
        tries = self.memory.tries.get(name)
        again = "again " if tries is not None else ""
        if paused:
            return "and spec.paused holds its repair back"
        if self._may_refuse(name):
            return "and its data is kept, as its parameters changed"
        illness, due_at = self.memory.illnesses[name], self._due_at(name)
        if due_at > self.snapshot.now:
            if illness.advanced_at is not None and illness.sign not in _MAY_REFUSE:
                # Without a time, which would be another one at each visit.
                patience = f"{self._patience(name):.0f} s"
                return f"it replays its log, and is made anew {again}when that stands still for {patience}"
            return f"it is made anew from the primary {again}at {stamp(due_at)} unless Patroni mends it"
        obstacle = self._obstacle(name)
        if obstacle is not None:
            return f"its repair waits for {obstacle}"
        refusal = self._refusal(name)
        if refusal is not None:
            return f"and cannot be made anew yet: {refusal.why}"
        return "it is to be made anew now"
