"""Many jobs at once, and what became of them."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from . import facts
from .journal import Journal
from .oracle import summarise_burst
from .probes import jobs
from .probes.context import Context, unique_ids
from .settings import Load, Targets
from .targets import Tokens, http_session

AT_A_TIME = 20
POLL_SECONDS = 1.0
PATIENCE_SECONDS = 60.0


async def burst(
    targets: Targets, directory: Path, count: int, labels: Sequence[str], *, wait_seconds: float
) -> dict[str, Any]:
    """Post jobs, each until it is acknowledged, and wait for at most so long until all are completed.

    They are in the log beside those of the load, so the oracle judges them as well. `failed_tries` is how many posts
    were refused or not answered.
    """
    async with http_session() as session:
        context = Context(targets, Load(), directory, session, Tokens(targets.jwt_secret))
        journal = Journal(directory, "jobs")
        identifiers = list(itertools.islice(unique_ids(), count))
        room = asyncio.Semaphore(AT_A_TIME)
        started = time.monotonic()

        async def post(job_id: int) -> int:
            async with room:
                return await jobs.persist(context, journal, job_id, labels)

        tries = await asyncio.gather(*(post(job_id) for job_id in identifiers))
        accepted_seconds = round(time.monotonic() - started, 2)
        journal.close()
    deadline = started + wait_seconds
    names = [str(job_id) for job_id in identifiers]
    while True:
        courses = await facts.persistently(lambda: facts.job_courses(targets, names), PATIENCE_SECONDS)
        found = summarise_burst(courses)
        if found["completed"] == count or time.monotonic() >= deadline:
            return {**found, "failed_tries": sum(tries) - count, "accepted_seconds": accepted_seconds}
        await asyncio.sleep(POLL_SECONDS)
