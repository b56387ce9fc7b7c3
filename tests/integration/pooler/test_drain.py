"""A pooler pod that stops: its clients move to another one, told between two transactions, and see no error.

The other pod is played by the database itself. All addresses here are of loopback, so tests say which are of the pod.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import select
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator

import psycopg
import pytest

from images.pooler.runnerhub_pooler import console as console_module
from images.pooler.runnerhub_pooler import drain as drain_module
from images.pooler.runnerhub_pooler.console import Console
from images.pooler.runnerhub_pooler.drain import drain
from runnerhub_client import targets
from runnerhub_client.targets import Postgres
from tests.integration.pooler.bench import DATABASE, PASSWORDS, REPOSITORY, Bench, wait_until


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drain_module, "REMOVAL_SECONDS", 0.2)
    monkeypatch.setattr(drain_module, "RESTING_SECONDS", 2.0)
    monkeypatch.setattr(drain_module, "BUSY_AFTER_SECONDS", 2.5)
    monkeypatch.setattr(drain_module, "PATIENCE_SECONDS", 2.5)


@pytest.fixture
def from_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the clients come from other pods."""
    monkeypatch.setattr(console_module, "_is_local", lambda _: False)


def drained(
    bench: Bench, seconds: float = 30, is_held_back: Callable[[], bool] = lambda: False
) -> tuple[str, float]:
    """How it ended, and after how many seconds."""
    started = time.monotonic()
    console = Console(bench.pooler_port, lambda: (PASSWORDS["restapi-password"],))
    outcome = drain(console, lambda: time.monotonic() - started < seconds, is_held_back)
    return outcome, time.monotonic() - started


def is_told(client: psycopg.Connection) -> bool:
    """Whether the server has ended a connection that rests, as a pool of connections looks before it gives one away."""
    poll = select.poll()
    poll.register(client.fileno(), select.POLLIN)
    return bool(poll.poll(0))


class Loyal:
    """Clients that write again and again, and go to another pooler only when they are told to.

    `elsewhere`: the port of that one.
    """

    def __init__(
        self, bench: Bench, pause_seconds: float, count: int = 8, elsewhere: int | None = None
    ) -> None:
        self._bench = bench
        self._elsewhere = elsewhere or bench.primary.port
        self._pause_seconds = pause_seconds
        self._numbers = itertools.count()
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._write, args=(bench.connect(),)) for _ in range(count)]
        self.acknowledged: set[int] = set()
        self.errors: list[str] = []
        self.moved = 0

    def __enter__(self) -> Loyal:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _write(self, client: psycopg.Connection) -> None:
        while not self._stop.wait(self._pause_seconds):
            if is_told(client):
                client.close()
                client = psycopg.connect(
                    host="127.0.0.1", port=self._elsewhere, user="app", dbname=DATABASE,
                    password=PASSWORDS["app-password"], autocommit=True,
                )  # fmt: skip
                self.moved += 1
            number = next(self._numbers)
            try:
                client.execute("INSERT INTO app.marks VALUES (%s)", [number])
            except psycopg.Error as error:
                self.errors.append(f"{type(error).__name__}: {error}")
                return
            self.acknowledged.add(number)
        client.close()


def test_a_pod_without_clients_ends_at_once_whoever_of_the_pod_itself_is_connected(bench: Bench) -> None:
    with bench.connect() as own, bench.console():
        own.execute("BEGIN")
        outcome, seconds = drained(bench)
    assert outcome == "no client is left"
    assert seconds < 10


@pytest.mark.usefixtures("from_elsewhere")
def test_monitoring_is_not_waited_for(bench: Bench) -> None:
    with bench.console():
        assert drained(bench)[0] == "no client is left"


@pytest.mark.usefixtures("from_elsewhere")
def test_a_pool_of_connections_that_rest_does_not_hold_the_pod(bench: Bench) -> None:
    with contextlib.ExitStack() as stack:
        pool = [stack.enter_context(contextlib.closing(bench.connect())) for _ in range(20)]
        for client in pool:
            client.execute("SELECT 1")
        outcome, seconds = drained(bench)
        assert outcome == "no client is left"
        assert seconds < 10
        assert all(is_told(client) for client in pool)


@pytest.mark.usefixtures("from_elsewhere")
@pytest.mark.parametrize("pause_seconds", [4.0, 1.2])
def test_clients_that_move_only_when_told_see_no_error(bench: Bench, pause_seconds: float) -> None:
    """Those that rest in between, and those that hardly do, which are told later.

    PgBouncer looks each third of a second who has rested: here long before they ask again, or long after.
    """
    with Loyal(bench, pause_seconds) as clients:
        outcome, _ = drained(bench)
        wait_until("all to have moved", lambda: clients.moved + len(clients.errors) == 8)
    assert outcome == "no client is left"
    assert clients.errors == []
    assert clients.acknowledged <= bench.marks(bench.primary)


@pytest.fixture
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients rest for far less than those may who are told; what holds them back takes longer."""
    monkeypatch.setattr(drain_module, "RESTING_SECONDS", 6.0)
    monkeypatch.setattr(drain_module, "BUSY_AFTER_SECONDS", 60.0)
    monkeypatch.setattr(drain_module, "PATIENCE_SECONDS", 60.0)


@pytest.mark.usefixtures("from_elsewhere", "unhurried")
def test_clients_that_were_held_back_are_not_told_to_leave_as_soon_as_they_have_their_answer(
    bench: Bench,
) -> None:
    """As on a drained node, where the primary hands its role over while the pooler beside it stops."""
    held_back = threading.Event()
    with Loyal(bench, 0.35, count=24, elsewhere=bench.pooler_port) as clients:
        draining = threading.Thread(target=drained, args=(bench, 30.0, held_back.is_set))
        draining.start()
        time.sleep(1)
        held_back.set()
        assert bench.pause() == 200
        # With the switch, longer than those may rest who are told.
        time.sleep(5)
        # With those who were told before.
        moved = clients.moved
        bench.switch()
        wait_until("the agent to open", lambda: not bench.is_paused())
        held_back.clear()
        # They rest for less than those may who are told so early, and for longer than PgBouncer looks away.
        time.sleep(1.5)
        assert clients.moved == moved
        draining.join()
    assert clients.errors == []
    assert clients.acknowledged <= bench.marks(bench.replica)


@pytest.mark.usefixtures("from_elsewhere", "unhurried")
def test_clients_that_waited_for_the_database_are_not_told_as_soon_as_they_have_their_answer(
    bench: Bench,
) -> None:
    """As when commits wait for a replica."""
    with Loyal(bench, 0.35, elsewhere=bench.pooler_port) as clients:
        draining = threading.Thread(target=drained, args=(bench, 20.0))
        draining.start()
        time.sleep(1)
        bench.primary.execute("BEGIN", "LOCK TABLE app.marks", "SELECT pg_sleep(8)", database=DATABASE)
        time.sleep(1.5)
        assert clients.moved == 0
        draining.join()
    assert clients.errors == []
    assert clients.acknowledged <= bench.marks(bench.primary)


@pytest.mark.usefixtures("from_elsewhere")
async def test_the_fault_suites_client_moves_when_told(bench: Bench) -> None:
    password = PASSWORDS["app-password"]
    postgres = Postgres(f"postgresql://app:{password}@127.0.0.1:{bench.pooler_port}/{DATABASE}", keep=1)
    connection = await postgres.take()
    await postgres.execute(connection, "SELECT 1", None, 5)
    assert (await asyncio.to_thread(drained, bench))[0] == "no client is left"
    renewed = await postgres.take()
    assert renewed is not connection
    assert await postgres.execute(renewed, "SELECT 1", None, 5) == [(1,)]
    await postgres.close()


@pytest.mark.usefixtures("from_elsewhere")
async def test_the_fault_suites_client_moves_when_told_along_with_an_answer(bench: Bench) -> None:
    """As when its event loop was held up: it reads both at once."""
    password = PASSWORDS["app-password"]
    postgres = Postgres(f"postgresql://app:{password}@127.0.0.1:{bench.pooler_port}/{DATABASE}", keep=1)
    connection = await postgres.take()
    asking = asyncio.create_task(postgres.execute(connection, "SELECT 1", None, 30))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    drained(bench)  # holds up the loop
    assert await asking == [(1,)]
    renewed = await postgres.take()
    assert renewed is not connection
    assert await postgres.execute(renewed, "SELECT 1", None, 5) == [(1,)]
    await postgres.close()


async def test_the_fault_suites_client_keeps_what_it_needs_for_a_while(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(targets, "CROWDED_SECONDS", 1.0)
    password = PASSWORDS["app-password"]
    postgres = Postgres(f"postgresql://app:{password}@127.0.0.1:{bench.pooler_port}/{DATABASE}", keep=1)
    first, second = await postgres.take(), await postgres.take()
    for connection in (first, second):
        await postgres.give_back(connection)
    assert await postgres.take() is first
    assert await postgres.take() is second
    for connection in (first, second):
        await postgres.give_back(connection)
    await asyncio.sleep(1.1)
    assert await postgres.take() is first
    await postgres.give_back(first)
    assert first.closed
    assert await postgres.take() is second
    await postgres.give_back(second)
    assert not second.closed
    await postgres.close()


@pytest.fixture
def in_transaction(bench: Bench) -> Iterator[psycopg.Connection]:
    with contextlib.closing(bench.connect()) as client:
        client.execute("BEGIN")
        client.execute("INSERT INTO app.marks VALUES (-1)")
        yield client


@pytest.mark.usefixtures("from_elsewhere")
def test_a_transaction_is_left_alone_until_it_ends(bench: Bench, in_transaction: psycopg.Connection) -> None:
    ending = threading.Timer(4.5, in_transaction.execute, ("COMMIT",))
    started = time.monotonic()
    ending.start()
    outcome, _ = drained(bench)
    assert time.monotonic() - started > 4
    ending.join()
    assert outcome == "no client is left"
    assert bench.marks(bench.primary) == {-1}


@pytest.mark.usefixtures("from_elsewhere")
def test_no_longer_than_it_may_and_with_no_more_server_connections_than_it_needs(
    bench: Bench, in_transaction: psycopg.Connection
) -> None:
    others = [bench.connect() for _ in range(5)]
    for client in others:
        client.execute("BEGIN")
        client.execute("SELECT 1")
    for client in others:
        client.execute("COMMIT")
        client.close()
    assert drained(bench, seconds=6)[0] == "clients are left"
    connected = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'app'"
    # One for the transaction, and one that PgBouncer keeps.
    wait_until("the others to be closed", lambda: bench.primary.execute(connected)[0][0] <= 3)
    in_transaction.execute("COMMIT")
    assert bench.marks(bench.primary) == {-1}


def hook(bench: Bench, seconds: int) -> None:
    """The container's preStop."""
    environment = {**os.environ, "AUTH_FILE": str(bench.home / "userlist.txt")}
    script = REPOSITORY / "images" / "pooler" / "bin" / "pooler-drain"
    started = time.monotonic()
    subprocess.run(["sh", script, str(seconds)], env=environment, check=True, timeout=60)
    assert time.monotonic() - started < 0.9 * seconds
    assert not (bench.home / "drain").exists()


def test_the_hook_has_it_done_by_the_agent(bench: Bench) -> None:
    hook(bench, 50)
    assert "no client is left" in (bench.home / "agent.log").read_text()


def test_the_hook_ends_without_the_agent(bench: Bench) -> None:
    assert bench.agent is not None
    bench.agent.send_signal(signal.SIGSTOP)
    hook(bench, 50)
    bench.agent.send_signal(signal.SIGCONT)


def test_a_pgbouncer_that_does_not_answer_is_waited_for_briefly(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drain_module, "SILENT_SECONDS", 1.0)
    bench.poolers[bench.pooler_port].kill()
    outcome, seconds = drained(bench)
    assert "does not tell its clients" in outcome
    assert seconds < 10
