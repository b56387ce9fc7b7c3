"""Jobs as rows: the truth about what was accepted, who executes it and what came out.

Every statement that leads to an acknowledgement writes, even when it repeats an earlier one: only a commit
that has written something waits for the synchronous standby, and a row that is merely found may be one
whose own commit was cut off before it was replicated.
"""

from __future__ import annotations

import json
import uuid
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from psycopg.rows import DictRow

from .database import Connection, Database, fetch_all, fetch_one
from .errors import JobConflictError, JobNotFoundError, LeaseLostError

STATUSES = ("pending", "queued", "running", "completed", "failed")


@dataclass(frozen=True, slots=True)
class NewJob:
    """What a client delegates."""

    job_id: int
    run_id: int
    repository: str
    workflow: str
    labels: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Job:
    """One row."""

    job_id: int
    delegation_id: uuid.UUID
    run_id: int
    repository: str
    workflow: str
    labels: tuple[str, ...]
    status: str
    attempt: int
    requeues: int
    runner_id: str | None
    lease_token: uuid.UUID | None
    lease_until: datetime | None
    result: Any
    failure: str | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None

    @classmethod
    def from_row(cls, row: DictRow) -> Job:
        """Take over the columns of the same names."""
        values = {name: row[name] for name in cls.__dataclass_fields__}
        return cls(**{**values, "labels": tuple(row["labels"])})


@dataclass(frozen=True, slots=True)
class Demand:
    """What decides how many runners there should be.

    `waiting`: jobs that no runner has, by the labels that they ask for. `running`: rows of jobs that a runner has.
    `complete`: False when there is more than was read.
    """

    waiting: tuple[tuple[tuple[str, ...], int], ...]
    running: tuple[Job, ...]
    complete: bool


class JobRepository:
    """The statements on single jobs. Each is idempotent, because a transaction may be tried twice."""

    def __init__(self, database: Database, lease_seconds: float) -> None:
        self._database = database
        self._lease_seconds = lease_seconds

    async def accept(self, new: NewJob) -> tuple[Job, bool]:
        """Store a job once; returns it and whether this request was the first with its id.

        Raises JobConflictError when the id is taken by a job with other content.
        """

        async def work(connection: Connection) -> DictRow | None:
            return await fetch_one(
                connection,
                """
                INSERT INTO jobs (job_id, delegation_id, run_id, repository, workflow, labels, status)
                VALUES (%(job_id)s, %(delegation_id)s, %(run_id)s, %(repository)s, %(workflow)s,
                        %(labels)s, 'pending')
                ON CONFLICT (job_id) DO UPDATE SET requests = jobs.requests + 1, updated_at = now()
                RETURNING *
                """,
                {
                    "job_id": new.job_id,
                    "delegation_id": delegation_id,
                    "run_id": new.run_id,
                    "repository": new.repository,
                    "workflow": new.workflow,
                    "labels": list(new.labels),
                },
            )

        delegation_id = uuid.uuid4()
        job = _job(await self._database.run(work), new.job_id)
        if NewJob(job.job_id, job.run_id, job.repository, job.workflow, job.labels) != new:
            raise JobConflictError(f"job {new.job_id} was delegated before with other content")
        # Told by the id, not by the counter: an attempt of this very call may have been committed unseen.
        return job, job.delegation_id == delegation_id

    async def mark_enqueued(self, job_ids: list[int], *, deadline_seconds: float | None = None) -> None:
        """Note that jobs are in the queue. A hint for the leader, so it does not wait for a standby."""

        async def work(connection: Connection) -> None:
            await connection.execute("SET LOCAL synchronous_commit = local")
            await connection.execute(
                """
                UPDATE jobs SET status = 'queued', enqueued_at = now(), updated_at = now()
                WHERE job_id = ANY(%(job_ids)s) AND status IN ('pending', 'queued')
                """,
                {"job_ids": job_ids},
            )

        await self._database.run(work, deadline_seconds=deadline_seconds)

    async def find(self, identifier: str) -> Job:
        """The job with this jobId or delegationId; raises JobNotFoundError."""

        async def work(connection: Connection) -> DictRow | None:
            return await fetch_one(
                connection,
                "SELECT * FROM jobs WHERE job_id = %(job_id)s OR delegation_id = %(delegation_id)s",
                parsed,
            )

        parsed = parse_identifier(identifier)
        return _job(await self._database.run(work), identifier)

    async def claim(
        self, job_id: int, runner_id: str, token: uuid.UUID, claim_id: uuid.UUID | None
    ) -> Job | None:
        """Give a waiting job to a runner under a lease; None when it does not wait any more."""

        async def work(connection: Connection) -> DictRow | None:
            # The second alternative is this very claim, committed by an attempt whose answer was lost.
            return await fetch_one(
                connection,
                """
                UPDATE jobs SET status = 'running', runner_id = %(runner_id)s, claim_id = %(claim_id)s,
                    attempt = attempt + (lease_token IS DISTINCT FROM %(token)s)::integer,
                    lease_token = %(token)s, lease_until = now() + make_interval(secs => %(lease)s),
                    started_at = coalesce(started_at, now()), updated_at = now()
                WHERE job_id = %(job_id)s
                  AND (status IN ('pending', 'queued') OR (status = 'running' AND lease_token = %(token)s))
                RETURNING *
                """,
                {
                    "job_id": job_id,
                    "runner_id": runner_id,
                    "claim_id": claim_id,
                    "token": token,
                    "lease": self._lease_seconds,
                },
            )

        row = await self._database.run(work)
        return Job.from_row(row) if row else None

    async def claimed_before(self, claim_id: uuid.UUID) -> Job | None:
        """The running job that this claim got already, when its answer did not reach the runner."""

        async def work(connection: Connection) -> DictRow | None:
            return await fetch_one(
                connection,
                """
                UPDATE jobs SET lease_until = now() + make_interval(secs => %(lease)s), updated_at = now()
                WHERE claim_id = %(claim_id)s AND status = 'running'
                RETURNING *
                """,
                {"claim_id": claim_id, "lease": self._lease_seconds},
            )

        row = await self._database.run(work)
        return Job.from_row(row) if row else None

    async def heartbeat(self, identifier: str, token: uuid.UUID) -> Job:
        """Extend the lease of the latest execution; an expired one revives unless somebody took over.

        Raises JobNotFoundError, LeaseLostError.
        """

        async def work(connection: Connection) -> DictRow | None:
            return await fetch_one(
                connection,
                """
                UPDATE jobs SET status = 'running', updated_at = now(),
                    lease_until = now() + make_interval(secs => %(lease)s)
                WHERE (job_id = %(job_id)s OR delegation_id = %(delegation_id)s)
                  AND lease_token = %(token)s AND status IN ('running', 'pending', 'queued')
                RETURNING *
                """,
                {**parse_identifier(identifier), "token": token, "lease": self._lease_seconds},
            )

        return await self._by_latest_token(identifier, await self._database.run(work))

    async def complete(self, identifier: str, token: uuid.UUID, result: dict[str, Any]) -> tuple[Job, bool]:
        """Finish a job; returns it and whether this was the first completion. The first result stays.

        Only the latest execution's token counts, also after its lease expired, as long as nobody else has
        claimed the job since. Raises JobNotFoundError, LeaseLostError.
        """

        async def work(connection: Connection) -> DictRow | None:
            return await fetch_one(
                connection,
                """
                UPDATE jobs SET completions = completions + 1, updated_at = now(), lease_until = NULL,
                    result = CASE WHEN status = 'completed' THEN result ELSE %(result)s::jsonb END,
                    finished_at = CASE WHEN status = 'completed' THEN finished_at ELSE now() END,
                    failure = NULL, status = 'completed'
                WHERE (job_id = %(job_id)s OR delegation_id = %(delegation_id)s) AND lease_token = %(token)s
                RETURNING *
                """,
                {**parse_identifier(identifier), "token": token, "result": json.dumps(result)},
            )

        row = await self._database.run(work)
        job = await self._by_latest_token(identifier, row)
        return job, row is not None and row["completions"] == 1

    async def release(self, job_id: int, token: uuid.UUID) -> None:
        """Undo a claim that never reached its runner, so that it does not count as an attempt."""

        async def work(connection: Connection) -> None:
            await connection.execute(
                """
                UPDATE jobs SET status = 'pending', attempt = attempt - 1, lease_token = NULL,
                    lease_until = NULL, claim_id = NULL, enqueued_at = NULL, updated_at = now()
                WHERE job_id = %(job_id)s AND lease_token = %(token)s AND status = 'running'
                """,
                {"job_id": job_id, "token": token},
            )

        await self._database.run(work)

    async def count_by_status(self, *, deadline_seconds: float | None = None) -> dict[str, int]:
        """Number of rows per status; all statuses are present."""

        async def work(connection: Connection) -> list[DictRow]:
            return await fetch_all(
                connection, "SELECT status, count(*) AS jobs FROM jobs GROUP BY status", {}
            )

        rows = await self._database.run(work, deadline_seconds=deadline_seconds)
        return dict.fromkeys(STATUSES, 0) | {row["status"]: row["jobs"] for row in rows}

    async def demand(self, *, limit: int, waiting_limit: int, deadline_seconds: float) -> Demand:
        """What waits and what runs, seen at one moment.

        At most `limit` rows of jobs that run, and as many label sets, counted over the oldest `waiting_limit` jobs that
        wait: so many that nobody can take must not hide those that others can.
        """

        async def work(connection: Connection) -> tuple[list[DictRow], list[DictRow]]:
            # One moment for both: a job that is claimed in between would be in neither, or in both.
            await connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
            waiting = await fetch_all(
                connection,
                """
                SELECT labels, count(*) AS jobs FROM (
                    SELECT labels, created_at FROM jobs WHERE status IN ('pending', 'queued')
                    ORDER BY created_at LIMIT %(waiting_limit)s
                ) AS oldest GROUP BY labels ORDER BY min(created_at), labels LIMIT %(limit)s
                """,
                {"limit": limit, "waiting_limit": waiting_limit},
            )
            running = await fetch_all(
                connection,
                "SELECT * FROM jobs WHERE status = 'running' ORDER BY lease_until LIMIT %(limit)s",
                {"limit": limit},
            )
            return waiting, running

        waiting, running = await self._database.run(work, deadline_seconds=deadline_seconds)
        counted = tuple((tuple(row["labels"]), int(row["jobs"])) for row in waiting)
        # More jobs than are counted change nothing for pools that have bounds; a busy runner that is not seen would.
        return Demand(counted, tuple(Job.from_row(row) for row in running), len(running) < limit)

    async def _by_latest_token(self, identifier: str, row: DictRow | None) -> Job:
        if row:
            return Job.from_row(row)
        job = await self.find(identifier)
        raise LeaseLostError(f"job {job.job_id} is {job.status}; the token is not of its latest execution")


def parse_identifier(identifier: str) -> dict[str, Any]:
    """Both readings of a path's id: a jobId (a positive 64-bit number) or a delegationId (a UUID)."""
    if identifier.isascii() and identifier.isdigit() and 0 < int(identifier) < 2**63:
        return {"job_id": int(identifier), "delegation_id": None}
    try:
        return {"job_id": None, "delegation_id": uuid.UUID(identifier)}
    except ValueError:
        raise JobNotFoundError(f"{identifier!r} is neither a jobId nor a delegationId") from None


def _job(row: DictRow | None, identifier: object) -> Job:
    if row is None:
        raise JobNotFoundError(f"no job {identifier}")
    return Job.from_row(row)
