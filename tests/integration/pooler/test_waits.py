"""Commits that wait for a replica which never confirms, and whose clients leave the pooler meanwhile."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

import psycopg
import pytest
from psycopg.pq import ExecStatus

from images.postgres.runnerhub_postgres.waits import end_vanished, read_peers
from tests.integration.pooler.bench import SUPERUSER_PASSWORD, Bench, wait_until

# The autovacuum's commits wait, too.
_WAITING = (
    "SELECT query FROM pg_stat_activity"
    " WHERE wait_event = 'SyncRep' AND backend_type = 'client backend' ORDER BY query_start"
)


@pytest.fixture
def superuser(bench: Bench) -> Iterator[psycopg.Connection]:
    """A connection to a primary whose commits nobody confirms any more."""
    bench.primary.execute(
        "ALTER SYSTEM SET synchronous_standby_names = 'nobody'",
        "ALTER SYSTEM SET client_connection_check_interval = '50ms'",
        "SELECT pg_reload_conf()",
    )
    connection = psycopg.connect(
        host="127.0.0.1", port=bench.primary.port, user="postgres", password=SUPERUSER_PASSWORD,
        dbname="postgres", autocommit=True,
    )  # fmt: skip
    with contextlib.closing(connection):
        setting = "SHOW synchronous_standby_names"
        wait_until("the setting", lambda: connection.execute(setting).fetchone() == ("nobody",))
        yield connection
        release(connection)


def release(superuser: psycopg.Connection) -> None:
    """Let commits wait for nobody."""
    superuser.execute("ALTER SYSTEM RESET synchronous_standby_names")
    superuser.execute("SELECT pg_reload_conf()")


def waiting(superuser: psycopg.Connection) -> list[int]:
    """The numbers that are being written."""
    return [int(row[0].partition("(")[2].rstrip(")")) for row in superuser.execute(_WAITING).fetchall()]


def write(bench: Bench, superuser: psycopg.Connection, number: int) -> psycopg.Connection:
    """A client of the pooler that waits for its commit."""
    client = bench.connect()
    client.pgconn.send_query(f"INSERT INTO app.marks VALUES ({number})".encode())  # noqa: S608 -- a number
    client.pgconn.flush()
    wait_until(f"the commit of {number} to wait", lambda: number in waiting(superuser))
    return client


def end(bench: Bench, superuser: psycopg.Connection, share: float) -> int:
    return end_vanished(superuser, lambda: read_peers(bench.primary.port), share)


def test_only_the_waits_of_clients_that_are_gone_are_ended(
    bench: Bench, superuser: psycopg.Connection
) -> None:
    gone = [write(bench, superuser, number) for number in (1, 2, 3)]
    with contextlib.closing(write(bench, superuser, 4)) as patient:
        assert end(bench, superuser, 0) == 0
        for client in gone:
            client.close()
        time.sleep(0.5)
        assert waiting(superuser) == [1, 2, 3, 4], "Postgres notices by itself"
        ended: list[int] = []

        def are_over() -> bool:
            ended.append(end(bench, superuser, 0))
            return waiting(superuser) == [4]

        wait_until("the waits to be over", are_over)
        assert sum(ended) >= 3
        assert patient.pgconn.is_busy()
        release(superuser)
        result = patient.pgconn.get_result()
        assert result is not None
        assert result.command_status == b"INSERT 0 1"


def test_as_long_as_they_are_few_they_are_left_alone_and_the_oldest_go_first(
    bench: Bench, superuser: psycopg.Connection
) -> None:
    for number in (1, 2, 3):
        write(bench, superuser, number).close()
    connections = superuser.execute("SHOW max_connections").fetchone()
    assert connections is not None
    two = 2 / int(connections[0])
    wait_until("one to be ended", lambda: end(bench, superuser, two) == 1)
    wait_until("it to be gone", lambda: waiting(superuser) == [2, 3])
    assert end(bench, superuser, two) == 0


def test_a_wait_that_is_ended_is_no_acknowledgement(bench: Bench, superuser: psycopg.Connection) -> None:
    """Even to a client that is there: nothing but the end of the connection."""
    with contextlib.closing(write(bench, superuser, 1)) as client:
        assert end_vanished(superuser, set, 0) == 1
        while client.pgconn.is_busy():
            client.pgconn.consume_input()
        result = client.pgconn.get_result()
        assert result is not None
        assert result.status == ExecStatus.FATAL_ERROR


def test_a_client_that_cancels_its_wait_is_told_of_a_commit_that_no_replica_has(
    bench: Bench, superuser: psycopg.Connection
) -> None:
    """By a warning beside the success, which the pooler hands back: it is all that a client can heed."""
    with contextlib.closing(write(bench, superuser, 1)) as client:
        told: list[tuple[str | None, str | None]] = []
        client.add_notice_handler(
            lambda notice: told.append((notice.severity_nonlocalized, notice.message_primary))
        )
        client.cancel_safe(timeout=5)
        while client.pgconn.is_busy():
            client.pgconn.consume_input()
        result = client.pgconn.get_result()
        assert result is not None
        assert result.command_status == b"INSERT 0 1"
        assert told == [("WARNING", "canceling wait for synchronous replication due to user request")]


def test_a_timeout_of_the_server_ends_no_such_wait(bench: Bench, superuser: psycopg.Connection) -> None:
    with contextlib.closing(bench.connect()) as client:
        client.pgconn.send_query(b"SET statement_timeout = '300ms'; INSERT INTO app.marks VALUES (1)")
        client.pgconn.flush()
        wait_until("the commit to wait", lambda: len(superuser.execute(_WAITING).fetchall()) == 1)
        time.sleep(0.6)
        assert len(superuser.execute(_WAITING).fetchall()) == 1
