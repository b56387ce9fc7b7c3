"""Asks through the load balancer, each time once: what a request by GET must not be refused."""

from __future__ import annotations

import itertools
import time

import aiohttp

from ..journal import Journal
from ..record import Outcome
from ..targets import HttpStatusError
from .context import Context
from .database import keep_pace

HEALTH = "/health"
FAILURES = (aiohttp.ClientError, OSError, TimeoutError, ValueError, HttpStatusError)


async def run(context: Context) -> None:
    """Run until stopped. In turn: the health, and the last job that was acknowledged."""
    journal = Journal(context.directory, "gets")
    turns = itertools.cycle((False, True))

    async def get() -> None:
        await _get(context, journal, _path(context, job=next(turns)))

    await keep_pace(context, context.load.gets_rate, get)
    journal.close()


def _path(context: Context, *, job: bool) -> str:
    return HEALTH if context.last_job is None or not job else f"/api/jobs/{context.last_job}"


async def _get(context: Context, journal: Journal, path: str) -> None:
    started = time.monotonic()
    try:
        status = await _ask(context, path)
    except FAILURES as error:
        journal.write("get", Outcome.ERROR, started=started, error=error, path=path)
    else:
        journal.write("get", Outcome.ACKED, started=started, path=path, status=status)


async def _ask(context: Context, path: str) -> int:
    """The status of an answer that is one. That something is down is an answer too, when an ha-agent says so."""
    async with context.session.get(
        f"{context.targets.hub_url}{path}",
        headers=context.tokens.headers(),
        timeout=aiohttp.ClientTimeout(total=context.load.timeout_seconds),
    ) as response:
        told = response.status == 200 or (path == HEALTH and response.content_type == "application/json")
        if not told:
            raise HttpStatusError(response.status, await response.text())
        await response.json()
        return response.status
