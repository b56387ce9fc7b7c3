"""What becomes of requests that the other side has given up, by real connections."""

import asyncio
import contextlib
import time
import uuid
from types import SimpleNamespace
from unittest.mock import Mock

import jwt
import pytest
from aiohttp import ClientSession, web

from runnerhub_orchestrator.auth import Authenticator
from runnerhub_orchestrator.http_api import Api
from runnerhub_orchestrator.service import Service
from tests.share import free_port

SECRET = "s3cr3t" * 8
JOB = {"jobId": 7, "runId": 1, "repository": "a/b", "workflow": "ci", "labels": []}


class Rows:
    """One row; `stuck` holds whoever asks for it."""

    def __init__(self):
        self.stuck, self.asked, self.marked = False, 0, False
        self.job = SimpleNamespace(job_id=7, delegation_id=uuid.uuid4(), status="pending")
        self.exists, self.answers = False, asyncio.Event()

    async def accept(self, _new):
        self.asked += 1
        created, self.exists = not self.exists, True
        return self.job, created

    async def find(self, _job):
        self.asked += 1
        await asyncio.sleep(60)

    async def mark_enqueued(self, _jobs, **_options):
        self.marked = True

    async def claimed_before(self, _claim):
        self.asked += 1
        await self.answers.wait()
        self.marked = True
        raise web.HTTPConflict


@pytest.fixture
async def served():
    rows, entries, hangs = Rows(), [], asyncio.Event()

    async def add(job):
        if not hangs.is_set():
            await asyncio.sleep(60)
        entries.append(job.job_id)

    settings = SimpleNamespace(cluster="", max_requests_in_flight=1, drain_seconds=0, stop_seconds=3)
    api = Api(
        settings=settings,
        repository=rows,
        queue=SimpleNamespace(add=add),
        dispatcher=Mock(),
        events=Mock(),
        leadership=Mock(),
        health=SimpleNamespace(schema_ready=True, draining=False),
        metrics=Mock(),
        redis_link=Mock(),
        authenticator=Authenticator(SECRET),
    )
    service = SimpleNamespace(_settings=settings, _runners=[], _api=api)
    port = free_port()
    await Service._listen(service, api.application(), port, stops_abandoned=True)
    token = jwt.encode({"exp": int(time.time()) + 60}, SECRET, algorithm="HS256")
    headers = {"Authorization": f"Bearer {token}"}
    async with ClientSession(f"http://127.0.0.1:{port}", headers=headers) as client:
        yield SimpleNamespace(rows=rows, entries=entries, queue_works=hangs, client=client)
    await service._runners[0].cleanup()


async def given_up(ask, begun):
    """Ask until a request has begun, and give that one up; before, the one before it may still be in flight."""
    async with asyncio.timeout(10):
        while True:
            request = asyncio.ensure_future(ask())
            while not (request.done() or begun()):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            if begun():
                break
            answer = await request
            answer.release()
            assert answer.status == 503
    request.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await request


async def test_a_job_that_was_given_up_on_its_way_to_the_queue_is_taken_by_the_next_try(served):
    await given_up(lambda: served.client.post("/api/jobs/delegate", json=JOB), lambda: served.rows.exists)
    assert (served.entries, served.rows.marked) == ([], False)
    served.queue_works.set()
    async with asyncio.timeout(10):
        while True:
            async with served.client.post("/api/jobs/delegate", json=JOB) as answer:
                status, told = answer.status, await answer.json()
            if status != 503:
                break
    assert (status, told["status"]) == (200, "queued")
    assert (served.entries, served.rows.marked) == ([7], True)


async def test_what_was_given_up_does_not_count_among_those_in_flight(served):
    for number in range(1, 4):
        await given_up(
            lambda: served.client.get("/api/jobs/7"), lambda number=number: served.rows.asked == number
        )


async def test_a_claim_that_was_given_up_ends_what_it_has_begun(served):
    claim = {"runnerId": "r", "labels": [], "waitSeconds": 1, "claimId": str(uuid.uuid4())}
    await given_up(
        lambda: served.client.post("/api/runners/claim", json=claim), lambda: served.rows.asked == 1
    )
    # The server has noticed by then.
    await asyncio.sleep(0.3)
    assert not served.rows.marked
    served.rows.answers.set()
    async with asyncio.timeout(10):
        while not served.rows.marked:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
