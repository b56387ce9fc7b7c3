"""Leader election over a Lease: the pure state machine, and what is read from and written into the Lease.

No time stamp of another machine is ever compared with the own clock. An elector counts how long *it* has seen
a record unchanged, on a clock that also runs while the machine sleeps; a leader counts from the moment before
it sent the renewal that succeeded. As long as `renew_deadline < lease_duration`, a leader that cannot renew
has stopped leading before anybody else may start, whatever the wall clocks say and however long a process was
frozen.

`election.py` beside this module runs it against the API server.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Final

Manifest = dict[str, Any]

LEASE_API_VERSION: Final = "coordination.k8s.io/v1"
LEASE_KIND: Final = "Lease"

# A Lease that says longer than this was edited by mistake; the own duration counts then.
MAX_DURATION_SECONDS: Final = 3600
# spec.leaseTransitions is an int32.
MAX_TRANSITIONS: Final = 2**31 - 1
# What a released Lease says: no holder, and the shortest duration that the API accepts.
RELEASED_DURATION_SECONDS: Final = 1
# Writes whose answer got lost may still take effect; so many of the latest are recognised as own.
REMEMBERED_CLAIMS: Final = 8


def boot_clock() -> float:
    """Seconds on a clock that nobody can set and that also counts while the machine is suspended."""
    clock = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if clock is None else time.clock_gettime(clock)


def micro_time() -> str:
    """Wall clock as Kubernetes' MicroTime, for people to read in the Lease; no decision depends on it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


@dataclass(frozen=True, slots=True)
class ElectionTiming:
    """Timing of an election, in seconds; the defaults are the usual ones of Kubernetes' own components.

    `absent_wait_seconds`: where there is no Lease and never was one that this process saw, the first claim
    creates it after this time. None is the strict way: the Lease is created without a holder and claimed a
    lease duration later, so that nobody overlaps with a leader whose Lease was deleted by hand.
    """

    lease_duration_seconds: float = 15.0
    renew_deadline_seconds: float = 10.0
    retry_period_seconds: float = 2.0
    absent_wait_seconds: float | None = None

    def __post_init__(self) -> None:
        if not self.lease_duration_seconds > self.renew_deadline_seconds > self.retry_period_seconds > 0:
            raise ValueError("timing must keep lease duration > renew deadline > retry period > 0")


@dataclass(frozen=True, slots=True)
class LeaseRecord:
    """What a Lease says, read with tolerance: a field that makes no sense counts as missing.

    The time stamps stay text: they only tell one record from another.
    """

    holder: str
    transitions: int
    acquired: str
    renewed: str
    duration_seconds: float | None

    @classmethod
    def read(cls, lease: Mapping[str, Any]) -> LeaseRecord:
        """The record of a Lease as the API server sent it."""
        spec = lease.get("spec")
        spec = spec if isinstance(spec, Mapping) else {}
        duration = _whole_number(spec.get("leaseDurationSeconds"))
        return cls(
            holder=_text(spec.get("holderIdentity")),
            transitions=max(0, min(_whole_number(spec.get("leaseTransitions")) or 0, MAX_TRANSITIONS)),
            acquired=_text(spec.get("acquireTime")),
            renewed=_text(spec.get("renewTime")),
            duration_seconds=duration if duration and 0 < duration <= MAX_DURATION_SECONDS else None,
        )

    @property
    def released(self) -> bool:
        """Whether the last holder gave it back deliberately."""
        return not self.holder and self.duration_seconds == RELEASED_DURATION_SECONDS

    @property
    def vacant(self) -> bool:
        """Whether it names nobody although nobody gave it back: newly prepared, or emptied by hand.

        Somebody may still be leading, so it is not free before a lease duration has passed.
        """
        return not self.holder and not self.released


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _whole_number(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


@dataclass(frozen=True, slots=True)
class Claim:
    """A term that this process tried to begin; the pair tells it from every other term."""

    token: int
    acquired: str


@dataclass(frozen=True, slots=True)
class Term:
    """A term in which this process leads, until `valid_until` on the boot clock."""

    claim: Claim
    valid_until: float


class Verb(StrEnum):
    """What an elector does next."""

    LOOK = "look"
    WAIT = "wait"
    PREPARE = "prepare"
    CLAIM = "claim"
    RENEW = "renew"
    RELEASE = "release"


@dataclass(frozen=True, slots=True)
class Action:
    """The next step: `until` is when a waiting elector may claim (None: nothing to wait for);
    `claim` is the term to begin, to renew or to end."""

    verb: Verb
    until: float | None = None
    claim: Claim | None = None


@dataclass(frozen=True, slots=True)
class ElectionState:
    """All that an elector knows. `lease` is the last Lease read (None: absent, or not `looked` yet)."""

    identity: str
    timing: ElectionTiming
    looked: bool = False
    lease: Mapping[str, Any] | None = None
    record: LeaseRecord | None = None
    changed_at: float = 0.0
    seen_holder: bool = False
    highest_token: int = 0
    claims: tuple[Claim, ...] = ()
    term: Term | None = None

    def leads(self, now: float) -> bool:
        """Whether this process leads at this instant of the boot clock."""
        return self.term is not None and now < self.term.valid_until

    @property
    def owned_claim(self) -> Claim | None:
        """The own claim that the Lease carries, also one whose answer was lost or whose time has run out."""
        if self.record is None or self.record.holder != self.identity:
            return None
        claim = Claim(self.record.transitions, self.record.acquired)
        return claim if claim in self.claims else None


def observe(state: ElectionState, lease: Mapping[str, Any] | None, now: float) -> ElectionState:
    """Take in a Lease as read (None: there is none); `now` is taken after the answer arrived.

    A term whose Lease belongs to somebody else ends. One whose Lease is gone or vacant goes on: nobody else
    has it.
    """
    record = None if lease is None else LeaseRecord.read(lease)
    changed = not state.looked or _version(lease) != _version(state.lease)
    state = replace(
        state,
        looked=True,
        lease=lease,
        record=record,
        changed_at=now if changed else state.changed_at,
        seen_holder=state.seen_holder or bool(record and record.holder),
        highest_token=max(state.highest_token, record.transitions if record else 0),
    )
    if state.term is None or record is None or record.vacant or state.owned_claim == state.term.claim:
        return state
    return replace(state, term=None)


def _version(lease: Mapping[str, Any] | None) -> tuple[object, object] | None:
    if lease is None:
        return None
    metadata = lease.get("metadata", {})
    return metadata.get("uid"), metadata.get("resourceVersion")


def free_at(state: ElectionState) -> float | None:
    """When somebody who does not hold the Lease may take it, on the boot clock; None: prepare it first."""
    timing, record = state.timing, state.record
    if record is None:
        # That it was absent at each look does not mean that nobody created it in between and leads.
        if state.seen_holder or timing.absent_wait_seconds is None:
            return None
        return state.changed_at + timing.absent_wait_seconds
    if record.released:
        return state.changed_at
    # The longer one counts: the holder may run with other settings than this process during a change of them.
    return state.changed_at + max(record.duration_seconds or 0.0, timing.lease_duration_seconds)


def decide(state: ElectionState, now: float, stamp: str, *, candidate: bool = True) -> Action:
    """What to do next, from what is known. `stamp` becomes the acquire time of a term that begins."""
    if not state.looked:
        return Action(Verb.LOOK)
    owned = state.owned_claim
    if not candidate and owned is not None:
        return Action(Verb.RELEASE, claim=owned)
    if not candidate:
        # Whoever is fit first then finds the wait over.
        return Action(Verb.PREPARE if free_at(state) is None else Verb.WAIT)
    if state.term is not None and now < state.term.valid_until:
        return Action(Verb.RENEW, claim=state.term.claim)
    until = now if owned is not None else free_at(state)
    if until is None:
        return Action(Verb.PREPARE)
    if now < until:
        return Action(Verb.WAIT, until=until)
    return Action(Verb.CLAIM, claim=Claim(min(state.highest_token + 1, MAX_TRANSITIONS), stamp))


def before_write(state: ElectionState, action: Action) -> ElectionState:
    """Remember a claim before it is sent: it may take effect although no answer comes back."""
    if action.verb is not Verb.CLAIM or action.claim is None:
        return state
    return replace(
        state,
        claims=(*state.claims, action.claim)[-REMEMBERED_CLAIMS:],
        highest_token=max(state.highest_token, action.claim.token),
    )


def after_write(
    state: ElectionState, action: Action, lease: Mapping[str, Any], started: float, now: float
) -> ElectionState:
    """Take in the answer to a write that succeeded; `started` was taken before the request was sent.

    An answer that came too late begins no term and revives none.
    """
    lapsed = action.verb is Verb.RENEW and not state.leads(now)
    state = observe(state, lease, now)
    valid_until = started + state.timing.renew_deadline_seconds
    if action.claim is None or action.verb is Verb.RELEASE or lapsed or now >= valid_until:
        return replace(state, term=None)
    return replace(state, term=Term(action.claim, valid_until))


def lapse(state: ElectionState, now: float) -> ElectionState:
    """End a term whose time has run out."""
    return state if state.leads(now) else replace(state, term=None)


def lease_manifest(
    state: ElectionState, action: Action, namespace: str, name: str, metadata: Mapping[str, Any], stamp: str
) -> Manifest:
    """The Lease to write for an action; `metadata` (labels, owner references) is used when it is created.

    The renew time always differs from the one before: the API server counts a write that changes nothing as
    none, and followers would not see the renewal of a leader whose wall clock stands still.
    """
    claim = action.claim or Claim(state.highest_token, stamp)
    release = action.verb is Verb.RELEASE
    spec = {
        "holderIdentity": "" if action.verb in (Verb.PREPARE, Verb.RELEASE) else state.identity,
        "leaseDurationSeconds": (
            RELEASED_DURATION_SECONDS if release else round(state.timing.lease_duration_seconds)
        ),
        "acquireTime": claim.acquired,
        "renewTime": stamp,
        "leaseTransitions": claim.token,
    }
    if state.lease is None:
        return {
            "apiVersion": LEASE_API_VERSION,
            "kind": LEASE_KIND,
            "metadata": {**metadata, "namespace": namespace, "name": name},
            "spec": spec,
        }
    if state.record is not None and state.record.renewed == stamp:
        spec["renewTime"] = _next_microsecond(stamp)
    old = state.lease.get("spec")
    return {**state.lease, "spec": {**(old if isinstance(old, Mapping) else {}), **spec}}


def _next_microsecond(stamp: str) -> str:
    return stamp[:-7] + f"{(int(stamp[-7:-1]) + 1) % 1_000_000:06d}Z"
