"""A pod that alone has lost a store does not lead; one that lost it with all the others goes on."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from runnerhub_operator import names
from runnerhub_operator.agent.candidacy import Candidacy, Orchestrator, Outcome
from runnerhub_operator.agent.isolation import ALONE_SECONDS, STORES, Isolation, Loss, others_better
from runnerhub_operator.agent.service import Agent
from tests.unit.agent.fixtures import ApiServer, settings
from tests.unit.agent.test_agent_http import A, B, running, serving, until

OWN = {"node": "a", "dependencies": {}}


def told(node: str = "b", *, fit: bool = True, **changes: str) -> dict[str, Any]:
    stores = {name: {"status": changes.get(name, "up")} for name in STORES}
    orchestrator = {"fitToLead": fit, "status": changes.get("orchestrator", "up")}
    return {"node": node, "dependencies": {names.ORCHESTRATOR: orchestrator, **stores}}


@pytest.mark.parametrize(
    ("answers", "better"),
    [
        ([OWN, told(), told("c", database="down")], True),
        ([OWN, told(database="down"), told("c", redis="down")], False),
        ([OWN, told(fit=False)], False),
        ([OWN, told(orchestrator="down")], False),
        ([OWN, told(database="down"), None], False),
        # The only one there is.
        ([OWN], False),
        # Cut off from all the others, or also from its own address.
        ([OWN, None, None], True),
        ([None, None, None], True),
        # Nobody has been ready yet.
        ([], False),
        ([OWN, {"node": "b", "dependencies": "none"}], False),
    ],
)
def test_others_are_better_off_when_one_of_them_has_all_or_none_can_be_reached(
    answers: list[Mapping[str, Any] | None], better: bool
) -> None:
    assert others_better("a", STORES, answers, heard=True) is better


def test_silence_of_those_that_were_never_heard_proves_nothing() -> None:
    assert not others_better("a", STORES, [OWN, None, None], heard=False)
    assert others_better("a", STORES, [OWN, told(), None], heard=False)


def test_a_pod_is_alone_only_after_a_time_without_a_break() -> None:
    loss = Loss().after(["redis"], 0, others_better=True)
    assert loss.lost_for(ALONE_SECONDS, ALONE_SECONDS - 0.1) == ()
    assert loss.lost_for(ALONE_SECONDS, ALONE_SECONDS) == ("redis",)
    # A failover: for everybody it is away, and then this pod finds it some seconds after the others.
    loss = Loss()
    for second in range(90):
        loss = loss.after(["database"], second, others_better=second > 85)
        assert loss.lost_for(ALONE_SECONDS, second) == ()
    assert loss.after([], 90, others_better=False) == Loss()


@dataclass
class Switch:
    """A check that is as somebody says."""

    healthy: bool = True


async def test_who_alone_lost_the_database_hands_over_and_may_lead_again_afterwards(tmp_path: Path) -> None:
    now, other = 0.0, told("b")
    database, redis = Switch(), Switch()

    async def health(request: web.Request) -> web.Response:
        assert request.headers[names.HEADER_CLUSTER] == "team/hub"
        return web.json_response(other, status=503)

    application = web.Application()
    application.router.add_get("/health", health)
    async with (
        running(ApiServer(A, B), tmp_path, A, B) as (first, second),
        TestServer(application, host="127.0.0.1") as server,
        aiohttp.ClientSession() as session,
    ):
        isolation = Isolation(
            A,
            "team/hub",
            {"database": database, "redis": redis},
            session,
            addresses=lambda: ("127.0.0.1",),
            port=server.port or 0,
            on_change=first.leadership.elector.poke,
            clock=lambda: now,
        )
        first.leadership.elector._candidate = lambda: not isolation.alone_without
        second.fit = False
        await until(lambda: first.leads)
        second.fit = True

        database.healthy, other = False, told("b", database="down")
        await isolation.once()
        now = 200.0
        await isolation.once()
        await asyncio.sleep(0.3)
        assert first.leads, "nobody gains by moving"

        other = told("b")
        await isolation.once()
        now = 220.0
        await isolation.once()
        await asyncio.sleep(0.3)
        assert first.leads, "not yet for long"
        now = 230.0
        await isolation.once()
        await until(lambda: second.leads)
        assert not first.leads
        assert isolation.alone_without == ("database",)

        database.healthy, second.fit = True, False
        await isolation.once()
        second.leadership.elector.poke()
        await until(lambda: first.leads)


async def test_an_orchestrator_that_fails_with_all_the_others_stays_fit_to_lead(tmp_path: Path) -> None:
    now, other = 0.0, told("b", orchestrator="down")

    async def health(_: web.Request) -> web.Response:
        return web.json_response(other)

    application = web.Application()
    application.router.add_get("/health", health)
    async with (
        TestServer(application, host="127.0.0.1") as server,
        aiohttp.ClientSession() as session,
    ):
        isolation = Isolation(
            A,
            "team/hub",
            {},
            session,
            addresses=lambda: ("127.0.0.1",),
            port=server.port or 0,
            failing=lambda: orchestrator.failing,
            clock=lambda: now,
        )
        orchestrator = Orchestrator(
            session, "", others_better=lambda: isolation.others_better, clock=lambda: now
        )
        failing = Candidacy().after(Outcome.OK, "", 0).after(Outcome.FAILING, "HTTP 503", 0)
        orchestrator.candidacy = failing
        await isolation.once()
        now = 30.0
        await isolation.once()
        assert orchestrator.fit, "the database is away for all"
        other = told("b")
        await isolation.once()
        now = 34.0
        assert orchestrator.fit, "it is asked again soon"
        now = 35.0
        assert not orchestrator.fit, "it alone fails, as one that is frozen"


@pytest.mark.parametrize("reachable", [True, False])
async def test_only_who_has_heard_others_before_is_cut_off_when_they_are_silent(reachable: bool) -> None:
    now, asked, database = 0.0, 0, Switch()
    answers = reachable

    async def health(_: web.Request) -> web.Response:
        nonlocal asked
        asked += 1
        return web.json_response(told("b")) if answers else web.Response(status=502)

    application = web.Application()
    application.router.add_get("/health", health)
    async with (
        TestServer(application, host="127.0.0.1") as server,
        aiohttp.ClientSession() as session,
    ):
        isolation = Isolation(
            A,
            "team/hub",
            {"database": database},
            session,
            addresses=lambda: ("127.0.0.1", "127.0.0.2"),
            port=server.port or 0,
            clock=lambda: now,
        )
        while now < 60:
            await isolation.once()
            now += 2
        assert asked == (1 if reachable else 2), "whom all is well with asks until somebody has answered"
        database.healthy = answers = False
        while now < 100:
            await isolation.once()
            now += 2
        assert isolation.alone_without == (("database",) if reachable else ())


async def test_the_orchestrator_beside_it_is_told(tmp_path: Path) -> None:
    async with running(ApiServer(A), tmp_path, A) as (agent,):
        agent.server._alone_without = lambda: ("database",)
        async with serving(agent) as http:
            assert (await (await http.get("/leader")).json())["aloneWithout"] == ["database"]


async def test_an_agent_is_made_of_it(tmp_path: Path) -> None:
    api: Any = ApiServer(A)
    async with aiohttp.ClientSession() as session:
        agent = Agent(settings(tmp_path), api, session)
        agent._orchestrator.candidacy = Candidacy(Outcome.OK, ever_ok=True)
        assert agent._leadership.elector._candidate()
        assert set(agent._isolation._stores) == set(STORES)
        agent._isolation.alone_without = ("redis",)
        assert not agent._leadership.elector._candidate()
        assert agent._server._alone_without() == ("redis",)
