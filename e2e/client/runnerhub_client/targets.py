"""Connections to what is measured, each with deadlines and without retries of its own."""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import socket
import time
from collections import deque
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import jwt
import psycopg
import redis.asyncio as redis
from psycopg.conninfo import make_conninfo
from psycopg.errors import Diagnostic
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import NoBackoff

from runnerhub_passwords import PasswordFile

from .settings import Targets

TOKEN_SECONDS = 600.0
# How often to try while a new password comes into effect.
RETRY_SECONDS = 0.1
SENTINEL_TIMEOUT_SECONDS = 0.5
# How long connections that were needed while others hung are held open after that.
CROWDED_SECONDS = 10.0
# The warning with which Postgres answers a COMMIT whose wait for the synchronous standby was cut short.
UNREPLICATED_WARNING = "canceling wait for synchronous replication"

# What PgBouncer says to a connection that rests, before its pod stops.
GOODBYE = b"client_idle_timeout"


class UnreplicatedError(Exception):
    """The server said yes to a commit and warned that no standby has it."""


class HttpStatusError(Exception):
    """An answer of HTTP that is no success; `error_class` counts it under its status."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(f"HTTP {status}: {text[:200]}")
        self.error_class = f"HTTP {status}"


class Tokens:
    """Bearer tokens, renewed in time."""

    def __init__(self, secret: str) -> None:
        self._secret = secret
        self._token = ""
        self._renew_at = 0.0

    def headers(self) -> dict[str, str]:
        """The Authorization header of now."""
        if time.monotonic() >= self._renew_at:
            expires = int(time.time() + TOKEN_SECONDS)
            self._token = jwt.encode({"sub": "load-client", "exp": expires}, self._secret, algorithm="HS256")
            self._renew_at = time.monotonic() + TOKEN_SECONDS / 2
        return {"Authorization": f"Bearer {self._token}"}


def http_session() -> aiohttp.ClientSession:
    """A session for many requests at a time; names are looked up again often, as pods come and go."""
    return aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=200, ttl_dns_cache=2))


class _SharedAnswer(Sentinel):
    """Asks the Sentinels once for all connections that want to know at the same moment.

    Else each of the many that are opened after a failover asks for itself, and the names alone that are looked up for
    it take longer than the answers may.
    """

    _asking: asyncio.Task[tuple[str, int]] | None = None

    async def discover_master(self, service_name: str) -> tuple[str, int]:
        """Address of the master; raises MasterNotFoundError."""
        if self._asking is None or self._asking.done():
            self._asking = asyncio.create_task(super().discover_master(service_name))
        return await asyncio.shield(self._asking)


def redis_master(targets: Targets, *, timeout_seconds: float, connections: int) -> redis.Redis:
    """A client of whatever master the Sentinels name when a connection is opened."""
    options = _without_retries()
    sentinel = _SharedAnswer(  # type: ignore[no-untyped-call]
        targets.sentinels,
        sentinel_kwargs={
            "credential_provider": targets.sentinel_login(),
            "socket_timeout": SENTINEL_TIMEOUT_SECONDS,
            "socket_connect_timeout": SENTINEL_TIMEOUT_SECONDS,
            **options,
        },
    )
    client: redis.Redis = sentinel.master_for(
        targets.master_name, **_connections(targets, timeout_seconds, connections)
    )
    return client


def redis_by_route(targets: Targets, *, timeout_seconds: float, connections: int) -> redis.Redis:
    """A client that knows one address, which leads to the master."""
    options = _connections(targets, timeout_seconds, connections)
    return redis.Redis(host=targets.redis_host, port=targets.redis_port, **options)


def _without_retries() -> dict[str, Any]:
    return {"retry": Retry(NoBackoff(), 0), "retry_on_error": [], "protocol": 2}


def _connections(targets: Targets, timeout_seconds: float, connections: int) -> dict[str, Any]:
    return {
        "credential_provider": targets.redis_login(),
        "decode_responses": True,
        "socket_timeout": timeout_seconds,
        "socket_connect_timeout": min(timeout_seconds, 2.0),
        "max_connections": connections,
        **_without_retries(),
    }


@dataclass(frozen=True, slots=True)
class Answer:
    """What a statement gave: its rows, and the server's word for what it did, such as COMMIT."""

    rows: list[Any]
    tag: str


class Postgres:
    """A few connections to the pooler, taken in turn and given back; a bad one is thrown away.

    `keep` are held open; those that are opened beyond, while others hang, are closed when they have not been needed
    for a while, as pools of connections do: a login costs both sides more than many statements.
    `password_file`: has the password of the moment; without one that of the URL counts.
    """

    def __init__(
        self,
        url: str,
        *,
        password_file: Path | None = None,
        keep: int = 1,
        connect_timeout_seconds: float = 2.0,
    ) -> None:
        self._url = url
        self._passwords = PasswordFile(password_file)
        self._keep = keep
        self._connect_timeout_seconds = connect_timeout_seconds
        self._idle: deque[psycopg.AsyncConnection[Any]] = deque()
        self._taken = 0
        # When more than are held open were in use last, by the monotonic clock.
        self._crowded_at = -math.inf
        self._warned: set[int] = set()
        self._told: set[int] = set()

    async def take(self) -> psycopg.AsyncConnection[Any]:
        """The connection that rested longest once `keep` are open, else a new one."""
        # Between two logins more than one password may come and go.
        self._passwords.candidates()
        while self._idle and len(self._idle) + self._taken >= self._keep:
            connection = self._idle.popleft()
            if not connection.closed and not self._was_told_to_leave(connection):
                return self._taking(connection)
            await self._discard(connection)
        return self._taking(await self._connect())

    def _taking(self, connection: psycopg.AsyncConnection[Any]) -> psycopg.AsyncConnection[Any]:
        self._taken += 1
        if self._taken > self._keep:
            self._crowded_at = time.monotonic()
        return connection

    async def _connect(self) -> psycopg.AsyncConnection[Any]:
        async with asyncio.timeout(self._connect_timeout_seconds):
            connection = await self._log_in()
        connection.add_notice_handler(lambda notice: self._on_notice(connection, notice))
        return connection

    async def _log_in(self) -> psycopg.AsyncConnection[Any]:
        """By the password of the moment; while a new one comes into effect, also by the one before, by turns."""
        candidates = self._passwords.candidates() or (None,)
        while len(candidates) > 1:
            for password in candidates:
                with contextlib.suppress(psycopg.OperationalError):
                    return await self._open(password)
            await asyncio.sleep(RETRY_SECONDS)
        return await self._open(candidates[0])

    async def _open(self, password: str | None) -> psycopg.AsyncConnection[Any]:
        return await psycopg.AsyncConnection.connect(
            make_conninfo(self._url, password=password),
            autocommit=True,
            prepare_threshold=None,
            application_name="runnerhub-client",
            keepalives_idle=5,
            keepalives_interval=2,
            keepalives_count=3,
        )

    async def execute(
        self, connection: psycopg.AsyncConnection[Any], query: Any, parameters: Any, timeout_seconds: float
    ) -> list[Any]:
        """Run one statement and return its rows. The connection is given back, or severed on any failure."""
        answer = await self.statement(connection, query, parameters, timeout_seconds)
        await self.give_back(connection)
        return answer.rows

    async def statement(
        self, connection: psycopg.AsyncConnection[Any], query: Any, parameters: Any, timeout_seconds: float
    ) -> Answer:
        """Run one statement on a connection that stays taken; on any failure it is severed and gone.

        A statement that hangs is never cancelled: a cancel request would make a COMMIT that waits for its
        standby answer yes.
        """
        return await self._answered(connection, _execute(connection, query, parameters), timeout_seconds)

    async def batch(
        self,
        connection: psycopg.AsyncConnection[Any],
        query: Any,
        rows: Sequence[Any],
        timeout_seconds: float,
    ) -> None:
        """As `statement`, once for each of the rows, all sent before the first answer is read."""
        await self._answered(connection, _execute_many(connection, query, rows), timeout_seconds)

    async def _answered(
        self,
        connection: psycopg.AsyncConnection[Any],
        work: Coroutine[Any, Any, Answer],
        timeout_seconds: float,
    ) -> Answer:
        task = asyncio.ensure_future(work)
        done = False
        try:
            await asyncio.wait({task}, timeout=timeout_seconds)
            if not task.done():
                raise TimeoutError(f"no answer within {timeout_seconds:.1f} s")
            answer = task.result()
            if id(connection) in self._warned:
                raise UnreplicatedError("committed without its synchronous standby")
            done = True
            return answer
        finally:
            if not task.done():
                _sever(connection)
                with contextlib.suppress(Exception):
                    await task
            if not done:
                self._taken -= 1
                await self._discard(connection)

    async def give_back(self, connection: psycopg.AsyncConnection[Any]) -> None:
        """Let the next try have the connection."""
        self._taken -= 1
        is_needed = time.monotonic() - self._crowded_at < CROWDED_SECONDS
        if connection.closed or (len(self._idle) + self._taken >= self._keep and not is_needed):
            await self._discard(connection)
        else:
            self._idle.append(connection)

    async def _discard(self, connection: psycopg.AsyncConnection[Any]) -> None:
        self._warned.discard(id(connection))
        self._told.discard(id(connection))
        await connection.close()

    async def close(self) -> None:
        """Close what is idle."""
        while self._idle:
            await self._discard(self._idle.pop())

    def _was_told_to_leave(self, connection: psycopg.AsyncConnection[Any]) -> bool:
        """Whether the pooler has ended a connection that rested; pools of connections look for that, too."""
        # What came along with the last answer was read with it; libpq made a notice of it.
        if id(connection) in self._told:
            return True
        with socket.socket(fileno=os.dup(connection.fileno())) as peer:
            try:
                return GOODBYE in peer.recv(1024, socket.MSG_PEEK | socket.MSG_DONTWAIT)
            except OSError:
                return False  # mostly because nothing was said

    def _on_notice(self, connection: psycopg.AsyncConnection[Any], notice: Diagnostic) -> None:
        message = notice.message_primary or ""
        if UNREPLICATED_WARNING in message:
            self._warned.add(id(connection))
        if GOODBYE.decode() in message:
            self._told.add(id(connection))


async def _execute(connection: psycopg.AsyncConnection[Any], query: Any, parameters: Any) -> Answer:
    cursor = await connection.execute(query, parameters)
    rows = await cursor.fetchall() if cursor.description else []
    return Answer(rows, cursor.statusmessage or "")


async def _execute_many(connection: psycopg.AsyncConnection[Any], query: Any, rows: Sequence[Any]) -> Answer:
    cursor = connection.cursor()
    await cursor.executemany(query, rows)
    return Answer([], cursor.statusmessage or "")


def _sever(connection: psycopg.AsyncConnection[Any]) -> None:
    with contextlib.suppress(psycopg.OperationalError, OSError):
        duplicate = socket.socket(fileno=os.dup(connection.pgconn.socket))
        with contextlib.closing(duplicate):
            duplicate.shutdown(socket.SHUT_RDWR)
