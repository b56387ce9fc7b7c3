"""Decides, from what a starting pod could learn, which role its Redis takes. Pure: no input or output.

Two dangers. A master that starts empty: its replicas would copy the emptiness. And a master that starts with
its data: it begins a new history, with offsets from zero, while its replicas may hold writes that a crash tore
from its append-only file; Sentinel compares offsets of both histories and may promote the older data. So an empty
volume becomes master only where nothing can be lost, a master that comes back hands over to a replica that still
holds the history, and whoever cannot know waits.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from .history import furthest
from .standing import Standing

# How long a pod that hears only a minority of the Sentinels waits for the others before it follows them.
MINORITY_PATIENCE_SECONDS = 5.0
# By then Sentinel has found nobody to promote: the old master is better than none.
FAILOVER_PATIENCE_SECONDS = 15.0
# A replica that has data but finds no master for so long may be promoted after all, when it is the furthest: the
# master's pod that Sentinel waits for is not coming back, and all other pods restarted too.
LAST_RESORT_SECONDS = 30.0
# By then the furthest has come back, or its Redis does not start: the furthest of those that run is better than none.
ANYBODY_SECONDS = 300.0
# Redis reports this offset for a replica that has not spoken to a master since it started.
OFFSET_WITHOUT_HISTORY = 1


class Volume(StrEnum):
    """What a pod's volume holds."""

    BLANK = "blank"
    """No file of Redis."""
    UNSYNCED = "unsynced"
    """Files of a replica that never finished its first synchronisation: counts as empty."""
    DAMAGED = "damaged"
    """What was whole of a data set that Redis could not load: better than nothing, and than nothing else."""
    COMPLETE = "complete"
    """A whole data set, maybe an old one."""


@dataclass(frozen=True, slots=True)
class SentinelAnswer:
    """What one Sentinel says of the master; `live` is False when it was read from its state file.

    `tilt`: it answers and does nothing, for half a minute, since time has leaped for it.
    """

    master: str
    config_epoch: int
    flags: frozenset[str] = frozenset()
    live: bool = True
    tilt: bool = False


@dataclass(frozen=True, slots=True)
class RedisAnswer:
    """What a running Redis says of itself (INFO replication).

    `promotable`: a replica with a link to its master that a Sentinel may promote.
    """

    ordinal: int
    role: str
    master: str | None = None
    offset: int = 0
    connected_replicas: int = 0
    promotable: bool = False


@dataclass(frozen=True, slots=True)
class PeerState:
    """What another pod's start program says of its volume, whether its Redis runs or not."""

    ordinal: int
    volume: Volume
    running: bool = False
    standing: Standing | None = None


@dataclass(frozen=True, slots=True)
class Situation:
    """All that a pod knows when it decides. Addresses are literal; `addresses` has the pod's own too.

    `replicas`: pods that there are to be. `majority`: Sentinels that make one of those that are there by now.
    """

    ordinal: int
    replicas: int
    majority: int
    addresses: Mapping[int, str]
    volume: Volume
    bootstrapped: bool
    sentinels: Sequence[SentinelAnswer] = ()
    redis: Sequence[RedisAnswer] = ()
    peers: Sequence[PeerState] = ()
    waited_seconds: float = 0.0

    @property
    def own_address(self) -> str:
        """Address of this pod's Service."""
        return self.addresses[self.ordinal]

    @property
    def heirs(self) -> list[int]:
        """Pods whose Redis runs on as replica of this pod and holds the history of its last life."""
        return [
            answer.ordinal
            for answer in self.redis
            if answer.role == "slave"
            and answer.master == self.own_address
            and answer.offset > OFFSET_WITHOUT_HISTORY
        ]


@dataclass(frozen=True, slots=True)
class StartMaster:
    """Start as master."""

    reason: str


@dataclass(frozen=True, slots=True)
class StartReplica:
    """Start as replica of `master`."""

    master: str
    reason: str


@dataclass(frozen=True, slots=True)
class HandOver:
    """Do not start yet; have Sentinel promote another, then look again."""

    reason: str


@dataclass(frozen=True, slots=True)
class Wait:
    """Do not start yet; look again."""

    reason: str


Decision = StartMaster | StartReplica | HandOver | Wait


@dataclass(frozen=True, slots=True)
class KnownMaster:
    """The master that Sentinel knows: `votes` live Sentinels of `live` that answered name it."""

    address: str
    config_epoch: int
    votes: int
    live: int
    failing_over: bool
    objectively_down: bool


def known_master(answers: Sequence[SentinelAnswer], members: frozenset[str]) -> KnownMaster | None:
    """The master after the answers: the highest configuration epoch wins, then the number of answers.

    Answers that name an address which is no member are stale (the Services were made anew) and do not count.
    """
    valid = [answer for answer in answers if answer.master in members]
    if not valid:
        return None
    named = Counter(answer.master for answer in valid)
    best = max(valid, key=lambda answer: (answer.config_epoch, named[answer.master], answer.master))
    live = [answer for answer in valid if answer.live]
    return KnownMaster(
        address=best.master,
        config_epoch=best.config_epoch,
        votes=sum(answer.master == best.master for answer in live),
        live=len(live),
        failing_over=any("failover_in_progress" in answer.flags for answer in live),
        objectively_down=any("o_down" in answer.flags for answer in live),
    )


def running_master(situation: Situation) -> str | None:
    """The master after the running Redis servers themselves, for when no Sentinel knows one."""
    masters = [answer for answer in situation.redis if answer.role == "master"]
    if masters:
        best = max(masters, key=lambda answer: (answer.connected_replicas, answer.offset, -answer.ordinal))
        return situation.addresses.get(best.ordinal)
    members = frozenset(situation.addresses.values())
    # A Redis that never saw its master follows an assumption, not a fact.
    followed = Counter(
        answer.master
        for answer in situation.redis
        if answer.master in members and answer.offset > OFFSET_WITHOUT_HISTORY
    )
    return followed.most_common(1)[0][0] if followed else None


def decide(situation: Situation) -> Decision:
    """The role of this pod's Redis."""
    if missing := set(range(situation.replicas)) - set(situation.addresses):
        # What Sentinel says of an address not known yet would look like nonsense, and nonsense like a first start.
        return Wait(f"the addresses of pods {sorted(missing)} are not known yet")
    known = known_master(situation.sentinels, frozenset(situation.addresses.values()))
    if known is not None and known.address == situation.own_address:
        return _named_by_sentinel(situation, known)
    if known is not None:
        if known.live < situation.majority and situation.waited_seconds < MINORITY_PATIENCE_SECONDS:
            return Wait(f"{known.live} of {situation.replicas} Sentinels answer")
        return StartReplica(known.address, f"Sentinel names it master, epoch {known.config_epoch}")
    return _unknown_to_sentinel(situation)


def _named_by_sentinel(situation: Situation, known: KnownMaster) -> Decision:
    empty = situation.volume is not Volume.COMPLETE
    if empty and (reason := _may_start_empty(situation)):
        return StartMaster(reason)
    if known.votes < situation.majority:
        return Wait(f"{known.votes} of {situation.replicas} Sentinels name this pod master, no majority")
    if known.failing_over:
        return Wait("Sentinel is failing over")
    impatient = situation.waited_seconds >= FAILOVER_PATIENCE_SECONDS
    if known.objectively_down and not impatient:
        return Wait("Sentinel has declared this pod dead and is about to fail over")
    if situation.heirs and (empty or not impatient):
        return HandOver(f"pods {situation.heirs} hold the history that this pod's last life began")
    if situation.volume is Volume.DAMAGED and _nobody_has_more(situation):
        return StartMaster(
            "no other pod has data: it goes on from what is whole of its own, which is damaged"
        )
    if empty:
        return Wait(
            "Sentinel names this pod master, but its volume is empty or damaged: another must be elected"
        )
    return StartMaster(f"{known.votes} Sentinels name it master, epoch {known.config_epoch}")


def _unknown_to_sentinel(situation: Situation) -> Decision:
    running = running_master(situation)
    if running == situation.own_address:
        # They hold the history, so one of them must be promoted, which takes a Sentinel that knows this pod as
        # master: it learns that from the same replicas.
        return Wait("the running replicas follow this pod, and no Sentinel can promote one of them yet")
    if running is not None:
        return StartReplica(running, "no Sentinel knows a master; the running servers name this one")
    if situation.ordinal == 0 and (reason := _may_start_empty(situation)):
        return StartMaster(reason)
    if situation.bootstrapped or situation.sentinels or _others_have_data(situation):
        return Wait("the cluster has had a master, and nobody knows it")
    return StartReplica(situation.addresses[0], "first start: pod 0 is the first master")


def _others_have_data(situation: Situation) -> bool:
    return any(_has_data(peer.volume) for peer in situation.peers if peer.ordinal != situation.ordinal)


def _has_data(volume: Volume) -> bool:
    return volume in (Volume.COMPLETE, Volume.DAMAGED)


def _nobody_has_more(situation: Situation) -> bool:
    """Whether all other pods tell that they have no whole data set."""
    told = {peer.ordinal: peer.volume for peer in situation.peers if peer.ordinal != situation.ordinal}
    return len(told) == situation.replicas - 1 and Volume.COMPLETE not in told.values()


def _may_start_empty(situation: Situation) -> str | None:
    """Why a pod may start as master whatever its volume holds; None when it must not."""
    if _others_have_data(situation):
        return None
    # Replicas follow pod 0 at the first start, so no other may become master by this rule; and a Sentinel that
    # remembers another master, wherever that is now, has seen more than a first start.
    alone = all(answer.master == situation.own_address for answer in situation.sentinels)
    if situation.ordinal == 0 and alone and not situation.bootstrapped:
        return "first start: no pod has data"
    blank = {peer.ordinal for peer in situation.peers if peer.volume is Volume.BLANK}
    everyone = set(range(situation.replicas))
    if situation.volume is Volume.BLANK and blank | {situation.ordinal} == everyone:
        return "the volumes of all pods are empty: nothing is left to lose"
    return None


def replaceable(
    ordinal: int,
    majority: int,
    addresses: Mapping[int, str],
    sentinels: Sequence[SentinelAnswer],
    redis: Sequence[RedisAnswer],
) -> str | None:
    """Why this pod's Redis, a master that hangs, may be ended; None when nobody could take its place."""
    own = addresses[ordinal]
    known = known_master([answer for answer in sentinels if not answer.tilt], frozenset(addresses.values()))
    if known is None or known.votes < majority:
        return None
    if known.address != own:
        masters = {addresses.get(answer.ordinal) for answer in redis if answer.role == "master"}
        return f"{known.votes} Sentinels name another master" if known.address in masters else None
    heirs = [answer.ordinal for answer in redis if answer.master == own and answer.promotable]
    return f"pods {heirs} are in step and can take its place" if heirs else None


def is_last_resort(ordinal: int, replicas: int, peers: Sequence[PeerState], waited_seconds: float) -> bool:
    """Whether a replica that has waited for its master in vain may be promoted; `peers` has the pod itself too.

    It has no offset any more by which Sentinel could choose among several, so all of them choose here. What a majority
    of the pods has confirmed, master and enough replicas, one pod of any majority has: so has the furthest of them.
    """
    if waited_seconds < LAST_RESORT_SECONDS:
        return False
    whole = [peer for peer in peers if peer.volume is Volume.COMPLETE]
    told = {peer.ordinal: peer.standing for peer in whole if peer.standing is not None}
    if waited_seconds >= ANYBODY_SECONDS:
        running = {peer.ordinal for peer in whole if peer.running}
        told = {number: standing for number, standing in told.items() if number in running}
        if not told:
            return ordinal == min(running, default=ordinal)
    elif len(told) < replicas // 2 + 1:
        return False
    infos = {number: standing.info for number, standing in told.items()}
    return furthest(infos, {number: standing.at for number, standing in told.items()}) == ordinal


def sentinel_target(situation: Situation) -> str | None:
    """The master that a Sentinel without a state of its own watches first; None: not known yet.

    Here `redis` and `peers` have the own pod's servers too.
    """
    if set(range(situation.replicas)) - set(situation.addresses):
        return None
    known = known_master(situation.sentinels, frozenset(situation.addresses.values()))
    if known is not None:
        return known.address
    if (running := running_master(situation)) is not None:
        return running
    has_data = any(_has_data(peer.volume) for peer in situation.peers)
    if situation.bootstrapped or situation.sentinels or has_data:
        return None
    return situation.addresses[0]
