"""A replica that does not start is made anew: a real operator, a real API server, and a played database."""

from __future__ import annotations

import asyncio
import http.client
import json
from collections.abc import Iterator
from contextlib import closing

import pytest
import yaml

from e2e.lab.hub import Hub
from e2e.lab.kubectl import wait_for
from e2e.stage import Stage
from e2e.stage.lives import Life
from runnerhub_operator import names
from runnerhub_operator.plan import patience, repair

NAMESPACE = "broken"
PATIENCE_SECONDS = 4.0


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    with Stage() as running:
        yield running


def create(stage: Stage) -> Hub:
    stage.create_namespaces(NAMESPACE)
    kubectl = stage.kubectl.in_namespace(NAMESPACE)
    body = {
        "apiVersion": f"{names.API_GROUP}/{names.API_VERSION}",
        "kind": names.KIND,
        "metadata": {"name": "hub"},
        "spec": {},
    }
    kubectl("apply", "--server-side", "-f", "-", stdin=yaml.safe_dump(body))
    return Hub(kubectl, "hub")


def damage(hub: Hub) -> str:
    """Break a replica; its name."""
    primary = hub.role_holder("postgres")
    pod = next(pod for pod in hub.pods("postgres") if pod["metadata"]["name"] != primary)
    patroni = http.client.HTTPConnection(pod["status"]["podIP"], names.PORT_PATRONI, timeout=5)
    with closing(patroni):
        patroni.request("POST", "/break", json.dumps({"state": "start failed"}))
        assert patroni.getresponse().status == 200
    name: str = pod["metadata"]["name"]
    return name


def told(hub: Hub, reason: str, member: str) -> list[str]:
    """Messages of Events with a reason that name a member."""
    events = hub.kubectl.items("event")
    return [item["message"] for item in events if item["reason"] == reason and member in item["message"]]


def course(hub: Hub) -> None:
    hub.wait_settled(120)
    primary = hub.role_holder("postgres")
    member = damage(hub)
    wait_for("the member to be missed", lambda: hub.status()["phase"] == "Degraded", 60)
    wait_for("the member to be made anew", lambda: told(hub, "MemberReinitialized", member), 60)
    wait_for("it to be told that it is back", lambda: told(hub, "MemberRecovered", member), 60)
    hub.wait_settled(60)
    assert len(told(hub, "MemberReinitialized", member)) == 1
    assert "does not start since" in told(hub, "MemberReinitialized", member)[0]
    assert hub.role_holder("postgres") == primary

    def free() -> bool:
        lease = hub.kubectl.get("lease", "hub-disruption") or {}
        spec = lease.get("spec", {})
        return bool(spec.get("leaseTransitions")) and not spec.get("holderIdentity")

    wait_for("the Lease to be given back", free, 60)


async def test_a_replica_that_does_not_start_is_made_anew_once(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(repair, "PATIENCE_SECONDS", PATIENCE_SECONDS)
    monkeypatch.setattr(patience, "PATIENCE_SECONDS", 1.0)
    hub = await asyncio.to_thread(create, stage)
    life = asyncio.create_task(Life(stage.kubeconfig, NAMESPACE).run())
    try:
        await asyncio.to_thread(course, hub)
    finally:
        life.cancel()
        await asyncio.gather(life, return_exceptions=True)
