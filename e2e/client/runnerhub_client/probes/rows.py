"""Inserts rows through the pooler, each with a new id and each a transaction of its own."""

from __future__ import annotations

import asyncio
import time
import uuid

from ..journal import Journal
from ..record import Outcome
from ..targets import Postgres
from .context import Context
from .database import FAILURES, REFUSALS, connections, create_table, keep_pace

TABLE = "oracle_rows"
CREATE = f"CREATE TABLE IF NOT EXISTS {TABLE} (id uuid PRIMARY KEY, written_at timestamptz DEFAULT now())"
INSERT = f"INSERT INTO {TABLE} (id) VALUES (%(id)s)"  # noqa: S608 - a constant


async def run(context: Context) -> None:
    """Run until stopped."""
    journal = Journal(context.directory, "rows")
    postgres = connections(context, context.targets.database_url)
    await create_table(context, journal, postgres, (CREATE,))

    async def insert() -> None:
        await _insert(postgres, journal, context.load.timeout_seconds)

    await keep_pace(context, context.load.rows_rate, insert)
    await postgres.close()
    journal.close()


async def _insert(postgres: Postgres, journal: Journal, timeout_seconds: float) -> None:
    identifier = str(uuid.uuid4())
    started = time.monotonic()
    sent = False
    try:
        async with asyncio.timeout(timeout_seconds):
            connection = await postgres.take()
        sent = True
        remaining = timeout_seconds - (time.monotonic() - started)
        await postgres.execute(connection, INSERT, {"id": identifier}, max(remaining, 0.01))
    except FAILURES as error:
        certain = not sent or isinstance(error, REFUSALS)
        outcome = Outcome.ERROR if certain else Outcome.UNKNOWN
        journal.write("insert", outcome, identifier=identifier, started=started, error=error)
    except asyncio.CancelledError:
        journal.write(
            "insert", Outcome.UNKNOWN, identifier=identifier, started=started, error="the run ended"
        )
        raise
    else:
        journal.write("insert", Outcome.ACKED, identifier=identifier, started=started)
