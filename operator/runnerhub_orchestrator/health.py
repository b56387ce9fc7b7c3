"""What is known about the process and what it depends on, kept fresh in the background.

Probes never wait: they answer from here, so a frozen database cannot make a healthy process look dead.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

import psycopg
import redis.asyncio as redis
from redis.exceptions import RedisError

from .background import Background
from .database import Connection, Database, fetch_one
from .errors import OrchestratorError
from .job_queue import JobQueue
from .jobs import JobRepository
from .logs import describe
from .metrics import Metrics

log = logging.getLogger(__name__)

COUNT_EVERY_SECONDS = 15.0
COUNT_DEADLINE_SECONDS = 3.0


@dataclass(frozen=True, slots=True)
class State:
    """The latest finding about a dependency."""

    status: str = "unknown"
    checked_at_monotonic: float | None = None
    seconds: float | None = None
    error: str | None = None
    failures: int = 0

    def render(self) -> dict[str, Any]:
        """For the body of /health."""
        age = None if self.checked_at_monotonic is None else time.monotonic() - self.checked_at_monotonic
        return {
            "status": self.status,
            "ageSeconds": None if age is None else round(age, 1),
            "latencySeconds": None if self.seconds is None else round(self.seconds, 4),
            "error": self.error,
        }


class HealthMonitor:
    """Probes database and Redis on a schedule, each with a deadline of its own.

    `backgrounds` are the other tasks of the process; `alone_without` gives the stores that this pod has lost and
    others have.
    """

    def __init__(
        self,
        *,
        database: Database,
        redis_client: redis.Redis,
        repository: JobRepository,
        queue: JobQueue,
        metrics: Metrics,
        backgrounds: Sequence[Background],
        alone_without: Callable[[], Sequence[str]],
        interval_seconds: float,
        timeout_seconds: float,
        retries: int,
    ) -> None:
        self._database = database
        self._redis = redis_client
        self._repository = repository
        self._queue = queue
        self._metrics = metrics
        self._interval_seconds = interval_seconds
        self._timeout_seconds = timeout_seconds
        self._retries = retries
        self._alone_without = alone_without
        self._own = tuple(Background(f"health of {part}") for part in ("database", "redis", "jobs"))
        self._backgrounds = (*backgrounds, *self._own)
        self.states = {"database": State(), "redis": State()}
        self.schema_ready = False
        self.draining = False

    @property
    def serving(self) -> bool:
        """Whether this process may get requests.

        Without a store it may, as long as the others are without it too: those who wait for a failover are better
        off here than turned away, and their WebSockets stay.
        """
        return self.takes_websockets and not self._alone_without()

    @property
    def takes_websockets(self) -> bool:
        """Whether this process takes new WebSockets: also without a store that others have.

        A load balancer that chooses by client would lead whom it turns away here again, however often.
        """
        return self.schema_ready and not self.draining

    @property
    def phase(self) -> str:
        """starting, ok, degraded, isolated (others serve while this process cannot) or draining."""
        if self.draining:
            return "draining"
        if not self.schema_ready:
            return "starting"
        if self._alone_without():
            return "isolated"
        return "degraded" if self.degraded else "ok"

    @property
    def degraded(self) -> dict[str, str]:
        """What does not work, each with the reason: stores, and background tasks that crashed lately."""
        stores = {
            name: state.error or state.status
            for name, state in self.states.items()
            if state.status in {"down", "read-only"}
        }
        return stores | {task.name: task.error for task in self._backgrounds if task.error}

    def start(self) -> None:
        """Begin to probe."""
        database, queue, jobs = self._own
        database.start(lambda: self._watch("database", self._probe_database))
        queue.start(lambda: self._watch("redis", self._probe_redis))
        jobs.start(self._count)

    async def close(self) -> None:
        """Stop."""
        await asyncio.gather(*(task.close() for task in self._own))

    async def _watch(self, name: str, probe: Callable[[], Awaitable[str]]) -> None:
        while True:
            started = time.monotonic()
            try:
                status = await probe()
                self.states[name] = State(status, time.monotonic(), time.monotonic() - started)
            except (OrchestratorError, psycopg.Error, RedisError, OSError, TimeoutError) as error:
                cause = error.__cause__ or error
                failures = self.states[name].failures + 1
                status = "down" if failures >= self._retries else "failing"
                self.states[name] = State(status, time.monotonic(), None, describe(cause), failures)
            self._metrics.up.labels(name).set(0 if status in {"down", "failing"} else 1)
            await asyncio.sleep(self._interval_seconds)

    async def _probe_database(self) -> str:
        async def work(connection: Connection) -> bool:
            row = await fetch_one(connection, "SELECT pg_is_in_recovery() AS standby", {})
            return bool(row and row["standby"])

        standby = await self._database.run(work, deadline_seconds=self._timeout_seconds)
        return "read-only" if standby else "up"

    async def _probe_redis(self) -> str:
        async with asyncio.timeout(self._timeout_seconds):
            role = await self._redis.role()
        return "up" if role and role[0] in {"master", b"master"} else "read-only"

    async def _count(self) -> None:
        """Refresh the gauges that cost a query."""
        while True:
            if self.schema_ready:
                try:
                    for state, number in (await self._queue.counts()).items():
                        self._metrics.queue_jobs.labels(state).set(number)
                    rows = await self._repository.count_by_status(deadline_seconds=COUNT_DEADLINE_SECONDS)
                    for status, number in rows.items():
                        self._metrics.row_jobs.labels(status).set(number)
                except OrchestratorError as error:
                    log.debug("counts not refreshed", extra={"reason": error.reason})
            await asyncio.sleep(COUNT_EVERY_SECONDS)
