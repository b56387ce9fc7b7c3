"""Runner loops: claim a job, execute it, complete it."""

from __future__ import annotations

import asyncio
import contextlib
import time
import uuid
from typing import Any

from runnerhub_runner.hub import ERRORS, Hub, LeaseLostError

from ..journal import Journal
from ..pacing import pause
from ..record import Outcome
from .context import Context
from .jobs import LABELS

AFTER_ERROR_SECONDS = 0.5


async def run(context: Context) -> None:
    """Run all loops until stopped; each finishes the job it has."""
    journal = Journal(context.directory, "runners")
    hub = Hub(context.session, context.targets.hub_url, context.tokens.headers)
    await asyncio.gather(*(_loop(context, hub, journal, f"load-{n}") for n in range(context.load.runners)))
    journal.close()


async def _loop(context: Context, hub: Hub, journal: Journal, runner_id: str) -> None:
    # The id of a claim stays until it is answered, so that a job whose answer was lost is not left behind.
    claim_id = str(uuid.uuid4())
    while not context.stop_runners.is_set():
        started = time.monotonic()
        try:
            job = await _claim(context, hub, runner_id, claim_id)
        except ERRORS as error:
            journal.write("claim", Outcome.ERROR, started=started, error=error, runner=runner_id)
            await pause(context.stop_runners, AFTER_ERROR_SECONDS)
            continue
        claim_id = str(uuid.uuid4())
        if job:
            await _execute(context, hub, journal, job, runner_id)


async def _claim(context: Context, hub: Hub, runner_id: str, claim_id: str) -> dict[str, Any] | None:
    wait = context.load.claim_wait_seconds
    claiming = asyncio.ensure_future(hub.claim(runner_id, LABELS, claim_id=claim_id, wait_seconds=wait))
    stopping = asyncio.ensure_future(context.stop_runners.wait())
    await asyncio.wait({claiming, stopping}, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if not claiming.done():
        claiming.cancel()
        with contextlib.suppress(asyncio.CancelledError, *ERRORS):
            await claiming
        return None
    return claiming.result()


async def _execute(context: Context, hub: Hub, journal: Journal, job: dict[str, Any], runner_id: str) -> None:
    job_id, token = int(job["jobId"]), str(job["token"])
    journal.write(
        "execute",
        Outcome.ACKED,
        identifier=str(job_id),
        token=token,
        attempt=job.get("attempt"),
        runner=runner_id,
    )
    beat_seconds = max(float(job.get("leaseSeconds", 30)) / 3, 0.5)
    ends_at = time.monotonic() + context.load.work_seconds
    while (remaining := ends_at - time.monotonic()) > 0:
        await asyncio.sleep(min(remaining, beat_seconds))
        if time.monotonic() < ends_at:
            with contextlib.suppress(LeaseLostError, *ERRORS):
                await hub.heartbeat(job_id, token, timeout_seconds=context.load.timeout_seconds)
    await _complete(context, hub, journal, job_id, token)
    context.open_jobs.discard(job_id)


async def _complete(context: Context, hub: Hub, journal: Journal, job_id: int, token: str) -> None:
    """Report until somebody listens, or until the job turns out to be somebody else's."""
    started = time.monotonic()
    result, patience = {"conclusion": "success"}, context.load.timeout_seconds
    while True:
        tried = time.monotonic()
        try:
            await hub.complete(job_id, token, result, timeout_seconds=patience)
        except LeaseLostError as error:
            journal.write("superseded", Outcome.NOTE, identifier=str(job_id), token=token, why=str(error))
            return
        except ERRORS as error:
            journal.write("complete", Outcome.ERROR, identifier=str(job_id), started=tried, error=error)
        else:
            journal.write("complete", Outcome.ACKED, identifier=str(job_id), started=started, token=token)
            return
        if context.stop_runners.is_set():
            return
        await pause(context.stop_runners, AFTER_ERROR_SECONDS)
