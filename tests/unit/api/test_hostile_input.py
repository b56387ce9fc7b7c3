"""Whatever a status, an object, a pod or a probe says: it is read, planned for and answered, never crashed on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from runnerhub_operator.api import (
    ConditionReason,
    ConditionType,
    RunnerHubCluster,
    RunnerHubClusterStatus,
    parse_cluster,
    parse_status,
)
from runnerhub_operator.api.crd import spec_schema, status_schema
from runnerhub_operator.errors import InvalidSpecError
from runnerhub_operator.plan import ClusterMemory, LastStep, Plan, make_plan, rejected_status
from runnerhub_operator.plan.preview import preview
from runnerhub_operator.resources.common import Images
from tests.generate import IMAGES
from tests.hostile.effort import examples, try_all
from tests.hostile.strategies import any_values, json_values, valid
from tests.hostile.worlds import Happening, World, happenings, passing, peaceful

SPEC, STATUS = spec_schema(), status_schema()
statuses = st.one_of(valid(STATUS), any_values(STATUS), json_values)


def resource(spec: Any, status: Any = None, generation: int = 1) -> dict[str, Any]:
    metadata = {"name": "hub", "namespace": "d", "uid": "u", "generation": generation}
    return {"metadata": metadata, "spec": spec, "status": status}


def dumped(status: RunnerHubClusterStatus) -> dict[str, Any]:
    return status.model_dump(mode="json", by_alias=True, exclude_none=True)


@examples(100, 1000)
@given(statuses)
def test_any_status_is_read(status: Any) -> None:
    found = parse_status({"status": status})
    assert parse_status({"status": dumped(found)}) == found


@examples(80, 1000)
@given(valid(STATUS), st.sampled_from(sorted(STATUS["properties"])), json_values)
def test_a_section_that_is_scribbled_on_takes_no_other_with_it(
    status: dict[str, Any], section: str, scribble: Any
) -> None:
    def without(given: Mapping[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in given.items() if name != section}

    scribbled = dumped(parse_status({"status": {**status, section: scribble}}))
    assert without(scribbled) == without(dumped(parse_status({"status": without(status)})))


def test_a_status_of_a_newer_operator_keeps_what_this_one_knows() -> None:
    found = parse_status({"status": {"redis": {"bootstrapped": True, "new": 1}, "newer": {}}})
    assert found.redis.bootstrapped


@examples(100, 1000)
@given(st.one_of(any_values(SPEC), json_values))
def test_any_spec_is_accepted_or_refused_with_a_message_that_fits_a_condition(spec: Any) -> None:
    refusal = ""
    try:
        parse_cluster(resource(spec))
    except InvalidSpecError as error:
        refusal = str(error)
    assert len(refusal) < 10_000


def check(plan: Plan, cluster: RunnerHubCluster, world: World) -> None:
    """What holds of every plan, whatever it was made from."""
    status = plan.status
    assert [item.type for item in status.conditions] == list(ConditionType)
    assert {item.reason for item in status.conditions} <= set(ConditionReason)
    assert all(item.observed_generation == cluster.generation and item.message for item in status.conditions)
    assert parse_status({"status": dumped(status)}) == status, "what is written can be read"
    json.dumps([*plan.objects, *plan.prune])
    live = {(body["kind"], body["metadata"]["name"]): body for body in world.children}
    for gone in plan.prune:
        owners = live[gone["kind"], gone["metadata"]["name"]]["metadata"].get("ownerReferences", ())
        assert any(owner.get("uid") == cluster.uid for owner in owners), "nothing of others is removed"
    if cluster.spec.paused:
        assert {item["kind"] for item in plan.objects} <= {"Lease"}
        assert not plan.secrets
        assert not plan.prune
        assert plan.rollout is None
        assert not plan.runners
    pods = {pod["metadata"]["name"] for pod in world.pods}
    assert {action.pod for action in (*plan.runners.stop, *plan.runners.mark)} <= pods
    assert not {manifest["metadata"]["name"] for _, manifest in plan.runners.create} & pods
    json.dumps(plan.runners.create)
    step = plan.rollout.step if plan.rollout is not None else None
    named = getattr(step, "pod", None)
    assert named is None or named in pods


OLDER_IMAGES = Images(**{name: f"{image}-older" for name, image in asdict(IMAGES).items()})
# What is made of each of them depends on more than the spec and the cached objects.
MADE_OF_MORE = {
    "sharedStorage": {"nfs": {"server": "nfs.example.com", "path": "/exports/runnerhub"}},
    "orchestrator": {"autoscaling": {"maxReplicas": 9}},
    "ingress": {"host": "hub.example.com", "gateway": {"parentRefs": [{"name": "web"}]}},
}
worlds = st.lists(st.lists(happenings("hub"), max_size=8), min_size=1, max_size=3)


def test_every_world_can_be_planned_for() -> None:
    def visit_it(
        spec: Any, status: Any, changes: list[list[Happening]], remembers: bool, upgraded: bool
    ) -> None:
        try:
            cluster = parse_cluster(resource(spec, status))
        except InvalidSpecError:
            cluster = parse_cluster(resource({}, status))
        world = peaceful(cluster, OLDER_IMAGES if upgraded else IMAGES)
        memory: ClusterMemory | None = None
        for visit, happened in enumerate(changes):
            for happen in happened:
                happen(world)
            plan = make_plan(cluster, world.snapshot(), IMAGES, memory)
            check(plan, cluster, world)
            assert plan.writes in (True, False)
            preview(cluster, world.snapshot(), IMAGES)
            refused = rejected_status(cluster.status, ConditionReason.INVALID_SPEC, "wrong", 7, world.now)
            assert [item.type for item in refused.conditions] == list(ConditionType)
            step = plan.rollout.step if plan.rollout is not None else None
            done = (
                LastStep(world.now, getattr(step, "uid", None)) if step is not None else plan.memory.last_step
            )
            memory = replace(plan.memory, last_step=done) if remembers else None
            cluster = parse_cluster(resource(spec_of(cluster), dumped(plan.status), visit + 2))

    try_all(visit_it, any_values(SPEC), statuses, worlds, st.booleans(), st.booleans(), short=25, full=3000)


@examples(60, 1000)
@given(st.lists(passing("hub"), min_size=1, max_size=8))
def test_what_is_remembered_changes_no_plan(changes: list[Happening]) -> None:
    cluster = parse_cluster(resource(MADE_OF_MORE))
    world = peaceful(cluster)
    memory = make_plan(cluster, world.snapshot(), IMAGES, None).memory
    assert memory.unchanged is not None, "or the test would prove nothing"
    for happen in changes:
        happen(world)
        plan = make_plan(cluster, world.snapshot(), IMAGES, memory)
        anew = make_plan(cluster, world.snapshot(), IMAGES, replace(memory, unchanged=None))
        assert replace(plan, memory=anew.memory) == anew
        memory = plan.memory
        cluster = parse_cluster(resource(spec_of(cluster), dumped(plan.status)))


def spec_of(cluster: RunnerHubCluster) -> dict[str, Any]:
    return cluster.spec.model_dump(mode="json", by_alias=True, exclude_none=True)
