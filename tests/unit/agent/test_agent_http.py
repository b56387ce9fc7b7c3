"""The agent's HTTP answers, its leader file and its pod label, with a real election in memory."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from aiohttp.test_utils import TestClient, TestServer
from aiohttp.web import Application, Request

from runnerhub_operator import names
from runnerhub_operator.agent.checks import Check
from runnerhub_operator.agent.leadership import Leadership, write_atomically
from runnerhub_operator.agent.metrics import AgentMetrics, Readings
from runnerhub_operator.agent.server import HttpServer
from runnerhub_operator.agent.settings import CheckTiming
from runnerhub_operator.errors import ProbeError
from tests.unit.agent.fixtures import ApiServer, settings

Http = TestClient[Request, Application]
A, B = "hub-orchestrator-a", "hub-orchestrator-b"


class AgentUnderTest:
    """Election, label keeper and HTTP server of one agent."""

    def __init__(self, api: ApiServer, folder: Path, node: str) -> None:
        self.fit = True
        self.broken: str | None = None
        self.file = folder / node / "leader.json"
        self.moves: list[tuple[str, str]] = []
        self.leadership = Leadership(
            settings(folder, node),
            api,
            api,
            candidate=lambda: self.fit,
            on_moved=lambda old, new: self.moves.append((old, new)),
        )
        self.check = Check("database", self._probe, CheckTiming(60, 1, 1))
        self.beside = {
            name: Check(name, self._beside, CheckTiming(60, 1, 1)) for name in ("storage", "canary")
        }
        self.lost: str | None = None
        self.metrics = AgentMetrics(
            node, lambda: Readings(self.leadership.elector.is_leader, 0.5, 1, 3, {"database": True})
        )
        self.server = HttpServer(
            node,
            self.leadership,
            {"database": self.check, **self.beside},
            self.metrics.registry,
            cluster="d/hub",
        )
        self.tasks: list[asyncio.Task[None]] = []

    async def _probe(self) -> Mapping[str, Any]:
        if self.broken:
            raise ProbeError(self.broken)
        return {"primary": "10.0.0.1"}

    async def _beside(self) -> Mapping[str, Any]:
        if self.lost:
            raise ProbeError(self.lost)
        return {}

    async def look(self) -> None:
        for check in (self.check, *self.beside.values()):
            await check.once()

    def start(self) -> None:
        self.tasks = [
            asyncio.ensure_future(self.leadership.run()),
            asyncio.ensure_future(self.leadership.keep_labels()),
        ]

    async def kill(self) -> None:
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)

    @property
    def leads(self) -> bool:
        return self.leadership.elector.is_leader

    def told(self) -> dict[str, Any]:
        content: dict[str, Any] = json.loads(self.file.read_text())
        return content


@asynccontextmanager
async def running(api: ApiServer, folder: Path, *nodes: str) -> AsyncIterator[list[AgentUnderTest]]:
    """Agents that take part in the election, ended afterwards."""
    agents = [AgentUnderTest(api, folder, node) for node in nodes]
    for agent in agents:
        agent.start()
    try:
        yield agents
    finally:
        for agent in agents:
            await agent.kill()


@asynccontextmanager
async def serving(agent: AgentUnderTest) -> AsyncIterator[Http]:
    """An HTTP client of the agent."""
    async with TestClient(TestServer(agent.server.application())) as client:
        yield client


async def until(condition: Callable[[], bool], seconds: float = 20) -> None:
    """Wait until something holds."""
    async with asyncio.timeout(seconds):
        # Conditions are of many kinds, few of them events.
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_requests_for_another_cluster_are_refused(tmp_path: Path) -> None:
    agent = AgentUnderTest(ApiServer(A), tmp_path, A)
    async with serving(agent) as http:
        for path in ("/leader", "/health", "/metrics"):
            assert (await http.get(path, headers={names.HEADER_CLUSTER: "elsewhere/hub"})).status == 421
            told = await http.get(path, headers={names.HEADER_CLUSTER: "d/hub"})
            assert told.status == (await http.get(path)).status != 421


async def test_the_leader_says_200_and_the_others_503_with_the_same_facts(tmp_path: Path) -> None:
    api = ApiServer(A, B)
    async with running(api, tmp_path, A, B) as agents:
        await until(lambda: any(agent.leads for agent in agents))
        leader, other = sorted(agents, key=lambda agent: not agent.leads)
        name = leader.leadership.elector.identity
        await until(lambda: other.leadership.answer()["holder"] == name)
        async with serving(leader) as http, serving(other) as other_http:
            answer = await http.get("/leader")
            body = await answer.json()
            assert answer.status == 200
            assert body["leader"] is True
            assert body["holder"] == name
            assert body["fencingToken"] == 1
            assert datetime.fromisoformat(body["validUntil"]) > datetime.now(UTC)
            assert datetime.fromisoformat(body["since"]) < datetime.now(UTC)
            answer = await other_http.get("/leader")
            assert answer.status == 503
            assert await answer.json() == {
                "leader": False,
                "holder": name,
                "fencingToken": 1,
                "since": body["since"],
                "validUntil": None,
                "aloneWithout": [],
            }
            assert (await other_http.get("/health/leadership")).status == 200
        assert leader.told()["leader"] is True
        assert other.told()["leader"] is False
        assert other.told()["holder"] == name


async def test_each_renewal_moves_the_files_validity(tmp_path: Path) -> None:
    api = ApiServer(A)
    async with running(api, tmp_path, A) as (agent,):
        await until(lambda: agent.leads)
        first = agent.told()["validUntil"]
        await until(lambda: agent.told()["validUntil"] > first)


async def test_release_tells_everybody_and_hands_over(tmp_path: Path) -> None:
    api = ApiServer(A, B)
    async with running(api, tmp_path, A, B) as agents:
        await until(lambda: any(agent.leads for agent in agents) and bool(api.labelled))
        leader, other = sorted(agents, key=lambda agent: not agent.leads)
        await leader.leadership.release()
        assert leader.told()["leader"] is False
        async with serving(leader) as http:
            assert (await http.get("/leader")).status == 503
        await until(lambda: other.leads)
        assert other.leadership.answer()["fencingToken"] == 2
        await until(lambda: api.labelled == [other.leadership.elector.identity])
        assert other.moves == [(leader.leadership.elector.identity, other.leadership.elector.identity)]


async def test_the_label_of_a_crashed_leader_is_taken_from_it(tmp_path: Path) -> None:
    api = ApiServer(A, B)
    async with running(api, tmp_path, A, B) as agents:
        await until(lambda: any(agent.leads for agent in agents) and bool(api.labelled))
        leader, other = sorted(agents, key=lambda agent: not agent.leads)
        await leader.kill()
        assert api.labelled == [leader.leadership.elector.identity]
        await until(lambda: other.leads)
        await until(lambda: api.labelled == [other.leadership.elector.identity])
        assert api.most_labelled == 1, "the Service never has two leaders"


async def test_a_label_from_an_earlier_life_goes_and_steady_state_writes_none(tmp_path: Path) -> None:
    api = ApiServer(A)
    api.labels[A]["runnerhub.io/leader"] = "true"
    async with running(api, tmp_path, A) as (agent,):
        agent.fit = False
        await until(lambda: not api.labelled)
        patches = api.patches
        await asyncio.sleep(0.3)
        assert api.patches == patches


async def test_a_pod_that_does_not_exist_does_not_stop_the_agent(tmp_path: Path) -> None:
    async with running(ApiServer(), tmp_path, A) as (agent,):
        await until(lambda: agent.leads)
        assert not any(task.done() for task in agent.tasks)


async def test_who_is_not_fit_does_not_lead(tmp_path: Path) -> None:
    async with running(ApiServer(A, B), tmp_path, A, B) as (first, second):
        first.fit = False
        await until(lambda: second.leads)
        second.fit, first.fit = False, True
        second.leadership.elector.poke()
        await until(lambda: first.leads)
        assert not second.leads


async def test_without_api_server_the_leader_stops_and_says_so(tmp_path: Path) -> None:
    api = ApiServer(A)
    async with running(api, tmp_path, A) as (agent,), serving(agent) as http:
        await until(lambda: agent.leads)
        api.away = True
        await until(lambda: not agent.leads)
        answer = await http.get("/leader")
        assert answer.status == 503
        assert (await answer.json())["holder"] == "", "a term that has run out names no leader"
        assert (await http.get("/health/leadership")).status == 503
        await until(lambda: agent.told()["leader"] is False)
        assert (await http.get("/readyz")).status == 503, "not before the service says so"
        agent.server.ready = True
        assert (await http.get("/readyz")).status == 200, "the API server's absence makes no pod unready"
        assert (await http.get("/livez")).status == 200


async def test_health_follows_the_checks(tmp_path: Path) -> None:
    async with running(ApiServer(A), tmp_path, A) as (agent,), serving(agent) as http:
        assert (await http.get("/health")).status == 503, "unknown is not healthy"
        await agent.look()
        await until(lambda: agent.leads)
        answer = await http.get("/health")
        body = await answer.json()
        assert (answer.status, body["status"]) == (200, "ok")
        assert body["dependencies"]["database"]["primary"] == "10.0.0.1"
        agent.broken = "write: refused"
        await agent.check.once()
        answer = await http.get("/health/database")
        assert answer.status == 503
        assert (await answer.json())["error"] == "write: refused"
        assert (await http.get("/health")).status == 503


async def test_without_leader_requests_are_still_served(tmp_path: Path) -> None:
    async with running(ApiServer(A), tmp_path, A) as (agent,), serving(agent) as http:
        agent.fit = False
        await agent.look()
        await until(lambda: not agent.leads)
        answer = await http.get("/health")
        assert (answer.status, (await answer.json())["status"]) == (200, "degraded")


@pytest.mark.parametrize("name", ["storage", "canary"])
async def test_without_what_requests_do_not_need_they_are_still_served(tmp_path: Path, name: str) -> None:
    async with running(ApiServer(A), tmp_path, A) as (agent,), serving(agent) as http:
        await agent.look()
        await until(lambda: agent.leads)
        agent.lost = "an earlier access still hangs"
        await agent.beside[name].once()
        answer = await http.get("/health")
        body = await answer.json()
        assert (answer.status, body["status"]) == (200, "degraded"), "a balancer outside keeps all agents"
        assert body["dependencies"][name]["error"] == agent.lost
        assert (await http.get(f"/health/{name}")).status == 503


async def test_what_is_not_configured_is_not_broken(tmp_path: Path) -> None:
    async with running(ApiServer(A), tmp_path, A) as (agent,), serving(agent) as http:
        answer = await http.get("/health/redis")
        assert (answer.status, await answer.json()) == (200, {"status": "not-configured"})
        assert (await http.get("/health/weather")).status == 404


async def test_metrics_have_the_documents_names(tmp_path: Path) -> None:
    async with running(ApiServer(A), tmp_path, A) as (agent,), serving(agent) as http:
        await until(lambda: agent.leads)
        agent.metrics.moved("redis")
        agent.metrics.checked("database", 12.0, 0.01)
        lines = (await (await http.get("/metrics")).text()).splitlines()
        for line in (
            f'runnerhub_ha_leader_status{{instance="{A}"}} 1.0',
            "runnerhub_ha_database_replication_lag_seconds 0.5",
            "runnerhub_ha_redis_sentinel_masters 1.0",
            "runnerhub_ha_failover_events_total 1.0",
            "runnerhub_ha_cluster_nodes_healthy 3.0",
            'runnerhub_ha_write_gap_seconds_count{dependency="database"} 1.0',
        ):
            assert line in lines


def test_the_file_is_replaced_in_one_step(tmp_path: Path) -> None:
    path = tmp_path / "run" / "leader.json"
    write_atomically(path, {"leader": False})
    inode = path.stat().st_ino
    write_atomically(path, {"leader": True})
    assert path.stat().st_ino != inode
    assert json.loads(path.read_text()) == {"leader": True}
    assert [entry.name for entry in path.parent.iterdir()] == ["leader.json"]
