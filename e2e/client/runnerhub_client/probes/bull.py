"""A producer and a worker of a BullMQ queue, each as the package's users have them."""

from __future__ import annotations

import asyncio
import time
import uuid
from typing import Any

from bullmq import Job, Queue, Worker
from redis.exceptions import RedisError

from ..journal import Journal
from ..pacing import bound_in_flight, pace
from ..record import Outcome
from ..targets import redis_master
from .context import Context

PROBE = "bullmq-python"
QUEUE = "oracle-python"
KEEP_FINISHED = 1000
# A worker's blocking read is answered after 5 s without a job.
BLOCKED_SECONDS = 10.0
# After an error the default is 15 s without work, a lock lives for 30 s, and a job that stalls twice is given up.
_WORKER_OPTIONS = {
    "concurrency": 4,
    "runRetryDelay": 1000,
    "lockDuration": 10_000,
    "stalledInterval": 5000,
    "maxStalledCount": 1_000_000,
}


async def produce(context: Context) -> None:
    """Add jobs until stopped."""
    journal = Journal(context.directory, PROBE)
    load = context.load
    bound = bound_in_flight(load.bullmq_rate, load.timeout_seconds)
    client = redis_master(context.targets, timeout_seconds=load.timeout_seconds, connections=bound + 10)
    queue = Queue(QUEUE, {"connection": client})

    async def add() -> None:
        identifier = str(uuid.uuid4())
        started = time.monotonic()
        try:
            async with asyncio.timeout(load.timeout_seconds):
                await queue.add(
                    "oracle",
                    {"id": identifier},
                    {
                        "jobId": identifier,
                        "removeOnComplete": {"count": KEEP_FINISHED},
                        "removeOnFail": {"count": KEEP_FINISHED},
                    },
                )
        except (RedisError, OSError, TimeoutError) as error:
            journal.write("add", Outcome.UNKNOWN, identifier=identifier, started=started, error=error)
        except asyncio.CancelledError:
            journal.write(
                "add", Outcome.UNKNOWN, identifier=identifier, started=started, error="the run ended"
            )
            raise
        else:
            journal.write("add", Outcome.ACKED, identifier=identifier, started=started)

    await pace(load.bullmq_rate, bound, context.stop, add, patience_seconds=load.timeout_seconds + 1)
    await client.aclose()
    journal.close()


async def work(context: Context) -> None:
    """Process jobs until the runners stop."""
    journal = Journal(context.directory, f"{PROBE}-worker")

    async def process(job: Job, _token: str) -> None:
        journal.write("process", Outcome.ACKED, identifier=str(job.id))

    client = redis_master(context.targets, timeout_seconds=BLOCKED_SECONDS, connections=20)
    worker = Worker(QUEUE, process, {**_WORKER_OPTIONS, "connection": client, "autorun": False})

    def note(error: Any, *_more: Any) -> None:
        journal.write("connection", Outcome.NOTE, error=error)

    worker.on("error", note)
    working = asyncio.ensure_future(worker.run())
    stopped = asyncio.ensure_future(context.stop_runners.wait())
    try:
        await asyncio.wait({working, stopped}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            working.result()
            raise RuntimeError("BullMQ's worker has ended by itself")
    finally:
        stopped.cancel()
        working.cancel()
        await asyncio.gather(working, stopped, return_exceptions=True)
        await client.aclose()
        journal.close()
