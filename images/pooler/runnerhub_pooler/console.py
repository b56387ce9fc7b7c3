"""PgBouncer's administration console: PAUSE, with an end to the waiting, and RESUME.

Source: https://www.pgbouncer.org/usage.html#admin-console
"""

from __future__ import annotations

import select
import time
from contextlib import closing

import psycopg
from psycopg.pq import ExecStatus

from .settings import ADMIN_USER, LOCAL, Settings

CONNECT_SECONDS = 2
RESUME_SECONDS = 2.0

NO_ANSWER = (OSError, psycopg.Error)


class ConsoleError(Exception):
    """PgBouncer refused a command or did not answer in time; the message is a sentence."""


class StillBusyError(ConsoleError):
    """Transactions did not end in time."""


class Console:
    """The console of the read-write PgBouncer of this pod. Not for several threads at once."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        # Kept from before a pause until it ends, so that a PgBouncer that is full of clients can still be resumed.
        self._spare: psycopg.Connection | None = None

    def pause(self, patience_seconds: float) -> None:
        """Let running transactions end, close the connections to the server, hold all clients back.

        Raises StillBusyError when transactions go on for longer, ConsoleError when PgBouncer refuses or is not there.
        In both cases clients may be held back until `resume`.
        """
        try:
            self._spare = self._connect()
            with closing(self._connect()) as connection:
                ask(connection, f"PAUSE {self._settings.database}", patience_seconds)
        except TimeoutError as error:
            raise StillBusyError(f"transactions did not end within {patience_seconds:g} s") from error
        except NO_ANSWER as error:
            raise ConsoleError(f"PgBouncer cannot be paused: {error}".strip()) from error

    def resume(self) -> None:
        """Let the clients go on; fine when they were not held back. Raises ConsoleError when that is not certain."""
        spare, self._spare = self._spare, None
        try:
            if spare is None or not self._resume_by(spare):
                with closing(self._connect()) as connection:
                    ask(connection, f"RESUME {self._settings.database}", RESUME_SECONDS)
        except NO_ANSWER as error:
            raise ConsoleError(f"PgBouncer cannot be resumed: {error}".strip()) from error
        except ConsoleError as error:
            if "not paused" not in str(error):
                raise

    def _resume_by(self, connection: psycopg.Connection) -> bool:
        """Whether this connection still worked."""
        with closing(connection):
            try:
                ask(connection, f"RESUME {self._settings.database}", RESUME_SECONDS)
            except NO_ANSWER:
                return False
        return True

    def _connect(self) -> psycopg.Connection:
        return psycopg.connect(
            host=LOCAL,
            port=self._settings.pooler_port,
            user=ADMIN_USER,
            password=self._settings.admin_password,
            dbname="pgbouncer",
            sslmode="disable",
            gssencmode="disable",
            connect_timeout=CONNECT_SECONDS,
            autocommit=True,
        )


def ask(connection: psycopg.Connection, command: str, patience_seconds: float) -> None:
    """One command of the console. Raises TimeoutError without an answer, ConsoleError when it is refused.

    By libpq's own calls: psycopg would cancel a command that takes too long, which the console answers to by nothing.
    """
    link = connection.pgconn
    deadline = time.monotonic() + patience_seconds
    link.send_query(command.encode())
    while link.flush():
        select.select([], [link.socket], [], max(0.0, deadline - time.monotonic()))
    while link.is_busy():
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError(f"{command}: no answer within {patience_seconds:g} s")
        select.select([link.socket], [], [], left)
        link.consume_input()
    refusals = []
    while (result := link.get_result()) is not None:
        if result.status == ExecStatus.FATAL_ERROR:
            refusals.append(result.error_message.decode(errors="replace").strip())
    if refusals:
        raise ConsoleError("; ".join(refusals))
