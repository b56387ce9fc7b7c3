"""Transactions on Postgres through a transaction pooler, surviving a failover within a deadline.

Why no psycopg_pool: its pools open connections one at a time (behind a frozen pooler pod every client
waits for that one attempt) and back off for up to minutes after an outage. PgBouncer is the pool already,
so all that is needed here is a bounded set of connections to it, opened by whoever needs one, some at a time: logins
cost both sides so much that all at once, on a busy machine, none ends in time, and all begin anew.

Why a stuck query is never cancelled: a cancel request that reaches a COMMIT waiting for its synchronous
standby makes Postgres report success although nothing is replicated. The socket is shut down instead.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import os
import random
import socket
import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import psycopg
from psycopg.conninfo import make_conninfo
from psycopg.errors import Diagnostic
from psycopg.rows import DictRow, dict_row

from runnerhub_passwords import PasswordFile

from .errors import DatabaseUnavailableError, NotReplicatedError
from .logs import AnswersLog
from .settings import DatabaseSettings

log = logging.getLogger(__name__)

T = TypeVar("T")
Connection = psycopg.AsyncConnection[DictRow]
Work = Callable[[Connection], Awaitable[T]]

FIRST_BACKOFF_SECONDS = 0.1
LONGEST_BACKOFF_SECONDS = 1.0
# Behind a pooler pod that hangs, one of two logins waits in vain; so more than one or two.
LOGINS_AT_ONCE = 4
# Whose turn comes later than so long before the deadline, or a quarter of all the time there was, is not begun.
SHORTEST_ATTEMPT_SECONDS = 1.0
# Of an attempt's time, so that Postgres ends a slow statement before its connection has to be given up.
STATEMENT_SHARE = 0.8
# Idle connections are closed so that load spreads over the pooler pods again after one of them came back.
LONGEST_IDLE_SECONDS = 60.0
LONGEST_LIFE_SECONDS = 900.0
# https://www.postgresql.org/docs/17/runtime-config-wal.html#GUC-SYNCHRONOUS-COMMIT: the warning of
# SyncRepWaitForLSN in src/backend/replication/syncrep.c, sent when a wait was cut short.
UNREPLICATED_WARNING = "canceling wait for synchronous replication"

_RETRYABLE = (
    psycopg.OperationalError,
    psycopg.InterfaceError,
    psycopg.errors.ReadOnlySqlTransaction,
    OSError,
    TimeoutError,
    NotReplicatedError,
)


def is_retryable(error: BaseException) -> bool:
    """Whether the same transaction may succeed a moment later, on this or on another server."""
    return isinstance(error, _RETRYABLE)


def leaves_connection_usable(error: BaseException | None) -> bool:
    """Whether a connection works after this; a statement that failed or took too long is just rolled back."""
    return error is None or isinstance(error, psycopg.errors.QueryCanceled) or not is_retryable(error)


@dataclass(slots=True)
class _Session:
    """One connection to the pooler and what is known about it."""

    connection: Connection
    opened_at: float
    idle_since: float
    unreplicated: bool = False

    def on_notice(self, diagnostic: Diagnostic) -> None:
        if UNREPLICATED_WARNING in (diagnostic.message_primary or ""):
            self.unreplicated = True

    def sever(self) -> None:
        """Make whatever waits on this connection fail at once, without asking the server."""
        with contextlib.suppress(psycopg.OperationalError, OSError):
            duplicate = socket.socket(fileno=os.dup(self.connection.pgconn.socket))
            with contextlib.closing(duplicate):
                duplicate.shutdown(socket.SHUT_RDWR)


class Database:
    """Runs functions in transactions. At most `connections` at a time; the rest waits its turn."""

    def __init__(self, settings: DatabaseSettings) -> None:
        self._settings = settings
        self._idle: deque[_Session] = deque()
        self._slots = asyncio.Semaphore(settings.connections)
        self._running: set[asyncio.Task[Any]] = set()
        self._logins = 0
        # Set, and replaced, when a connection was given back or a login has ended.
        self._changed = asyncio.Event()
        self._told = AnswersLog(log, "database")
        self._passwords = PasswordFile(settings.password_file)

    async def run(self, work: Work[T], *, deadline_seconds: float | None = None) -> T:
        """Run `work` in one transaction and return its result once it is committed.

        Retries on failover until the deadline, so `work` must be idempotent: an attempt whose answer was
        lost may have been committed, and so may one that was cancelled. Raises DatabaseUnavailableError when
        the deadline has passed.
        """
        patience = self._settings.deadline_seconds if deadline_seconds is None else deadline_seconds
        deadline = time.monotonic() + patience
        least = min(SHORTEST_ATTEMPT_SECONDS, patience / 4)
        backoff = FIRST_BACKOFF_SECONDS
        while True:
            try:
                result = await self._attempt(work, deadline, least)
            except Exception as error:
                if not is_retryable(error):
                    raise
                self._told.failed(error)
                pause = backoff * random.uniform(0.5, 1.0)  # noqa: S311 - jitter, not cryptography
                if time.monotonic() + pause >= deadline:
                    raise DatabaseUnavailableError(f"no answer within {patience:g} s") from error
                await asyncio.sleep(pause)
                backoff = min(backoff * 2, LONGEST_BACKOFF_SECONDS)
            else:
                self._told.answered()
                return result

    async def close(self) -> None:
        """Stop what still runs for callers that are gone, and close all connections."""
        for task in tuple(self._running):
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)
        await self._close_idle()

    async def _close_idle(self, last_used_before: float = math.inf) -> None:
        """They stand in the order in which they were given back."""
        while self._idle and self._idle[0].idle_since < last_used_before:
            await self._idle.popleft().connection.close()

    async def _attempt(self, work: Work[T], deadline: float, least_seconds: float) -> T:
        """One try, bounded in all its parts: waiting for its turn, connecting, executing, committing.

        The wait takes nothing from the time of the rest. Else all that is begun on a busy machine would be cut off
        shortly before its answer and log in anew, which keeps the machine busy for ever.
        """
        async with asyncio.timeout(deadline - time.monotonic()):
            await self._slots.acquire()
        given_up = asyncio.Event()
        task = asyncio.ensure_future(self._hold(work, deadline, least_seconds, given_up))
        self._running.add(task)
        task.add_done_callback(self._ended)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            given_up.set()
            raise

    async def _hold(self, work: Work[T], deadline: float, least_seconds: float, given_up: asyncio.Event) -> T:
        """The part of an attempt that has a place among the connections.

        It goes on when its caller is cancelled: what was begun is cheaper to end than a connection to make anew, and
        load balancers hang up just when the machine is busy. What was not begun then is left.
        """
        try:
            session = await self._session(self._time_left(deadline, least_seconds))
            try:
                timeout_seconds = self._time_left(deadline, least_seconds)
                if given_up.is_set():
                    raise TimeoutError("nobody waits for it any more")
            except TimeoutError:
                await self._give_back(session, healthy=True)
                raise
            return await self._execute(session, work, timeout_seconds)
        finally:
            self._slots.release()

    def _time_left(self, deadline: float, least_seconds: float) -> float:
        """For the next part of an attempt; raises TimeoutError when that is better not begun."""
        remaining = deadline - time.monotonic()
        if remaining < least_seconds:
            raise TimeoutError("the turn came too late")
        return min(remaining, self._settings.attempt_timeout_seconds)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._running.discard(task)
        if not task.cancelled():
            # Whoever waits has it; of others nobody needs it.
            task.exception()

    async def _execute(self, session: _Session, work: Work[T], timeout_seconds: float) -> T:
        begun = time.monotonic()
        task = asyncio.ensure_future(self._transaction(session, work, timeout_seconds))
        # That somebody stopped waiting says nothing of the other connections.
        healthy, suspects_until = False, -math.inf
        try:
            # Not asyncio.timeout: cancelling a psycopg call sends a cancel request (see the module's text).
            await asyncio.wait({task}, timeout=max(timeout_seconds, 0.05))
            if not task.done():
                if timeout_seconds >= self._settings.connect_timeout_seconds:
                    # Something hangs, and what has answered meanwhile leads elsewhere.
                    suspects_until = begun
                raise TimeoutError(f"no answer within {timeout_seconds:.1f} s")
            suspects_until = math.inf
            healthy = leaves_connection_usable(task.exception())
            return task.result()
        finally:
            if not task.done():
                session.sever()
                with contextlib.suppress(Exception):
                    await task
            await self._give_back(session, healthy=healthy, suspects_until=suspects_until)

    async def _transaction(self, session: _Session, work: Work[T], timeout_seconds: float) -> T:
        connection = session.connection
        milliseconds = max(int(timeout_seconds * STATEMENT_SHARE * 1000), 50)
        session.unreplicated = False
        async with connection.transaction():
            # SET LOCAL: with a transaction pooler nothing may outlive the transaction. Postgres stops the
            # statement's clock before a COMMIT waits for its standby, so this can not cut that wait short.
            await connection.execute(f"SET LOCAL statement_timeout = {milliseconds}")
            result = await work(connection)
        if session.unreplicated:
            raise NotReplicatedError("the commit did not wait for its synchronous standby")
        return result

    async def _session(self, timeout_seconds: float) -> _Session:
        """One that another left, or a new one when it is this one's turn to log in."""
        until = time.monotonic() + timeout_seconds
        async with asyncio.timeout(timeout_seconds):
            while True:
                changed = self._changed
                session = await self._left()
                if session is not None:
                    return session
                if self._logins < LOGINS_AT_ONCE:
                    break
                await changed.wait()
        self._logins += 1
        try:
            time_left = min(until - time.monotonic(), self._settings.connect_timeout_seconds)
            async with asyncio.timeout(max(time_left, 0.05)):
                connection = await self._log_in()
        finally:
            self._logins -= 1
            self._wake()
        now = time.monotonic()
        session = _Session(connection, opened_at=now, idle_since=now)
        connection.add_notice_handler(session.on_notice)
        return session

    async def _left(self) -> _Session | None:
        """The latest of the idle connections that may still be used."""
        now = time.monotonic()
        while self._idle:
            session = self._idle.pop()
            fresh = now - session.idle_since < LONGEST_IDLE_SECONDS
            if fresh and now - session.opened_at < LONGEST_LIFE_SECONDS and not session.connection.closed:
                return session
            await session.connection.close()
        return None

    def _wake(self) -> None:
        """Let those that wait for a connection look again."""
        self._changed.set()
        self._changed = asyncio.Event()

    async def _log_in(self) -> Connection:
        """By the password of the moment; while a new one comes into effect, also by the one before."""
        *others, last = self._passwords.candidates() or (None,)
        for password in others:
            with contextlib.suppress(psycopg.OperationalError):
                return await self._connect(password)
        return await self._connect(last)

    async def _connect(self, password: str | None) -> Connection:
        return await psycopg.AsyncConnection.connect(
            make_conninfo(self._settings.url, password=password),
            autocommit=True,
            prepare_threshold=None,
            row_factory=dict_row,
            application_name="runnerhub-orchestrator",
            keepalives_idle=5,
            keepalives_interval=2,
            keepalives_count=3,
        )

    async def _give_back(self, session: _Session, *, healthy: bool, suspects_until: float = math.inf) -> None:
        """To the idle ones, or closed with those of them that were used last before a time."""
        if healthy and not session.connection.closed:
            session.idle_since = time.monotonic()
            self._idle.append(session)
            self._wake()
            return
        # What broke one connection has most likely broken the idle ones too: do not try them one by one.
        await session.connection.close()
        await self._close_idle(suspects_until)


async def fetch_one(connection: Connection, query: Any, parameters: dict[str, Any]) -> DictRow | None:
    """The first row of a query, or None."""
    return await (await connection.execute(query, parameters)).fetchone()


async def fetch_all(connection: Connection, query: Any, parameters: dict[str, Any]) -> list[DictRow]:
    """All rows of a query."""
    return await (await connection.execute(query, parameters)).fetchall()
