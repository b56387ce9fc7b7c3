"""What disturbs the Postgres primary: who is asked of members, poolers and Patroni, in which order, and what if not."""

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
from runnerhub_operator.act.resource import ClusterResource
from runnerhub_operator.actions import (
    Disruption,
    PatchPatroniConfig,
    RestartPod,
    RestartPostgres,
    SwitchPostgres,
)
from runnerhub_operator.errors import (
    ConflictError,
    KubeError,
    NotFoundError,
    ProbeError,
    SwitchoverPostponedError,
)
from runnerhub_operator.kube.client import KubeClient
from runnerhub_operator.probes import pgbouncer
from runnerhub_operator.snapshot import Snapshot
from tests.unit.plan.builders import children, cluster, pods, snapshot

# Addresses of loopback that nothing else of the tests uses; the ports are those of the pods.
PRIMARY, POOLERS = "127.61.0.1", ("127.61.0.2", "127.61.0.3")
REPLICAS = ("127.61.0.4", "127.61.0.5")
MIB = 1024 * 1024
STEP = SwitchPostgres("hub-postgres-0", "a test", candidate="hub-postgres-1")


@dataclass(slots=True)
class Pods:
    """What the programs in the pods were asked, in order, and how they answer."""

    asked: list[str] = field(default_factory=list)
    questions: list[str] = field(default_factory=list)
    logins: set[str] = field(default_factory=set)
    bodies: list[Any] = field(default_factory=list)
    statuses: dict[str, int] = field(default_factory=dict)
    lags: dict[str, int] = field(default_factory=dict)
    states: dict[str, str] = field(default_factory=dict)
    silent: set[str] = field(default_factory=set)
    left: list[tuple[str, int]] = field(default_factory=list)
    needs: dict[str, int] = field(default_factory=dict)
    old: set[str] = field(default_factory=set)
    delay_seconds: float = 0.0
    switching: asyncio.Event = field(default_factory=asyncio.Event)

    async def answer(self, request: web.Request) -> web.Response:
        host = str(request.url.host)
        if request.path == "/patroni":
            return await self.own_words(host)
        if request.path == "/healthz":
            if host in self.silent:
                await asyncio.sleep(30)
            return web.json_response({"message": "ok"})
        if request.path == "/needs":
            status = 404 if host in self.old else 200 if host in self.needs else 503
            return web.json_response({"message": str(self.needs.get(host))}, status=status)
        if request.path == "/leave":
            self.left.append(((await request.json())["member"], len(self.asked)))
            return web.json_response({"message": "left"})
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

    async def own_words(self, host: str) -> web.Response:
        self.questions.append(host)
        if host in self.silent:
            await asyncio.sleep(30)
        if host == PRIMARY:
            own = {"role": "primary", "state": "running", "timeline": 3, "xlog": {"location": 100 * MIB}}
            return web.json_response(own)
        replayed = 100 * MIB - self.lags.get(host, 0)
        return web.json_response(
            {
                "role": "replica",
                "state": "running",
                "timeline": 3,
                "replication_state": self.states.get(host, "streaming"),
                "xlog": {"received_location": 100 * MIB, "replayed_location": replayed},
            }
        )

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
    members = [(host, names.PORT_PATRONI) for host in (PRIMARY, *REPLICAS)]
    async with listening(found, *members, *poolers):
        yield found


def observed(**changes: Any) -> Snapshot:
    addresses = {
        "hub_postgres_0": {"ip": PRIMARY},
        "hub_postgres_1": {"ip": REPLICAS[0]},
        "hub_postgres_2": {"ip": REPLICAS[1]},
        "hub_pooler_0": {"ip": POOLERS[0]},
        "hub_pooler_1": {"ip": POOLERS[1]},
    }
    for name, change in changes.items():
        addresses[name] = {**addresses[name], **change}
    return snapshot(children=children(), pods=pods(**addresses))


async def switch(seen: Snapshot, step: Disruption = STEP) -> None:
    async with aiohttp.ClientSession() as http:
        actor = Actor(KubeClient.__new__(KubeClient), http, "a test")
        await actor.disruptions.carry_out(cluster(), seen, step)


async def check(*members: str) -> None:
    async with aiohttp.ClientSession() as http:
        actor = Actor(KubeClient.__new__(KubeClient), http, "a test")
        await actor.postgres.check_members(observed(), members)


async def test_every_pooler_is_paused_before_the_role_moves_and_opens_by_itself(played: Pods) -> None:
    await switch(observed())
    assert played.left == [("hub-postgres-1", 0)] * len(POOLERS), "before anybody is held back"
    assert played.asked[0] == f"/checkpoint {POOLERS[0]}"
    assert set(played.asked[1:3]) == {f"/pause {host}" for host in POOLERS}
    assert played.asked[3:] == [f"/switchover {PRIMARY}"]
    assert played.bodies[1] == {"primary": "hub-postgres-0", "seconds": pgbouncer.HELD_BACK_SECONDS}
    assert played.bodies[3] == {"leader": "hub-postgres-0", "candidate": "hub-postgres-1"}
    assert played.logins >= {"/pause pgbouncer:x", "/switchover patroni:x"}


async def test_readers_stay_at_the_candidate_when_they_would_find_the_primary_alone(played: Pods) -> None:
    await switch(observed(hub_postgres_2={"ready": False}))
    assert played.left == []
    assert played.asked_for("/switchover") == {PRIMARY}


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
    assert played.asked == [], "no client was held back"


@pytest.mark.parametrize(
    "change",
    [
        {"ready": False, "node_silent": True},
        {"ready": False, "terminating": True, "gone_by": "2020-01-01T00:00:00Z"},
    ],
)
async def test_clients_do_not_wait_for_a_pooler_on_a_dead_node(played: Pods, change: dict[str, Any]) -> None:
    """Its address is still in the API."""
    played.silent = {POOLERS[1]}
    await switch(observed(hub_pooler_1=change))
    assert played.asked == [f"/checkpoint {POOLERS[0]}", f"/pause {POOLERS[0]}", f"/switchover {PRIMARY}"]


async def test_a_pooler_that_has_ended_is_asked_nothing(played: Pods) -> None:
    """Its address may be another pod's by now."""
    await switch(observed(hub_pooler_1={"ready": False, "ended": True}))
    assert played.asked_for("/pause") == {POOLERS[0]}


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


# --- Who can be counted on, asked just before ---


async def test_the_role_moves_to_nobody_who_is_far_behind(played: Pods) -> None:
    """Patroni told the operator of no lag; meanwhile there is one."""
    played.lags = {REPLICAS[0]: 17 * MIB, REPLICAS[1]: MIB}
    with pytest.raises(ProbeError, match="refused: hub-postgres-1 is more than 16 MiB behind"):
        await switch(observed())
    assert played.asked == [], "no client was disturbed"
    await switch(observed(), replace(STEP, instead=("hub-postgres-2",)))
    assert played.bodies[-1] == {"leader": "hub-postgres-0", "candidate": "hub-postgres-2"}


async def test_a_candidate_that_hangs_takes_nothing_over(played: Pods) -> None:
    played.silent = {REPLICAS[0]}
    with pytest.raises(ProbeError, match="hub-postgres-1 does not answer as a replica that streams"):
        await switch(observed())
    assert played.asked == []


async def test_a_step_rests_only_on_members_that_answer_for_themselves(played: Pods) -> None:
    await check("hub-postgres-0", "hub-postgres-1", "hub-postgres-2")
    assert sorted(played.questions) == sorted((PRIMARY, *REPLICAS))
    played.silent = {REPLICAS[1]}
    with pytest.raises(ProbeError, match="hub-postgres-2 does not answer"):
        await check("hub-postgres-0", "hub-postgres-1", "hub-postgres-2")
    played.silent, played.states = set(), {REPLICAS[0]: "in archive recovery"}
    with pytest.raises(ProbeError, match="hub-postgres-1 does not answer"):
        await check("hub-postgres-0", "hub-postgres-1")


async def test_nobody_is_asked_where_nothing_rests_on_anybody(played: Pods) -> None:
    played.silent = {PRIMARY}
    await check()
    assert played.questions == []


async def test_a_primary_that_hangs_is_not_rested_on(played: Pods) -> None:
    played.silent = {PRIMARY}
    with pytest.raises(ProbeError, match="position as the primary"):
        await check("hub-postgres-0", "hub-postgres-1")


# --- A primary that nobody takes over from ---


async def test_clients_wait_while_the_primary_restarts_in_place(played: Pods) -> None:
    await switch(observed(), RestartPostgres("hub-postgres-0", "a test", pause=True))
    assert played.asked[0] == f"/checkpoint {POOLERS[0]}"
    assert set(played.asked[1:3]) == {f"/pause {host}" for host in POOLERS}
    assert played.asked[3] == f"/restart {PRIMARY}"
    assert set(played.asked[4:]) == {f"/resume {host}" for host in POOLERS}
    assert played.bodies[1] == {"primary": "hub-postgres-0", "seconds": 15}


async def test_clients_go_on_when_the_primary_does_not_restart(played: Pods) -> None:
    played.statuses[f"/restart {PRIMARY}"] = 503
    with pytest.raises(ProbeError, match="503"):
        await switch(observed(), RestartPostgres("hub-postgres-0", "a test", pause=True))
    assert played.asked_for("/resume") == set(POOLERS)


async def test_a_restart_is_put_off_while_clients_cannot_be_held_back(played: Pods) -> None:
    played.statuses[f"/pause {POOLERS[0]}"] = 409
    for step in (
        RestartPostgres("hub-postgres-0", "a test", pause=True),
        RestartPod("hub-postgres-0", "u", "a test", pause=True),
    ):
        with pytest.raises(SwitchoverPostponedError, match="the Postgres restart waits"):
            await switch(observed(), step)
    assert played.asked_for("/restart") == set()


async def test_a_replica_restarts_without_a_pause(played: Pods) -> None:
    await switch(observed(), RestartPostgres("hub-postgres-1", "a test"))
    assert played.left == [("hub-postgres-1", 0)] * len(POOLERS)
    assert played.asked == [f"/restart {REPLICAS[0]}"]


@pytest.mark.parametrize("error", [NotFoundError("gone"), ConflictError("another one")])
async def test_clients_go_on_when_the_pod_to_restart_is_another_one_by_now(
    played: Pods, monkeypatch: pytest.MonkeyPatch, error: KubeError
) -> None:
    async def refuse(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(KubeClient, "delete", refuse)
    await switch(observed(), RestartPod("hub-postgres-0", "u", "a test", pause=True))
    assert played.asked_for("/pause") == set(POOLERS)
    assert played.bodies[1] == {"primary": "hub-postgres-0", "seconds": 15}
    assert played.asked_for("/resume") == set(POOLERS)


# --- max_connections and the pools ---


@pytest.fixture
def kube(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the API server was asked."""
    asked = []

    async def is_current(_resource: ClusterResource, _cluster: object) -> bool:
        asked.append("is_current")
        return True

    monkeypatch.setattr(ClusterResource, "is_current", is_current)
    return asked


async def patch(
    seen: Snapshot, max_connections: str, *, renews_poolers: bool = False, **parameters: str
) -> None:
    config = {"postgresql": {"parameters": {"max_connections": "300"}}}
    wanted = {"postgresql": {"parameters": {"max_connections": max_connections, **parameters}}}
    async with aiohttp.ClientSession() as http:
        actor = Actor(KubeClient.__new__(KubeClient), http, "a test")
        action = PatchPatroniConfig(wanted, renews_poolers)
        await actor.postgres.patch_config(cluster(), replace(seen, patroni_config=config), action)


async def test_postgres_gets_less_room_when_all_pools_fit(played: Pods, kube: list[str]) -> None:
    played.needs = {POOLERS[0]: 200, POOLERS[1]: 300}
    await patch(observed(), "200")
    assert (played.asked, kube) == ([], [])
    await patch(observed(), "200", work_mem="8MB")
    assert played.bodies == [{"postgresql": {"parameters": {"work_mem": "8MB"}}}]
    played.needs[POOLERS[1]] = 200
    await patch(observed(), "200")
    assert played.bodies[1:] == [{"postgresql": {"parameters": {"max_connections": "200"}}}]


async def test_it_waits_for_a_pooler_that_does_not_tell(played: Pods, kube: list[str]) -> None:
    played.needs = {POOLERS[0]: 200}
    await patch(observed(), "200")
    assert (played.asked, kube) == ([], [])


async def test_poolers_of_an_older_image_have_the_settings_of_their_pods(
    played: Pods, kube: list[str]
) -> None:
    played.old, played.needs = {POOLERS[0]}, {POOLERS[1]: 200}
    await patch(observed(), "200", renews_poolers=True)
    assert (played.asked, kube) == ([], [])
    await patch(observed(), "200")
    assert (played.asked, kube) == ([f"/config {PRIMARY}"], ["is_current"])


@pytest.mark.usefixtures("kube")
async def test_poolers_that_tell_need_no_new_pods(played: Pods) -> None:
    played.needs = dict.fromkeys(POOLERS, 200)
    await patch(observed(), "200", renews_poolers=True)
    assert played.asked == [f"/config {PRIMARY}"]


async def test_a_cluster_that_is_not_as_it_was_read_is_left_alone(
    played: Pods, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def is_current(_resource: ClusterResource, _cluster: object) -> bool:
        return False

    monkeypatch.setattr(ClusterResource, "is_current", is_current)
    await patch(observed(), "400")
    assert played.asked == []


@pytest.mark.usefixtures("kube")
async def test_it_gets_more_room_at_once(played: Pods) -> None:
    await patch(observed(), "400")
    assert played.asked == [f"/config {PRIMARY}"]


@pytest.mark.usefixtures("kube")
@pytest.mark.parametrize(
    "change", [{"ended": True}, {"terminating": True, "gone_by": "2020-01-01T00:00:00Z"}]
)
async def test_it_waits_for_no_pooler_that_is_gone(played: Pods, change: dict[str, Any]) -> None:
    played.needs = {POOLERS[0]: 200}
    await patch(observed(hub_pooler_1=change), "200")
    assert played.asked == [f"/config {PRIMARY}"]
