"""The canary: a job of its own that goes the whole way of a job, through the database and the queue and back.

A row is written, its number put into a list of the queue's master, taken out of it by a blocking read on another
connection, as a worker does, and the row marked as done. Each part may work on its own while the way as a whole does
not, as with a master that takes writes and wakes no reader.
"""

from __future__ import annotations

import time
from typing import Any, Final

import psycopg
from redis.asyncio import Redis
from redis.exceptions import RedisError

from ..errors import ProbeError
from ..kube.lease import boot_clock
from .checks import Details
from .database import DatabaseProbe, first_line
from .queue_probe import RedisProbe

TABLE: Final = "runnerhub_ha_canary"
LIST_LIFETIME_SECONDS: Final = 120

_CREATE: Final = (
    f"CREATE TABLE IF NOT EXISTS {TABLE} (node text PRIMARY KEY, number bigint NOT NULL, done boolean NOT NULL,"
    " at timestamptz NOT NULL)"
)
_QUEUE: Final = (
    f"INSERT INTO {TABLE} (node, number, done, at) VALUES (%s, %s, false, now())"  # noqa: S608 - constant
    " ON CONFLICT (node) DO UPDATE SET number = EXCLUDED.number, done = false, at = EXCLUDED.at"
)
_FINISH: Final = f"UPDATE {TABLE} SET done = true WHERE node = %s AND number = %s AND NOT done"  # noqa: S608 - constant
_SWEEP: Final = f"DELETE FROM {TABLE} WHERE at < now() - interval '1 day'"  # noqa: S608 - constant


class CanaryProbe:
    """Sends one canary; it uses the routes that the other probes use, each time by new connections."""

    def __init__(self, node: str, database: DatabaseProbe, queue: RedisProbe, timeout_seconds: float) -> None:
        self._node = node
        self._list = f"runnerhub:ha:canary:{node}"
        self._database = database
        self._queue = queue
        self._timeout_seconds = timeout_seconds
        self._swept = False

    async def __call__(self) -> Details:
        """Send one; ProbeError names the step at which it did not go on."""
        number, started = time.time_ns() // 1000, boot_clock()
        steps: dict[str, float] = {}

        def passed(step: str) -> None:
            steps[step] = round(boot_clock() - started, 4)

        await self._row("database", number, _QUEUE)
        passed("database")
        master = await self._queue.master()
        writer, reader = self._queue.connect(master), self._queue.connect(master)
        try:
            await writer.lpush(self._list, number)
            await writer.expire(self._list, LIST_LIFETIME_SECONDS)
            passed("queue")
            await self._take(reader, number)
            passed("worker")
        except (RedisError, OSError) as error:
            step = "worker" if "queue" in steps else "queue"
            raise ProbeError(f"{step}: {first_line(error)}") from error
        finally:
            await writer.aclose()
            await reader.aclose()
        await self._row("result", number, _FINISH)
        passed("result")
        return {"seconds": steps["result"], "steps": steps}

    async def _take(self, reader: Redis, number: int) -> None:
        """Take the own entry; those of canaries that got stuck before it are thrown away."""
        while True:
            answer: Any = await reader.brpop([self._list], timeout=self._timeout_seconds / 3)
            if answer is None:
                raise ProbeError("worker: the queue took the canary and gave it to nobody")
            if int(answer[1]) == number:
                return

    async def _row(self, step: str, number: int, statement: str) -> None:
        parameters = (self._node, number)
        try:
            async with await self._database.connect_primary() as connection:
                try:
                    done = await connection.execute(statement, parameters)
                except psycopg.errors.UndefinedTable:
                    await connection.execute(_CREATE)
                    done = await connection.execute(statement, parameters)
                if not self._swept:
                    await connection.execute(_SWEEP)
                    self._swept = True
        except (psycopg.Error, OSError) as error:
            raise ProbeError(f"{step}: {first_line(error)}") from error
        if done.rowcount != 1:
            raise ProbeError(f"{step}: the canary's row is not there any more")
