"""The operator dies at each of its writes; whoever takes over brings the cluster to the same end."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest

from e2e.stage.stage import Stage
from e2e.stage.sweep import KEPT, Ending, Scenario, Sweep
from kindbed.paths import BUILD_DIR
from runnerhub_operator.plan import rollout

SMALL = {
    "postgres": {"instances": 2},
    "ingress": {"host": "hub.example.com"},
    "runnerPools": [{"name": "linux", "minReplicas": 2}],
}
GROWN = {
    "postgres": {"instances": 3},
    "redis": {"replicas": 5},
    "orchestrator": {"replicas": 5},
    "ingress": {"host": "hub.example.com"},
    "runnerPools": [{"name": "linux", "minReplicas": 4}, {"name": "gpu", "minReplicas": 1}],
}
UPDATED = {
    "postgres": {"instances": 2, "image": "example.test/postgres:2", "parameters": {"work_mem": "8MB"}},
    "redis": {"image": "example.test/redis:2"},
    "orchestrator": {"image": "example.test/orchestrator:2"},
}
ENLARGED = {
    "postgres": {"instances": 2, "storage": {"size": "20Gi"}},
    "redis": {"storage": {"size": "6Gi"}},
    "ingress": {"host": "hub.example.com"},
    "runnerPools": [{"name": "linux", "minReplicas": 2}],
}
# Volumes grow, for which both StatefulSets are made anew.
ENLARGE = Scenario("enlarge", SMALL, ENLARGED)
# Somebody deletes the cluster while its pods may have no StatefulSet.
ENLARGE_AND_ABANDON = Scenario("enlarge-abandon", SMALL, ENLARGED, abandoned=True)
SCENARIOS = (
    Scenario("create", None, SMALL),
    Scenario("scale", SMALL, GROWN),
    # Rolling changes of three components, and the Ingress and the runners go.
    Scenario("update", SMALL, UPDATED),
    Scenario("abandon", None, SMALL, abandoned=True),
)
# More would only wait for the two cores of a small machine.
AT_ONCE = 6


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    with Stage() as running:
        yield running


@pytest.fixture(autouse=True)
def prompt_members(monkeypatch: pytest.MonkeyPatch) -> None:
    """Played members tell at once what became of them, so no step need wait for that."""
    monkeypatch.setattr(rollout, "SETTLE_SECONDS", 0.5)


async def swept(sweep: Sweep, scenario: Scenario, step: int) -> dict[str, Any]:
    """Kill at every `step`-th write, in both ways; gives what is reported. Fails at the first end that differs."""
    expected = await sweep.run(Scenario(scenario.name, scenario.before, scenario.after))
    points = [(at, after) for at in range(1, len(expected.writes) + 1) for after in (False, True)][::step]
    limit = asyncio.Semaphore(AT_ONCE)

    async def one(at: int, after: bool) -> tuple[int, bool, Ending]:
        async with limit:
            return at, after, await sweep.run(scenario, kill_at=at, after=after)

    killed = 0
    for ended in asyncio.as_completed([asyncio.create_task(one(*point)) for point in points]):
        at, after, ending = await ended
        where = f"{scenario.name}, killed {'after' if after else 'before'} write {at} {ending.writes[-1:]}"
        killed += ending.killed
        if scenario.abandoned and ending.killed:
            assert set(ending.objects) <= KEPT, where
            continue
        assert ending.objects.keys() == expected.objects.keys(), where
        different = {key: text for key, text in expected.objects.items() if ending.objects[key] != text}
        assert not different, f"{where}: {[(text, ending.objects[key]) for key, text in different.items()]}"
        if scenario is ENLARGE:
            assert ending.fewest_ready == {"postgres": 2, "redis": 3}, where
        elif scenario.before is not None:
            assert ending.fewest_ready["postgres"] >= 1, where
            assert ending.fewest_ready["redis"] >= 2, where
    return {
        "scenario": scenario.name,
        "writes": len(expected.writes),
        "kill_points": len(points),
        "killed": killed,
    }


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
async def test_some_deaths_change_nothing_about_the_end(stage: Stage, scenario: Scenario) -> None:
    report = await swept(Sweep(stage.kubeconfig), scenario, step=37)
    assert report["killed"]


@pytest.mark.parametrize("scenario", [ENLARGE, ENLARGE_AND_ABANDON], ids=lambda scenario: scenario.name)
async def test_no_pod_stops_or_is_left_behind_when_the_operator_dies_while_volumes_grow(
    stage: Stage, scenario: Scenario
) -> None:
    report = await swept(Sweep(stage.kubeconfig), scenario, step=7)
    assert report["killed"]


async def test_a_deleted_cluster_leaves_only_what_belongs_to_its_volumes(stage: Stage) -> None:
    ending = await Sweep(stage.kubeconfig).run(Scenario("delete", SMALL, None))
    assert set(ending.objects) == KEPT


@pytest.mark.full
async def test_no_death_changes_anything_about_the_end(stage: Stage) -> None:
    every = (*SCENARIOS, ENLARGE, ENLARGE_AND_ABANDON)
    reports = [await swept(Sweep(stage.kubeconfig), scenario, step=1) for scenario in every]
    folder = BUILD_DIR / "reports"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "crash-sweep.json").write_text(json.dumps(reports, indent=2) + "\n")
    # With several clusters at once more of what pods do comes into one status: a run may need fewer writes than the
    # first one, which had the machine for itself, and then lives.
    assert all(report["killed"] >= 0.8 * report["kill_points"] for report in reports), reports
