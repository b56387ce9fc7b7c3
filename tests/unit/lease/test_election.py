"""The election as it runs, in virtual time against a simulated API server."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from runnerhub_operator.errors import LostLeadershipError
from runnerhub_operator.kube.lease import ElectionTiming, LeaseRecord
from tests.unit.lease.simulation import LeaseStore, Machine, Network, SimulatedApi, run_virtual, stop, until


class Bed:
    """Electors on machines of their own around one store."""

    def __init__(self, count: int = 3, **network: Any) -> None:
        self.store = LeaseStore()
        self.network = Network(random.Random(1), **network)  # noqa: S311 - repeatable on purpose
        self.api = SimulatedApi(self.store, self.network)
        self.machines = [
            Machine(f"hub-orchestrator-{i}", offset=1000.0 * i, rate=1 + (i - 1) / 100) for i in range(count)
        ]

    def start(self) -> None:
        for machine in self.machines:
            machine.start(self.api)

    @property
    def leader(self) -> Machine | None:
        leaders = [machine for machine in self.machines if machine.leads]
        assert len(leaders) <= 1, f"two leaders: {[machine.name for machine in leaders]}"
        return leaders[0] if leaders else None

    async def led(self, seconds: float = 20) -> tuple[Machine, float]:
        """Wait until somebody leads: who, and how long that took."""
        took = await until(lambda: self.leader is not None, seconds)
        assert self.leader is not None
        return self.leader, took

    @property
    def record(self) -> LeaseRecord:
        assert self.store.lease is not None
        return LeaseRecord.read(self.store.lease)


def in_virtual_time(
    scenario: Callable[[Bed], Coroutine[Any, Any, None]],
) -> Callable[[], None]:
    """Run a scenario with a bed of three electors, and end them."""

    def run() -> None:
        async def whole() -> None:
            bed = Bed()
            bed.start()
            try:
                await scenario(bed)
            finally:
                await stop(bed.machines)

        run_virtual(whole())

    run.__name__, run.__doc__ = scenario.__name__, scenario.__doc__
    return run


@in_virtual_time
async def test_exactly_one_is_elected_and_renews(bed: Bed) -> None:
    leader, _ = await bed.led()
    for _ in range(200):
        await asyncio.sleep(0.5)
        assert bed.leader is leader
    assert bed.record.holder == leader.name
    assert leader.tokens == [1] == [bed.record.transitions]


@in_virtual_time
async def test_release_hands_over_within_three_seconds_with_a_higher_token(bed: Bed) -> None:
    leader, _ = await bed.led()
    assert leader.elector is not None
    await leader.elector.release()
    assert not leader.leads
    assert bed.record.released
    successor, took = await bed.led()
    assert took <= 2.1
    assert successor is not leader
    assert successor.tokens == [2]


@in_virtual_time
async def test_a_crash_is_taken_over_within_seventeen_seconds(bed: Bed) -> None:
    leader, _ = await bed.led()
    await asyncio.sleep(7.3)
    leader.kill()
    successor, took = await bed.led()
    assert 13 - 0.2 <= took <= 17.2
    assert successor.tokens == [2]


@in_virtual_time
async def test_a_frozen_leader_knows_at_once_when_it_wakes(bed: Bed) -> None:
    leader, _ = await bed.led()
    now = asyncio.get_running_loop().time()
    leader.freezes.append((now, now + 20))
    await asyncio.sleep(10.2)
    assert not leader.leads, "its time has run out although its code never ran"
    successor, _ = await bed.led()
    assert successor is not leader
    await asyncio.sleep(5)
    await until(lambda: any("stopped" in text for _, text in leader.events), 1)
    assert bed.leader is successor
    with pytest.raises(LostLeadershipError):
        leader.elector.ensure_leader()  # type: ignore[union-attr]


@in_virtual_time
async def test_a_leader_without_api_server_steps_down_by_itself(bed: Bed) -> None:
    leader, _ = await bed.led()
    start = asyncio.get_running_loop().time()
    bed.network.outages.append((start, start + 600))
    await until(lambda: not leader.leads, 10.2)
    await until(lambda: any("stopped" in text for _, text in leader.events), 0.3)
    await asyncio.sleep(600 - (asyncio.get_running_loop().time() - start))
    _, took = await bed.led()
    assert took <= 6


@in_virtual_time
async def test_a_lease_deleted_by_hand_comes_back_with_the_same_leader(bed: Bed) -> None:
    leader, _ = await bed.led()
    bed.store.delete()
    await asyncio.sleep(3)
    assert bed.leader is leader
    assert bed.record.holder == leader.name
    assert leader.tokens == [1]


@in_virtual_time
async def test_a_deleted_lease_of_an_unreachable_leader_is_not_taken_early(bed: Bed) -> None:
    leader, _ = await bed.led()
    now = asyncio.get_running_loop().time()
    leader.freezes.append((now, now + 9))
    bed.store.delete()
    for _ in range(90):
        await asyncio.sleep(0.1)
        assert bed.leader in (leader, None)
    await bed.led()


@in_virtual_time
async def test_a_malformed_lease_without_leader_is_waited_for_and_then_taken(bed: Bed) -> None:
    leader, _ = await bed.led()
    leader.kill()
    await asyncio.sleep(4)
    bed.store.edit({"holderIdentity": "", "leaseDurationSeconds": 10**9, "leaseTransitions": "many"})
    successor, took = await bed.led()
    assert took >= 14
    assert successor.tokens[-1] == 2, "the token goes on from what was seen before"


@in_virtual_time
async def test_a_holder_written_by_hand_ends_the_term(bed: Bed) -> None:
    leader, _ = await bed.led()
    assert bed.store.lease is not None
    bed.store.edit({**bed.store.lease["spec"], "holderIdentity": "somebody"})
    await until(lambda: not leader.leads, 2.2)
    successor, took = await bed.led()
    assert took >= 12
    assert successor.tokens[-1] == 2


@in_virtual_time
async def test_a_malformed_lease_is_put_right_by_its_leader(bed: Bed) -> None:
    leader, _ = await bed.led()
    bed.store.edit(
        {"holderIdentity": 7, "leaseDurationSeconds": "long", "renewTime": None, "leaseTransitions": -3}
    )
    await asyncio.sleep(3)
    assert bed.leader is leader
    assert bed.record.holder == leader.name
    assert bed.record.transitions == 1


@in_virtual_time
async def test_who_cannot_lead_gives_the_lease_back(bed: Bed) -> None:
    leader, _ = await bed.led()
    leader.candidate = False
    assert leader.elector is not None
    leader.elector.poke()
    await until(lambda: bed.leader not in (leader, None), 2.5)
    leader.candidate = True
    await asyncio.sleep(30)
    assert bed.leader is not leader


@in_virtual_time
async def test_a_restarted_process_does_not_take_its_predecessors_term(bed: Bed) -> None:
    leader, _ = await bed.led()
    leader.kill()
    leader.start(bed.api)
    await asyncio.sleep(11)
    assert bed.leader is None
    successor, _ = await bed.led()
    assert successor.tokens[-1] == 2


def test_conflicting_settings_are_refused() -> None:
    with pytest.raises(ValueError, match="renew deadline"):
        ElectionTiming(lease_duration_seconds=10, renew_deadline_seconds=10)


def test_the_first_creation_may_be_made_faster() -> None:
    async def scenario() -> None:
        bed = Bed(count=1)
        bed.machines[0].start(bed.api, ElectionTiming(absent_wait_seconds=0.0))
        _, took = await bed.led()
        assert took < 0.5
        await stop(bed.machines)

    run_virtual(scenario())


_seconds = st.integers(min_value=0, max_value=90)
_faults = st.lists(
    st.tuples(
        st.sampled_from(["freeze", "kill", "outage", "delete", "unfit"]),
        st.integers(min_value=0, max_value=2),
        _seconds,
        st.integers(min_value=1, max_value=40),
    ),
    max_size=8,
)


@settings(
    max_examples=20,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    # Each example is four minutes of virtual time: shrinking one takes longer than reading it.
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
)
@given(
    faults=_faults,
    seed=st.integers(min_value=0, max_value=10**6),
    slowest=st.sampled_from([0.01, 0.5, 4.0]),
    lost=st.sampled_from([0.0, 0.05, 0.3]),
)
def test_never_two_leaders_and_one_again_when_all_is_well(
    faults: list[tuple[str, int, int, int]], seed: int, slowest: float, lost: float
) -> None:
    """Skewed clocks, frozen and killed processes, lost and late answers, deletion by hand, in any order."""

    async def scenario() -> None:
        dice = random.Random(seed)  # noqa: S311 - repeatable on purpose
        bed = Bed()
        bed.network.dice, bed.network.slowest_seconds, bed.network.lost_share = dice, slowest, lost
        for machine in bed.machines:
            machine.offset, machine.rate = dice.uniform(0, 1e6), dice.uniform(0.95, 1.05)
        loop = asyncio.get_running_loop()
        deleted = any(kind == "delete" for kind, *_ in faults)
        for kind, who, at, length in faults:
            machine = bed.machines[who]
            if kind == "freeze":
                machine.freezes.append((at, at + length))
            elif kind == "outage":
                bed.network.outages.append((at, at + length))
            elif kind == "delete":
                loop.call_at(at, bed.store.delete)
            elif kind == "unfit":
                loop.call_at(at, setattr, machine, "candidate", False)
                loop.call_at(at + length, setattr, machine, "candidate", True)
            else:
                loop.call_at(at, machine.kill)
                loop.call_at(at + length, machine.start, bed.api)
        bed.start()
        try:
            while loop.time() < 140:
                await asyncio.sleep(0.1)
                assert len([m for m in bed.machines if m.leads]) <= 1
            bed.network.slowest_seconds, bed.network.lost_share = 0.01, 0.0
            # The last lost request may still cost a leader its term.
            await asyncio.sleep(15)
            await bed.led(40)
            leader = bed.leader
            await asyncio.sleep(60)
            assert bed.leader is leader
            starts = sorted(
                (at, int(text.split()[1])) for m in bed.machines for at, text in m.events if "started" in text
            )
            tokens = [token for _, token in starts]
            if not deleted:
                assert tokens == sorted(set(tokens)), f"fencing tokens went back: {starts}"
        finally:
            await stop(bed.machines)

    run_virtual(scenario())
