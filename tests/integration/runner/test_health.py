"""What /health of a real orchestrator says when its agent says that this pod alone has lost something."""

from __future__ import annotations

from typing import Any

import aiohttp
from aiohttp import web
from aiohttp.test_utils import TestServer

from .conftest import Hub, until


async def test_an_orchestrator_that_alone_lost_a_store_says_so_and_comes_back(
    hub: Hub, session: aiohttp.ClientSession
) -> None:
    lost: list[str] = []

    async def leader(_: web.Request) -> web.Response:
        return web.json_response({"leader": False, "aloneWithout": lost}, status=503)

    application = web.Application()
    application.router.add_get("/leader", leader)
    async with TestServer(application, host="127.0.0.1") as agent:
        await hub.stop()
        hub._environment |= {
            "LEADER_ELECTION_ENABLED": "true",
            "RUNNERHUB_AGENT_URL": f"http://127.0.0.1:{agent.port}",
        }
        await hub.start()

        async def says(status: int, phase: str) -> dict[str, Any] | None:
            async with session.get(f"{hub.url}/health") as answer:
                body: dict[str, Any] = await answer.json()
                return body if (answer.status, body["status"]) == (status, phase) else None

        async def isolated() -> object:
            return await says(503, "isolated")

        async def well() -> object:
            return await says(200, "ok")

        await until("orchestrator that is well", well)
        lost.append("database")
        await until("orchestrator that is isolated", isolated)
        # It does not refuse whom a balancer sends for want of a better one.
        await hub.delegate(1, "linux")
        assert (await hub.job(1))["jobId"] == 1
        lost.clear()
        await until("orchestrator that is well again", well)


async def test_an_orchestrator_tells_what_is_degraded_and_serves(
    hub: Hub, session: aiohttp.ClientSession
) -> None:
    hub._environment["REDIS_PORT"] = "1"
    await hub.stop()
    await hub.start()

    async def degraded() -> Any:
        async with session.get(f"{hub.url}/health") as answer:
            body = await answer.json()
            assert answer.status == 200
            return body if "redis" in body["degraded"] else None

    body = await until("orchestrator that tells of its queue", degraded)
    assert (body["status"], body["database"]["status"]) == ("degraded", "up")
