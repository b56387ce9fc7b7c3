"""The little that is asked of Postgres itself: whether it takes writes, a checkpoint, and whether it lets one in."""

from __future__ import annotations

from collections.abc import Iterable

import psycopg

from .credentials import Credentials
from .haproxy import Server
from .settings import MONITORING_USER, Settings

CONNECT_SECONDS = 2
ANSWER_SECONDS = 1.0
CHECKPOINT_SECONDS = 10.0


class Database:
    """The members of the database, spoken to as the monitoring role."""

    def __init__(self, settings: Settings, credentials: Credentials) -> None:
        self._settings = settings
        self._credentials = credentials

    def is_writable(self, server: Server) -> bool:
        """Whether a server's promotion is complete. Raises psycopg.Error when it does not tell."""
        with self._connect(server, ANSWER_SECONDS) as connection:
            row = connection.execute("SELECT NOT pg_catalog.pg_is_in_recovery()").fetchone()
        return row is not None and bool(row[0])

    def checkpoint(self, servers: Iterable[Server]) -> None:
        """Make the primary write what it has in memory, so that it stops sooner. Raises psycopg.Error."""
        for server in servers:
            if server.is_up:
                with self._connect(server, CHECKPOINT_SECONDS) as connection:
                    connection.execute("CHECKPOINT")

    def room(self, servers: Iterable[Server]) -> int:
        """The least max_connections of those that are up. Raises psycopg.Error when one does not tell, or none is."""
        told = []
        for server in servers:
            if server.is_up:
                with self._connect(server, ANSWER_SECONDS) as connection:
                    row = connection.execute("SHOW max_connections").fetchone()
                told.append(int(row[0]) if row is not None else 0)
        if not told:
            raise psycopg.OperationalError("no member of the database is up")
        return min(told)

    def lets_in(self, servers: Iterable[Server], user: str, password: str) -> bool:
        """Whether the primary is there and takes a password."""
        primary = next((server for server in servers if server.is_up), None)
        if primary is None:
            return False
        try:
            self._connect(primary, ANSWER_SECONDS, user, password).close()
        except psycopg.Error:
            return False
        return True

    def _connect(
        self, server: Server, seconds: float, user: str = MONITORING_USER, password: str | None = None
    ) -> psycopg.Connection:
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
