import asyncio

import pytest

from runnerhub_orchestrator import dispatch
from runnerhub_orchestrator.dispatch import Dispatcher
from runnerhub_orchestrator.errors import QueueUnavailableError
from runnerhub_orchestrator.job_queue import Entry


class MemoryQueue:
    """The operations that the dispatcher needs."""

    def __init__(self, *entries):
        self.waiting = [Entry(number, frozenset(labels), "", None) for number, labels in entries]
        self.parked = {}
        self.wanted = []
        self.taken = 0
        self.error = None

    async def take(self, _token):
        await asyncio.sleep(0)
        self.taken += 1
        if self.error:
            raise self.error
        return self.waiting.pop(0) if self.waiting else None

    async def park(self, entry, labels):
        self.parked[entry.job_id] = labels

    async def unpark(self, wanted):
        if wanted:
            self.wanted.append(dict(wanted))


@pytest.fixture
async def dispatching():
    started = []

    def start(*entries):
        queue = MemoryQueue(*entries)
        dispatcher = Dispatcher(queue)
        dispatcher.start()
        started.append(dispatcher)
        return queue, dispatcher

    yield start
    for dispatcher in started:
        await dispatcher.close()


async def test_nothing_is_taken_while_nobody_waits(dispatching):
    queue, _ = dispatching((1, []))
    await asyncio.sleep(0.05)
    assert queue.taken == 0


async def test_each_waiting_runner_gets_one_job(dispatching):
    _, dispatcher = dispatching((1, []), (2, []), (3, []))
    entries = await asyncio.gather(*(dispatcher.next_entry(frozenset(), 20) for _ in range(2)))
    assert sorted(entry.job_id for entry in entries) == [1, 2]
    assert dispatcher.waiting == 0


async def test_a_job_goes_to_a_runner_with_all_its_labels(dispatching):
    queue, dispatcher = dispatching((1, ["gpu", "linux"]), (2, ["linux"]))
    entry = await dispatcher.next_entry(frozenset({"linux", "x64"}), 20)
    assert entry.job_id == 2
    assert queue.parked == {1: {"linux", "x64"}}
    assert queue.wanted[0] == {frozenset({"linux", "x64"}): 1}


async def test_the_case_of_labels_does_not_matter(dispatching):
    queue, dispatcher = dispatching((1, ["self-hosted", "Linux", "X64"]))
    entry = await dispatcher.next_entry(frozenset({"Self-Hosted", "linux", "x64"}), 20)
    assert entry.job_id == 1
    assert entry.labels == {"self-hosted", "Linux", "X64"}
    assert not queue.parked


async def test_jobs_that_nobody_here_can_take_do_not_keep_a_runner_from_its_own(dispatching, monkeypatch):
    monkeypatch.setattr(dispatch, "TICK_SECONDS", 60.0)
    queue, dispatcher = dispatching(*((number, ["mistyped"]) for number in range(1, 1001)), (1001, ["linux"]))
    entry = await dispatcher.next_entry(frozenset({"Linux"}), 20)
    assert entry.job_id == 1001
    assert len(queue.parked) == 1000


async def test_a_poll_ends_empty_in_time(dispatching):
    _, dispatcher = dispatching()
    assert await dispatcher.next_entry(frozenset(), 0.05) is None
    assert dispatcher.waiting == 0


async def test_news_of_a_job_ends_the_wait_at_once(dispatching, monkeypatch):
    monkeypatch.setattr(dispatch, "TICK_SECONDS", 60.0)
    queue, dispatcher = dispatching()
    poll = asyncio.create_task(dispatcher.next_entry(frozenset(), 60))
    await asyncio.sleep(0.05)
    queue.waiting.append(Entry(9, frozenset(), "", None))
    dispatcher.wake()
    async with asyncio.timeout(10):
        assert (await poll).job_id == 9


async def test_a_queue_out_of_reach_is_told(dispatching):
    queue, dispatcher = dispatching()
    queue.error = QueueUnavailableError("no master")
    with pytest.raises(QueueUnavailableError):
        await dispatcher.next_entry(frozenset(), 0.5)


async def test_a_queue_that_returns_is_found_again(dispatching):
    queue, dispatcher = dispatching((4, []))
    queue.error = QueueUnavailableError("no master")
    poll = asyncio.create_task(dispatcher.next_entry(frozenset(), 20))
    await asyncio.sleep(0.1)
    queue.error = None
    assert (await poll).job_id == 4


async def test_a_poll_that_ends_while_others_jobs_are_put_aside_is_no_error(dispatching):
    queue, dispatcher = dispatching(*((number, ["mistyped"]) for number in range(1, 100_001)))
    queue.error = QueueUnavailableError("no master")
    poll = asyncio.create_task(dispatcher.next_entry(frozenset({"linux"}), 1.0))
    await asyncio.sleep(0.1)
    queue.error = None
    assert await poll is None
    assert queue.waiting, "the round was not over"


async def test_stopping_ends_all_polls(dispatching):
    _, dispatcher = dispatching()
    poll = asyncio.create_task(dispatcher.next_entry(frozenset(), 60))
    await asyncio.sleep(0.05)
    await dispatcher.close()
    assert await poll is None
