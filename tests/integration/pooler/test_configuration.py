"""Settings of PgBouncer that change while its clients work."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

import aiohttp
import pytest

from runnerhub_operator.errors import ProbeError
from runnerhub_operator.probes import pgbouncer
from tests.integration.pooler.bench import CONFIGURATIONS, Bench, wait_until

# What the played Postgres has.
ROOM = 100


def write(bench: Bench, route: int = 0, *, needs: int, **settings: int) -> None:
    """The file of a route, at first the read-write one, with other settings, swapped as kubelet does."""
    path = bench.home / CONFIGURATIONS[route]
    text = re.sub(r"(needs max_connections =) .*", rf"\g<1> {needs}", path.read_text())
    for name, value in settings.items():
        text = re.sub(rf"^{name} = .*", f"{name} = {value}", text, flags=re.MULTILINE)
    new = path.with_name("new")
    new.write_text(text)
    new.replace(path)


def setting(bench: Bench, name: str) -> str:
    """What PgBouncer goes by."""
    with contextlib.closing(bench.console()) as console:
        return next(str(row[1]) for row in console.execute("SHOW CONFIG") if row[0] == name)


def test_a_changed_file_is_read_again_and_clients_notice_nothing(bench: Bench) -> None:
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(contextlib.closing(bench.connect())) for _ in range(10)]
        for client in clients:
            client.execute("BEGIN")
            client.execute("SELECT 1")
        write(bench, needs=ROOM, default_pool_size=7, max_db_connections=12, max_client_conn=444)
        wait_until("PgBouncer to follow", lambda: setting(bench, "default_pool_size") == "7")
        for client in clients:
            client.execute("INSERT INTO app.marks VALUES (1)")
            client.execute("COMMIT")
            client.execute("SELECT 1")
    assert setting(bench, "max_client_conn") == "444"
    assert setting(bench, "max_db_connections") == "12"


def test_larger_pools_wait_for_room_in_postgres(bench: Bench) -> None:
    write(bench, needs=ROOM + 1, default_pool_size=40)
    log = bench.home / "agent.log"
    wait_until("the agent to look", lambda: f"is {ROOM}, and {ROOM + 1} are needed" in log.read_text())
    time.sleep(1.5)
    with contextlib.closing(bench.console()) as console:
        # As for new passwords, and by an agent that has just started.
        console.execute("RELOAD")
    assert setting(bench, "default_pool_size") == "20"
    write(bench, needs=ROOM, default_pool_size=40)
    wait_until("PgBouncer to follow", lambda: setting(bench, "default_pool_size") == "40")


def test_a_new_pod_takes_few_connections_until_postgres_has_room(bench: Bench) -> None:
    write(bench, needs=ROOM + 1, default_pool_size=40, max_db_connections=45)
    bench.renew_pooler()

    def work(_number: int) -> int:
        with contextlib.closing(bench.connect()) as client:
            client.execute("SELECT pg_sleep(0.5)")
            [[connections]] = client.execute(
                "SELECT count(*) FROM pg_stat_activity WHERE usename = current_user"
            ).fetchall()
        return int(connections)

    with ThreadPoolExecutor(12) as clients:
        assert max(clients.map(work, range(12))) <= 5, "the others wait"
        write(bench, needs=ROOM, default_pool_size=40, max_db_connections=45)
        wait_until("PgBouncer to follow", lambda: setting(bench, "default_pool_size") == "40")
        assert setting(bench, "max_db_connections") == "45"
        wait_until("more connections", lambda: max(clients.map(work, range(12))) > 5)


async def test_the_operator_asks_what_the_pools_in_effect_need(bench: Bench) -> None:
    async def needed(*hosts: str) -> Mapping[str, int | None]:
        async with aiohttp.ClientSession() as http:
            return await pgbouncer.needed_connections(http, hosts, deadline_seconds=15, port=bench.agent_port)

    assert await needed() == {}
    # The read-only route is of the default, which waits.
    with pytest.raises(ProbeError, match="not known yet"):
        await needed("127.0.0.1")
    for route in range(2):
        write(bench, route, needs=ROOM - route, default_pool_size=10)
    wait_until("both to follow", lambda: (bench.home / "agent.log").read_text().count("is in effect") == 2)
    assert await needed("127.0.0.1") == {"127.0.0.1": ROOM}


def test_nothing_is_read_again_while_clients_are_held_back(bench: Bench) -> None:
    assert bench.pause(seconds=8) == 200
    write(bench, needs=ROOM, default_pool_size=7)
    time.sleep(1.5)
    assert setting(bench, "default_pool_size") == "20"
    wait_until("PgBouncer to follow", lambda: setting(bench, "default_pool_size") == "7")
