"""The size of the pools: what is started, stopped and protected, and what never happens."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from runnerhub_operator import names
from runnerhub_operator.api import RunnerPoolSpec
from runnerhub_operator.plan import runners
from runnerhub_operator.plan.runners import Decision, Memory, plan_pools
from runnerhub_operator.probes.runners import Demand
from runnerhub_operator.snapshot import Pod
from tests.unit.plan.builders import NOW
from tests.unit.plan.builders import pod as any_pod


def pool(name: str = "linux", **changes: Any) -> RunnerPoolSpec:
    return RunnerPoolSpec(
        **{"name": name, "labels": ("self-hosted", name), "cool_down_seconds": 60} | changes
    )


def stamp(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def runner(slot: int, of: str = "linux", **changes: Any) -> Pod:
    values = {"pool": of, "since": stamp(NOW - timedelta(minutes=1)), "template": "t"} | changes
    return any_pod(names.runner("hub", of, slot), names.RUNNER, **values)


def pending(slot: int, of: str = "linux", **changes: Any) -> Pod:
    return runner(slot, of, **{"ready": False, "node": "", "ip": ""} | changes)


def unschedulable(slot: int, of: str = "linux", **changes: Any) -> Pod:
    return pending(slot, of, **{"waiting_reason": "Unschedulable", "message": "0/3 nodes"} | changes)


def jobs(**waiting: int) -> tuple[tuple[frozenset[str], int], ...]:
    return tuple((frozenset({"self-hosted", label}), count) for label, count in waiting.items())


def rejected(slot: int, of: str = "linux", **changes: Any) -> Pod:
    return runner(
        slot, of, **{"ready": False, "ip": "", "ended": True, "rejected": "OutOfcpu: no cpu"} | changes
    )


def demand(*busy: Pod, **waiting: int) -> Demand:
    return Demand(jobs(**waiting), frozenset(pod.name for pod in busy))


def decide(
    pools: list[RunnerPoolSpec],
    pods: list[Pod],
    told: Demand | None,
    memory: Memory | None = None,
    **more: Any,
) -> Decision:
    outdated = more.get("outdated", ())
    return plan_pools(pools, pods, outdated, told, memory or Memory(), more.get("now", NOW))


def stopped(found: Decision) -> list[str]:
    return [step.pod for step in found.stop]


def cooled(pools: list[RunnerPoolSpec], pods: list[Pod], told: Demand, **more: Any) -> Decision:
    """The decision after the same has been seen for longer than the cool-down."""
    first = decide(pools, pods, told, **more)
    return decide(pools, pods, told, first.memory, now=NOW + timedelta(seconds=61), **more)


def test_a_pool_grows_by_the_jobs_that_wait_in_the_lowest_free_slots() -> None:
    busy = runner(1)
    found = decide([pool()], [busy], demand(busy, linux=2))
    assert found.create == (("linux", 0), ("linux", 2))
    assert found.pools[0].desired == 3
    assert found.moving


def test_runners_that_are_free_or_on_their_way_count_against_growing() -> None:
    assert decide([pool()], [runner(0), pending(1)], demand(linux=2)).create == ()
    assert decide([pool()], [runner(0), pending(1)], demand(linux=3)).create == (("linux", 2),)


def test_a_pool_never_grows_beyond_its_greatest_number_also_with_runners_that_still_go() -> None:
    going = [runner(0, terminating=True, ready=False), runner(7, terminating=True, ready=False)]
    found = decide([pool(max_replicas=4)], going, demand(linux=100))
    assert found.create == (("linux", 1), ("linux", 2))


def test_a_pool_starts_with_its_least_number_also_while_nobody_tells_the_demand() -> None:
    found = decide([pool(min_replicas=2)], [], None)
    assert found.create == (("linux", 0), ("linux", 1))
    assert decide([pool(min_replicas=0)], [], None).create == ()


def test_jobs_go_to_runners_that_have_all_their_labels() -> None:
    gpu = pool("gpu", labels=("self-hosted", "linux", "gpu"))
    found = decide([pool(), gpu], [], demand(gpu=2))
    assert [name for name, _ in found.create] == ["gpu", "gpu"]
    assert decide([pool()], [], demand(gpu=2)).unserved == 2


def test_the_case_of_labels_does_not_matter() -> None:
    told = Demand(((frozenset({"self-hosted", "Linux", "X64"}), 2),), frozenset())
    found = decide([pool(labels=("Self-Hosted", "linux", "x64"))], [], told)
    assert (len(found.create), found.unserved) == (2, 0)


def test_a_burst_is_taken_in_steps_and_shared_by_the_pools() -> None:
    found = decide([pool("a", max_replicas=500), pool("b", max_replicas=500)], [], demand(a=400, b=400))
    assert len(found.create) == runners.CREATIONS_PER_STEP
    by_pool = [sum(name == which for name, _ in found.create) for which in ("a", "b")]
    assert abs(by_pool[0] - by_pool[1]) <= 1


def test_pools_that_have_no_runner_yet_come_first_however_many_pools_grow() -> None:
    labels = [f"p{number:02}" for number in range(40)]
    pools = [pool(label, max_replicas=500) for label in labels]
    told = demand(**dict.fromkeys(labels, 100))
    first = decide(pools, [], told).create
    second = decide(pools, [runner(slot, of) for of, slot in first], told).create
    assert {of for of, _ in (*first, *second)} == set(labels)


def test_no_more_is_started_than_the_scheduler_has_judged() -> None:
    waiting = [pending(slot) for slot in range(runners.PENDING_PER_POOL - 3)]
    found = decide([pool(max_replicas=500)], waiting, demand(linux=400))
    assert len(found.create) == 3


def test_a_pool_that_cannot_be_scheduled_stops_growing_and_another_does_not() -> None:
    stuck = pool("gpu", max_replicas=100)
    found = decide([stuck, pool()], [unschedulable(0, "gpu")], demand(gpu=50, linux=3))
    assert [name for name, _ in found.create] == ["linux"] * 3
    assert found.pools[0].blocked is not None
    assert found.pools[1].blocked is None


FULL = "0/3 nodes are available: 1 node(s) had untolerated taint {x: }, 2 Insufficient cpu."


def test_idle_runners_of_a_pool_make_room_at_once_for_jobs_of_one_that_finds_none() -> None:
    idle = [runner(slot, "a") for slot in range(10)]
    waiting = [unschedulable(slot, "b", message=FULL) for slot in range(5)]
    both = [pool("a", min_replicas=7, cool_down_seconds=86400), pool("b", cool_down_seconds=86400)]
    assert stopped(decide(both, [*idle, *waiting[:2]], demand(b=2))) == [idle[9].name, idle[8].name]
    found = decide(both, [*idle, *waiting], demand(b=5))
    assert stopped(found) == [pod.name for pod in (idle[9], idle[8], idle[7])], "the least number stays"
    assert all(step.ask for step in found.stop)
    going = [*idle[:8], *(replace(pod, terminating=True, ready=False) for pod in idle[8:])]
    assert stopped(decide(both, [*going, *waiting[:2]], demand(b=2))) == [], "two make room already"
    busy = demand(*idle, b=5)
    assert stopped(decide(both, [*idle, *waiting], busy)) == []
    assert stopped(decide(both, [*idle, *waiting], demand(a=10, b=5))) == [], "jobs wait for these too"
    assert stopped(decide(both, [*idle, runner(0, "b"), *waiting], demand(b=1))) == [], "its job has a runner"


@pytest.mark.parametrize(
    ("message", "selector"),
    [
        ("0/3 nodes are available: 3 node(s) didn't match Pod's node affinity/selector.", {}),
        (FULL, {"node_selector": {"example.com/gpu": "true"}}),
        (FULL, {"region": "east"}),
    ],
)
def test_a_pool_whose_pods_no_node_could_take_costs_others_nothing(
    message: str, selector: dict[str, Any]
) -> None:
    idle = [runner(slot, "a") for slot in range(4)]
    stuck = unschedulable(0, "b", message=message)
    other = pool("a", region="west", node_selector={"example.com/gpu": "false"})
    found = decide([other, pool("b", **selector)], [*idle, stuck], demand(b=5))
    assert found.pools[1].blocked is not None
    assert not found.stop


def test_jobs_that_two_pools_can_take_do_not_wait_for_the_one_that_cannot_grow() -> None:
    shared = ("self-hosted", "both")
    pools = [pool("a", labels=shared), pool("b", labels=shared)]
    pods = [unschedulable(slot, "a") for slot in range(3)]
    found = decide(pools, pods, demand(both=3))
    assert found.create == (("b", 0), ("b", 1), ("b", 2))
    # Its own pods are surplus then, and go when that has lasted.
    assert len(cooled(pools, pods, demand(both=0)).stop) == 3


def test_new_runners_for_shared_jobs_are_divided() -> None:
    shared = ("self-hosted", "both")
    found = decide([pool("a", labels=shared), pool("b", labels=shared)], [], demand(both=6))
    assert sorted(name for name, _ in found.create) == ["a"] * 3 + ["b"] * 3


def test_one_sick_runner_among_many_does_not_stop_the_pool() -> None:
    sick = runner(0, ready=False, since=stamp(NOW - timedelta(minutes=10)))
    assert decide([pool()], [sick, runner(1), runner(2)], demand(linux=4)).create
    assert not decide([pool()], [sick], demand(linux=4)).create


def test_surplus_goes_after_the_cool_down_and_busy_runners_stay() -> None:
    pods = [runner(slot) for slot in range(4)]
    told = demand(pods[3], pods[1])
    first = decide([pool()], pods, told)
    assert first.stop == ()
    early = decide([pool()], pods, told, first.memory, now=NOW + timedelta(seconds=59))
    assert early.stop == ()
    late = decide([pool()], pods, told, first.memory, now=NOW + timedelta(seconds=60))
    assert stopped(late) == [pods[2].name, pods[0].name]
    assert all(step.ask and not step.force for step in late.stop)


def test_only_as_many_go_as_were_never_needed_during_the_cool_down() -> None:
    pods = [runner(slot) for slot in range(4)]
    memory = decide([pool()], pods, demand()).memory
    memory = decide([pool()], pods, demand(*pods[:3]), memory, now=NOW + timedelta(seconds=30)).memory
    late = decide([pool()], pods, demand(), memory, now=NOW + timedelta(seconds=61))
    assert len(late.stop) == 1


def test_a_burst_in_between_begins_the_cool_down_anew() -> None:
    pods = [runner(slot) for slot in range(2)]
    memory = decide([pool()], pods, demand()).memory
    memory = decide([pool()], pods, demand(linux=2), memory, now=NOW + timedelta(seconds=30)).memory
    assert decide([pool()], pods, demand(), memory, now=NOW + timedelta(seconds=61)).stop == ()


def test_a_pool_shrinks_to_its_least_number_or_to_nothing() -> None:
    pods = [runner(slot) for slot in range(3)]
    assert len(cooled([pool(min_replicas=2)], pods, demand()).stop) == 1
    assert len(cooled([pool(min_replicas=0)], pods, demand()).stop) == 3


def test_nothing_is_stopped_while_nobody_tells_who_has_a_job() -> None:
    pods = [runner(0), runner(1), runner(2, ready=False, since=stamp(NOW - timedelta(hours=1)))]
    memory = cooled([pool()], pods, demand()).memory
    found = decide([pool()], pods, None, memory, now=NOW + timedelta(hours=1), outdated={pods[0].uid})
    assert found.stop == ()
    assert found.mark == ()
    assert found.memory.windows == {}, "the cool-down begins when it is known again"


def test_a_demand_that_is_unknown_for_a_moment_does_not_begin_the_cool_down_anew() -> None:
    pods = [runner(slot) for slot in range(2)]
    memory = decide([pool()], pods, demand()).memory
    memory = decide([pool()], pods, demand(), memory, now=NOW + timedelta(seconds=40)).memory
    memory = decide([pool()], pods, None, memory, now=NOW + timedelta(seconds=65)).memory
    assert len(decide([pool()], pods, demand(), memory, now=NOW + timedelta(seconds=68)).stop) == 2
    longer = decide([pool()], pods, None, memory, now=NOW + timedelta(seconds=70)).memory
    assert decide([pool()], pods, demand(), longer, now=NOW + timedelta(seconds=71)).stop == ()


def test_a_runner_that_cannot_be_asked_keeps_no_other_one_from_going_and_is_told() -> None:
    pods = [runner(slot) for slot in range(3)]
    spec = [pool(min_replicas=2)]
    first = cooled(spec, pods, demand())
    assert stopped(first) == [pods[2].name]
    at = NOW + timedelta(seconds=62)
    memory = first.memory.asked(pods[2].uid, at, answered=False)
    second = decide(spec, pods, demand(), memory, now=at)
    assert stopped(second) == [pods[1].name], "another one"
    assert second.pools[0].silent == (), "once may be chance"
    again = decide(spec, pods, demand(), memory, now=at + timedelta(seconds=60))
    assert stopped(again) == [pods[2].name], "after a minute it is asked again"
    memory = again.memory.asked(pods[2].uid, at + timedelta(seconds=60), answered=False)
    told = decide(spec, pods, demand(), memory, now=at + timedelta(seconds=65))
    assert told.pools[0].silent == (pods[2].name,)
    well = memory.asked(pods[2].uid, at + timedelta(seconds=66), answered=True)
    assert not decide(spec, pods, demand(), well, now=at + timedelta(seconds=66)).pools[0].silent
    late = decide(spec, pods, demand(*pods), memory, now=at + timedelta(seconds=181))
    assert not late.memory.silent, "it is not to go any more"
    assert not decide(spec, pods[:2], demand(), memory, now=at + timedelta(seconds=61)).memory.silent


def test_an_outdated_or_dead_or_abandoned_runner_that_cannot_be_asked_is_left_alone_for_a_while() -> None:
    dead = runner(1, ready=False, since=stamp(NOW - timedelta(minutes=10)))
    pods = [runner(0), dead, runner(2), runner(0, "gone"), runner(1, "gone")]
    memory = decide([pool(min_replicas=3)], pods, demand()).memory
    for pod in (pods[0], dead, pods[3]):
        memory = memory.asked(pod.uid, NOW + timedelta(seconds=60), answered=False)
    now = NOW + timedelta(seconds=61)
    outdated = {pods[0].uid, dead.uid}
    found = decide([pool(min_replicas=3, max_replicas=3)], pods, demand(), memory, now=now, outdated=outdated)
    assert stopped(found) == [pods[4].name]


def test_a_smaller_greatest_number_stops_idle_runners_at_once() -> None:
    pods = [runner(slot) for slot in range(4)]
    found = decide([pool(max_replicas=2)], pods, demand(*pods[:1]))
    assert stopped(found) == [pods[3].name, pods[2].name]


def test_runners_of_a_pool_that_is_gone_are_stopped_but_for_busy_ones() -> None:
    pods = [runner(0, "old"), runner(1, "old"), unschedulable(2, "old")]
    found = decide([pool()], pods, demand(pods[0]))
    assert stopped(found) == [pods[1].name, pods[2].name]
    assert [(mark.pod, mark.busy) for mark in found.mark] == [(pods[0].name, True)], (
        "until then it is protected"
    )
    assert decide([pool()], pods[:2], None).stop == ()


def test_a_runner_that_has_ended_is_removed_and_replaced() -> None:
    ended = runner(0, ready=False, ended=True)
    found = decide([pool(min_replicas=1)], [ended], demand())
    assert [(step.pod, step.ask) for step in found.stop] == [(ended.name, False)]
    assert found.create == (("linux", 1),)


def test_a_pool_whose_runners_the_kubelet_rejects_waits_and_another_takes_its_jobs() -> None:
    shared = ("self-hosted", "both")
    pools = [pool("gpu", labels=(*shared, "gpu"), max_replicas=9), pool("b", labels=shared)]
    pods = [rejected(slot, "gpu") for slot in range(2)]
    found = decide(pools, pods, demand(gpu=5, both=2))
    assert found.create == (("b", 0), ("b", 1))
    assert found.stop == ()
    assert found.pools[0].blocked is not None
    assert found.pools[0].rejected == "node n rejected pod hub-runner-gpu-0: OutOfcpu: no cpu"
    early = decide(pools, pods, demand(gpu=5), found.memory, now=NOW + timedelta(seconds=9))
    assert not early.create
    assert not early.stop
    late = decide(pools, pods, demand(gpu=5), early.memory, now=NOW + timedelta(seconds=10))
    assert [(step.pod, step.ask) for step in late.stop] == [(pod.name, False) for pod in pods]
    assert late.create == tuple(("gpu", slot) for slot in range(2, 7))


def test_what_a_kubelet_rejects_is_tried_ever_more_seldom_and_soon_again_after_it_took_one() -> None:
    def tries(spec: RunnerPoolSpec, memory: Memory, start: int, end: int) -> tuple[list[int], Memory]:
        pods: dict[int, Pod] = {}
        found = []
        for second in range(start, end):
            # The verdict takes a visit.
            pods = {slot: rejected(slot, uid=pod.uid) for slot, pod in pods.items()}
            now = NOW + timedelta(seconds=second)
            decision = decide([spec], list(pods.values()), demand(linux=8), memory, now=now)
            memory = decision.memory
            gone = {step.uid for step in decision.stop}
            pods = {slot: pod for slot, pod in pods.items() if pod.uid not in gone}
            pods |= {slot: pending(slot, uid=f"{slot}-{second}") for _, slot in decision.create}
            assert second == start or decision.pools[0].rejected, "also while the next ones are tried"
            found += [second] if decision.create else []
        return found, memory

    large = pool(max_replicas=16)
    found, memory = tries(large, Memory(), 0, 1500)
    assert found == [0, 11, 21, 41, 81, 161, 321, 621, 921, 1221]
    full, _ = tries(pool(max_replicas=8), Memory(), 0, 1500)
    assert len(full) == len(found)
    well = decide([large], [runner(0)], demand(), memory, now=NOW + timedelta(seconds=1530))
    assert tries(large, well.memory, 1531, 1560)[0] == [1531, 1542, 1552]


def test_a_node_that_rejects_runners_holds_no_pool_up_that_others_serve_well() -> None:
    pods = [runner(0), runner(1), rejected(2)]
    found = decide([pool()], pods, demand(*pods[:2], linux=3))
    assert found.create == (("linux", 3), ("linux", 4), ("linux", 5))
    assert found.pools[0].blocked is None
    assert found.pools[0].rejected
    assert not decide([pool()], [*pods, rejected(3)], demand(*pods[:2], linux=3)).create


def test_rejected_runners_go_when_nobody_needs_them_or_the_spec_is_another() -> None:
    pods = [rejected(0, ip="10.0.0.9"), rejected(1)]
    wanted = demand(linux=2)
    assert stopped(decide([pool(max_replicas=1)], pods, wanted)) == [pods[0].name]
    old = decide([pool()], pods, wanted, outdated={pods[1].uid})
    assert [(step.pod, step.reason, step.ask) for step in old.stop] == [
        (pods[1].name, "the spec has changed", False)
    ]
    free = decide([pool(cool_down_seconds=0)], pods, demand())
    assert [step.ask for step in free.stop] == [False, False], "the address may be another's by now"
    assert stopped(decide([pool("other")], pods, None)) == [pod.name for pod in pods]
    assert not decide([pool()], [], demand(), free.memory, now=NOW + timedelta(seconds=30)).memory.rejected


def test_only_what_no_container_of_has_run_was_rejected() -> None:
    def told(*containers: dict[str, Any], of: str = "linux", **status: Any) -> tuple[str, bool]:
        labels = {names.LABEL_POOL: of} if of else {}
        found = Pod.of(
            {
                "metadata": {"name": "r", "uid": "u", "labels": labels},
                "status": {"phase": "Failed", "containerStatuses": list(containers), **status},
            }
        )
        return found.rejected, found.ended

    why = {"reason": "UnexpectedAdmissionError", "message": "Pod was rejected: Allocate failed"}
    assert told(**why) == ("UnexpectedAdmissionError: Pod was rejected: Allocate failed", True)
    assert told() == ("Failed", True)
    assert told(of="", **why) == ("", True)
    assert told(phase="Pending", **why) == ("", False)
    fetching = {"restartCount": 0, "state": {"waiting": {"reason": "ContainerCreating"}}, "lastState": {}}
    assert told(fetching, reason="Evicted") == ("Evicted", True)
    unknown = {"terminated": {"reason": "ContainerStatusUnknown", "exitCode": 137, "startedAt": None}}
    assert told({"restartCount": 0, "state": unknown}, reason="Evicted") == ("Evicted", True)
    ended = {"terminated": {"exitCode": 137, "startedAt": "2026-01-01T00:20:00Z"}}
    assert told({"restartCount": 0, "state": ended}, reason="Evicted") == ("", True)
    assert told({"restartCount": 1, "state": unknown}, reason="Evicted") == ("", True)


def test_a_runner_on_a_silent_node_is_replaced_in_another_slot() -> None:
    lost = runner(0, ready=False, node_silent=True)
    found = decide([pool(min_replicas=1)], [lost], demand())
    assert found.create == (("linux", 1),)
    assert found.stop == ()


@pytest.mark.parametrize("terminating", [False, True], ids=["silent", "evicted from there"])
def test_runners_that_a_dead_node_holds_keep_no_full_pool_from_having_others(terminating: bool) -> None:
    lost = runner(0, ready=False, node_silent=True, terminating=terminating)
    spec = [pool(min_replicas=1, max_replicas=1)]
    assert decide(spec, [lost], demand()).create == (("linux", 1),)
    assert decide(spec, [lost], demand(lost)).create == (), "it may still work"
    both = [lost, runner(1)]
    assert decide(spec, both, demand(linux=5)).create == ()
    back = [runner(0), runner(1)]
    assert stopped(decide(spec, back, demand())) == [back[1].name]


def test_a_dead_runner_is_replaced_one_at_a_time_once_the_demand_is_known_for_a_while() -> None:
    sick = [runner(slot, ready=False, since=stamp(NOW - timedelta(minutes=10))) for slot in range(2)]
    pods = [*sick, *(runner(slot) for slot in range(2, 5))]
    spec = [pool(min_replicas=5)]
    first = decide(spec, pods, demand())
    assert first.stop == (), "orchestrators may have been away, and runners need a moment to find them"
    found = decide(spec, pods, demand(), first.memory, now=NOW + timedelta(seconds=60))
    assert [(step.pod, step.ask, step.force) for step in found.stop] == [(sick[0].name, True, True)]


def test_no_dead_runner_is_replaced_while_another_one_starts() -> None:
    dead = runner(0, ready=False, since=stamp(NOW - timedelta(minutes=10)))
    pods = [dead, runner(1), runner(2), pending(3)]
    memory = decide([pool(min_replicas=4)], pods, demand()).memory
    later = NOW + timedelta(seconds=61)
    assert decide([pool(min_replicas=4)], pods, demand(), memory, now=later).stop == ()
    pods[3] = runner(3)
    assert stopped(decide([pool(min_replicas=4)], pods, demand(), memory, now=later)) == [dead.name]


def waited(pools: list[RunnerPoolSpec], looks: list[tuple[int, list[Pod], Demand | None]]) -> list[list[str]]:
    """What is stopped at each look, given as seconds, pods and demand."""
    memory, found = Memory(), []
    for seconds, pods, told in looks:
        decision = decide(pools, pods, told, memory, now=NOW + timedelta(seconds=seconds))
        memory = decision.memory
        found.append(stopped(decision))
    return found


def test_a_runner_that_takes_no_job_although_one_waits_is_replaced_when_it_says_that_it_has_none() -> None:
    deaf, one = runner(0), [pool()]
    looks = [(seconds, [deaf], demand(linux=1)) for seconds in range(0, 300, 20)]
    assert not any(waited(one, looks)), "a job may have to wait"
    assert waited(one, [*looks, (300, [deaf], demand(linux=1))])[-1] == [deaf.name]
    memory = Memory(known_since=NOW - timedelta(hours=1), idle_since={deaf.uid: NOW - timedelta(minutes=5)})
    (step,) = decide(one, [deaf], demand(linux=1), memory).stop
    assert step.ask
    assert step.force, "it may be as deaf to that question"


def test_a_runner_counts_as_deaf_only_while_there_is_a_job_for_each_that_is_idle() -> None:
    pods, one = [runner(slot) for slot in range(3)], [pool(cool_down_seconds=86400)]
    always = list(range(0, 320, 20))
    assert not any(waited(one, [(at, pods, demand(linux=2)) for at in always])), "others may take them all"
    busy_once = [(at, pods[:1], demand(pods[0]) if at == 160 else demand(linux=1)) for at in always]
    assert not any(waited(one, busy_once))
    unknown = [(at, pods[:1], None if 100 <= at < 180 else demand(linux=1)) for at in always]
    assert not any(waited(one, unknown)), "nobody knows whether it had one meanwhile"
    elsewhere = [(at, pods[:1], demand(gpu=5)) for at in always]
    assert not any(waited([pool(min_replicas=1)], elsewhere)), "jobs that it cannot take"
    assert [names for names in waited(one, [(at, pods, demand(linux=3)) for at in always]) if names] == [
        [pods[2].name]
    ], "one at a time"


def test_while_jobs_wait_that_nobody_can_take_a_pool_replaces_one_idle_runner_in_five_minutes() -> None:
    one, told, memory = [pool(min_replicas=3)], demand(linux=3), Memory()
    pods, gone = [runner(slot) for slot in range(3)], []
    for seconds in range(0, 1280, 20):
        decision = decide(one, pods, told, memory, now=NOW + timedelta(seconds=seconds))
        memory = decision.memory
        for step in decision.stop:
            gone.append((seconds, step.pod))
            pods = [replace(pod, uid=f"after-{seconds}") if pod.uid == step.uid else pod for pod in pods]
    names = [pod.name for pod in pods]
    # A look passes before the one that came is seen to be idle.
    assert gone == [(300, names[2]), (620, names[1]), (940, names[0]), (1260, names[2])]


def test_no_deaf_runner_is_replaced_while_another_one_still_goes_in_a_pool_that_is_full() -> None:
    pods, long_ago = [runner(slot) for slot in range(3)], NOW - timedelta(minutes=6)
    memory = Memory(known_since=long_ago, idle_since={pod.uid: long_ago for pod in pods})
    pods[2] = replace(pods[2], terminating=True)
    assert stopped(decide([pool(max_replicas=3)], pods, demand(linux=3), memory)) == []
    assert stopped(decide([pool(max_replicas=3)], pods, demand(pods[2], linux=3), memory)) == [pods[1].name]


def test_the_next_deaf_runner_goes_as_soon_as_the_last_one_that_came_has_a_job() -> None:
    pods, long_ago = [runner(slot) for slot in range(3)], NOW - timedelta(minutes=6)
    since = {pod.uid: long_ago for pod in pods[:2]}
    memory = Memory(known_since=NOW - timedelta(hours=1), idle_since=since)
    assert stopped(decide([pool()], pods, demand(linux=3), memory)) == []
    assert stopped(decide([pool()], pods, demand(pods[2], linux=2), memory)) == [pods[1].name]


def test_a_large_image_may_take_half_an_hour_to_fetch() -> None:
    def asked_after(minutes: int, reason: str) -> list[str]:
        since = stamp(NOW - timedelta(minutes=minutes))
        fetching = runner(0, ready=False, waiting_reason=reason, since=since)
        spec, pods = [pool(min_replicas=2)], [fetching, runner(1), runner(2)]
        memory = decide(spec, pods, demand(*pods[1:])).memory
        return stopped(decide(spec, pods, demand(*pods[1:]), memory, now=NOW + timedelta(seconds=60)))

    assert asked_after(28, "ContainerCreating") == []
    assert asked_after(30, "ContainerCreating")
    assert asked_after(5, "")


def test_jobs_do_not_wait_for_a_runner_whose_node_fetches_for_long() -> None:
    def started(minutes: int) -> int:
        since = stamp(NOW - timedelta(minutes=minutes))
        fetching = runner(0, ready=False, waiting_reason="ContainerCreating", since=since)
        return len(decide([pool()], [fetching], demand(linux=1)).create)

    assert started(4) == 0
    assert started(6) == 1


def test_a_runner_has_its_time_from_when_its_program_runs() -> None:
    def since(**container: Any) -> str:
        ready = {"type": "Ready", "status": "False", "lastTransitionTime": "2026-01-01T00:00:00Z"}
        return Pod.of(
            {
                "metadata": {"name": "r", "uid": "u", "labels": {names.LABEL_POOL: "linux"}},
                "status": {"conditions": [ready], "containerStatuses": [container]},
            }
        ).since

    running = {"running": {"startedAt": "2026-01-01T00:20:00Z"}}
    assert since(state=running, restartCount=0) == "2026-01-01T00:20:00Z"
    assert since(state=running, restartCount=3) == "2026-01-01T00:00:00Z", "it ends and ends"
    assert since(state={"waiting": {"reason": "ContainerCreating"}}) == "2026-01-01T00:00:00Z"


def test_outdated_idle_runners_are_replaced_one_at_a_time_with_another_first() -> None:
    pods = [runner(0), runner(1)]
    old = {pod.uid for pod in pods}
    spec = [pool(min_replicas=2)]
    first = decide(spec, pods, demand(), outdated=old)
    assert first.create == (("linux", 2),)
    assert first.stop == ()
    starting = [*pods, pending(2)]
    assert decide(spec, starting, demand(), outdated=old).stop == ()
    three = [*pods, runner(2)]
    assert stopped(decide(spec, three, demand(), outdated=old)) == [pods[1].name]


def test_a_full_pool_replaces_outdated_runners_in_place_and_busy_ones_never() -> None:
    pods = [runner(0), runner(1)]
    spec = [pool(min_replicas=2, max_replicas=2)]
    old = {pod.uid for pod in pods}
    assert stopped(decide(spec, pods, demand(pods[1]), outdated=old)) == [pods[0].name]
    assert decide(spec, pods, demand(*pods), outdated=old).stop == ()


def test_a_corrected_template_replaces_pods_that_cannot_start_at_once() -> None:
    stuck = [unschedulable(0), runner(1, ready=False, waiting_reason="ImagePullBackOff")]
    found = decide([pool(min_replicas=2)], stuck, demand(), outdated={pod.uid for pod in stuck})
    assert stopped(found) == [pod.name for pod in stuck]


def test_busy_runners_are_marked_and_the_mark_goes_with_the_job() -> None:
    pods = [runner(0), runner(1, marked_busy=True), runner(2, marked_busy=True)]
    found = decide([pool()], pods, demand(pods[0], pods[2]))
    assert [(mark.pod, mark.busy) for mark in found.mark] == [(pods[0].name, True), (pods[1].name, False)]


def test_a_refusal_holds_one_pool_up_for_a_while() -> None:
    memory = Memory(refused={"a": ("quota exceeded", NOW)})
    both = [pool("a"), pool("b")]
    found = decide(both, [], demand(a=1, b=1), memory)
    assert found.create == (("b", 0),)
    assert found.pools[0].refused == "quota exceeded"
    later = decide(both, [], demand(a=1, b=1), found.memory, now=NOW + timedelta(seconds=30))
    assert ("a", 0) in later.create


# --- Whatever is there ---

_POOLS = ("a", "b", "c")
_specs = st.lists(
    st.builds(
        lambda least, more, cool, labels: {
            "min_replicas": least,
            "max_replicas": max(least + more, 1),
            "cool_down_seconds": cool,
            "labels": tuple(sorted(labels)),
        },
        st.integers(0, 4),
        st.integers(0, 40),
        st.sampled_from((0, 60)),
        st.sets(st.sampled_from(("x", "y", "z")), min_size=1),
    ),
    min_size=1,
    max_size=3,
).map(lambda found: [pool(name, **values) for name, values in zip(_POOLS, found, strict=False)])
_pods = st.lists(
    st.builds(
        lambda of, slot, changes: runner(
            slot, of, **changes | {"rejected": changes["rejected"] if changes["ended"] else ""}
        ),
        st.sampled_from((*_POOLS, "gone")),
        st.integers(0, 60),
        st.fixed_dictionaries(
            {
                "ready": st.booleans(),
                "node_silent": st.booleans(),
                "terminating": st.booleans(),
                "ended": st.booleans(),
                "rejected": st.sampled_from(("", "", "OutOfcpu")),
                "node": st.sampled_from(("", "n")),
                "waiting_reason": st.sampled_from(("", "Unschedulable", "CrashLoopBackOff", "ErrImagePull")),
                "marked_busy": st.booleans(),
                "since": st.sampled_from(("", "nonsense", stamp(NOW), stamp(NOW - timedelta(hours=1)))),
            }
        ),
    ),
    max_size=30,
    unique_by=lambda pod: pod.name,
)
_waiting = st.lists(
    st.tuples(st.frozensets(st.sampled_from(("x", "y", "z", "other"))), st.integers(0, 300)), max_size=4
).map(tuple)


@settings(max_examples=200)
@given(_specs, _pods, _waiting, st.data())
def test_whatever_is_there_the_bounds_hold(
    pools: list[RunnerPoolSpec],
    pods: list[Pod],
    waiting: tuple[tuple[frozenset[str], int], ...],
    data: st.DataObject,
) -> None:
    who = st.sets(st.sampled_from([pod.name for pod in pods])) if pods else st.just(set())
    busy, old = frozenset(data.draw(who)), data.draw(who)
    outdated = {pod.uid for pod in pods if pod.name in old}
    told = Demand(waiting, busy) if data.draw(st.booleans()) else None
    first = decide(pools, pods, told, outdated=outdated)
    held = {pod.uid for pod in pods if pod.rejected}
    assert not [step for step in first.stop if step.uid in held and step.reason == "it has ended"]
    for spec in pools:
        here = [pod for pod in pods if pod.pool == spec.name and not pod.terminating]
        well = sum(not pod.ended and (pod.ready or (told is not None and pod.name in busy)) for pod in here)
        refusing = [pod for pod in here if pod.rejected]
        assert not refusing or len(refusing) < well or spec.name not in dict(first.create)
    memory = first.memory
    found = decide(pools, pods, told, memory, now=NOW + timedelta(seconds=data.draw(st.sampled_from((0, 61)))),
                   outdated=outdated)  # fmt: skip
    assert len(found.create) <= runners.CREATIONS_PER_STEP
    assert len(set(found.create)) == len(found.create)
    assert len({step.uid for step in found.stop}) == len(found.stop)
    by_name = {pod.name: pod for pod in pods}
    for spec in pools:
        here = [pod for pod in pods if pod.pool == spec.name]
        new = [slot for name, slot in found.create if name == spec.name]
        held = sum(pod.node_silent for pod in here)
        assert not new or len(here) + len(new) <= spec.max_replicas + held
        assert all(slot < spec.max_replicas + held for slot in new)
        assert not {names.runner("hub", spec.name, slot) for slot in new} & set(by_name)
        blocked = any(
            not pod.terminating and not pod.ended and not pod.ready and not pod.node_silent
            and not pod.node and pod.waiting_reason == "Unschedulable" and pod.name not in busy
            for pod in here
        )  # fmt: skip
        assert not (new and blocked)
    for step in found.stop:
        gone = by_name[step.pod]
        assert not gone.terminating
        assert gone.ended or step.pod not in busy or told is None
        assert step.ask or gone.ended or not gone.node
        if told is None:
            assert gone.ended or not gone.node
    for spec in pools:
        # Only runners that work count: others are replaced below the least number too, and so are outdated ones.
        going = [
            by_name[step.pod]
            for step in found.stop
            if step.pool == spec.name and by_name[step.pod].ready and step.reason == "it is not needed"
        ]
        if going:
            ready = [pod for pod in pods if pod.pool == spec.name and pod.ready and not pod.ended]
            ready = [pod for pod in ready if not pod.terminating]
            others = [pod for pod in pods if pod.pool == spec.name and pod not in ready]
            assert len(ready) + len(others) - len(going) >= spec.min_replicas


class PlayedPools(RuleBasedStateMachine):
    """Jobs come and go, nodes have room or not, for as many visits as it takes; the operator only decides."""

    def __init__(self) -> None:
        super().__init__()
        self.pools: list[RunnerPoolSpec] = []
        self.pods: dict[str, Pod] = {}
        self.busy: dict[str, str] = {}
        self.waiting: dict[str, int] = {}
        self.room = 0
        self.rejecting = False
        self.now = NOW
        self.memory = Memory()
        self.needed_at: dict[str, datetime] = {}

    @initialize(
        sizes=st.lists(st.tuples(st.integers(0, 3), st.integers(1, 12)), min_size=1, max_size=3),
        room=st.integers(0, 20),
    )
    def begin(self, sizes: list[tuple[int, int]], room: int) -> None:
        self.pools = [
            pool(name, min_replicas=min(least, most), max_replicas=most)
            for name, (least, most) in zip(_POOLS, sizes, strict=False)
        ]
        self.room = room

    @rule(which=st.sampled_from(_POOLS), count=st.integers(1, 15))
    def jobs_come(self, which: str, count: int) -> None:
        self.waiting[which] = self.waiting.get(which, 0) + count

    @rule()
    def a_job_ends(self) -> None:
        if self.busy:
            self.busy.pop(min(self.busy))

    @rule(room=st.integers(0, 30))
    def nodes_come_and_go(self, room: int) -> None:
        self.room = room

    @rule()
    def kubelets_reject_or_not(self) -> None:
        self.rejecting = not self.rejecting

    @rule(seconds=st.sampled_from((1, 30, 61)), known=st.booleans())
    def visit(self, seconds: int, known: bool) -> None:
        self.now += timedelta(seconds=seconds)
        self._schedule()
        told = Demand(jobs(**self.waiting), frozenset(self.busy)) if known else None
        found = decide(self.pools, list(self.pods.values()), told, self.memory, now=self.now)
        self.memory = found.memory
        for step in found.stop:
            assert step.pod not in self.busy, "the queue told that it has a job"
            assert known or not self.pods[step.pod].node or self.pods[step.pod].ended
            assert (step.pod, self.now) not in self.needed_at
            self.pods.pop(step.pod)
        for name, slot in found.create:
            assert names.runner("hub", name, slot) not in self.pods
            self.pods[names.runner("hub", name, slot)] = pending(slot, name, since=stamp(self.now))
        self._take()

    def _schedule(self) -> None:
        for name, one in self.pods.items():
            if not one.node:
                there = sum(bool(other.node) and not other.ended for other in self.pods.values())
                if there >= self.room:
                    self.pods[name] = replace(one, waiting_reason="Unschedulable", message=FULL)
                elif self.rejecting:
                    self.pods[name] = replace(one, node="n", ended=True, rejected="OutOfcpu")
                else:
                    self.pods[name] = replace(one, node="n", ready=True, waiting_reason="")

    def _take(self) -> None:
        for name, one in self.pods.items():
            if one.ready and name not in self.busy and self.waiting.get(one.pool):
                self.waiting[one.pool] -= 1
                self.busy[name] = one.pool

    @invariant()
    def no_pool_is_too_large(self) -> None:
        for spec in self.pools:
            assert sum(one.pool == spec.name for one in self.pods.values()) <= spec.max_replicas

    def teardown(self) -> None:
        """With room and time every pool that can take jobs works them off, and then comes back to its least number."""
        self.room, self.rejecting = 1000, False
        mine = [spec.name for spec in self.pools]
        # Each visit works off one job at least, but for those that start runners: the first ones, and now and then one
        # that replaces a runner, because jobs end before the operator sees that it took them; and but for those in
        # which runners that a kubelet rejected are held.
        held = int(runners.REJECTED_MOST_SECONDS // 61) + 1
        for _ in range(2 * sum(self.waiting.get(name, 0) for name in mine) + 10 + held):
            self.visit(61, True)
            self.busy.clear()
        for spec in self.pools:
            assert not self.waiting.get(spec.name)
            assert sum(one.pool == spec.name for one in self.pods.values()) == spec.min_replicas


PlayedPools.TestCase.settings = settings(max_examples=20, stateful_step_count=20, deadline=None)
TestPlayedPools = PlayedPools.TestCase


@pytest.mark.parametrize("slot", [0, 7, 999])
def test_the_slot_of_a_name_is_found_again_however_long_the_names_are(slot: int) -> None:
    for cluster, of in (("hub", "linux"), ("a" * 40, "b" * 20)):
        name = names.runner(cluster, of, slot)
        assert len(name) <= 63
        assert names.runner_slot(name) == slot
    assert names.runner("a" * 40, "b" * 20, 1) != names.runner("a" * 40, "b" * 19 + "c", 1)
