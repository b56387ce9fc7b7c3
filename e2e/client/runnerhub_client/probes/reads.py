"""Reads on the read-only route, which replicas serve, and the primary while there is none."""

from __future__ import annotations

import asyncio
import time

from ..journal import Journal
from ..record import Outcome
from ..targets import Postgres
from .context import Context
from .database import FAILURES, connections, keep_pace
from .rows import TABLE

QUERY = f"SELECT pg_is_in_recovery(), EXISTS (SELECT FROM {TABLE})"  # noqa: S608 - a constant


async def run(context: Context) -> None:
    """Run until stopped."""
    journal = Journal(context.directory, "reads")
    postgres = connections(context, context.targets.read_only_url)

    async def read() -> None:
        await _read(postgres, journal, context.load.timeout_seconds)

    await keep_pace(context, context.load.reads_rate, read)
    await postgres.close()
    journal.close()


async def _read(postgres: Postgres, journal: Journal, timeout_seconds: float) -> None:
    started = time.monotonic()
    try:
        async with asyncio.timeout(timeout_seconds):
            connection = await postgres.take()
        remaining = timeout_seconds - (time.monotonic() - started)
        rows = await postgres.execute(connection, QUERY, None, max(remaining, 0.01))
    except FAILURES as error:
        journal.write("read", Outcome.ERROR, started=started, error=error)
    else:
        journal.write("read", Outcome.ACKED, started=started, replica=rows[0][0])
