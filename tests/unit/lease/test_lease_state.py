"""The election's state machine, also in orders of looks, writes, losses and pauses made up by hypothesis."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from runnerhub_operator.errors import ConflictError, NotFoundError
from runnerhub_operator.kube.lease import (
    MAX_TRANSITIONS,
    Action,
    ElectionState,
    ElectionTiming,
    LeaseRecord,
    Verb,
    after_write,
    before_write,
    boot_clock,
    decide,
    free_at,
    lease_manifest,
    micro_time,
    observe,
)
from tests.unit.lease.simulation import LEASE, NAMESPACE, LeaseStore

STAMP = "2001-01-01T00:00:00.000000Z"
TIMING = ElectionTiming()


def lease(version: int = 1, **spec: Any) -> dict[str, Any]:
    """A Lease as read from the API server."""
    return {"metadata": {"uid": "u", "resourceVersion": str(version)}, "spec": spec}


HELD = {
    "holderIdentity": "other",
    "leaseDurationSeconds": 15,
    "acquireTime": STAMP,
    "renewTime": STAMP,
    "leaseTransitions": 4,
}


def seen(body: dict[str, Any] | None, now: float = 100.0) -> ElectionState:
    """The state of an elector that has just read this Lease."""
    return observe(ElectionState("me", TIMING), body, now)


def test_nothing_is_decided_before_the_first_look() -> None:
    assert decide(ElectionState("me", TIMING), 0, STAMP).verb is Verb.LOOK


def test_a_held_lease_is_waited_for_from_when_it_was_first_seen_so() -> None:
    state = seen(lease(**HELD))
    state = observe(state, lease(**HELD), 110)
    assert decide(state, 114.9, STAMP) == Action(Verb.WAIT, until=115.0)
    claim = decide(state, 115.0, STAMP)
    assert claim.verb is Verb.CLAIM
    assert claim.claim is not None
    assert claim.claim.token == 5


def test_each_renewal_begins_the_wait_anew() -> None:
    state = observe(seen(lease(**HELD)), lease(version=2, **HELD), 114)
    assert free_at(state) == 129


def test_the_longer_duration_counts() -> None:
    assert free_at(seen(lease(**{**HELD, "leaseDurationSeconds": 40}))) == 140
    assert free_at(seen(lease(**{**HELD, "leaseDurationSeconds": 3}))) == 115


@pytest.mark.parametrize("duration", [None, "15", 0, -1, 10**12, True, 1.5])
def test_a_senseless_duration_counts_as_the_own_one(duration: object) -> None:
    assert free_at(seen(lease(**{**HELD, "leaseDurationSeconds": duration}))) == 115


@pytest.mark.parametrize("spec", [None, [], "x", {}, {"holderIdentity": None, "leaseTransitions": "x"}])
def test_a_malformed_lease_is_vacant(spec: object) -> None:
    record = LeaseRecord.read({"metadata": {}, "spec": spec})
    assert record.vacant
    assert record.transitions == 0


def test_a_released_lease_is_free_at_once_and_an_emptied_one_is_not() -> None:
    assert decide(seen(lease(**{**HELD, "holderIdentity": "", "leaseDurationSeconds": 1})), 100, STAMP).claim
    assert decide(seen(lease(**{**HELD, "holderIdentity": ""})), 100, STAMP).verb is Verb.WAIT


def test_an_absent_lease_is_prepared_first() -> None:
    action = decide(seen(None), 100, STAMP)
    assert action.verb is Verb.PREPARE
    manifest = lease_manifest(seen(None), action, NAMESPACE, LEASE, {"labels": {"a": "b"}}, STAMP)
    assert manifest["spec"]["holderIdentity"] == ""
    assert manifest["spec"]["leaseDurationSeconds"] == 15
    assert manifest["metadata"] == {"labels": {"a": "b"}, "namespace": NAMESPACE, "name": LEASE}


def test_a_process_that_cannot_lead_prepares_but_never_claims() -> None:
    assert decide(seen(None), 1000, STAMP, candidate=False) == Action(Verb.PREPARE)
    assert decide(seen(lease(**HELD)), 1000, STAMP, candidate=False) == Action(Verb.WAIT)


def test_an_answer_that_came_after_the_deadline_begins_no_term() -> None:
    state, store = seen(None), LeaseStore()
    store.create(lease_manifest(state, Action(Verb.PREPARE), NAMESPACE, LEASE, {}, STAMP))
    state = observe(state, store.read(), 100)
    action = decide(state, 200, STAMP)
    state = before_write(state, action)
    answer = store.replace(lease_manifest(state, action, NAMESPACE, LEASE, {}, STAMP))
    late = after_write(state, action, answer, 200, 210)
    assert not late.leads(210)
    assert decide(late, 210, STAMP).verb is Verb.CLAIM, "the Lease is its own, nobody needs to wait"
    assert after_write(state, action, answer, 200, 209.9).leads(209.9)


def test_the_same_name_is_not_the_same_process() -> None:
    state = seen(lease(**{**HELD, "holderIdentity": "me"}))
    assert decide(state, 100, STAMP).verb is Verb.WAIT


def test_the_token_never_overflows() -> None:
    action = decide(seen(lease(**{**HELD, "leaseTransitions": MAX_TRANSITIONS})), 200, STAMP)
    assert action.claim is not None
    assert action.claim.token == MAX_TRANSITIONS


def test_other_fields_of_the_lease_are_kept() -> None:
    state = seen(lease(**HELD, strategy="OldestEmulationVersion"))
    manifest = lease_manifest(state, decide(state, 200, STAMP), NAMESPACE, LEASE, {}, STAMP)
    assert manifest["spec"]["strategy"] == "OldestEmulationVersion"
    assert manifest["spec"]["renewTime"] != STAMP, "each renewal must be seen as a change"
    assert manifest["metadata"]["resourceVersion"] == "1"


def test_clocks() -> None:
    assert boot_clock() <= boot_clock()
    assert len(micro_time()) == len(STAMP)


@dataclass
class Flight:
    """A write that was decided: whether it was sent, whether it took effect, and the answer."""

    action: Action
    manifest: dict[str, Any]
    create: bool
    started: float
    answer: dict[str, Any] | None = None
    refused: bool = False


class Electors(RuleBasedStateMachine):
    """Three electors step by step; between any two steps of one, the others and the time may go on."""

    @initialize(offsets=st.tuples(*[st.integers(0, 10**6)] * 3), rates=st.tuples(*[st.integers(95, 105)] * 3))
    def begin(self, offsets: tuple[int, ...], rates: tuple[int, ...]) -> None:
        self.now = 0.0
        self.store = LeaseStore()
        self.offsets, self.rates = offsets, rates
        self.states = [ElectionState(f"elector-{i}", TIMING) for i in range(3)]
        self.flights: list[Flight | None] = [None] * 3
        self.abandoned: list[Flight] = []
        self.tokens: list[int] = []
        self.deleted = False

    def clock(self, who: int) -> float:
        return self.offsets[who] + self.now * self.rates[who] / 100

    @rule(tenths=st.integers(1, 60))
    def time_passes(self, tenths: int) -> None:
        self.now += tenths / 10

    @rule()
    def much_time_passes(self) -> None:
        self.now += 16

    @rule(who=st.integers(0, 2))
    def look(self, who: int) -> None:
        """A read whose answer is taken in at once; a late one is `look_late`."""
        try:
            body = self.store.read()
        except NotFoundError:
            body = None
        self.states[who] = observe(self.states[who], body, self.clock(who))

    @rule(who=st.integers(0, 2), tenths=st.integers(0, 60))
    def look_late(self, who: int, tenths: int) -> None:
        """A read whose answer arrives late, after the others were free to act on an older picture."""
        body = self.store.lease
        self.now += tenths / 10
        self.states[who] = observe(self.states[who], body, self.clock(who))

    @rule(who=st.integers(0, 2), candidate=st.sampled_from([True, True, True, False]))
    def start_write(self, who: int, candidate: bool) -> None:
        """Decide and note the time; the request has not reached the API server yet."""
        if self.flights[who] is not None:
            return
        state = self.states[who]
        stamp = f"{who}-{int(self.now * 10)}-000000Z"
        action = decide(state, self.clock(who), stamp, candidate=candidate)
        if action.verb in (Verb.WAIT, Verb.LOOK):
            return
        if action.verb is Verb.RELEASE:
            state = observe(state, state.lease, self.clock(who))
            self.states[who] = state = ElectionState(
                **{f: getattr(state, f) for f in state.__slots__ if f != "term"}, term=None
            )
        manifest = lease_manifest(state, action, NAMESPACE, LEASE, {}, stamp)
        self.states[who] = before_write(state, action)
        self.flights[who] = Flight(action, manifest, state.lease is None, self.clock(who))

    def _land(self, flight: Flight) -> None:
        if flight.answer is not None or flight.refused:
            return
        try:
            flight.answer = (self.store.create if flight.create else self.store.replace)(flight.manifest)
        except (ConflictError, NotFoundError):
            flight.refused = True

    @rule(who=st.integers(0, 2))
    def write_lands(self, who: int) -> None:
        if (flight := self.flights[who]) is not None:
            self._land(flight)

    @rule(who=st.integers(0, 2))
    def answer_arrives(self, who: int) -> None:
        flight = self.flights[who]
        if flight is None:
            return
        self._land(flight)
        self.flights[who] = None
        if flight.answer is not None:
            before = self.states[who].term
            self.states[who] = after_write(
                self.states[who], flight.action, flight.answer, flight.started, self.clock(who)
            )
            term = self.states[who].term
            if term is not None and (before is None or before.claim != term.claim):
                if not self.deleted:
                    assert term.claim.token > max(self.tokens, default=0), "a token came twice or went back"
                self.tokens.append(term.claim.token)

    @rule(who=st.integers(0, 2))
    def answer_is_lost(self, who: int) -> None:
        if (flight := self.flights[who]) is not None:
            self.abandoned.append(flight)
            self.flights[who] = None

    @rule(index=st.integers(0, 5))
    def abandoned_write_lands(self, index: int) -> None:
        if index < len(self.abandoned):
            self._land(self.abandoned.pop(index))

    @rule(who=st.integers(0, 2))
    def process_restarts(self, who: int) -> None:
        if (flight := self.flights[who]) is not None:
            self.abandoned.append(flight)
            self.flights[who] = None
        self.states[who] = ElectionState(f"elector-{who}", TIMING)

    @rule()
    def deleted_by_hand(self) -> None:
        self.store.delete()
        self.deleted = True

    @invariant()
    def never_two_leaders(self) -> None:
        leaders = [i for i, state in enumerate(getattr(self, "states", [])) if state.leads(self.clock(i))]
        assert len(leaders) <= 1


Electors.TestCase.settings = settings(max_examples=60, stateful_step_count=60, deadline=None)
TestElectors = Electors.TestCase
