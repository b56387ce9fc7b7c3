"""The singleton work, done by the leader only: nothing accepted is forgotten, nothing finished is hoarded.

Each round is a few transactions, and each of them first writes the fencing token: a leader of the past
finds a higher one there and its transaction is rolled back. Changes to the queue are not fenced and need
not be: adding what is there already, and returning what nobody holds, is right whoever does it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from .background import Background
from .database import Connection, Database, fetch_all, fetch_one
from .errors import DatabaseUnavailableError, OrchestratorError, QueueUnavailableError, StaleLeaderError
from .events import EventBus
from .job_queue import JobQueue
from .jobs import Job
from .leadership import Leadership, LeadershipWatch
from .metrics import Metrics
from .settings import JobSettings

log = logging.getLogger(__name__)

T = TypeVar("T")

BATCH = 500
CLEANUP_EVERY_SECONDS = 60.0
STALLED_CHECK_SECONDS = 10.0
# After a pause of the leaders (database away, nobody elected) heartbeats could not get through either:
# runners get this long to be heard before their leases count as expired.
PAUSE_SECONDS = 10.0
GRACE_SECONDS = 15.0
# A Lease that somebody deleted starts to count from zero again. A higher token that nobody has renewed
# for this long belongs to no living leader, and does not lock out all later ones.
FORGET_TOKEN_SECONDS = 120.0


@dataclass(frozen=True, slots=True)
class Round:
    """What one round did."""

    expired: int = 0
    reenqueued: int = 0
    stalled: int = 0
    removed: int = 0


class SingletonWork:
    """The leader's loop."""

    def __init__(
        self,
        database: Database,
        queue: JobQueue,
        events: EventBus,
        leadership: LeadershipWatch,
        metrics: Metrics,
        settings: JobSettings,
        node_id: str,
    ) -> None:
        self._database = database
        self._queue = queue
        self._events = events
        self._leadership = leadership
        self._metrics = metrics
        self._settings = settings
        self._node_id = node_id
        self._cleaned_at = 0.0
        self._given_up = ""
        self.background = Background("singleton")

    def start(self) -> None:
        """Begin; rounds take place while this pod leads."""
        self.background.start(self._run)

    async def close(self) -> None:
        """Stop."""
        await self.background.close()

    async def _run(self) -> None:
        while True:
            leadership = self._leadership.current()
            if leadership:
                try:
                    self._report(await self.round(leadership))
                except (StaleLeaderError, DatabaseUnavailableError, QueueUnavailableError) as error:
                    self._give_up(error)
            await asyncio.sleep(self._settings.singleton_interval_seconds)

    def _give_up(self, error: OrchestratorError) -> None:
        """The next round tries again; told once per cause."""
        if error.reason != self._given_up:
            log.warning("singleton work stopped", extra={"reason": error.reason, "why": str(error)})
        self._given_up = error.reason

    def _report(self, done: Round) -> None:
        if self._given_up:
            log.info("singleton work goes on")
        self._given_up = ""
        if done != Round():
            log.info(
                "singleton round",
                extra={
                    "expiredLeases": done.expired,
                    "reenqueued": done.reenqueued,
                    "stalled": done.stalled,
                    "removed": done.removed,
                },
            )
        self._metrics.requeued.inc(done.expired)
        self._metrics.reenqueued.inc(done.reenqueued)
        self._metrics.removed.inc(done.removed)

    async def round(self, leadership: Leadership) -> Round:
        """All singleton work once. Raises StaleLeaderError and what database and queue raise."""
        expired = await self._expire_leases(leadership)
        removed = await self._clean_up(leadership)
        # Not left to the stalled check, which needs two of its intervals to believe that a lock is gone.
        reenqueued = await self._enqueue(leadership, [job for job in expired if job.status == "pending"])
        stalled = await self._queue.return_stalled(STALLED_CHECK_SECONDS)
        reenqueued += await self._enqueue(leadership, await self._missing(leadership))
        return Round(len(expired), reenqueued, len(stalled), removed)

    async def _fenced(self, leadership: Leadership, work: Callable[[Connection], Awaitable[T]]) -> T:
        """Run `work` in a transaction that a newer leader's token refuses."""

        async def fenced(connection: Connection) -> T:
            if not leadership.is_valid():
                raise StaleLeaderError("the lease ran out meanwhile")
            row = await fetch_one(
                connection,
                """
                WITH before AS (SELECT fencing_token, renewed_at FROM leadership WHERE id = 1 FOR UPDATE)
                UPDATE leadership SET holder = %(holder)s, renewed_at = now(),
                    fencing_token = coalesce(%(token)s::bigint, before.fencing_token)
                FROM before
                WHERE id = 1 AND (%(token)s::bigint IS NULL OR before.fencing_token <= %(token)s
                    OR before.renewed_at < now() - make_interval(secs => %(forget)s))
                RETURNING extract(epoch FROM now() - before.renewed_at)::float AS pause
                """,
                {
                    "holder": self._node_id,
                    "token": leadership.fencing_token,
                    "forget": FORGET_TOKEN_SECONDS,
                },
            )
            if row is None:
                raise StaleLeaderError(f"a leader with a token above {leadership.fencing_token} is at work")
            if row["pause"] > PAUSE_SECONDS:
                await self._grant_grace(connection, row["pause"])
            return await work(connection)

        return await self._database.run(fenced)

    async def _grant_grace(self, connection: Connection, pause_seconds: float) -> None:
        result = await connection.execute(
            """
            UPDATE jobs SET lease_until = now() + make_interval(secs => %(grace)s)
            WHERE status = 'running' AND lease_until < now() + make_interval(secs => %(grace)s)
            """,
            {"grace": GRACE_SECONDS},
        )
        log.info(
            "grace for running jobs after a pause",
            extra={"pauseSeconds": round(pause_seconds, 1), "jobs": result.rowcount},
        )

    async def _expire_leases(self, leadership: Leadership) -> list[Job]:
        """Take jobs from runners that were not heard of; the last allowed attempt ends as failed."""

        async def work(connection: Connection) -> list[Job]:
            rows = await fetch_all(
                connection,
                """
                UPDATE jobs SET updated_at = now(), enqueued_at = NULL, requeues = requeues + 1,
                    status = CASE WHEN attempt < %(attempts)s THEN 'pending' ELSE 'failed' END,
                    failure = CASE WHEN attempt < %(attempts)s THEN NULL
                                   ELSE 'no runner kept its lease' END,
                    finished_at = CASE WHEN attempt < %(attempts)s THEN NULL ELSE now() END
                WHERE job_id IN (
                    SELECT job_id FROM jobs WHERE status = 'running' AND lease_until < now()
                    ORDER BY lease_until LIMIT %(batch)s FOR UPDATE SKIP LOCKED)
                RETURNING *
                """,
                {"attempts": self._settings.max_attempts, "batch": BATCH},
            )
            return [Job.from_row(row) for row in rows]

        jobs = await self._fenced(leadership, work)
        for job in jobs:
            log.warning(
                "lease expired",
                extra={
                    "jobId": job.job_id,
                    "runnerId": job.runner_id,
                    "attempt": job.attempt,
                    "status": job.status,
                },
            )
            self._events.publish("failed" if job.status == "failed" else "requeued", job)
        return jobs

    async def _missing(self, leadership: Leadership) -> list[Job]:
        """Waiting rows that the queue does not know."""
        # The queue is looked at first: what enters it afterwards is too young to be counted as missing.
        known = await self._queue.alive_job_ids()

        async def work(connection: Connection) -> list[Job]:
            rows = await fetch_all(
                connection,
                """
                UPDATE jobs SET updated_at = now()
                WHERE job_id IN (
                    SELECT job_id FROM jobs
                    WHERE status IN ('pending', 'queued')
                      AND coalesce(enqueued_at, CASE WHEN requeues = 0 THEN created_at END, '-infinity')
                          < now() - make_interval(secs => %(age)s)
                      AND NOT EXISTS (SELECT FROM unnest(%(known)s::bigint[]) AS k (id) WHERE k.id = job_id)
                    ORDER BY created_at LIMIT %(batch)s FOR UPDATE SKIP LOCKED)
                RETURNING *
                """,
                {"age": self._settings.reenqueue_after_seconds, "known": known, "batch": BATCH},
            )
            return [Job.from_row(row) for row in rows]

        rows = await self._fenced(leadership, work)
        return [job for job in rows if not await self._queue.is_alive(job.job_id)]

    async def _enqueue(self, leadership: Leadership, jobs: list[Job]) -> int:
        """Put rows into the queue, the oldest first, and note those that got there."""
        done: list[int] = []
        try:
            for job in sorted(jobs, key=lambda job: job.created_at):
                await self._queue.replace(job)
                done.append(job.job_id)
        finally:
            if done:
                await self._mark(leadership, done)
                log.info("rows put back into the queue", extra={"jobs": len(done), "first": done[0]})
        return len(done)

    async def _mark(self, leadership: Leadership, job_ids: list[int]) -> None:
        async def work(connection: Connection) -> None:
            await connection.execute(
                """
                UPDATE jobs SET status = 'queued', enqueued_at = now(), updated_at = now()
                WHERE job_id = ANY(%(job_ids)s) AND status IN ('pending', 'queued')
                """,
                {"job_ids": job_ids},
            )

        await self._fenced(leadership, work)

    async def _clean_up(self, leadership: Leadership) -> int:
        """Remove finished rows older than the retention, a batch at a time."""
        if time.monotonic() - self._cleaned_at < CLEANUP_EVERY_SECONDS:
            return 0

        async def work(connection: Connection) -> int:
            result = await connection.execute(
                """
                DELETE FROM jobs WHERE job_id IN (
                    SELECT job_id FROM jobs WHERE status IN ('completed', 'failed')
                      AND finished_at < now() - make_interval(secs => %(retention)s)
                    LIMIT %(batch)s FOR UPDATE SKIP LOCKED)
                """,
                {"retention": self._settings.retention_seconds, "batch": BATCH},
            )
            return result.rowcount

        removed = await self._fenced(leadership, work)
        if removed < BATCH:
            self._cleaned_at = time.monotonic()
        return removed
