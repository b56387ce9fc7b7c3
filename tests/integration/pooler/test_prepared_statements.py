"""Prepared statements of the protocol through a real PgBouncer, whose transactions go to whichever server is free."""

from __future__ import annotations

import contextlib
import threading

import psycopg
import pytest

from tests.integration.pooler.bench import (
    PREPARED_STATEMENTS_SINCE,
    Bench,
    missing,
    pgbouncer_version,
    wait_until,
)

pytestmark = pytest.mark.skipif(
    not missing() and pgbouncer_version() < PREPARED_STATEMENTS_SINCE,
    reason="this machine's PgBouncer knows no prepared statements in transaction pooling before 1.21",
)


def connect(bench: Bench) -> psycopg.Connection:
    """A client that prepares each statement."""
    client = bench.connect()
    client.prepare_threshold = 0
    return client


def prepare(client: psycopg.Connection, number: int) -> None:
    client.execute("INSERT INTO app.marks VALUES (%s)", [number])


def test_a_statement_is_there_on_whichever_server_connection_the_client_gets(bench: Bench) -> None:
    with connect(bench) as client, bench.connect() as other:
        prepare(client, 1)
        # The first server connection is taken, so the client gets another one.
        other.execute("BEGIN")
        other.execute("SELECT 1")
        prepare(client, 2)
        other.execute("COMMIT")
        prepare(client, 3)
    assert bench.marks(bench.primary) == {1, 2, 3}


def test_clients_use_the_same_name_for_different_statements(bench: Bench) -> None:
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(connect(bench)) for _ in range(4)]
        for round_number in range(3):
            for number, client in enumerate(clients):
                row = client.execute(f"SELECT {number} + %s::int".encode(), [round_number]).fetchone()
                assert row == (number + round_number,)


def test_statements_outlive_a_change_of_the_primary(bench: Bench) -> None:
    with connect(bench) as client:
        prepare(client, 1)
        assert bench.pause() == 200
        switching = threading.Thread(target=bench.switch)
        switching.start()
        prepare(client, 2)
        switching.join()
        prepare(client, 3)
    wait_until("the writes", lambda: bench.marks(bench.replica) == {1, 2, 3})
