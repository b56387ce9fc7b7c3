"""Inserts rows through the pooler, each with a new id."""

from __future__ import annotations

import asyncio
import time
import uuid

import psycopg

from ..journal import Journal
from ..pacing import bound_in_flight, pace, pause
from ..record import Outcome
from ..targets import Postgres, UnreplicatedError
from .context import Context

TABLE = "oracle_rows"
CREATE = f"CREATE TABLE IF NOT EXISTS {TABLE} (id uuid PRIMARY KEY, written_at timestamptz DEFAULT now())"
INSERT = f"INSERT INTO {TABLE} (id) VALUES (%(id)s)"  # noqa: S608 - a constant
RETRY_SECONDS = 0.5

# The server refused before it did anything.
_REFUSED = (psycopg.errors.ReadOnlySqlTransaction, psycopg.errors.UndefinedTable)


async def run(context: Context) -> None:
    """Run until stopped."""
    journal = Journal(context.directory, "rows")
    postgres = Postgres(context.targets.database_url)
    await _create_table(context, journal, postgres)
    rate = context.load.rows_rate

    async def insert() -> None:
        await _insert(postgres, journal, context.load.timeout_seconds)

    await pace(
        rate,
        bound_in_flight(rate, context.load.timeout_seconds),
        context.stop,
        insert,
        patience_seconds=context.load.timeout_seconds + 1,
    )
    await postgres.close()
    journal.close()


async def _create_table(context: Context, journal: Journal, postgres: Postgres) -> None:
    while not context.stop.is_set():
        try:
            connection = await postgres.take()
            await postgres.execute(connection, CREATE, None, context.load.timeout_seconds)
        except (psycopg.Error, OSError, TimeoutError, UnreplicatedError) as error:
            journal.write("create-table", Outcome.ERROR, error=error)
            await pause(context.stop, RETRY_SECONDS)
        else:
            return


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
    except (psycopg.Error, OSError, TimeoutError, UnreplicatedError) as error:
        certain = not sent or isinstance(error, _REFUSED)
        outcome = Outcome.ERROR if certain else Outcome.UNKNOWN
        journal.write("insert", outcome, identifier=identifier, started=started, error=error)
    except asyncio.CancelledError:
        journal.write(
            "insert", Outcome.UNKNOWN, identifier=identifier, started=started, error="the run ended"
        )
        raise
    else:
        journal.write("insert", Outcome.ACKED, identifier=identifier, started=started)
