"""The load client's database probes and their oracle against a real Postgres."""

import asyncio

import psycopg
import pytest

from runnerhub_client.oracle import Window
from runnerhub_client.run import run
from runnerhub_client.settings import Load, Targets
from runnerhub_client.verify import gaps, verify

LOAD = Load(
    jobs_rate=0,
    queue_rate=0,
    runners=0,
    websockets=0,
    rows_rate=50,
    transactions_rate=50,
    rows_per_transaction=3,
    reads_rate=50,
    connections=4,
    most_connections=10,
    timeout_seconds=2,
    settle_seconds=5,
)


@pytest.fixture
def targets(postgres_url):
    return Targets(
        hub_url="http://none",
        websocket_url="ws://none",
        jwt_secret="",
        database_url=postgres_url,
        read_only_url=postgres_url,
    )


@pytest.fixture
def connection(postgres_url):
    with psycopg.connect(postgres_url, autocommit=True) as found:
        yield found


async def judge(targets, directory):
    return await verify(targets, directory, Window(), wait_seconds=0, patience_seconds=5)


async def write_while(targets, directory, disturb, seconds=2.0):
    writing = asyncio.create_task(run(targets, LOAD, directory, seconds))
    await asyncio.sleep(seconds / 2)
    await asyncio.to_thread(disturb)
    await writing


async def test_broken_connections_lose_nothing_and_are_counted_by_sqlstate(targets, connection, tmp_path):
    def end_all_sessions():
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'runnerhub-client'"
        )

    await write_while(targets, tmp_path, end_all_sessions)
    verdict = await judge(targets, tmp_path)
    assert verdict["probes"]["rows"]["acknowledged"] > 20
    assert verdict["probes"]["transactions"]["acknowledged"] > 20
    assert [verdict[name] for name in ("lost", "partial", "phantoms", "duplicates")] == [0, 0, 0, 0]
    measured = gaps(tmp_path, Window(0, 2**32))
    assert measured["probes"]["reads"]["acknowledged"] > 20
    assert sum(measured["probes"][probe]["error_classes"].get("57P01", 0) for probe in measured["probes"]) > 0
    together = measured["stores"]["postgres"]["acknowledged"]
    assert together == sum(measured["probes"][probe]["acknowledged"] for probe in ("rows", "transactions"))


async def test_a_locked_table_ends_tries_after_the_timeout_and_nothing_of_them_is_there(
    targets, connection, tmp_path
):
    await write_while(targets, tmp_path, lambda: None, 0.5)

    def lock():
        with psycopg.connect(targets.database_url) as other:
            other.execute("LOCK TABLE oracle_transactions")
            # Longer than all that has begun by then may take.
            other.execute("SELECT pg_sleep(5)")

    await write_while(targets, tmp_path, lock)
    verdict = await judge(targets, tmp_path)
    assert verdict["probes"]["transactions"]["errors"] > 0
    assert verdict["probes"]["transactions"]["unknown"] == 0
    assert [verdict[name] for name in ("lost", "partial", "phantoms", "duplicates")] == [0, 0, 0, 0]


async def test_the_oracle_sees_what_was_tampered_with(targets, connection, tmp_path):
    await write_while(targets, tmp_path, lambda: None, 1.0)
    connection.execute(
        "DELETE FROM oracle_rows WHERE id = (SELECT id FROM oracle_rows ORDER BY written_at DESC LIMIT 1)"
    )
    last = connection.execute(
        "SELECT transaction_id FROM oracle_transactions ORDER BY ctid DESC LIMIT 1"
    ).fetchone()
    connection.execute("DELETE FROM oracle_transactions WHERE transaction_id = %s AND position = 1", last)
    connection.execute(
        "INSERT INTO oracle_transactions SELECT * FROM oracle_transactions WHERE transaction_id = %s", last
    )
    verdict = await judge(targets, tmp_path)
    assert verdict["probes"]["rows"]["lost"] == 1
    assert verdict["probes"]["transactions"]["lost"] == 1
    assert verdict["probes"]["transactions"]["partial"] == 1
    assert verdict["probes"]["transactions"]["duplicates"] == 1
