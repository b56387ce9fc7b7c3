"""Writes to the Redis master: a set's entries by a script, with a replica's confirmation and without, and a counter."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from redis.asyncio import Redis
from redis.asyncio.sentinel import MasterNotFoundError
from redis.exceptions import ReadOnlyError, RedisError, ResponseError

from ..journal import Journal
from ..pacing import bound_in_flight, pace
from ..record import Outcome
from ..settings import Load
from ..targets import redis_by_route, redis_master
from .context import Context

# The sets of the probes that write entries, and the counter's key.
SETS = {
    "queue": "runnerhub:oracle:writes",
    "unconfirmed": "runnerhub:oracle:unconfirmed",
    "plain": "runnerhub:oracle:plain",
}
COUNTER = "runnerhub:oracle:counter"
# Two writes at once, as BullMQ's are: replicas get them, and the append-only file has them, as one transaction.
_SCRIPT = "redis.call('SADD', KEYS[1], ARGV[1]) redis.call('SET', KEYS[2], ARGV[1])"
# Answers with which the server refused before it did anything.
_REFUSED = ("READONLY", "NOREPLICAS", "LOADING", "MASTERDOWN", "NOAUTH", "WRONGPASS", "MISCONF", "OOM")


@dataclass(frozen=True, slots=True)
class _Told:
    """What the master answered: an identifier, and why it does not count as acknowledged, None when it does."""

    identifier: str
    error: str | None


_Send = Callable[[Redis, str], Awaitable[_Told]]


async def confirmed(context: Context) -> None:
    """Entries that count when a replica has them as well; runs until stopped."""
    load = context.load
    await _run(
        context, "queue", "write", load.queue_rate, _entry(SETS["queue"], load, load.wait_for_replicas)
    )


async def unconfirmed(context: Context) -> None:
    """Entries that count when the master has them; runs until stopped."""
    load = context.load
    await _run(context, "unconfirmed", "write", load.unconfirmed_rate, _entry(SETS["unconfirmed"], load, 0))


async def plain(context: Context) -> None:
    """The same, by a client that knows no Sentinel; runs until stopped."""
    load = context.load
    await _run(context, "plain", "write", load.plain_rate, _entry(SETS["plain"], load, 0), redis_by_route)


async def counter(context: Context) -> None:
    """A counter whose every value counts when a replica has it as well; runs until stopped."""
    load = context.load

    async def increment(client: Redis, _unused: str) -> _Told:
        async with client.pipeline(transaction=False) as pipeline:
            pipeline.incr(COUNTER)
            pipeline.wait(load.wait_for_replicas, load.wait_milliseconds)
            value, replicas = await pipeline.execute()
        return _Told(str(value), _too_few(int(replicas), load))

    await _run(context, "counter", "increment", load.counter_rate, increment)


async def _run(
    context: Context,
    probe: str,
    kind: str,
    rate: float,
    send: _Send,
    connect: Callable[..., Redis] = redis_master,
) -> None:
    journal = Journal(context.directory, probe)
    seconds = context.load.timeout_seconds
    bound = bound_in_flight(rate, seconds)
    client = connect(context.targets, timeout_seconds=seconds, connections=bound + 10)

    async def attempt() -> None:
        await _write(client, journal, kind, send, seconds)

    await pace(rate, bound, context.stop, attempt, patience_seconds=seconds + 1)
    await client.aclose()
    journal.close()


async def _write(client: Redis, journal: Journal, kind: str, send: _Send, timeout_seconds: float) -> None:
    identifier = uuid.uuid4().hex
    started = time.monotonic()
    try:
        async with asyncio.timeout(timeout_seconds):
            told = await send(client, identifier)
    except (RedisError, OSError, TimeoutError) as raised:
        outcome = Outcome.ERROR if was_refused(raised) else Outcome.UNKNOWN
        journal.write(kind, outcome, identifier=identifier, started=started, error=raised)
    except asyncio.CancelledError:
        journal.write(kind, Outcome.UNKNOWN, identifier=identifier, started=started, error="the run ended")
        raise
    else:
        outcome = Outcome.UNKNOWN if told.error else Outcome.ACKED
        journal.write(kind, outcome, identifier=told.identifier, started=started, error=told.error)


def _entry(key: str, load: Load, replicas: int) -> _Send:
    """Write an entry, and ask on the same connection how many replicas have it."""

    async def send(client: Redis, identifier: str) -> _Told:
        async with client.pipeline(transaction=False) as pipeline:
            pipeline.eval(_SCRIPT, 2, key, f"{key}:latest", identifier)
            if replicas:
                pipeline.wait(replicas, load.wait_milliseconds)
            answers = await pipeline.execute()
        return _Told(identifier, _too_few(int(answers[1]), load) if replicas else None)

    return send


def _too_few(replicas: int, load: Load) -> str | None:
    if replicas >= load.wait_for_replicas:
        return None
    return f"{replicas} of {load.wait_for_replicas} replicas within {load.wait_milliseconds} ms"


def was_refused(error: BaseException) -> bool:
    """Whether the write was certainly not done. redis-py puts the pipeline's position before the answer."""
    if isinstance(error, ReadOnlyError | MasterNotFoundError):
        return True
    return isinstance(error, ResponseError) and any(word in str(error) for word in _REFUSED)
