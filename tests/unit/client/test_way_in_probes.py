"""The probes that ask, hold WebSockets and look for leaders, against small servers on this machine."""

from __future__ import annotations

import asyncio
import contextlib
import json

import pytest
from aiohttp import WSCloseCode, web

from runnerhub_client import oracle, terms
from runnerhub_client.burst import burst
from runnerhub_client.journal import read
from runnerhub_client.oracle import Course, Window
from runnerhub_client.probes import gets, jobs, leaders, websocket
from runnerhub_client.probes.context import PAUSE_FILE, Context
from runnerhub_client.record import Outcome
from runnerhub_client.settings import Load, Targets
from runnerhub_client.targets import Tokens, http_session

EVER = Window(0, 4e9)


class Server:
    """Answers as the load balancer would, as told: `status` and `body` of each path, and sockets to be cut."""

    def __init__(self):
        self.answers = {}
        self.posts = []
        self.refuse_posts = 0
        self.sockets = []
        self.forwarded = set()
        self.port = 0
        self._runner = None

    async def start(self):
        application = web.Application()
        application.add_routes(
            [
                web.get("/ws", self._socket),
                web.post("/api/jobs/delegate", self._post),
                web.get("/{path:.*}", self._get),
            ]
        )
        self._runner = web.AppRunner(application, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.port = self._runner.addresses[0][1]

    async def stop(self):
        await self._runner.cleanup()

    async def _get(self, request):
        status, body = self.answers.get(request.path, (200, {}))
        if isinstance(body, str):
            return web.Response(status=status, text=body, content_type="text/html")
        return web.json_response(body, status=status)

    async def _post(self, request):
        body = await request.json()
        self.posts.append(body)
        if self.refuse_posts:
            self.refuse_posts -= 1
            return web.Response(status=503, text="no server is available")
        return web.json_response({"jobId": body["jobId"]}, status=201)

    async def _socket(self, request):
        self.forwarded.add(request.headers.get("X-Forwarded-For"))
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        await socket.send_str(json.dumps({"type": "hello", "node": "a"}))
        self.sockets.append(socket)
        async for _ in socket:
            pass
        return socket


@pytest.fixture
async def server():
    found = Server()
    await found.start()
    yield found
    await found.stop()


@pytest.fixture
async def make_context(server, tmp_path):
    async with http_session() as session:

        def make(**load):
            targets = Targets(
                hub_url=f"http://127.0.0.1:{server.port}",
                websocket_url=f"ws://127.0.0.1:{server.port}/ws",
                jwt_secret="s" * 40,
                database_url="",
            )
            return Context(targets, Load(**load), tmp_path, session, Tokens(targets.jwt_secret))

        yield make


async def until(check, seconds=20.0):
    async with asyncio.timeout(seconds):
        while not check():  # noqa: ASYNC110 - the server has no event for it
            await asyncio.sleep(0.02)


@contextlib.asynccontextmanager
async def running(context, work):
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        context.stop.set()
        context.stop_runners.set()
        async with asyncio.timeout(10):
            await task


async def test_an_answer_is_one_when_it_is_200_or_when_an_agent_says_what_is_down(server, make_context):
    context = make_context(gets_rate=100, timeout_seconds=2)
    context.last_job = 7
    server.answers = {"/health": (503, {"status": "down"}), "/api/jobs/7": (200, {"jobId": 7})}
    async with running(context, gets.run(context)):
        await until(lambda: len(list(read(context.directory, "gets"))) >= 10)
    records = list(read(context.directory, "gets"))
    assert {record.outcome for record in records} == {Outcome.ACKED}
    assert {record.details["path"] for record in records} == {"/health", "/api/jobs/7"}


@pytest.mark.parametrize(
    ("path", "answer", "counted"),
    [
        ("/api/jobs/7", (404, {"error": "NotFound"}), "HTTP 404"),
        ("/api/jobs/7", (503, {"error": "DatabaseUnavailable"}), "HTTP 503"),
        ("/health", (503, "<html>no server is available</html>"), "HTTP 503"),
        ("/api/jobs/7", (200, "<html>"), "ContentTypeError"),
    ],
)
async def test_what_is_no_answer_is_an_error_by_its_status(server, make_context, path, answer, counted):
    context = make_context(gets_rate=100, timeout_seconds=2)
    context.last_job = 7
    server.answers = {path: answer}
    async with running(context, gets.run(context)):
        await until(lambda: len(list(read(context.directory, "gets"))) >= 10)
    gap = oracle.longest_gap(read(context.directory, "gets"), {"get"}, EVER)
    assert set(gap.error_classes) == {counted}
    assert gap.acknowledged > 0, "the other path"


async def test_nobody_who_listens_is_an_error_too(server, make_context):
    context = make_context(gets_rate=50, timeout_seconds=1)
    await server.stop()
    async with running(context, gets.run(context)):
        await until(lambda: len(list(read(context.directory, "gets"))) >= 3)
    assert {record.outcome for record in read(context.directory, "gets")} == {Outcome.ERROR}
    await server.start()


async def test_a_socket_that_is_cut_is_counted_and_timed_and_each_is_a_client_of_its_own(
    server, make_context
):
    context = make_context(websockets=2, timeout_seconds=2)
    async with running(context, websocket.run(context)):
        await until(lambda: sum(r.kind == "connect" for r in read(context.directory, "websocket")) == 2)
        await asyncio.sleep(0.5)
        await server.sockets[0].close(code=WSCloseCode.GOING_AWAY)
        await until(lambda: len(server.sockets) == 3)
        await until(lambda: any(r.kind == "disconnect" for r in read(context.directory, "websocket")))
    found = oracle.judge_websockets(read(context.directory, "websocket"), EVER)
    assert (found["dropped"], found["never_back"], found["errors"]) == (1, 0, 0)
    assert 0.4 < found["reconnect_seconds"]["max"] < 10
    assert found["away_seconds"]["max"] >= found["reconnect_seconds"]["max"] + 0.2
    assert len(server.forwarded) == 2


async def test_the_end_of_a_run_is_no_dropped_socket(server, make_context):
    context = make_context(websockets=1, timeout_seconds=2)
    async with running(context, websocket.run(context)):
        await until(lambda: len(server.sockets) == 1)
    assert oracle.judge_websockets(read(context.directory, "websocket"), EVER)["dropped"] == 0


@pytest.mark.parametrize("whom", [leaders.AGENT, leaders.ORCHESTRATOR])
async def test_only_who_says_that_it_leads_is_written_down_whatever_the_status(server, make_context, whom):
    context = make_context()
    asked = leaders.Asked(whom.by, server.port, whom.path, whom.node)
    from_journal = lambda: list(read(context.directory, "leaders"))  # noqa: E731
    journal = leaders.Journal(context.directory, "leaders")
    looks = leaders.Looks()
    server.answers = {whom.path: (503, {"leader": False, "fencingToken": 4, whom.node: "a"})}
    async with running(context, leaders.keep_asking(context, journal, "127.0.0.1", asked, looks)):
        await until(lambda: looks.answered >= 2)
        assert from_journal() == []
        server.answers = {whom.path: (503, {"leader": True, "fencingToken": 5, whom.node: "a"})}
        await until(lambda: len(from_journal()) >= 2)
        server.answers = {whom.path: (200, "<html>")}
        answered = looks.answered
        await until(lambda: looks.asked > answered + 3)
    (first, *_) = terms.claims(from_journal(), EVER)
    assert (first.by, first.node, first.token) == (whom.by, "a", 5)
    assert first.asked <= first.answered


async def test_all_addresses_of_a_name_are_looked_up_and_none_where_there_is_no_name(make_context, nowhere):
    assert "127.0.0.1" in await leaders.addresses("localhost")
    assert await leaders.addresses(nowhere) == set()


async def test_looking_goes_on_where_nobody_answers_and_tells_so(make_context, monkeypatch, nowhere):
    monkeypatch.setattr(leaders, "LOOK_UP_SECONDS", 0.3)
    context = make_context(leaders=nowhere)
    async with running(context, leaders.run(context)):
        await until(lambda: len(list(read(context.directory, "leaders"))) >= 2)
    found = terms.judge(read(context.directory, "leaders"), EVER)
    assert (found["claims"], found["looks"] >= 2) == (0, True)


async def test_jobs_pause_while_somebody_wants_that_and_then_go_on(server, make_context):
    context = make_context(jobs_rate=100, timeout_seconds=2)
    flag = context.directory / PAUSE_FILE
    flag.touch()
    async with running(context, jobs.run(context)):
        await asyncio.sleep(0.3)
        assert server.posts == []
        flag.unlink()
        await until(lambda: len(server.posts) >= 3)
    assert context.last_job is not None


async def test_a_burst_posts_each_job_until_it_is_taken_and_counts_the_tries_that_were_not(
    server, make_context, monkeypatch, tmp_path
):
    context = make_context()
    server.refuse_posts = 3

    async def courses(_targets, identifiers):
        return [Course("completed", 1, "r", 1.0, 2.0, 3.0) for _ in identifiers]

    monkeypatch.setattr("runnerhub_client.facts.job_courses", courses)
    found = await burst(context.targets, tmp_path, 10, ("gpu",), wait_seconds=5)
    assert (found["jobs"], found["failed_tries"], found["all_done_seconds"]) == (10, 3, 2.0)
    assert len({post["jobId"] for post in server.posts}) == 10
    assert all(post["labels"] == ["gpu"] for post in server.posts)
    writes = oracle.collect_writes("jobs", read(tmp_path, "jobs"), EVER)
    assert len(writes.acknowledged) == 10
    assert {r.details["class"] for r in read(tmp_path, "jobs") if r.outcome is Outcome.ERROR} == {"HTTP 503"}
