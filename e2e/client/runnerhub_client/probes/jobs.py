"""Delegates jobs through the load balancer; the same job again until it is acknowledged."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

import aiohttp

from ..journal import Journal
from ..pacing import bound_in_flight, pace, pause
from ..record import Outcome
from ..targets import HttpStatusError
from .context import Context, unique_ids

FIRST_PAUSE_SECONDS = 0.2
LONGEST_PAUSE_SECONDS = 1.0
# Of the client's own runners: those of a pool under test would otherwise take its jobs, and never be idle.
LABELS = ("load-client",)
# The set is for ending early when all is done, not for the verdict, so it may forget under a huge backlog.
MOST_OPEN_JOBS = 100_000


async def run(context: Context) -> None:
    """Run until stopped."""
    journal = Journal(context.directory, "jobs")
    ids = unique_ids()

    async def delegate() -> None:
        if not context.jobs_paused():
            await persist(context, journal, next(ids), LABELS)

    await pace(
        context.load.jobs_rate,
        bound_in_flight(context.load.jobs_rate, 4 * context.load.timeout_seconds),
        context.stop,
        delegate,
        patience_seconds=context.load.settle_seconds,
    )
    journal.close()


async def persist(context: Context, journal: Journal, job_id: int, labels: Sequence[str]) -> int:
    """Delegate one job until it is acknowledged; how many tries that took."""
    first_try = time.monotonic()
    attempt = 0
    wait = FIRST_PAUSE_SECONDS
    try:
        while True:
            attempt += 1
            started = time.monotonic()
            error = await _post(context, job_id, labels)
            if error is None:
                _remember(context, job_id)
                journal.write(
                    "delegate", Outcome.ACKED, identifier=str(job_id), started=first_try, attempts=attempt
                )
                return attempt
            # The same id is tried again, so this try's outcome does not matter, only that a client saw it.
            journal.write(
                "delegate",
                Outcome.ERROR,
                identifier=str(job_id),
                started=started,
                error=error,
                attempt=attempt,
            )
            await pause(context.stop_runners, wait)
            wait = min(wait * 2, LONGEST_PAUSE_SECONDS)
    except asyncio.CancelledError:
        journal.write(
            "delegate",
            Outcome.UNKNOWN,
            identifier=str(job_id),
            started=first_try,
            error="the run ended",
            attempts=attempt,
        )
        raise


async def _post(context: Context, job_id: int, labels: Sequence[str]) -> BaseException | str | None:
    """None when acknowledged."""
    body = {
        "jobId": job_id,
        "runId": job_id,
        "repository": "runnerhub/load",
        "workflow": "load-client",
        "labels": list(labels),
    }
    try:
        async with context.session.post(
            f"{context.targets.hub_url}/api/jobs/delegate",
            json=body,
            headers=context.tokens.headers(),
            timeout=aiohttp.ClientTimeout(total=context.load.timeout_seconds),
        ) as response:
            if response.status in {200, 201}:
                # An acknowledgement is one only when it is complete and speaks of this job.
                answer = await response.json()
                return None if answer.get("jobId") == job_id else f"answer about another job: {answer}"
            return HttpStatusError(response.status, await response.text())
    except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
        return error


def _remember(context: Context, job_id: int) -> None:
    context.last_job = job_id
    if len(context.open_jobs) < MOST_OPEN_JOBS:
        context.open_jobs.add(job_id)
