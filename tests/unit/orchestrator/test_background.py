"""Background tasks that crash: they are told, named by /health, and begin anew."""

import asyncio
import logging
from unittest.mock import Mock

import pytest
from aiohttp import WSServerHandshakeError
from aiohttp.test_utils import TestClient, TestServer

from runnerhub_orchestrator import background
from runnerhub_orchestrator.background import Background
from runnerhub_orchestrator.dispatch import Dispatcher
from runnerhub_orchestrator.health import HealthMonitor, State
from runnerhub_orchestrator.job_queue import Entry, _number
from runnerhub_orchestrator.metrics import Metrics
from runnerhub_orchestrator.singleton import PAUSE_SECONDS
from runnerhub_orchestrator.websocket import WebSocketHub


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(background, "FIRST_PAUSE_SECONDS", 0.01)


async def until(condition):
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - conditions of many kinds
            await asyncio.sleep(0.005)


def health(*tasks, alone_without=()):
    monitor = HealthMonitor(
        database=None, redis_client=None, repository=None, queue=None, metrics=Metrics(), backgrounds=tasks,
        alone_without=lambda: alone_without, interval_seconds=1, timeout_seconds=1, retries=3,
    )  # fmt: skip
    monitor.schema_ready = True
    return monitor


async def test_work_that_crashes_is_told_and_begins_anew(monkeypatch, caplog):
    begun = []

    async def work():
        begun.append(1)
        if len(begun) < 3:
            raise KeyError("labels")
        await asyncio.Event().wait()

    task = Background("dispatcher")
    monitor = health(task)
    assert (monitor.phase, monitor.serving) == ("ok", True)
    task.start(work)
    await until(lambda: len(begun) == 3)
    assert monitor.degraded == {"dispatcher": "KeyError: 'labels'"}
    assert (monitor.phase, monitor.serving) == ("degraded", True)
    crashes = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert [record.exc_info[0] for record in crashes] == [KeyError, KeyError]
    monkeypatch.setattr(background, "CALM_SECONDS", 0.01)
    await until(lambda: not monitor.degraded)
    await task.close()


def test_singleton_work_that_crashes_again_and_again_gives_no_lease_more_time():
    assert background.LONGEST_PAUSE_SECONDS < PAUSE_SECONDS / 1.5


async def test_work_that_returns_or_is_closed_is_over():
    done = Background("start")
    done.start(lambda: asyncio.sleep(0))
    endless = Background("events")
    endless.start(asyncio.Event().wait)
    await until(done._task.done)
    assert done.error is None
    await endless.close()
    assert endless._task.cancelled()


async def test_a_dispatcher_that_crashed_dispatches_again():
    class Queue:
        crashed = False

        async def unpark(self, wanted):
            pass

        async def take(self, token):
            if not self.crashed:
                self.crashed = True
                raise ValueError("an entry that cannot be read")
            return Entry(7, frozenset(), token, None)

    dispatcher = Dispatcher(Queue())
    dispatcher.start()
    assert (await dispatcher.next_entry(frozenset(), 20)).job_id == 7
    await dispatcher.close()


def test_a_store_that_is_away_for_everybody_takes_no_process_out_and_one_that_only_it_lost_does():
    everybody = health()
    everybody.states["database"] = State("down", error="OperationalError: timeout")
    assert everybody.degraded == {"database": "OperationalError: timeout"}
    assert (everybody.phase, everybody.serving) == ("degraded", True)
    alone = health(alone_without=("database",))
    assert (alone.phase, alone.serving) == ("isolated", False)
    alone.draining = True
    assert alone.phase == "draining"


async def test_websockets_are_also_taken_without_a_store_that_others_have_and_not_while_draining():
    alone = health(alone_without=("database",))
    hub = WebSocketHub(Mock(), alone, Metrics(), "a")
    async with TestClient(TestServer(hub.application(), host="127.0.0.1")) as client:
        async with client.ws_connect("/ws") as socket:
            assert await socket.receive_json() == {"type": "hello", "node": "a"}
        for ready, draining in ((True, True), (False, False)):
            alone.schema_ready, alone.draining = ready, draining
            with pytest.raises(WSServerHandshakeError, match="503"):
                await client.ws_connect("/ws")


@pytest.mark.parametrize(
    ("identifier", "data", "number"),
    [
        ("job-7", {}, 7),
        ("other", {"jobId": 7}, 7),
        ("job-9223372036854775808", {}, 0),
        ("other", {"jobId": 2**63}, 0),
        ("other", {"jobId": "7"}, 0),
        ("job-\u0667", {}, 0),
    ],
)
def test_the_number_of_an_entry_is_one_that_the_database_can_hold(identifier, data, number):
    assert _number(identifier, data) == number
