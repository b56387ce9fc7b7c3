"""Jobs that no runner can take, beside those that some can, on a real Redis."""

import asyncio
import contextlib
import time

import bullmq
import pytest

from runnerhub_orchestrator import job_queue
from runnerhub_orchestrator.dispatch import TICK_SECONDS, Dispatcher
from runnerhub_orchestrator.errors import EntryGoneError
from runnerhub_orchestrator.job_queue import PARKED, JobQueue

MANY = 2000
LINUX = frozenset({"self-hosted", "linux"})
GPU = frozenset({"self-hosted", "gpu"})
DAY_MILLISECONDS = 24 * 3600 * 1000
# For an answer that takes a second at most on a machine that is not busy; what is put aside stays so for far longer.
SOON_SECONDS = 20 * TICK_SECONDS


@pytest.fixture
async def client(redis_link):
    client = redis_link.client()
    yield client
    await client.aclose()


@pytest.fixture
def post(client):
    queue = bullmq.Queue("github-jobs", {"connection": client, "prefix": "bull"})

    async def post(number, *labels, age_milliseconds=0):
        options = {"jobId": f"job-{number}", "timestamp": round(time.time() * 1000) - age_milliseconds}
        await queue.add("github-job", {"jobId": number, "labels": list(labels)}, options)

    return post


@pytest.fixture
async def pods(redis_link):
    """Two orchestrators: their queues and what takes jobs for the runners that ask them."""
    queues = [JobQueue(redis_link, timeout_seconds=10, lock_seconds=30) for _ in range(2)]
    dispatchers = [Dispatcher(queue) for queue in queues]
    for dispatcher in dispatchers:
        dispatcher.start()
    yield dispatchers
    for dispatcher, queue in zip(dispatchers, queues, strict=True):
        await dispatcher.close()
        await queue.close()


@contextlib.asynccontextmanager
async def idle_runner(pod, labels):
    poll = asyncio.create_task(pod.next_entry(labels, 600))
    yield
    poll.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await poll


async def until_parked(queue, number):
    async with asyncio.timeout(120):
        while (await queue.counts())["delayed"] < number:  # noqa: ASYNC110 - nothing tells it
            await asyncio.sleep(0.05)


async def scripts_run(client):
    return (await client.info("commandstats"))["cmdstat_evalsha"]["calls"]


@pytest.mark.parametrize("of_its_own", [False, True], ids=["alike", "each-with-a-label-of-its-own"])
async def test_many_that_nobody_can_take_keep_no_other_waiting(pods, queue, client, post, of_its_own):
    for number in range(1, MANY + 1):
        label = f"mistyped-{number}" if of_its_own else "mistyped"
        await post(number, "self-hosted", "linux", label, age_milliseconds=DAY_MILLISECONDS)
    async with idle_runner(pods[0], LINUX):
        await until_parked(queue, MANY)
        before = await scripts_run(client)
        await asyncio.sleep(5)
        assert await scripts_run(client) - before < 50
    await post(MANY + 1, "linux")
    before = await scripts_run(client)
    async with asyncio.timeout(SOON_SECONDS):
        assert (await pods[0].next_entry(LINUX, 600)).job_id == MANY + 1
    assert await scripts_run(client) - before < 50
    assert len(await queue.alive_job_ids()) == MANY + 1


async def test_a_job_goes_to_the_runner_that_comes_for_it_whichever_pod_it_asks(pods, queue, post):
    for number in (1, 2):
        await post(number, "Self-Hosted", "GPU", age_milliseconds=DAY_MILLISECONDS)
    async with idle_runner(pods[0], LINUX):
        await until_parked(queue, 2)
        async with asyncio.timeout(SOON_SECONDS):
            assert [(await pod.next_entry(GPU, 600)).job_id for pod in pods] == [1, 2]


async def test_a_job_that_comes_while_its_runner_asks_another_pod_reaches_it(pods, queue, post):
    async with idle_runner(pods[0], LINUX):
        taken = asyncio.create_task(pods[1].next_entry(GPU, 600))
        await asyncio.sleep(0.1)
        await post(1, "gpu")
        pods[0].wake()
        await until_parked(queue, 1)
        async with asyncio.timeout(SOON_SECONDS):
            assert (await taken).job_id == 1


async def test_the_oldest_goes_first_whatever_else_its_labels_are(pods, queue, post):
    for number, labels in enumerate((["gpu"], ["self-hosted", "gpu"], ["gpu"], ["gpu", "other"]), 1):
        await post(number, *labels, age_milliseconds=DAY_MILLISECONDS // 2 + number * 1000)
    async with idle_runner(pods[0], LINUX):
        await until_parked(queue, 4)
    got = [(await pods[0].next_entry(GPU, 600)).job_id for _ in range(3)]
    assert got == [3, 2, 1]
    assert await pods[0].next_entry(GPU, 0.5) is None


async def test_each_runner_gets_one_and_the_others_stay(pods, queue, post):
    for number in range(1, 6):
        await post(number, "gpu")
    async with idle_runner(pods[0], LINUX):
        await until_parked(queue, 5)
        got = await asyncio.gather(*(pods[0].next_entry(GPU, 600) for _ in range(2)))
        await until_parked(queue, 3)
    assert {entry.job_id for entry in got} == {1, 2}


async def test_its_runner_takes_it_before_all_others_that_wait(pods, queue, post):
    for number in (1, 2):
        await post(number, "gpu", age_milliseconds=DAY_MILLISECONDS - number)
    async with idle_runner(pods[0], LINUX):
        await until_parked(queue, 2)
    for number in range(3, 10):
        await post(number, "linux")
    gpu_too = LINUX | GPU
    assert [(await pods[1].next_entry(gpu_too, 600)).job_id for _ in range(3)] == [1, 2, 3]


async def test_a_runner_that_comes_while_many_are_put_aside_gets_its_job(pods, queue, post):
    await post(1, "gpu", age_milliseconds=DAY_MILLISECONDS)
    async with idle_runner(pods[0], LINUX):
        await until_parked(queue, 1)
        for number in range(2, MANY + 2):
            await post(number, "mistyped")
        pods[0].wake()
        await until_parked(queue, 300)
        assert (await pods[0].next_entry(GPU, 600)).job_id == 1
        assert (await queue.counts())["waiting"] > MANY / 4, "long before all were looked at"


async def test_those_that_went_another_way_hide_none_behind_them(pods, queue, client, post, monkeypatch):
    monkeypatch.setattr(job_queue, "SPARE_PARKED", 2)
    for number in range(1, 31):
        await post(number, "gpu")
    async with idle_runner(pods[0], LINUX):
        await until_parked(queue, 30)
    for number in range(1, 30):
        await queue._queue.backend.remove(f"job-{number}", True)
    async with asyncio.timeout(SOON_SECONDS):
        assert (await pods[0].next_entry(GPU, 600)).job_id == 30
    assert not await client.exists(f'{PARKED}:jobs:["gpu"]')


async def test_those_whose_delay_has_ended_keep_their_order(pods, queue, post, monkeypatch):
    monkeypatch.setattr(job_queue, "SPARE_PARKED", 2)
    for number in range(1, 11):
        await post(number, "gpu", age_milliseconds=DAY_MILLISECONDS - number)
    async with idle_runner(pods[0], LINUX):
        await until_parked(queue, 10)
    await post(11, "linux")
    for number in range(10, 0, -1):
        await (await bullmq.Job.fromId(queue._queue, f"job-{number}")).promote()
    assert [(await pods[0].next_entry(GPU, 600)).job_id for _ in range(10)] == list(range(1, 11))
    assert (await pods[0].next_entry(LINUX, 600)).job_id == 11


async def test_what_is_forgotten_comes_back_by_itself(pods, queue, client, post, monkeypatch):
    monkeypatch.setattr(job_queue, "PARKED_SECONDS", (3.0, 3.0))
    await post(1, "gpu")
    async with idle_runner(pods[0], LINUX):
        await until_parked(queue, 1)
    for key in await client.keys(f"{PARKED}:*"):
        await client.delete(key)
    async with asyncio.timeout(3.0 + SOON_SECONDS):
        assert (await pods[0].next_entry(GPU, 600)).job_id == 1


async def test_labels_may_be_any_text(pods, queue, post):
    for number, label in enumerate(("\ud800", "", 'a b\n"c"', "ÄÖ"), 1):
        await post(number, label)
    async with idle_runner(pods[0], LINUX):
        await until_parked(queue, 4)
    assert (await pods[0].next_entry(frozenset({"äö"}), 600)).job_id == 4


async def test_an_entry_that_somebody_else_holds_stays_there(queue, client, post):
    await post(1, "gpu")
    entry = await queue.take("token-1")
    await client.set("bull:github-jobs:job-1:lock", "token-2")
    with pytest.raises(EntryGoneError):
        await queue.park(entry, LINUX)
    await queue.unpark({GPU: 1})
    assert (await queue.counts()) == {"waiting": 0, "active": 1, "delayed": 0, "completed": 0, "failed": 0}
