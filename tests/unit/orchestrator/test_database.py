import asyncio
from dataclasses import replace

import psycopg
import pytest

from runnerhub_orchestrator.database import (
    LOGINS_AT_ONCE,
    Database,
    is_retryable,
    leaves_connection_usable,
)
from runnerhub_orchestrator.errors import DatabaseUnavailableError, NotReplicatedError
from runnerhub_orchestrator.settings import DatabaseSettings

SETTINGS = DatabaseSettings("postgresql://unused", 2, 1.0, 1.0, 3.0)


class Scripted(Database):
    """A database whose attempts end as told."""

    def __init__(self, *outcomes):
        super().__init__(SETTINGS)
        self.outcomes = list(outcomes)
        self.attempts = 0

    async def _attempt(self, _work, _deadline, _least_seconds):
        self.attempts += 1
        outcome = self.outcomes.pop(0) if len(self.outcomes) > 1 else self.outcomes[0]
        if isinstance(outcome, Exception):
            raise outcome
        return outcome


async def test_a_failover_is_waited_out():
    database = Scripted(
        psycopg.OperationalError("server closed the connection"),
        psycopg.errors.ReadOnlySqlTransaction("cannot execute INSERT in a read-only transaction"),
        "done",
    )
    assert await database.run(None) == "done"
    assert database.attempts == 3


async def test_patience_ends_at_the_deadline():
    database = Scripted(psycopg.OperationalError("down"))
    started = asyncio.get_running_loop().time()
    with pytest.raises(DatabaseUnavailableError):
        await database.run(None)
    assert asyncio.get_running_loop().time() - started < 10
    assert database.attempts > 2


async def test_mistakes_are_not_repeated():
    database = Scripted(psycopg.errors.UniqueViolation("duplicate key"))
    with pytest.raises(psycopg.errors.UniqueViolation):
        await database.run(None)
    assert database.attempts == 1


@pytest.mark.parametrize(
    "error",
    [
        psycopg.errors.AdminShutdown(),
        psycopg.errors.CannotConnectNow(),
        psycopg.errors.ProtocolViolation("server login has been failing"),
        psycopg.errors.SerializationFailure(),
        psycopg.errors.ReadOnlySqlTransaction(),
        psycopg.InterfaceError("the connection is closed"),
        NotReplicatedError(),
        ConnectionResetError(),
        TimeoutError(),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_passes_is_tried_again_on_a_new_connection(error):
    assert is_retryable(error)
    assert not leaves_connection_usable(error)


def test_a_broken_constraint_and_a_slow_statement_cost_no_connection():
    assert leaves_connection_usable(psycopg.errors.UniqueViolation())
    assert leaves_connection_usable(psycopg.errors.QueryCanceled())
    assert is_retryable(psycopg.errors.QueryCanceled())
    assert leaves_connection_usable(None)


async def test_a_new_password_and_the_one_before_are_tried(tmp_path, monkeypatch):
    file = tmp_path / "app-password"
    file.write_text("one\n")
    database = Database(replace(SETTINGS, password_file=file))
    lets_in = {"one"}
    tried = []

    async def connect(password):
        tried.append(password)
        if password not in lets_in:
            raise psycopg.OperationalError("password authentication failed")
        return password

    monkeypatch.setattr(database, "_connect", connect)
    assert await database._log_in() == "one"
    file.write_text("two")
    assert await database._log_in() == "one"
    lets_in = {"two"}
    assert await database._log_in() == "two"
    assert tried == ["one", "two", "one", "two"]
    lets_in = set()
    with pytest.raises(psycopg.OperationalError):
        await database._log_in()


class Connection:
    """Enough of a connection for those who hand it on."""

    closed = False

    def add_notice_handler(self, _handler):
        pass

    async def close(self):
        self.closed = True


async def test_some_log_in_at_a_time_and_the_others_take_what_these_leave(monkeypatch):
    settings = replace(SETTINGS, connections=20, connect_timeout_seconds=30.0, attempt_timeout_seconds=30.0)
    database = Database(settings)
    at_once, most, logins = 0, 0, 0

    async def connect(_password):
        nonlocal at_once, most, logins
        at_once, logins = at_once + 1, logins + 1
        most = max(most, at_once)
        await asyncio.sleep(1)
        at_once -= 1
        return Connection()

    async def transaction(_session, _work, _timeout_seconds):
        await asyncio.sleep(0.01)

    monkeypatch.setattr(database, "_connect", connect)
    monkeypatch.setattr(database, "_transaction", transaction)
    await asyncio.gather(*(database.run(None, deadline_seconds=60.0) for _ in range(100)))
    assert most == LOGINS_AT_ONCE
    assert logins < 20


async def test_logins_that_hang_leave_the_next_ones_their_turn(monkeypatch):
    database = Database(replace(SETTINGS, connections=20, connect_timeout_seconds=0.2))
    tried = 0

    async def connect(_password):
        nonlocal tried
        tried += 1
        if tried <= LOGINS_AT_ONCE:
            await asyncio.sleep(60)
        return Connection()

    async def transaction(_session, _work, _timeout_seconds):
        pass

    monkeypatch.setattr(database, "_connect", connect)
    monkeypatch.setattr(database, "_transaction", transaction)
    await asyncio.gather(*(database.run(None) for _ in range(20)))
    assert database._logins == 0


async def test_what_answers_while_another_connection_hangs_is_kept(monkeypatch):
    database = Database(
        replace(SETTINGS, connections=3, connect_timeout_seconds=0.1, attempt_timeout_seconds=0.5)
    )
    hangs, stale, works = Connection(), Connection(), Connection()
    given = iter((hangs, stale, works))
    severed = asyncio.Event()

    async def connect(_password):
        return next(given)

    async def transaction(session, _work, _timeout_seconds):
        await (severed.wait() if session.connection is hangs else asyncio.sleep(0.05))

    monkeypatch.setattr(database, "_connect", connect)
    monkeypatch.setattr(database, "_transaction", transaction)
    monkeypatch.setattr("runnerhub_orchestrator.database._Session.sever", lambda _session: severed.set())
    hanging = asyncio.create_task(database.run(None, deadline_seconds=60.0))
    await asyncio.sleep(0)
    await asyncio.gather(*(database.run(None) for _ in range(2)))
    database._idle[0].idle_since -= 5
    assert [session.connection for session in database._idle] == [stale, works]
    await hanging
    assert hangs.closed
    assert stale.closed
    assert not works.closed


async def test_the_wait_for_somebody_elses_login_counts_against_ones_own(monkeypatch):
    database = Database(
        replace(SETTINGS, connections=20, connect_timeout_seconds=1.0, attempt_timeout_seconds=1.0)
    )

    async def connect(_password):
        await asyncio.sleep(60)

    monkeypatch.setattr(database, "_connect", connect)
    others = [asyncio.create_task(database._session(0.6)) for _ in range(LOGINS_AT_ONCE)]
    await asyncio.sleep(0)
    started = asyncio.get_running_loop().time()
    with pytest.raises(TimeoutError):
        await database._session(1.0)
    assert asyncio.get_running_loop().time() - started < 1.4
    await asyncio.gather(*others, return_exceptions=True)
