"""Jobs that no runner can take, beside those that some can, on a real Redis."""

import asyncio
import time

import bullmq
import pytest

from runnerhub_orchestrator.dispatch import Dispatcher

MANY = 2000


@pytest.fixture
async def post(redis_link):
    client = redis_link.client()
    others = bullmq.Queue("github-jobs", {"connection": client, "prefix": "bull"})

    async def post(number, *labels):
        data = {"jobId": number, "labels": list(labels)}
        await others.add("github-job", data, {"jobId": f"job-{number}"})

    yield post
    await client.aclose()


@pytest.fixture
async def pod(queue):
    dispatcher = Dispatcher(queue)
    dispatcher.start()
    yield dispatcher
    await dispatcher.close()


async def test_before(pod, post, redis_link):
    for number in range(1, MANY + 1):
        await post(number, "linux", "mistyped")
    await post(MANY + 1, "linux")
    t = time.monotonic()
    e = await pod.next_entry(frozenset({"linux", "x64"}), 120)
    print("fresh", time.monotonic() - t, e.job_id)
    # let them all go round
    idle = asyncio.create_task(pod.next_entry(frozenset({"x64"}), 40))
    await idle
    client = redis_link.client()
    await post(MANY + 2, "linux")
    t = time.monotonic()
    e = await pod.next_entry(frozenset({"linux", "x64"}), 120)
    print("old", time.monotonic() - t, e.job_id)
    a = await client.info("commandstats")
    await pod.next_entry(frozenset({"x64"}), 10)
    b = await client.info("commandstats")
    print("evalsha/s", (b["cmdstat_evalsha"]["calls"] - a["cmdstat_evalsha"]["calls"]) / 10, (b["cmdstat_evalsha"]["usec"] - a["cmdstat_evalsha"]["usec"]) / 1e7)
    await client.aclose()
