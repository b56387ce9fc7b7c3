"""More or fewer Redis pods: one at a time, and those that are there can always elect a master, and never two."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from runnerhub_operator.actions import GrowRedis, RenewDeployment, RestartPod, ShrinkRedis
from runnerhub_operator.api import ConditionType
from runnerhub_operator.plan import Plan, make_plan, resize_redis, settings_in_use
from runnerhub_operator.plan.preview import preview
from runnerhub_operator.probes.redis_pod import RedisPodState
from runnerhub_operator.probes.sentinel import ReplicaView, SentinelView
from runnerhub_operator.resources.common import config_hash
from runnerhub_operator.snapshot import Snapshot
from tests.generate import IMAGES
from tests.unit.plan.builders import (
    NOW,
    address,
    children,
    cluster,
    pod,
    pods,
    settled_deployment,
    snapshot,
    stateful_set,
    step,
    waits_for,
)

SPEC: dict[str, Any] = {"redis": {"replicas": 3}}
OLD = {"revision": "old"}


def member(ordinal: int) -> str:
    return f"hub-redis-{ordinal}"


def there(
    now: int, *, counted: int | None = None, master: int = 0, named: int | None = None, **changes: Any
) -> Snapshot:
    """So many pods, whose Sentinels count `counted`; `p1={"ready": False}` changes a pod.

    `named`: only so many Sentinels answer.
    """
    odd = now if now % 2 else now + 1
    others = [item for item in pods() if item.component != "redis"]
    members = [pod(member(i), "redis", **changes.get(f"p{i}", {})) for i in range(now)]
    replicas = tuple(ReplicaView(address(i), True, 100, frozenset()) for i in range(now) if i != master)
    views = tuple(
        SentinelView(member(i), address(master), 0, True, replicas, counted or now, frozenset())
        for i in range(now if named is None else named)
    )
    spec = {"redis": {"replicas": odd}}
    live = stateful_set("redis")
    live["spec"] = {**children(spec=spec)["StatefulSet", "hub-redis"]["spec"], "replicas": now}
    return snapshot(children=children(live, spec=spec), pods=(*others, *members), sentinels=views)


def plan(snap: Snapshot, spec: dict[str, Any] | None = None) -> Plan:
    return make_plan(cluster(spec or SPEC, {"phase": "Ready"}), snap, IMAGES, None)


def test_the_smaller_number_is_told_one_at_a_time() -> None:
    found = plan(there(7))
    assert step(found) == ShrinkRedis(member(6), 6)
    # Neither the StatefulSet nor the quorum changes before, and the pods keep their Services.
    written = {item["kind"] for item in found.objects if item["metadata"]["name"].startswith("hub-redis")}
    assert written <= {"Lease"}
    assert found.prune == ()
    assert found.disruption_lease is not None
    assert not found.settled


def test_settings_follow_the_number_of_pods_that_there_are() -> None:
    found = plan(there(6))
    configuration = next(
        item
        for item in found.objects
        if (item["kind"], item["metadata"]["name"]) == ("ConfigMap", "hub-redis")
    )
    assert '"quorum": 4' in configuration["data"]["settings.json"]
    assert '"replicas": 6' in configuration["data"]["settings.json"]
    assert "min-replicas-to-write 3" in configuration["data"]["redis.conf"]
    (queue,) = [
        item
        for item in found.objects
        if (item["kind"], item["metadata"]["name"]) == ("StatefulSet", "hub-redis")
    ]
    assert queue["spec"]["replicas"] == 6


@pytest.mark.parametrize("wanted", [3, 5, 7])
@pytest.mark.parametrize("first", [5, 7, 9])
def test_those_that_stay_can_elect_at_each_step_also_without_one_more(first: int, wanted: int) -> None:
    """Renewed are those that stay as often as the Sentinels must forget, and at the end."""
    now, counted, renewals = first, first, 0
    old = {f"p{i}": OLD for i in range(wanted)}
    while now > wanted:
        changes = old if counted > now else {}
        found = step(plan(there(now, counted=counted, **changes), {"redis": {"replicas": wanted}}))
        if isinstance(found, ShrinkRedis):
            assert found == ShrinkRedis(member(now - 1), now - 1)
            now -= 1
        else:
            assert isinstance(found, RestartPod)
            counted, renewals = now, renewals + 1
        spare = now - (counted // 2 + 1)
        assert spare >= 1 or (spare == 0 and now == wanted == 3)
    assert renewals == {(7, 3): 1, (9, 3): 2, (9, 5): 1}.get((first, wanted), 0)


def test_without_old_pods_it_waits_until_sentinels_forget() -> None:
    found = plan(there(5, counted=7))
    assert "the Sentinels to forget" in waits_for(found)
    assert found.rollout is not None
    assert not found.rollout.holds_up


def test_a_master_that_is_to_go_is_no_obstacle_as_it_hands_over() -> None:
    assert step(plan(there(7, master=6))) == ShrinkRedis(member(6), 6)
    assert step(plan(there(7, master=2))) == ShrinkRedis(member(6), 6)


@pytest.mark.parametrize(
    ("snap", "what"),
    [
        (there(7, p1={"ready": False}), "hub-redis-1 to become healthy"),
        (there(7, p1={"terminating": True, "ready": False}), "hub-redis-1 to become healthy"),
        # Three of seven that name a master are no majority.
        (there(7, named=3), "to become healthy"),
        (replace(there(7), sentinels=tuple(replace(v, tilt=True) for v in there(7).sentinels)), "Sentinels"),
    ],
)
def test_nobody_goes_while_those_that_stay_are_not_well(snap: Snapshot, what: str) -> None:
    found = plan(snap)
    assert what in waits_for(found)
    told = next(item for item in found.status.conditions if item.type == ConditionType.PROGRESSING)
    assert what in told.message


@pytest.mark.parametrize(
    "snap",
    [
        there(5, counted=7, p0=OLD, p1={"ready": False}),
        there(5, p0=OLD, p1={"ready": False}),
        # Between two masters, as during a hand-over.
        there(5, p0=OLD, named=1),
    ],
)
def test_nothing_else_is_renewed_while_one_that_was_renewed_is_not_back(snap: Snapshot) -> None:
    found = plan(snap, {**SPEC, "orchestrator": {"image": "example.test/other:2"}})
    assert "to become healthy" in waits_for(found)
    assert found.rollout is not None
    assert found.rollout.holds_up


def test_one_that_is_broken_may_go() -> None:
    assert step(plan(there(7, p6={"ready": False}))) == ShrinkRedis(member(6), 6)
    never = {"ready": False, "waiting_reason": "Unschedulable"}
    assert step(plan(there(7, p1={"ready": False}, p6=never))) == ShrinkRedis(member(6), 6)


def test_those_that_are_to_go_are_not_renewed_first() -> None:
    assert step(plan(there(7, p1=OLD, p6=OLD))) == ShrinkRedis(member(6), 6)
    assert step(plan(there(5, counted=7, p1=OLD, p4=OLD))) == RestartPod(
        member(1), f"uid-{member(1)}", "new pod template"
    )


LEAVES: dict[str, Any] = {"terminating": True, "ready": False, "gone_by": "2026-01-01T12:01:00Z"}


def test_each_one_is_gone_before_the_next_goes() -> None:
    snap = there(6)
    leaving = replace(snap, pods=(*snap.pods, pod(member(6), "redis", **LEAVES)))
    assert waits_for(plan(leaving)) == "hub-redis-6 to terminate"
    # Nobody ends it on a node that is dead.
    assert step(plan(replace(leaving, now=NOW + timedelta(minutes=2)))) == ShrinkRedis(member(5), 5)


def test_at_the_end_those_that_stay_are_renewed_and_forget() -> None:
    snap = there(3, counted=4, p0=OLD, p1=OLD, p2=OLD)
    assert step(plan(snap)) == RestartPod(member(1), f"uid-{member(1)}", "new pod template")
    assert step(plan(there(3))) is None
    assert resize_redis.of_now(cluster(SPEC), there(3)) == cluster(SPEC)


def test_what_is_told_beforehand_is_the_end_of_it() -> None:
    found = preview(cluster(SPEC), there(7), IMAGES)
    change = next(item for item in found.changes if item.kind == "StatefulSet")
    assert "spec.replicas" in change.paths


# --- More ---


class Growing:
    """A queue of three pods that shall have more; `never`: ordinals of pods that do not come to run."""

    def __init__(self, wanted: int, never: Collection[int] = ()) -> None:
        self.spec: dict[str, Any] = {"redis": {"replicas": wanted}}
        self.never = never
        self.children = children(spec=SPEC)
        self.children["StatefulSet", "hub-redis"]["status"]["updateRevision"] = self.revision()
        # Templates of the pods that are there, and those whose Redis follows the master.
        self.pods = dict.fromkeys(range(3), self.revision())
        self.linked = {0, 1, 2}
        self.behind: set[int] = set()
        self.sizes = [3]

    def revision(self) -> str:
        return config_hash(self.children["StatefulSet", "hub-redis"]["spec"]["template"])

    def settings(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.configuration()["settings.json"])
        return found

    def configuration(self) -> dict[str, str]:
        found: dict[str, str] = self.children["ConfigMap", "hub-redis"]["data"]
        return found

    def to_write(self) -> int:
        return int(self.configuration()["redis.conf"].split("min-replicas-to-write ")[1].split()[0])

    def snapshot(self) -> Snapshot:
        running = [ordinal for ordinal in self.pods if ordinal not in self.never]
        replicas = tuple(
            ReplicaView(address(i), i in self.linked, 100, frozenset()) for i in running if i != 0
        )
        digest = settings_in_use.digest(
            self.configuration()["redis.conf"], self.configuration()["settings.json"]
        )
        unscheduled = {"ready": False, "waiting_reason": "Unschedulable"}
        others = [item for item in pods() if item.component != "redis"]
        members = [
            pod(
                member(i),
                "redis",
                revision=revision,
                **(unscheduled if i in self.never else {"ready": i in self.linked}),
            )
            for i, revision in self.pods.items()
        ]
        return snapshot(
            children=self.children,
            pods=(*others, *members),
            sentinels=tuple(
                SentinelView(member(i), address(0), 0, True, replicas, len(running), frozenset())
                for i in running
            ),
            redis_pods=tuple(
                RedisPodState(member(i), configuration="old" if i in self.behind else digest) for i in running
            ),
        )

    def visit(self) -> Plan:
        """One visit: what it writes is there, and the pod that it renews."""
        found = plan(self.snapshot(), self.spec)
        for item in found.objects:
            key = item["kind"], item["metadata"]["name"]
            live = self.children.get(key, {"metadata": {}})
            self.children[key] = {**live, **item, "metadata": {**live["metadata"], **item["metadata"]}}
        for ordinal in range(9):
            if service := self.children.get(("Service", member(ordinal))):
                service["spec"] = {**service["spec"], "clusterIP": address(ordinal)}
        queue = self.children["StatefulSet", "hub-redis"]
        queue["status"] = {**queue["status"], "updateRevision": self.revision()}
        if isinstance(made := step(found), GrowRedis):
            assert made.pod == member(made.replicas - 1)
            queue["spec"] = {**queue["spec"], "replicas": made.replicas}
        if isinstance(made, RenewDeployment):
            item = settled_deployment(dict(made.manifest))
            self.children["Deployment", item["metadata"]["name"]] = item
        if isinstance(made, RestartPod):
            self.pods[int(made.pod[-1])] = self.revision()
        if queue["spec"]["replicas"] != self.sizes[-1]:
            self.sizes.append(queue["spec"]["replicas"])
        told = next(item for item in found.status.conditions if item.type == ConditionType.PROGRESSING)
        assert told.status == ("False" if found.settled else "True")
        return found

    def visit_until_it_waits(self) -> Plan:
        for _ in range(20):
            before = json.dumps(list(self.children.values()), sort_keys=True)
            found = self.visit()
            self.check()
            if step(found) is None and before == json.dumps(list(self.children.values()), sort_keys=True):
                return found
        raise AssertionError("it does not come to rest")

    def check(self) -> None:
        """What holds at each moment: one pod may fail, and whoever is cut off with the master alone loses nothing."""
        needed, quorum = self.to_write(), self.settings()["quorum"]
        # Each Sentinel that runs has a vote, whether its Redis follows yet or not.
        voters = len([ordinal for ordinal in self.pods if ordinal not in self.never])
        assert needed <= len(self.linked) - 2, "a replica that stops would stop the writes"
        assert quorum <= voters - 1, "without the master's Sentinel nobody could be elected"
        assert voters - (needed + 1) < voters // 2 + 1, "others could elect beside a master that takes writes"
        assert self.children["StatefulSet", "hub-redis"]["spec"]["replicas"] <= len(self.linked) + 1


@pytest.mark.parametrize("wanted", [5, 7, 9])
def test_more_pods_come_one_at_a_time_and_only_old_ones_are_renewed(wanted: int) -> None:
    world = Growing(wanted)
    for ordinal in range(3, wanted):
        world.visit_until_it_waits()
        assert world.sizes == list(range(3, ordinal + 2))
        # Its Sentinel votes before its Redis follows.
        world.pods[ordinal] = world.revision()
        found = world.visit_until_it_waits()
        assert f"{member(ordinal)} to become healthy" in waits_for(found)
        world.linked.add(ordinal)
    renewed = []
    while isinstance(made := step(world.visit()), RestartPod):
        renewed.append(made.pod)
        world.check()
    assert renewed == [member(1), member(2), member(0)]
    assert (world.to_write(), world.settings()["quorum"]) == (wanted // 2, wanted // 2 + 1)
    found = world.visit_until_it_waits()
    assert (found.rollout, found.objects, found.marks) == (None, (), ())


@pytest.mark.parametrize("wanted", [5, 7])
@pytest.mark.parametrize("stuck", [3, 4])
def test_a_pod_that_cannot_run_takes_nothing_away_and_holds_nobody_up(wanted: int, stuck: int) -> None:
    world = Growing(wanted, never=[stuck])
    for ordinal in range(3, stuck + 1):
        world.visit_until_it_waits()
        world.pods[ordinal] = world.revision()
        world.linked |= {ordinal} - {stuck}
    found = world.visit_until_it_waits()
    assert world.sizes[-1] == stuck + 1
    assert (world.to_write(), world.settings()["quorum"]) == (stuck // 2, stuck // 2 + 1)
    ready = next(item for item in found.status.conditions if item.type == ConditionType.REDIS)
    assert ready.status == "True"
    assert "takes no writes" not in ready.message
    assert f"{member(stuck)} to become healthy" in waits_for(found)
    # Looked at again, nothing changes.
    again = make_plan(
        cluster(world.spec, found.status.model_dump(by_alias=True)), world.snapshot(), IMAGES, None
    )
    assert (again.objects, again.events) == ((), ())
    world.spec = {**world.spec, "orchestrator": {"image": "example.test/other:2"}}
    assert isinstance(step(world.visit()), RenewDeployment)


def test_the_next_pod_waits_for_what_the_last_one_has_changed() -> None:
    world = Growing(7)
    world.visit_until_it_waits()
    world.pods[3] = world.revision()
    world.linked.add(3)
    world.behind = {1}
    found = world.visit_until_it_waits()
    assert waits_for(found) == f"new settings to take effect in {member(1)}, before {member(4)} can come"
    world.behind = set()
    snap = world.snapshot()
    strange = replace(snap, sentinels=tuple(replace(view, sentinels_count=3) for view in snap.sentinels))
    assert "the Sentinels to know each other" in waits_for(plan(strange, world.spec))
    silent = replace(snap, redis_pods=snap.redis_pods[1:])
    assert f"new settings to take effect in {member(0)}" in waits_for(plan(silent, world.spec))
    assert step(plan(snap, world.spec)) == GrowRedis(member(4), 5)


def test_pods_that_count_count_on_while_they_are_away() -> None:
    world = Growing(5)
    for ordinal in (3, 4):
        world.visit_until_it_waits()
        world.pods[ordinal] = world.revision()
        world.linked.add(ordinal)
    world.visit_until_it_waits()
    world.linked -= {3, 4}
    found = plan(world.snapshot(), world.spec)
    assert not [item for item in found.objects if item["kind"] in ("ConfigMap", "StatefulSet")]
    assert resize_redis.counted(cluster(world.spec), world.snapshot()) == 5


def test_an_old_pod_that_is_not_well_holds_the_next_one_and_others_up() -> None:
    world = Growing(5)
    world.visit_until_it_waits()
    world.pods[3] = world.revision()
    world.linked -= {1, 2}
    found = plan(world.snapshot(), world.spec)
    assert found.rollout is not None
    assert found.rollout.holds_up


def test_whoever_wants_fewer_again_gets_them() -> None:
    world = Growing(7, never=[3])
    world.visit_until_it_waits()
    world.pods[3] = world.revision()
    world.visit_until_it_waits()
    assert step(plan(world.snapshot(), SPEC)) == ShrinkRedis(member(3), 3)


def test_an_operator_of_before_has_told_the_quorum_alone() -> None:
    world = Growing(7)
    data = world.configuration()
    told = {name: value for name, value in world.settings().items() if name != "majorityOf"}
    data["settings.json"] = json.dumps(told)
    world.visit_until_it_waits()
    assert world.sizes == [3, 4]


def test_lost_settings_let_nobody_come_at_once() -> None:
    world = Growing(7)
    world.visit_until_it_waits()
    for text in ("broken", "[]", "{}"):
        world.configuration()["settings.json"] = text
        assert resize_redis.replicas(cluster(world.spec), world.snapshot()) == 4
    del world.children["ConfigMap", "hub-redis"]
    assert resize_redis.replicas(cluster(world.spec), snapshot(children=world.children)) == 4


def test_pods_that_somebody_else_let_go_come_back_at_once() -> None:
    world = Growing(3)
    queue = world.children["StatefulSet", "hub-redis"]
    queue["spec"] = {**queue["spec"], "replicas": 1}
    world.visit()
    assert world.sizes[-1] == 3
