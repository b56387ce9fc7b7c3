"""Who is asked: the supposed primary alone when it answers as such, everybody when it does not."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from runnerhub_operator import names
from runnerhub_operator.errors import ProbeError
from runnerhub_operator.observe import observe
from runnerhub_operator.probes import patroni
from runnerhub_operator.snapshot import Children, Observed
from tests.unit.plan import builders

HOSTS = ("127.33.0.1", "127.33.0.2", "127.33.0.3")


def cluster(leader: str, broken: tuple[str, ...] = ()) -> dict[str, Any]:
    members = [
        {
            "name": f"hub-postgres-{i}",
            "role": "leader" if host == leader else "replica",
            "state": "running" if host == leader else "start failed" if host in broken else "streaming",
            "host": host,
            "timeline": 1,
        }
        for i, host in enumerate(HOSTS)
    ]
    return {"members": members}


@asynccontextmanager
async def members(
    leader: str, *, silent: tuple[str, ...] = (), broken: tuple[str, ...] = (), hung: tuple[str, ...] = ()
) -> AsyncIterator[list[str]]:
    """Members that answer, except for the silent ones; gives who was asked for the cluster.

    The server of a broken one does not start; the Patroni of one that is hung answers and does nothing else.
    """
    asked: list[str] = []
    runners = []
    for host in HOSTS:

        async def answer(request: web.Request, host: str = host) -> web.Response:
            asked.append(host)
            if host in silent:
                await asyncio.sleep(30)
            return web.Response(text=json.dumps(cluster(leader, broken)))

        async def liveness(_request: web.Request, host: str = host) -> web.Response:
            if host in silent:
                await asyncio.sleep(30)
            return web.Response(status=503 if host in hung else 200)

        async def primary(_request: web.Request, host: str = host) -> web.Response:
            return web.Response(status=200 if host == leader and host not in hung else 503)

        async def own_words(_request: web.Request, host: str = host) -> web.Response:
            asked.append(host)
            if host in silent:
                await asyncio.sleep(30)
            return web.json_response(
                {"server_version": 170006, "xlog": {"replayed_timestamp": "2026-01-01 11:58:00+00:00"}}
            )

        app = web.Application()
        app.add_routes(
            [
                web.get("/cluster", answer),
                web.get("/config", answer),
                web.get("/patroni", own_words),
                web.get("/liveness", liveness),
                web.get("/primary", primary),
            ]
        )
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, host, names.PORT_PATRONI).start()
        runners.append(runner)
    try:
        yield asked
    finally:
        for runner in runners:
            await runner.cleanup()


async def read(*hosts: str) -> patroni.PatroniCluster:
    async with aiohttp.ClientSession() as session:
        return await patroni.read_cluster(session, hosts, deadline_seconds=10.0)


async def test_a_primary_that_answers_spares_the_others() -> None:
    async with members(HOSTS[1]) as asked:
        seen = await read(HOSTS[1], HOSTS[0], HOSTS[2])
    assert (seen.leader, seen.by_leader) == ("hub-postgres-1", True)
    assert asked == [HOSTS[1]]


async def test_a_supposed_primary_that_is_none_is_not_believed_alone() -> None:
    async with members(HOSTS[1]) as asked:
        assert (await read(*HOSTS)).leader == "hub-postgres-1"
    assert asked[0] == HOSTS[0]
    assert HOSTS[1] in asked


async def test_a_silent_primary_costs_a_moment_only() -> None:
    loop = asyncio.get_running_loop()
    async with members(HOSTS[1], silent=(HOSTS[0],)):
        started = loop.time()
        assert (await read(*HOSTS)).leader == "hub-postgres-1"
        assert loop.time() - started < 5


async def test_last_words_of_a_primary_are_known_as_such() -> None:
    async with members(HOSTS[0], silent=(HOSTS[0],)):
        seen = await read(*HOSTS)
    assert (seen.leader, seen.by_leader) == ("hub-postgres-0", False)


async def test_nobody_there_is_told() -> None:
    with pytest.raises(ProbeError, match="no member of Patroni answered"):
        await read(*HOSTS)


async def test_members_tell_their_version_and_how_old_their_data_is() -> None:
    leader, replica, hung = (f"hub-postgres-{number}" for number in (0, 1, 2))
    async with members(HOSTS[0], silent=(HOSTS[2],)) as asked, aiohttp.ClientSession() as session:
        seen = patroni.parse_cluster(cluster(HOSTS[0]))
        told = await patroni.with_own_words(
            session,
            seen,
            {leader, replica, hung},
            now=datetime(2026, 1, 1, 12, tzinfo=UTC),
            deadline_seconds=2,
        )
        assert sorted(asked) == sorted(HOSTS)
        assert told.version == "17.6"
        assert [member.lag_seconds for member in told.members] == [None, 120, None]
        asked.clear()
        again = await patroni.with_own_words(
            session, told, set(), now=datetime.now(UTC), deadline_seconds=0.3
        )
    assert (asked, again) == ([], told)


async def alive(*, ready: bool, **states: tuple[str, ...]) -> frozenset[str]:
    """Members of which a visit finds that they answer themselves."""
    pods = tuple(
        builders.pod(
            f"hub-postgres-{i}", names.POSTGRES, ip=host, role="primary" if i == 0 else "replica", ready=ready
        )
        for i, host in enumerate(HOSTS)
    )
    async with members(HOSTS[0], **states), aiohttp.ClientSession() as session:
        return (await observe(builders.cluster(), Observed(Children({}), pods, ()), session)).alive


async def test_a_member_out_of_step_and_a_primary_are_asked_themselves() -> None:
    assert await alive(ready=False, broken=HOSTS[1:]) == {
        "hub-postgres-0",
        "hub-postgres-1",
        "hub-postgres-2",
    }
    assert await alive(ready=False, broken=HOSTS[1:2], hung=HOSTS[:1]) == {"hub-postgres-1"}


async def test_kubernetes_has_asked_one_that_it_calls_ready() -> None:
    assert await alive(ready=True, broken=HOSTS[1:]) == frozenset()


async def test_a_primary_that_is_slower_than_others_is_asked_whether_it_is_one() -> None:
    assert await alive(ready=True, silent=HOSTS[:1]) == {"hub-postgres-0"}
    assert await alive(ready=True, silent=HOSTS[:1], hung=HOSTS[:1]) == frozenset()


async def test_a_member_that_is_silent_or_hangs_is_not_taken_for_alive() -> None:
    found = await alive(ready=False, broken=HOSTS[1:], silent=HOSTS[1:2], hung=HOSTS[2:])
    assert found == {"hub-postgres-0"}
