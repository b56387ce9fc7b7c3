"""What the probes of Postgres share: their pace, the table they need, and what may go wrong."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import psycopg

from ..journal import Journal
from ..pacing import bound_in_flight, pace, pause
from ..record import Outcome
from ..targets import Postgres, UnreplicatedError
from .context import Context

# All that a database behind a network may answer with. The last one is a yes that the oracle cannot count on.
FAILURES = (psycopg.Error, OSError, TimeoutError, UnreplicatedError)
# The server refused before it did anything.
REFUSALS = (psycopg.errors.ReadOnlySqlTransaction, psycopg.errors.UndefinedTable)
RETRY_SECONDS = 0.5


def connections(context: Context, url: str) -> Postgres:
    """Connections of one probe. A login may take as long as a statement: a paused pooler keeps both waiting."""
    return Postgres(
        url,
        password_file=context.targets.database_password_file,
        keep=context.load.connections,
        connect_timeout_seconds=context.load.timeout_seconds,
    )


async def keep_pace(context: Context, rate: float, attempt: Callable[[], Awaitable[None]]) -> None:
    """Begin `attempt` `rate` times a second until the run stops."""
    load = context.load
    await pace(
        rate,
        bound_in_flight(rate, load.timeout_seconds, load.most_connections),
        context.stop,
        attempt,
        patience_seconds=load.timeout_seconds + 1,
    )


async def create_table(
    context: Context, journal: Journal, postgres: Postgres, statements: tuple[str, ...]
) -> None:
    """Run the statements that make the probe's table, again and again until each has worked."""
    for statement in statements:
        while not context.stop.is_set():
            try:
                connection = await postgres.take()
                await postgres.execute(connection, statement, None, context.load.timeout_seconds)
            except FAILURES as error:
                journal.write("create-table", Outcome.ERROR, error=error)
                await pause(context.stop, RETRY_SECONDS)
            else:
                break
