"""Writes to the Redis master and waits until a replica has it."""

from __future__ import annotations

import asyncio
import time
import uuid

from redis.asyncio import Redis
from redis.asyncio.sentinel import MasterNotFoundError
from redis.exceptions import ReadOnlyError, RedisError, ResponseError

from ..journal import Journal
from ..pacing import bound_in_flight, pace
from ..record import Outcome
from ..settings import Load
from ..targets import redis_master
from .context import Context

KEY = "runnerhub:oracle:writes"
# Answers with which the server refused before it did anything.
_REFUSED = ("READONLY", "NOREPLICAS", "LOADING", "MASTERDOWN", "NOAUTH", "WRONGPASS", "MISCONF", "OOM")


async def run(context: Context) -> None:
    """Run until stopped."""
    journal = Journal(context.directory, "queue")
    load = context.load
    bound = bound_in_flight(load.queue_rate, load.timeout_seconds)
    client = redis_master(context.targets, timeout_seconds=load.timeout_seconds, connections=bound + 10)

    async def write() -> None:
        await _write(client, journal, load)

    await pace(load.queue_rate, bound, context.stop, write, patience_seconds=load.timeout_seconds + 1)
    await client.aclose()
    journal.close()


async def _write(client: Redis, journal: Journal, load: Load) -> None:
    identifier = uuid.uuid4().hex
    started = time.monotonic()
    try:
        async with asyncio.timeout(load.timeout_seconds):
            error = await _send(client, identifier, load)
    except (RedisError, OSError, TimeoutError) as raised:
        outcome = Outcome.ERROR if was_refused(raised) else Outcome.UNKNOWN
        journal.write("write", outcome, identifier=identifier, started=started, error=raised)
    except asyncio.CancelledError:
        journal.write("write", Outcome.UNKNOWN, identifier=identifier, started=started, error="the run ended")
        raise
    else:
        outcome = Outcome.UNKNOWN if error else Outcome.ACKED
        journal.write("write", outcome, identifier=identifier, started=started, error=error)


async def _send(client: Redis, identifier: str, load: Load) -> str | None:
    """Write, and ask on the same connection how many replicas have it; None when there are enough."""
    async with client.pipeline(transaction=False) as pipeline:
        pipeline.sadd(KEY, identifier)
        if load.wait_for_replicas:
            pipeline.wait(load.wait_for_replicas, load.wait_milliseconds)
        answers = await pipeline.execute()
    if load.wait_for_replicas and int(answers[1]) < load.wait_for_replicas:
        return f"{answers[1]} of {load.wait_for_replicas} replicas within {load.wait_milliseconds} ms"
    return None


def was_refused(error: BaseException) -> bool:
    """Whether the write was certainly not done. redis-py puts the pipeline's position before the answer."""
    if isinstance(error, ReadOnlyError | MasterNotFoundError):
        return True
    return isinstance(error, ResponseError) and any(word in str(error) for word in _REFUSED)
