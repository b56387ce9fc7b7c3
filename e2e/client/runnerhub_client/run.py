"""Runs all probes side by side until a signal or the end of the time."""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from .journal import describe
from .pacing import pause
from .probes import bull, gets, jobs, leaders, queue, reads, rows, runners, transactions, websocket
from .probes.context import Context
from .settings import Load, Targets
from .targets import Tokens, http_session

# Names are looked up in threads, and a DNS server that does not answer keeps one for 10 s and more.
THREADS = 32
POLL_SECONDS = 0.2
RESTART_SECONDS = 1.0

Probe = Callable[[Context], Awaitable[None]]


async def run(targets: Targets, load: Load, directory: Path, duration_seconds: float | None) -> None:
    """Write until SIGTERM, SIGINT or the end of the duration, then work off what was acknowledged."""
    loop = asyncio.get_running_loop()
    loop.set_default_executor(ThreadPoolExecutor(THREADS))
    async with http_session() as session:
        context = Context(targets, load, directory, session, Tokens(targets.jwt_secret))
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, context.stop.set)
        writers = [asyncio.create_task(_always(probe, context)) for probe in _writers(targets, load)]
        workers = [asyncio.create_task(_always(probe, context)) for probe in _workers(targets, load)]
        if duration_seconds is None:
            await context.stop.wait()
        else:
            await pause(context.stop, duration_seconds)
        context.stop.set()
        await _settle(context, writers)
        context.stop_runners.set()
        await asyncio.gather(*writers, *workers)


def _writers(targets: Targets, load: Load) -> list[Probe]:
    wanted: list[tuple[bool, Probe]] = [
        (load.jobs_rate > 0, jobs.run),
        (load.rows_rate > 0 and bool(targets.database_url), rows.run),
        (load.transactions_rate > 0 and bool(targets.database_url), transactions.run),
        (load.reads_rate > 0 and bool(targets.read_only_url), reads.run),
        (load.queue_rate > 0 and bool(targets.sentinels), queue.confirmed),
        (load.unconfirmed_rate > 0 and bool(targets.sentinels), queue.unconfirmed),
        (load.plain_rate > 0 and bool(targets.redis_host), queue.plain),
        (load.counter_rate > 0 and bool(targets.sentinels), queue.counter),
        (load.bullmq_rate > 0 and bool(targets.sentinels), bull.produce),
        (load.websockets > 0, websocket.run),
        (load.gets_rate > 0, gets.run),
        (bool(load.leaders), leaders.run),
    ]
    return [probe for use, probe in wanted if use]


def _workers(targets: Targets, load: Load) -> list[Probe]:
    wanted: list[tuple[bool, Probe]] = [
        (load.runners > 0, runners.run),
        (load.bullmq_rate > 0 and bool(targets.sentinels), bull.work),
    ]
    return [probe for use, probe in wanted if use]


async def _always(probe: Probe, context: Context) -> None:
    """No probe ends because of its target; one that crashed is told and begun again."""
    while True:
        try:
            return await probe(context)
        except Exception as error:
            # Whatever it was: the other probes go on, and so does this one.
            print(f"probe {probe.__module__} crashed: {describe(error)}", file=sys.stderr, flush=True)
        if context.stop.is_set():
            return None
        await pause(context.stop, RESTART_SECONDS)


async def _settle(context: Context, writers: list[asyncio.Task[None]]) -> None:
    """Let the runner loops complete what was acknowledged, for a bounded time."""
    deadline = time.monotonic() + context.load.settle_seconds
    while time.monotonic() < deadline:
        writing = any(not task.done() for task in writers)
        if not writing and (not context.open_jobs or not context.load.runners):
            return
        await asyncio.sleep(POLL_SECONDS)
