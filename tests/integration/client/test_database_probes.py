"""The load client's database probes and their oracle against a real Postgres."""

import asyncio
import time

import psycopg
import pytest

from runnerhub_client.gaps import gaps
from runnerhub_client.journal import read
from runnerhub_client.oracle import Window
from runnerhub_client.record import Outcome
from runnerhub_client.settings import Load, Targets
from runnerhub_client.verify import verify
from tests.integration.client.test_queue_probes import writing, wrote

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
    timeout_seconds=10,
    settle_seconds=5,
)
# So many tries of each probe tell enough.
MANY = 20
WRITERS = ("rows", "transactions")


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
    return await verify(targets, directory, Window(), wait_seconds=0, patience_seconds=30)


async def test_broken_connections_lose_nothing_and_are_counted_by_sqlstate(targets, connection, tmp_path):
    def end_all_sessions():
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'runnerhub-client'"
        )

    probes = (*WRITERS, "reads")
    async with writing(targets, LOAD, tmp_path) as until:
        await until(lambda: wrote(tmp_path, probes, MANY))
        await asyncio.to_thread(end_all_sessions)
        ended = time.time()
        await until(lambda: wrote(tmp_path, probes, MANY, ended))
    verdict = await judge(targets, tmp_path)
    assert all(verdict["probes"][probe]["acknowledged"] > 2 * MANY for probe in WRITERS)
    assert [verdict[name] for name in ("lost", "partial", "phantoms", "duplicates")] == [0, 0, 0, 0]
    measured = gaps(tmp_path, Window(0, 2**32))
    assert sum(measured["probes"][probe]["error_classes"].get("57P01", 0) for probe in measured["probes"]) > 0
    together = measured["stores"]["postgres"]["acknowledged"]
    assert together == sum(measured["probes"][probe]["acknowledged"] for probe in WRITERS)


async def test_a_locked_table_ends_tries_after_the_timeout_and_nothing_of_them_is_there(targets, tmp_path):
    locked = time.time()

    def begun_after_lock():
        # One that was begun before may have been committed, or be in doubt on a busy machine.
        return [
            record
            for record in read(tmp_path, "transactions", locked)
            if record.kind == "commit" and record.wall - record.latency > locked
        ]

    # The lock is held until all that was begun has ended.
    with psycopg.connect(targets.database_url) as other:
        async with writing(targets, LOAD, tmp_path) as until:
            await until(lambda: wrote(tmp_path, ("transactions",), MANY))
            # In a thread, as it waits for transactions that go on here.
            await asyncio.to_thread(other.execute, "LOCK TABLE oracle_transactions")
            locked = time.time()
            await until(begun_after_lock)
            await until(lambda: wrote(tmp_path, ("rows",), MANY, locked))
    ended = begun_after_lock()
    assert {record.outcome for record in ended} == {Outcome.ERROR}
    assert min(record.latency for record in ended if record.details) >= LOAD.timeout_seconds
    verdict = await judge(targets, tmp_path)
    assert verdict["probes"]["transactions"]["errors"] > 0
    assert [verdict[name] for name in ("lost", "partial", "phantoms", "duplicates")] == [0, 0, 0, 0]


async def test_the_oracle_sees_what_was_tampered_with(targets, connection, tmp_path):
    async with writing(targets, LOAD, tmp_path) as until:
        await until(lambda: wrote(tmp_path, WRITERS, MANY))
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
