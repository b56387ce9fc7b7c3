"""What the operator asks of the Patroni of a broken member."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from runnerhub_operator import names
from runnerhub_operator.act import Actor
from runnerhub_operator.actions import ReinitializePostgres
from runnerhub_operator.errors import ProbeError
from runnerhub_operator.kube.client import KubeClient
from tests.unit.plan.builders import cluster, pods, snapshot

HOST = "127.34.0.1"


class Patroni:
    """Answers as told, and keeps what it was asked."""

    def __init__(self) -> None:
        self.status = 200
        self.asked: list[tuple[str, str, Any, str]] = []

    async def answer(self, request: web.Request) -> web.Response:
        login = aiohttp.BasicAuth.decode(request.headers["Authorization"])
        self.asked.append((request.method, request.path, await request.json(), login.login))
        return web.Response(status=self.status, text="running pg_rewind already in progress")


@pytest.fixture
async def patroni() -> AsyncIterator[Patroni]:
    played = Patroni()
    app = web.Application()
    app.router.add_route("*", "/{path}", played.answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, HOST, names.PORT_PATRONI).start()
    yield played
    await runner.cleanup()


async def reinitialize(member: str = "hub-postgres-2") -> None:
    async with aiohttp.ClientSession() as http:
        actor = Actor(KubeClient.__new__(KubeClient), http, "a test")
        seen = snapshot(pods=pods(hub_postgres_2={"ip": HOST}))
        await actor.disruptions.carry_out(cluster(), seen, ReinitializePostgres(member, "a test"))


async def test_the_member_itself_is_asked_to_copy_the_primary_and_is_not_forced(patroni: Patroni) -> None:
    await reinitialize()
    assert patroni.asked == [("POST", "/reinitialize", {"force": False, "from_leader": True}, "patroni")]


async def test_a_refusal_says_why(patroni: Patroni) -> None:
    patroni.status = 503
    with pytest.raises(ProbeError, match="running pg_rewind already in progress"):
        await reinitialize()


async def test_a_member_whose_pod_has_gone_cannot_be_asked() -> None:
    with pytest.raises(ProbeError, match="hub-postgres-7 has no pod"):
        await reinitialize("hub-postgres-7")
