"""The little that is asked of Postgres itself: whether it takes writes, a checkpoint, and whether it lets one in."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import closing

import psycopg

from .console import ConsoleError, ask
from .credentials import Credentials
from .haproxy import Server
from .settings import MONITORING_USER, Settings

CONNECT_SECONDS = 2
ANSWER_SECONDS = 1.0
CHECKPOINT_SECONDS = 10.0
# For the way; a member that freezes after the login does not keep to its own limit.
MARGIN_SECONDS = 0.5


class Database:
    """The members of the database, spoken to as the monitoring role."""

    def __init__(self, settings: Settings, credentials: Credentials) -> None:
        self._settings = settings
        self._credentials = credentials

    def is_writable(self, server: Server) -> bool:
        """Whether a server's promotion is complete. Raises psycopg.Error when it does not tell."""
        with closing(self.connect(server)) as connection:
            return self.is_writable_by(connection)

    def is_writable_by(self, connection: psycopg.Connection) -> bool:
        """The same, by a connection that stays open. Raises psycopg.Error, and then it is of no more use."""
        return _value(connection, "SELECT NOT pg_catalog.pg_is_in_recovery()", ANSWER_SECONDS) == "t"

    def checkpoint(self, servers: Iterable[Server]) -> None:
        """Make the primary write what it has in memory, so that it stops sooner. Raises psycopg.Error."""
        for server in servers:
            if server.is_up:
                self._ask(server, "CHECKPOINT", CHECKPOINT_SECONDS)

    def room(self, servers: Iterable[Server]) -> int:
        """The least max_connections of those that are up. Raises psycopg.Error when one does not tell, or none is."""
        told = [
            int(self._ask(server, "SHOW max_connections", ANSWER_SECONDS))
            for server in servers
            if server.is_up
        ]
        if not told:
            raise psycopg.OperationalError("no member of the database is up")
        return min(told)

    def lets_in(self, servers: Iterable[Server], user: str, password: str) -> bool:
        """Whether the primary is there and takes a password."""
        primary = next((server for server in servers if server.is_up), None)
        if primary is None:
            return False
        try:
            self.connect(primary, ANSWER_SECONDS, user, password).close()
        except psycopg.Error:
            return False
        return True

    def connect(
        self,
        server: Server,
        seconds: float = ANSWER_SECONDS,
        user: str = MONITORING_USER,
        password: str | None = None,
    ) -> psycopg.Connection:
        """Log in; a statement may take so many seconds. Without a password the monitoring role's counts.

        Raises psycopg.Error.
        """
        return psycopg.connect(
            host=server.address,
            port=server.port,
            user=user,
            password=self._credentials.current.monitoring if password is None else password,
            dbname=self._settings.database,
            gssencmode="disable",
            connect_timeout=CONNECT_SECONDS,
            options=f"-c statement_timeout={int(seconds * 1000)}",
            application_name="pooler-agent",
            autocommit=True,
        )

    def _ask(self, server: Server, command: str, seconds: float) -> str:
        with closing(self.connect(server, seconds)) as connection:
            return _value(connection, command, seconds)


def _value(connection: psycopg.Connection, command: str, seconds: float) -> str:
    """The one value that a member answers, "" when there is none. Raises psycopg.Error, also without an answer."""
    try:
        rows = ask(connection, command, seconds + MARGIN_SECONDS)
    except (OSError, ConsoleError) as error:
        raise psycopg.OperationalError(f"{connection.info.host}: {error}") from error
    return next((value for row in rows for value in row.values()), "")
