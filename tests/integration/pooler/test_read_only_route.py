"""The read-only route of a real pooler: to replicas that are near enough, to the primary when there are none."""

from __future__ import annotations

import contextlib

import psycopg
import pytest

from runnerhub_operator.resources.patroni import MAX_REPLICA_LAG_BYTES
from tests.integration.pooler.bench import Bench, wait_until


def is_standby(bench: Bench) -> bool | None:
    """Whether a new client finds a replica; None when it finds nobody."""
    with contextlib.suppress(psycopg.Error), bench.connect_read_only() as client:
        # Connections to the server that were made before lead where they led.
        row = client.execute("SELECT pg_is_in_recovery()").fetchone()
        return None if row is None else bool(row[0])
    return None


def reconnect(bench: Bench) -> None:
    """Have the read-only PgBouncer make its connections anew, as it does after `server_lifetime`."""
    with psycopg.connect(
        host="127.0.0.1", port=bench.read_only_port, user="pgbouncer", dbname="pgbouncer",
        password=bench.passwords["restapi-password"], autocommit=True, cursor_factory=psycopg.ClientCursor,
    ) as console:  # fmt: skip
        console.execute("RECONNECT")


def wait_for_route(bench: Bench, standby: bool) -> None:
    def leads_there() -> bool:
        reconnect(bench)
        return is_standby(bench) is standby

    wait_until(
        "the route to lead to a replica" if standby else "the route to lead to the primary", leads_there
    )


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
