"""What the load balancer's program tells is read with care, and what it says of resolv.conf is understood."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from images.haproxy.runnerhub_haproxy.settings import service_domain
from runnerhub_operator import names
from runnerhub_operator.probes.haproxy import BalancerState, Health, parse_state, read_health


def test_a_state_is_read() -> None:
    assert parse_state("pod", {"loaded": "a", "refused": None}) == BalancerState("pod", "a")
    assert parse_state("pod", {"loaded": "a", "refused": "x" * 1000}).refused == "x" * 300
    told = parse_state("pod", {"loaded": "a", "certificate_until": "2027-01-02T03:04:05Z"})
    assert told.certificate_until == datetime(2027, 1, 2, 3, 4, 5, tzinfo=UTC)


@pytest.mark.parametrize("body", [None, [], {}, {"loaded": 1}, "text"])
def test_what_is_no_state_is_none(body: object) -> None:
    with pytest.raises(ValueError, match="tells no configuration"):
        parse_state("pod", body)


def test_the_domain_of_services_is_the_first_that_is_searched() -> None:
    text = "nameserver 10.96.0.10\nsearch hub.svc.cluster.local svc.cluster.local\noptions ndots:5\n"
    assert service_domain(text) == "hub.svc.cluster.local"
    with pytest.raises(ValueError, match="dnsPolicy"):
        service_domain("nameserver 10.96.0.10\nsearch\n")


def answer(**down: str) -> dict[str, Any]:
    dependencies = {
        name: {"status": "up"} for name in ("orchestrator", "database", "redis", "storage", "canary")
    }
    return {"dependencies": dependencies | {name: {"status": status} for name, status in down.items()}}


def refusing(status: str) -> dict[str, Any]:
    told = answer()
    error = "write to 10.96.0.1:6379 is refused: NOREPLICAS Not enough good replicas to write."
    told["dependencies"]["redis"] = {"status": status, "error": error, "lastGood": {}}
    return told


def stale_share() -> dict[str, Any]:
    told = answer(canary="down")
    told["dependencies"]["storage"] = {"status": "down", "error": "an earlier access still hangs"}
    return told


async def test_a_request_is_served_when_one_of_the_load_balancers_passes_it_on() -> None:
    answers: dict[str, tuple[int, Any]] = {
        "127.31.0.1": (503, None),
        "127.31.0.2": (200, answer()),
        "127.31.0.4": (200, stale_share()),
        "127.31.0.5": (503, answer(database="down", redis="overdue", canary="down")),
        "127.31.0.6": (
            503,
            {**refusing("down"), "queues": {"mail": {"status": "deaf"}, "jobs": {"status": "up"}}},
        ),
        "127.31.0.7": (200, refusing("up")),
        "127.31.0.8": (200, answer()),
        "127.31.0.9": (200, answer()),
    }
    # By host, of the path or of all.
    failing = {"127.31.0.8": "", "127.31.0.9": "/api/jobs/0"}
    asked: list[tuple[str, str | None]] = []

    async def health(request: web.Request) -> web.Response:
        status, body = answers[request.host.partition(":")[0]]
        return web.json_response(body, status=status) if body else web.Response(status=status, text="<html>")

    async def api(request: web.Request) -> web.Response:
        asked.append((request.path, request.headers.get("Authorization")))
        path = failing.get(request.host.partition(":")[0])
        return web.Response(status=404 if path is None or not request.path.startswith(path) else 503)

    application = web.Application()
    application.router.add_get("/health", health)
    application.router.add_get("/api/{path:.*}", api)
    runner = web.AppRunner(application)
    await runner.setup()
    for host in answers:
        await web.TCPSite(runner, host, names.PORT_ORCHESTRATOR).start()
    try:
        async with aiohttp.ClientSession() as http:

            async def health_of(*last: int) -> Health:
                hosts = [f"127.31.0.{part}" for part in last]
                return await read_health(http, hosts, token="mine", deadline_seconds=5)

            async def why(*last: int) -> str:
                return (await health_of(*last)).unserved

            assert await why() == ""
            assert await why(1, 3, 2) == ""
            assert await why(4) == "", "requests need no shared storage"
            assert "HAProxy answers 503" in await why(1, 3)
            assert "port 3001" in await why(3)
            assert await why(8) == "GET /api/jobs/metrics through HAProxy is answered with 503"
            assert await why(8, 2) == ""
            assert await why(9) == "", "that an image knows no such id is no outage"
            assert set(asked) == {(path, "Bearer mine") for path in ("/api/jobs/0", "/api/jobs/metrics")}
            assert await why(5) == "the orchestrators tell of no working database and redis"
            refused = await health_of(1, 6)
            assert refused.refusal == "NOREPLICAS Not enough good replicas to write."
            assert refused.deaf == {"mail"}
            assert (await health_of(6, 2)).refusal == "", "it took the write of another agent"
            assert (await health_of(7)).refusal == "", "one write that failed is no refusal yet"
            assert (await health_of(2)).deaf == frozenset()
            assert (await health_of(1, 3)).deaf is None, "no agent told anything"
            assert (await health_of(1, 3)).weak is None
            weak = {"storage": "an earlier access still hangs", "canary": "no answer"}
            assert (await health_of(1, 2, 4)).weak == weak, "one agent may have lost it alone"
            assert (await health_of(5)).weak == {}, "a canary needs what is down itself"
    finally:
        await runner.cleanup()
