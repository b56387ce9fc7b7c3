"""The database check: a row written through the pooler, and how late replicas show it.

Replication lag is measured end to end on this process's own clock: each check writes a growing number, then
asks the read-only route for the last number it shows. The age of the first one not yet visible is the lag.
This also tells when a replica has stopped following while its own view says that it has replayed all it
received.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import psycopg
from psycopg import AsyncConnection
from psycopg.conninfo import make_conninfo

from runnerhub_passwords import PasswordFile

from ..errors import ProbeError
from ..kube.lease import boot_clock
from .checks import Details

TABLE: Final = "runnerhub_ha_probe"
REMEMBERED_WRITES: Final = 1000

_CREATE: Final = (
    f"CREATE TABLE IF NOT EXISTS {TABLE}"
    " (node text PRIMARY KEY, number bigint NOT NULL, at timestamptz NOT NULL)"
)
_WRITE: Final = (
    f"INSERT INTO {TABLE} (node, number, at) VALUES (%s, %s, now())"  # noqa: S608 - constant
    " ON CONFLICT (node) DO UPDATE SET number = EXCLUDED.number, at = EXCLUDED.at"
    " RETURNING host(inet_server_addr())"
)
# Pods of a Deployment get new names, so rows of earlier ones are left behind.
_SWEEP: Final = f"DELETE FROM {TABLE} WHERE at < now() - interval '1 day'"  # noqa: S608 - constant
_READ: Final = f"SELECT pg_is_in_recovery(), (SELECT number FROM {TABLE} WHERE node = %s)"  # noqa: S608 - constant


@dataclass(slots=True)
class Visibility:
    """Which of the own writes the read-only route shows."""

    written: deque[tuple[int, float]] = field(default_factory=lambda: deque(maxlen=REMEMBERED_WRITES))

    def wrote(self, number: int, now: float) -> None:
        """Note an acknowledged write."""
        self.written.append((number, now))

    def lag_seconds(self, visible: int | None, now: float) -> float:
        """Age of the oldest write that is newer than the visible one; 0 when all are visible."""
        missing = [at for number, at in self.written if visible is None or number > visible]
        return now - missing[0] if missing else 0.0


class DatabaseProbe:
    """Writes through the pooler's read-write route, reads through its read-only one.

    The write decides about health; what is wrong with the replicas is told in the details. Each probe opens
    its own connections: a pooler that serves old clients only is not well.
    """

    def __init__(
        self,
        node: str,
        url: str,
        replica_url: str | None,
        timeout_seconds: float,
        *,
        password_file: Path | None = None,
        on_moved: Callable[[str, str], None] = lambda _old, _new: None,
    ) -> None:
        self._node = node
        self._url = url
        self._replica_url = replica_url
        self._timeout_seconds = timeout_seconds
        self._passwords = PasswordFile(password_file)
        self._on_moved = on_moved
        self._visibility = Visibility()
        self._swept = False
        self._primary: str | None = None
        self.lag_seconds: float | None = None

    async def __call__(self) -> Details:
        """Probe once; ProbeError when the write is not acknowledged."""
        number = time.time_ns() // 1000
        try:
            primary = await self._write(number)
        except (psycopg.Error, OSError) as error:
            self.lag_seconds = None
            raise ProbeError(f"write: {first_line(error)}") from error
        except asyncio.CancelledError:
            self.lag_seconds = None
            raise
        self._visibility.wrote(number, boot_clock())
        if self._primary is not None and primary != self._primary:
            self._on_moved(self._primary, primary)
        self._primary = primary
        return {"primary": primary, "replica": await self._replica()}

    async def _write(self, number: int) -> str:
        async with await self._connect(self._url) as connection:
            try:
                answer = await connection.execute(_WRITE, (self._node, number))
            except psycopg.errors.UndefinedTable:
                await connection.execute(_CREATE)
                answer = await connection.execute(_WRITE, (self._node, number))
            row = await answer.fetchone()
            if not self._swept:
                await connection.execute(_SWEEP)
                self._swept = True
        return (row[0] if row else None) or "local"

    async def _replica(self) -> dict[str, Any]:
        if self._replica_url is None:
            return {"status": "not-configured"}
        try:
            async with await self._connect(self._replica_url) as connection:
                row = await (await connection.execute(_READ, (self._node,))).fetchone()
        except (psycopg.Error, OSError) as error:
            self.lag_seconds = None
            return {"status": "down", "error": first_line(error)}
        standby, visible = row or (False, None)
        self.lag_seconds = self._visibility.lag_seconds(visible, boot_clock())
        return {
            "status": "up",
            "standby": bool(standby),
            "lagSeconds": round(self.lag_seconds, 3),
        }

    async def connect_primary(self) -> AsyncConnection[Any]:
        """A new connection through the read-write route."""
        return await self._connect(self._url)

    async def _connect(self, url: str) -> AsyncConnection[Any]:
        """Log in by the password of the moment; while a new one comes into effect, also by the one before."""
        *others, last = self._passwords.candidates() or (None,)
        for password in others:
            with contextlib.suppress(psycopg.OperationalError):
                return await self._log_in(url, password)
        return await self._log_in(url, last)

    async def _log_in(self, url: str, password: str | None) -> AsyncConnection[Any]:
        # Transaction pooling: no prepared statements that would outlive the transaction.
        return await AsyncConnection.connect(
            make_conninfo(url, password=password),
            autocommit=True,
            prepare_threshold=None,
            connect_timeout=max(2, math.ceil(self._timeout_seconds)),
            application_name="runnerhub-ha-agent",
        )


def first_line(error: BaseException) -> str:
    """One line about an error, without what a driver adds below it."""
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0]}" if text else type(error).__name__
