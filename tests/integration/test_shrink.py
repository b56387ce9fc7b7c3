"""Fewer members of the database: a real operator, a real API server, and played databases."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from e2e.lab.kubectl import Kubectl, wait_for
from e2e.stage import Stage
from runnerhub_operator import names
from tests.integration.conftest import PATIENT


@pytest.fixture(scope="module")
def hub() -> Iterator[Kubectl]:
    """kubectl in the namespace of a cluster of four members that is Ready, with an operator at work."""
    with Stage() as stage:
        stage.create_namespaces("fewer")
        stage.start_operator("operator-0", **PATIENT)
        kubectl = stage.kubectl.in_namespace("fewer")
        body = {
            "apiVersion": f"{names.API_GROUP}/{names.API_VERSION}",
            "kind": names.KIND,
            "metadata": {"name": "hub", "namespace": "fewer"},
            "spec": {"postgres": {"instances": 4}},
        }
        kubectl("apply", "--server-side", "-f", "-", stdin=yaml.safe_dump(body))
        wait_for("the cluster to be Ready", lambda: status(kubectl).get("phase") == "Ready", 120)
        yield kubectl


def status(kubectl: Kubectl) -> dict[str, Any]:
    found: dict[str, Any] = (kubectl.get("runnerhubcluster", "hub") or {}).get("status", {})
    return found


def test_members_go_one_at_a_time_and_the_primary_hands_over_first(hub: Kubectl) -> None:
    hub("annotate", "runnerhubcluster", "hub", f"{names.ANNOTATION_SWITCH_PRIMARY}=hub-postgres-3")
    wait_for("the last one to be primary", lambda: status(hub)["postgres"]["primary"] == "hub-postgres-3", 60)
    hub("annotate", "runnerhubcluster", "hub", f"{names.ANNOTATION_SWITCH_PRIMARY}-")
    wait_for("the cluster to be Ready again", lambda: status(hub).get("phase") == "Ready", 60)
    hub("patch", "rhc", "hub", "--type=merge", "-p", json.dumps({"spec": {"postgres": {"instances": 2}}}))
    seen: list[tuple[int, str | None]] = []

    def done() -> bool:
        live = hub.get("statefulset", "hub-postgres") or {}
        now = live["spec"]["replicas"], status(hub)["postgres"].get("primary")
        if not seen or seen[-1] != now:
            seen.append(now)
        return bool(now[0] == 2)

    wait_for("two members to be left", done, 90)
    counts = [count for count, _ in seen]
    assert sorted(set(counts), reverse=True) == [4, 3, 2], seen
    assert counts == sorted(counts, reverse=True), seen
    # The role moved once, before anybody went, and to one that stays.
    assert [primary for count, primary in seen if count < 4 and primary == "hub-postgres-3"] == []
    assert status(hub)["failovers"][0]["to"] in ("hub-postgres-0", "hub-postgres-1")
    wait_for("the cluster to be Ready", lambda: status(hub).get("phase") == "Ready", 60)
    assert set(names_of(hub, "pod")) == {"hub-postgres-0", "hub-postgres-1"}
    # The poolers know all that there can be.
    assert {name for name in names_of(hub, "service") if name[-1].isdigit()} == {
        f"hub-postgres-{ordinal}" for ordinal in range(9)
    }
    lease = hub.get("lease", "hub-disruption") or {}
    assert not lease.get("spec", {}).get("holderIdentity")


def names_of(hub: Kubectl, kind: str) -> list[str]:
    return [
        item["metadata"]["name"]
        for item in hub.items(kind)
        if item["metadata"].get("labels", {}).get(names.LABEL_COMPONENT) == names.POSTGRES
    ]


def test_pods_of_the_queue_come_and_go_one_at_a_time_and_those_that_stay_are_renewed_at_the_end(
    hub: Kubectl,
) -> None:
    def scale(replicas: int) -> None:
        hub(
            "patch",
            "rhc",
            "hub",
            "--type=merge",
            "-p",
            json.dumps({"spec": {"redis": {"replicas": replicas}}}),
        )

    def pods() -> dict[str, str]:
        found = hub.items("pod", "app.kubernetes.io/component=redis")
        return {pod["metadata"]["name"]: pod["metadata"]["uid"] for pod in found}

    def settled(replicas: int) -> bool:
        return len(pods()) == replicas and status(hub).get("phase") == "Ready"

    def size() -> int:
        replicas: int = (hub.get("statefulset", "hub-redis") or {})["spec"]["replicas"]
        return replicas

    def is_renewed(replicas: int, before: dict[str, str]) -> bool:
        if size() != seen[-1]:
            seen.append(size())
        now = pods()
        return len(now) == replicas and not set(now.values()) & set(before.values()) and settled(replicas)

    three, seen = pods(), [3]
    scale(5)
    wait_for("five pods, three of them renewed", lambda: is_renewed(5, three), 240)
    assert seen == [3, 4, 5]
    five, seen = pods(), [5]
    scale(3)
    wait_for("three pods, renewed", lambda: is_renewed(3, five), 240)
    assert seen == [5, 4, 3]
    services = {
        item["metadata"]["name"] for item in hub.items("service", "app.kubernetes.io/component=redis")
    }
    assert {"hub-redis-2"} <= services
    assert not {"hub-redis-3", "hub-redis-4"} & services
