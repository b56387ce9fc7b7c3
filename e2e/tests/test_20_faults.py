"""Faults while clients write: nothing acknowledged is lost, somebody takes over, all becomes whole again."""

from __future__ import annotations

from typing import Any

import pytest

from e2e.demo import control
from e2e.lab import report
from e2e.lab.bed import Bed
from e2e.lab.faults import strike
from e2e.lab.hub import Hub
from e2e.lab.load import LoadClient

# Longest acceptable gap in seconds between two acknowledged writes: the p95 target of the design, with room for a
# slow machine. The figures themselves are measured over many runs by the fault suites, not here.
LIMITS = {"postgres": 32.0, "redis": 20.0, "orchestrator": 10.0}

RESULTS: list[dict[str, Any]] = []


@pytest.mark.parametrize("component", ["postgres", "redis", "orchestrator"])
def test_force_delete_of_the_role_holder(hub: Hub, load: LoadClient, component: str) -> None:
    fault = f"force delete of the {component} role's holder"
    result = strike(hub, load, fault, component, hub.kubectl.delete_pod_now)
    RESULTS.append(result.as_report())
    report.write("e2e-faults", RESULTS)
    assert result.lost == 0
    assert result.acknowledged > 0
    assert result.gap_seconds <= LIMITS[component]
    latest = hub.status()["failovers"][0]
    assert latest["component"] == component
    assert latest["to"] == result.took_over
    event = {"postgres": "PrimaryChanged", "redis": "MasterChanged", "orchestrator": "LeaderChanged"}[
        component
    ]
    assert event in {item["reason"] for item in hub.kubectl.items("event")}


def test_the_oracle_reports_a_loss_where_one_must_happen(bed: Bed, hub: Hub, load: LoadClient) -> None:
    result = control(bed, hub, load)
    report.write("e2e-control", result)
    assert result["lost"] > 0
