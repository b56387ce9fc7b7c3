"""Writes several rows in one transaction, each by a statement of its own, so that all of them or none must be there.

The rows are sent as a batch, as drivers do it: one round trip for each would make every transaction several times as
long, and the client would take the time of the machine that the database needs to get going again.

The table has no unique constraint: a transaction that was applied twice shows as rows that are there twice.
"""

from __future__ import annotations

import asyncio
import time
import uuid

from ..journal import Journal
from ..record import Outcome
from ..settings import Load
from ..targets import Postgres
from .context import Context
from .database import FAILURES, connections, create_table, keep_pace

TABLE = "oracle_transactions"
CREATE = (
    f"CREATE TABLE IF NOT EXISTS {TABLE} "
    "(transaction_id uuid NOT NULL, position int NOT NULL, size int NOT NULL)",
    f"CREATE INDEX IF NOT EXISTS {TABLE}_by_id ON {TABLE} (transaction_id)",
)
INSERT = (
    f"INSERT INTO {TABLE} (transaction_id, position, size) "  # noqa: S608 - a constant
    "VALUES (%(id)s, %(position)s, %(size)s)"
)


class RolledBackError(Exception):
    """The server answered a COMMIT without an error, and with another word than COMMIT."""


async def run(context: Context) -> None:
    """Run until stopped."""
    journal = Journal(context.directory, "transactions")
    postgres = connections(context, context.targets.database_url)
    await create_table(context, journal, postgres, CREATE)

    async def write() -> None:
        await _write(postgres, journal, context.load)

    await keep_pace(context, context.load.transactions_rate, write)
    await postgres.close()
    journal.close()


async def _write(postgres: Postgres, journal: Journal, load: Load) -> None:
    attempt = _Attempt(postgres, load, str(uuid.uuid4()))
    started = time.monotonic()
    try:
        await attempt.run()
    except (*FAILURES, RolledBackError) as error:
        journal.write(
            "commit", attempt.failure(), identifier=attempt.identifier, started=started, error=error
        )
    except asyncio.CancelledError:
        journal.write(
            "commit",
            attempt.failure(),
            identifier=attempt.identifier,
            started=started,
            error="the run ended",
        )
        raise
    else:
        journal.write("commit", Outcome.ACKED, identifier=attempt.identifier, started=started)


class _Attempt:
    """One transaction. Until COMMIT was sent, its failure is certain: nothing of it may be there."""

    def __init__(self, postgres: Postgres, load: Load, identifier: str) -> None:
        self._postgres = postgres
        self._load = load
        self.identifier = identifier
        self._commit_sent = False

    def failure(self) -> Outcome:
        """What a failure at this point tells about the transaction."""
        return Outcome.UNKNOWN if self._commit_sent else Outcome.ERROR

    async def run(self) -> None:
        """Raises what the database or the network answered with, after at most a timeout per statement."""
        seconds, size = self._load.timeout_seconds, self._load.rows_per_transaction
        async with asyncio.timeout(seconds):
            connection = await self._postgres.take()
        await self._postgres.statement(connection, "BEGIN", None, seconds)
        rows = [{"id": self.identifier, "position": position, "size": size} for position in range(size)]
        await self._postgres.batch(connection, INSERT, rows, seconds)
        self._commit_sent = True
        answer = await self._postgres.statement(connection, "COMMIT", None, seconds)
        await self._postgres.give_back(connection)
        if answer.tag != "COMMIT":
            raise RolledBackError(f"COMMIT was answered by {answer.tag}")
