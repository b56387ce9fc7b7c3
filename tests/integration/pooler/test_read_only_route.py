"""The read-only route of a real pooler: to replicas that are near enough, to the primary when there are none."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from runnerhub_operator.resources.patroni import MAX_REPLICA_LAG_BYTES
from tests.integration.pooler.bench import MEMBERS, Bench, wait_until


def is_standby(bench: Bench) -> bool | None:
    """Whether a new client finds a replica; None when it finds nobody."""
    with contextlib.suppress(psycopg.Error), bench.connect_read_only() as client:
        # Connections to the server that were made before lead where they led.
        row = client.execute("SELECT pg_is_in_recovery()").fetchone()
        return None if row is None else bool(row[0])
    return None


def console(bench: Bench) -> psycopg.Connection:
    """Of the read-only PgBouncer."""
    return psycopg.connect(
        host="127.0.0.1", port=bench.read_only_port, user="pgbouncer", dbname="pgbouncer",
        password=bench.passwords["restapi-password"], autocommit=True, cursor_factory=psycopg.ClientCursor,
    )  # fmt: skip


def reconnect(bench: Bench) -> None:
    """Have the read-only PgBouncer make its connections anew, as it does after `server_lifetime`."""
    with console(bench) as connection:
        connection.execute("RECONNECT")


def pool_size(bench: Bench) -> int:
    """What the read-only PgBouncer goes by."""
    with console(bench) as connection:
        settings = {row[0]: row[1] for row in connection.execute("SHOW CONFIG")}
    return int(settings["default_pool_size"])


def wait_for_route(bench: Bench, standby: bool) -> None:
    def leads_there() -> bool:
        reconnect(bench)
        return is_standby(bench) is standby

    wait_until(
        "the route to lead to a replica" if standby else "the route to lead to the primary", leads_there
    )


def leave(bench: Bench, member: str) -> float:
    """Ask the agent until it has done it, which it may refuse when the machine is busy.

    Gives the seconds that its last answer took.
    """
    seconds = 0.0

    def is_left() -> bool:
        nonlocal seconds
        started = time.monotonic()
        status = bench.call("/leave", {"member": member})
        seconds = time.monotonic() - started
        return status == 200

    wait_until("the agent to leave", is_left)
    return seconds


def test_readers_get_a_replica_as_long_as_it_is_near(bench: Bench) -> None:
    wait_for_route(bench, standby=True)
    bench.replica.lag_bytes = MAX_REPLICA_LAG_BYTES
    wait_for_route(bench, standby=True)
    bench.replica.lag_bytes = MAX_REPLICA_LAG_BYTES + 1
    wait_for_route(bench, standby=False)
    bench.replica.lag_bytes = 0
    wait_for_route(bench, standby=True)


def test_without_a_replica_the_primary_serves_and_takes_no_writes(bench: Bench) -> None:
    wait_for_route(bench, standby=True)
    bench.replica.control("-m", "fast", "stop")
    wait_until("the primary to serve", lambda: is_standby(bench) is False)
    with bench.connect_read_only() as client, pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
        client.execute("INSERT INTO app.marks VALUES (1)")
    bench.replica.start()
    wait_for_route(bench, standby=True)


def test_the_read_write_route_takes_writes_all_the_while(bench: Bench) -> None:
    bench.replica.control("-m", "fast", "stop")
    with bench.connect() as client:
        client.execute("INSERT INTO app.marks VALUES (1)")
    assert bench.marks(bench.primary) == {1}


@contextlib.contextmanager
def readers(bench: Bench) -> Iterator[list[str]]:
    """Clients that read without a break; gives their errors."""
    stop, errors, have_read = threading.Event(), list[str](), set[int]()

    def read(number: int) -> None:
        try:
            with contextlib.closing(bench.connect_read_only()) as client:
                while not stop.wait(0.005):
                    client.execute("SELECT count(*) FROM app.marks")
                    have_read.add(number)
        except psycopg.Error as error:
            errors.append(f"{type(error).__name__}: {error}")

    threads = [threading.Thread(target=read, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    try:
        wait_until("all to have read", lambda: len(have_read) + len(errors) >= len(threads))
        yield errors
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def test_readers_of_a_replica_that_stops_see_no_error(bench: Bench) -> None:
    wait_for_route(bench, standby=True)
    with readers(bench) as errors:
        leave(bench, MEMBERS[1])
        assert is_standby(bench) is False
        bench.replica.control("-m", "fast", "stop")
        time.sleep(2)
    assert errors == []
    bench.replica.start()
    wait_for_route(bench, standby=True)


def test_readers_whose_connections_are_being_made_see_no_error(bench: Bench) -> None:
    wait_for_route(bench, standby=True)
    with readers(bench) as errors:
        # Each comes while some of what the one before had made anew still logs in.
        for _ in range(100):
            leave(bench, MEMBERS[1])
    assert errors == []


def test_two_who_leave_at_once_leave_the_pool_as_large_as_it_was(bench: Bench) -> None:
    wait_for_route(bench, standby=True)
    size = pool_size(bench)

    def leave_often() -> None:
        for _ in range(20):
            leave(bench, MEMBERS[1])

    with readers(bench) as errors, ThreadPoolExecutor() as pool:
        for done in [pool.submit(leave_often) for _ in range(4)]:
            done.result()
    assert errors == []
    # One that was refused leaves it small for a moment.
    wait_until("the pool to be as it was", lambda: pool_size(bench) == size)


def test_a_pool_that_an_agent_left_small_is_made_large_again(bench: Bench) -> None:
    size = pool_size(bench)
    assert bench.agent is not None
    bench.agent.kill()
    bench.agent.wait()
    with console(bench) as connection:
        connection.execute("SET default_pool_size = 1")
    # The files are not read again for another reason.
    bench.replica.control("-m", "fast", "stop")
    bench.start_agent()
    wait_until("the pool to be as it was", lambda: pool_size(bench) == size)


def test_a_replica_does_not_wait_for_a_long_read(bench: Bench) -> None:
    wait_for_route(bench, standby=True)
    with contextlib.closing(bench.connect_read_only()) as client:
        client.execute("BEGIN")
        client.execute("SELECT 1")
        assert leave(bench, MEMBERS[1]) < 8


def test_the_primary_is_no_replica_to_be_left(bench: Bench) -> None:
    leave(bench, MEMBERS[0])
    leave(bench, "nobody")
    assert bench.call("/leave", {"member": 1}) == 400
