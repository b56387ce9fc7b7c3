"""Runner loops: claim a job, execute it, complete it."""

from __future__ import annotations

import asyncio
import contextlib
import time
import uuid
from typing import Any

import aiohttp

from ..journal import Journal
from ..pacing import pause
from ..record import Outcome
from .context import Context

AFTER_ERROR_SECONDS = 0.5
# A claim is answered at the latest when its wait is over; the rest is the way there and back.
CLAIM_SLACK_SECONDS = 5.0
_ERRORS = (aiohttp.ClientError, OSError, TimeoutError, ValueError)


async def run(context: Context) -> None:
    """Run all loops until stopped; each finishes the job it has."""
    journal = Journal(context.directory, "runners")
    await asyncio.gather(*(_loop(context, journal, f"load-{n}") for n in range(context.load.runners)))
    journal.close()


async def _loop(context: Context, journal: Journal, runner_id: str) -> None:
    # The id of a claim stays until it is answered, so that a job whose answer was lost is not left behind.
    claim_id = str(uuid.uuid4())
    while not context.stop_runners.is_set():
        started = time.monotonic()
        try:
            job = await _claim(context, runner_id, claim_id)
        except _ERRORS as error:
            journal.write("claim", Outcome.ERROR, started=started, error=error, runner=runner_id)
            await pause(context.stop_runners, AFTER_ERROR_SECONDS)
            continue
        claim_id = str(uuid.uuid4())
        if job:
            await _execute(context, journal, job, runner_id)


async def _claim(context: Context, runner_id: str, claim_id: str) -> dict[str, Any] | None:
    wait = context.load.claim_wait_seconds
    body = {"runnerId": runner_id, "labels": [], "waitSeconds": wait, "claimId": claim_id}
    claiming = asyncio.ensure_future(_post(context, "/api/runners/claim", body, wait + CLAIM_SLACK_SECONDS))
    stopping = asyncio.ensure_future(context.stop_runners.wait())
    await asyncio.wait({claiming, stopping}, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if not claiming.done():
        claiming.cancel()
        with contextlib.suppress(asyncio.CancelledError, *_ERRORS):
            await claiming
        return None
    status, answer = claiming.result()
    if status == 204:
        return None
    if status != 200:
        raise ValueError(f"HTTP {status}: {answer}")
    return answer


async def _execute(context: Context, journal: Journal, job: dict[str, Any], runner_id: str) -> None:
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
            with contextlib.suppress(*_ERRORS):
                await _post(
                    context,
                    f"/api/jobs/{job_id}/heartbeat",
                    {"token": token},
                    context.load.timeout_seconds,
                )
    await _complete(context, journal, job_id, token)
    context.open_jobs.discard(job_id)


async def _complete(context: Context, journal: Journal, job_id: int, token: str) -> None:
    """Report until somebody listens, or until the job turns out to be somebody else's."""
    started = time.monotonic()
    body = {"token": token, "result": {"conclusion": "success"}}
    while True:
        tried = time.monotonic()
        try:
            status, answer = await _post(
                context, f"/api/jobs/{job_id}/complete", body, context.load.timeout_seconds
            )
        except _ERRORS as error:
            journal.write("complete", Outcome.ERROR, identifier=str(job_id), started=tried, error=error)
        else:
            if status == 200:
                journal.write("complete", Outcome.ACKED, identifier=str(job_id), started=started, token=token)
                return
            if status in {404, 409} and (answer or {}).get("error") in {"LeaseLost", "JobNotFound"}:
                journal.write("superseded", Outcome.NOTE, identifier=str(job_id), token=token, status=status)
                return
            journal.write(
                "complete",
                Outcome.ERROR,
                identifier=str(job_id),
                started=tried,
                error=f"HTTP {status}: {answer}",
            )
        if context.stop_runners.is_set():
            return
        await pause(context.stop_runners, AFTER_ERROR_SECONDS)


async def _post(
    context: Context, path: str, body: dict[str, Any], timeout_seconds: float
) -> tuple[int, dict[str, Any] | None]:
    async with context.session.post(
        context.targets.hub_url + path,
        json=body,
        headers=context.tokens.headers(),
        timeout=aiohttp.ClientTimeout(total=timeout_seconds),
    ) as response:
        if response.status == 204:
            return 204, None
        # Balancers answer with pages of their own.
        if response.content_type != "application/json":
            return response.status, None
        answer = await response.json()
        return response.status, answer if isinstance(answer, dict) else None
