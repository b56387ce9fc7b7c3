"""The operator's part of a planned switchover: what it asks of poolers and Patroni, in which order, and what if not."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from runnerhub_operator import names
from runnerhub_operator.act import Actor
from runnerhub_operator.actions import SwitchPostgres
from runnerhub_operator.errors import ProbeError, SwitchoverPostponedError
from runnerhub_operator.kube.client import KubeClient
from runnerhub_operator.probes import pgbouncer
from runnerhub_operator.snapshot import Snapshot
from tests.unit.plan.builders import children, cluster, pods, snapshot

# Addresses of loopback that nothing else of the tests uses; the ports are those of the pods.
PRIMARY, POOLERS = "127.61.0.1", ("127.61.0.2", "127.61.0.3")
STEP = SwitchPostgres("hub-postgres-0", "a test", candidate="hub-postgres-1")


@dataclass(slots=True)
class Pods:
    """What the programs in the pods were asked, in order, and how they answer."""

    asked: list[str] = field(default_factory=list)
    logins: set[str] = field(default_factory=set)
    bodies: list[Any] = field(default_factory=list)
    statuses: dict[str, int] = field(default_factory=dict)
    delay_seconds: float = 0.0
    switching: asyncio.Event = field(default_factory=asyncio.Event)

    async def answer(self, request: web.Request) -> web.Response:
        host = request.url.host
        what = f"{request.path} {host}"
        self.asked.append(what)
        login = base64.b64decode(request.headers["Authorization"].removeprefix("Basic ")).decode()
        self.logins.add(f"{request.path} {login}")
        self.bodies.append(await request.json() if request.can_read_body else None)
        if request.path == "/switchover":
            self.switching.set()
            await asyncio.sleep(self.delay_seconds)
        status = self.statuses.get(what, 200)
        return web.json_response({"message": "a sentence"}, status=status)

    def asked_for(self, path: str) -> set[str]:
        return {what.split()[1] for what in self.asked if what.startswith(f"{path} ")}


@asynccontextmanager
async def listening(pods: Pods, *hosts: tuple[str, int]) -> AsyncIterator[None]:
    app = web.Application()
    app.router.add_route("*", "/{path}", pods.answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    try:
        for host, port in hosts:
            await web.TCPSite(runner, host, port).start()
        yield
    finally:
        await runner.cleanup()


@pytest.fixture
async def played() -> AsyncIterator[Pods]:
    found = Pods()
    poolers = [(host, names.PORT_POOLER_AGENT) for host in POOLERS]
    async with listening(found, (PRIMARY, names.PORT_PATRONI), *poolers):
        yield found


def observed(**changes: Any) -> Snapshot:
    addresses = {
        "hub_postgres_0": {"ip": PRIMARY},
        "hub_pooler_0": {"ip": POOLERS[0]},
        "hub_pooler_1": {"ip": POOLERS[1]},
    }
    for name, change in changes.items():
        addresses[name] = {**addresses[name], **change}
    return snapshot(children=children(), pods=pods(**addresses))


async def switch(seen: Snapshot, step: SwitchPostgres = STEP) -> None:
    async with aiohttp.ClientSession() as http:
        actor = Actor(KubeClient.__new__(KubeClient), http, "a test")
        await actor.disrupt(cluster(), seen, step)


async def test_every_pooler_is_paused_before_the_role_moves_and_opens_by_itself(played: Pods) -> None:
    await switch(observed())
    assert played.asked[0] == f"/checkpoint {POOLERS[0]}"
    assert set(played.asked[1:3]) == {f"/pause {host}" for host in POOLERS}
    assert played.asked[3:] == [f"/switchover {PRIMARY}"]
    assert played.bodies[1] == {"primary": "hub-postgres-0", "seconds": pgbouncer.HELD_BACK_SECONDS}
    assert played.bodies[3] == {"leader": "hub-postgres-0", "candidate": "hub-postgres-1"}
    assert played.logins >= {"/pause pgbouncer:x", "/switchover patroni:x"}


async def test_nothing_moves_while_clients_of_one_pooler_cannot_be_held_back(played: Pods) -> None:
    played.statuses[f"/pause {POOLERS[1]}"] = 409
    with pytest.raises(SwitchoverPostponedError, match="a sentence"):
        await switch(observed())
    assert played.asked_for("/switchover") == set()
    assert played.asked_for("/resume") == set(POOLERS)


async def test_a_pooler_that_starts_or_drains_holds_nothing_up(played: Pods) -> None:
    played.statuses[f"/pause {POOLERS[1]}"] = 503
    await switch(observed(hub_pooler_1={"ready": False}))
    assert played.asked_for("/switchover") == {PRIMARY}
    assert played.asked_for("/pause") == set(POOLERS)


async def test_a_pooler_without_an_answer_holds_it_up(played: Pods) -> None:
    with pytest.raises(SwitchoverPostponedError, match="does not answer"):
        await switch(observed(hub_pooler_1={"ip": "127.61.0.99"}))
    assert played.asked_for("/resume") == {POOLERS[0]}


async def test_clients_go_on_when_patroni_refuses(played: Pods) -> None:
    played.statuses[f"/switchover {PRIMARY}"] = 412
    with pytest.raises(ProbeError, match="412") as refused:
        await switch(observed())
    assert not isinstance(refused.value, SwitchoverPostponedError)
    assert played.asked_for("/resume") == set(POOLERS)


async def test_clients_go_on_when_the_operator_is_stopped_meanwhile(played: Pods) -> None:
    played.delay_seconds = 30
    task = asyncio.create_task(switch(observed()))
    async with asyncio.timeout(10):
        await played.switching.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert played.asked_for("/resume") == set(POOLERS)


async def test_a_checkpoint_that_fails_holds_nothing_up(played: Pods) -> None:
    played.statuses[f"/checkpoint {POOLERS[0]}"] = 503
    await switch(observed())
    assert played.asked_for("/switchover") == {PRIMARY}


async def test_the_last_resort_moves_the_role_without_a_pause(played: Pods) -> None:
    await switch(observed(), replace(STEP, pause=False))
    assert played.asked == [f"/switchover {PRIMARY}"]
