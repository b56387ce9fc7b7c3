"""A newer operator restarts nothing by itself; the pods follow with the next change, or at once when asked."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from runnerhub_operator import names
from runnerhub_operator.actions import RenewDeployment
from runnerhub_operator.plan import Plan, layout, make_plan
from runnerhub_operator.resources import runners
from runnerhub_operator.resources.common import LAYOUT, OLDEST_LAYOUT, Images
from tests.generate import IMAGES, context, example
from tests.unit.plan.builders import children, cluster, snapshot

NEWER = Images(
    **{name: f"example.test/{name}:2" for name in ("operator", "postgres", "pooler", "redis", "haproxy")},
    orchestrator="example.test/orchestrator:2",
    runner="example.test/runner:2",
)
WITH_PODS = ("postgres", "pooler", "redis", "orchestrator", "loadbalancer")


def plan(spec: dict[str, Any] | None = None, **changes: Any) -> Plan:
    return make_plan(cluster(spec), snapshot(**changes), NEWER, None)


def workloads(found: Plan) -> set[str]:
    """Workloads that are written, at once or as a step."""
    names_ = {item["metadata"]["name"] for item in found.objects if item["kind"] in layout.WORKLOADS}
    step = found.rollout.step if found.rollout is not None else None
    return names_ | ({step.manifest["metadata"]["name"]} if isinstance(step, RenewDeployment) else set())


def test_an_upgrade_with_newer_images_restarts_nothing() -> None:
    found = plan()
    assert workloads(found) == set()
    assert found.rollout is None
    assert found.status.pending_updates == WITH_PODS
    assert found.settled


def test_the_next_change_of_a_component_takes_the_new_layout_along() -> None:
    found = plan({"redis": {"replicas": 5}})
    assert "hub-redis" in workloads(found)
    written = next(item for item in found.objects if item["kind"] == "StatefulSet")
    images = {item["image"] for item in written["spec"]["template"]["spec"]["containers"]}
    assert images == {"example.test/redis:2"}
    assert names.REDIS not in found.status.pending_updates
    assert names.POSTGRES in found.status.pending_updates


def test_immediate_renews_everything() -> None:
    found = plan({"updatePolicy": "Immediate"})
    assert {"hub-postgres", "hub-redis"} <= workloads(found)
    assert found.status.pending_updates == ()


def test_a_change_of_size_keeps_the_old_layout() -> None:
    found = plan({"orchestrator": {"replicas": 4}})
    written = next(item for item in found.objects if item["metadata"]["name"] == "hub-orchestrator")
    assert written["spec"]["replicas"] == 4
    assert written["spec"]["template"]["spec"]["containers"][0]["image"] == IMAGES.orchestrator
    assert found.rollout is None


def test_a_new_layout_of_the_builders_waits_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """As after an upgrade whose builders make another template of the same spec."""
    old = layout.COMPONENTS[2]

    def build(context: Any) -> list[Any]:
        manifests = old.build(context)
        if context.layout > LAYOUT:
            for item in manifests:
                if item["kind"] == "StatefulSet":
                    item["spec"]["template"]["metadata"]["annotations"]["new"] = "1"
        return manifests

    changed = (*layout.COMPONENTS[:2], replace(old, build=build), *layout.COMPONENTS[3:])
    monkeypatch.setattr(layout, "COMPONENTS", changed)
    context_of = make_plan.__globals__["objects"].context_of
    monkeypatch.setattr(
        make_plan.__globals__["objects"],
        "context_of",
        lambda *args, **more: replace(context_of(*args, **more), layout=LAYOUT + 1),
    )
    waiting = make_plan(cluster(), snapshot(), IMAGES, None)
    assert waiting.status.pending_updates == (names.REDIS,)
    # The other components only note the new layout: their templates are the same in both.
    assert "hub-redis" not in workloads(waiting)
    assert waiting.rollout is None
    asked = make_plan(cluster({"updatePolicy": "Immediate"}), snapshot(), IMAGES, None)
    stateful = {item["metadata"]["name"]: item for item in asked.objects if item["kind"] == "StatefulSet"}
    assert "new" in stateful["hub-redis"]["spec"]["template"]["metadata"]["annotations"]


@pytest.mark.parametrize("recorded", ["", "{}", "[]", '{"version": 99, "images": {}}', '{"version": "x"}'])
def test_a_record_that_cannot_be_read_leads_to_todays_layout(recorded: str) -> None:
    live = children()["StatefulSet", "hub-redis"]
    annotations = {**live["metadata"]["annotations"], names.ANNOTATION_LAYOUT: recorded}
    odd = {"kind": "StatefulSet", "metadata": {"name": "hub-redis", "annotations": annotations}}
    found = plan(children=children(odd))
    assert "hub-redis" in workloads(found)
    assert names.REDIS not in found.status.pending_updates


LAYOUTS = Path(__file__).with_name("layouts.yaml")
WHAT_TO_DO = """not the pod templates of layout {version}: an upgrade would renew pods that nobody asked to renew.
Raise LAYOUT in resources/common.py, let the builder make the former template while `context.layout` is {version}, and
write the hashes of both to layouts.yaml. Before the first release there is nothing to upgrade from: then write there
{found}"""


@pytest.mark.parametrize("version", range(OLDEST_LAYOUT, LAYOUT + 1))
def test_a_layout_gives_the_pod_templates_that_it_has_always_given(version: int) -> None:
    """By a file that `make generate` does not write: in the golden files this change looks like any other."""
    spec = {**example("minimal")["spec"], "runnerPools": [{"name": "pool", "labels": ["linux"]}]}
    built = replace(context("hub", spec), layout=version)
    found = {item.name: layout.template_hash(item.build(built)) for item in layout.COMPONENTS}
    (pool,) = built.cluster.spec.runner_pools
    found[names.RUNNER] = runners.template_hash(built, pool)
    told = yaml.safe_dump({version: found}, sort_keys=False)
    assert yaml.safe_load(LAYOUTS.read_text()).get(version) == found, WHAT_TO_DO.format(
        version=version, found=told
    )
