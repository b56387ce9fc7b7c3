"""The little that is asked of Postgres itself: whether it takes writes, and a checkpoint."""

from __future__ import annotations

from collections.abc import Iterable

import psycopg

from .haproxy import Server
from .settings import MONITORING_USER, Settings

CONNECT_SECONDS = 2
ANSWER_SECONDS = 1.0
CHECKPOINT_SECONDS = 10.0


def is_writable(settings: Settings, server: Server) -> bool:
    """Whether a server's promotion is complete. Raises psycopg.Error when it does not tell."""
    with _connect(settings, server, ANSWER_SECONDS) as connection:
        row = connection.execute("SELECT NOT pg_catalog.pg_is_in_recovery()").fetchone()
    return row is not None and bool(row[0])


def checkpoint(settings: Settings, servers: Iterable[Server]) -> None:
    """Make the primary write what it has in memory, so that it stops sooner. Raises psycopg.Error."""
    for server in servers:
        if server.is_up:
            with _connect(settings, server, CHECKPOINT_SECONDS) as connection:
                connection.execute("CHECKPOINT")


def _connect(settings: Settings, server: Server, seconds: float) -> psycopg.Connection:
    return psycopg.connect(
        host=server.address,
        port=server.port,
        user=MONITORING_USER,
        password=settings.monitoring_password,
        dbname=settings.database,
        gssencmode="disable",
        connect_timeout=CONNECT_SECONDS,
        options=f"-c statement_timeout={int(seconds * 1000)}",
        application_name="pooler-agent",
        autocommit=True,
    )
