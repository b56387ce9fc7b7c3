"""What the servers hold now, asked from the stores themselves and not through the orchestrator."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

import psycopg
from redis.exceptions import RedisError

from .oracle import Course, Stored
from .probes.queue import COUNTER, SETS
from .probes.rows import TABLE
from .probes.transactions import TABLE as TRANSACTIONS
from .settings import Targets
from .targets import Postgres, UnreplicatedError, redis_master

T = TypeVar("T")

CHUNK = 2000
QUERY_SECONDS = 10.0
RETRY_SECONDS = 1.0

_ERRORS = (psycopg.Error, RedisError, OSError, TimeoutError, UnreplicatedError)


class FactsUnavailableError(Exception):
    """The stores could not be asked, so there is no verdict."""


async def persistently(ask: Callable[[], Awaitable[T]], patience_seconds: float) -> T:
    """Ask again on errors, as a fault may still be under way; raises FactsUnavailableError at the end."""
    deadline = time.monotonic() + patience_seconds
    while True:
        try:
            return await ask()
        except _ERRORS as error:
            if time.monotonic() + RETRY_SECONDS >= deadline:
                raise FactsUnavailableError(f"{type(error).__name__}: {error}") from error
            await asyncio.sleep(RETRY_SECONDS)


async def present_rows(targets: Targets, identifiers: Iterable[str]) -> set[str]:
    """Which of these rows exist."""
    query = f"SELECT id::text FROM {TABLE} WHERE id = ANY(%(ids)s::uuid[])"  # noqa: S608 - a constant
    return {row[0] for row in await _query(targets, query, sorted(identifiers))}


async def stored_transactions(targets: Targets, identifiers: Iterable[str]) -> dict[str, Stored]:
    """What is there of each of these transactions; those of which nothing is there are left out."""
    query = (
        "SELECT transaction_id::text, count(*), count(DISTINCT position), max(size) "  # noqa: S608 - a constant
        f"FROM {TRANSACTIONS} WHERE transaction_id = ANY(%(ids)s::uuid[]) GROUP BY transaction_id"
    )
    rows = await _query(targets, query, sorted(identifiers))
    return {row[0]: Stored(rows=row[1], positions=row[2], size=row[3]) for row in rows}


async def job_statuses(targets: Targets, identifiers: Iterable[str]) -> dict[str, str]:
    """The status of each of these jobs that has a row."""
    query = "SELECT job_id::text, status FROM jobs WHERE job_id = ANY(%(ids)s::bigint[])"
    return {row[0]: row[1] for row in await _query(targets, query, sorted(identifiers))}


async def jobs_ahead(targets: Targets, identifiers: Iterable[str]) -> int:
    """How many jobs are on their way that were created no later than the last of these."""
    query = (
        "SELECT count(*) FROM jobs WHERE status IN ('pending', 'queued', 'running') AND created_at <= "
        "(SELECT max(created_at) FROM jobs WHERE job_id = ANY(%(ids)s::bigint[]))"
    )
    return int((await _query(targets, query, sorted(identifiers)))[0][0])


async def job_courses(targets: Targets, identifiers: Iterable[str]) -> list[Course]:
    """What became of each of these jobs that has a row."""
    query = (
        "SELECT status, attempt, coalesce(runner_id, ''), extract(epoch FROM created_at)::float, "
        "extract(epoch FROM started_at)::float, extract(epoch FROM finished_at)::float "
        "FROM jobs WHERE job_id = ANY(%(ids)s::bigint[])"
    )
    return [Course(*row) for row in await _query(targets, query, sorted(identifiers))]


async def present_entries(targets: Targets, probe: str, identifiers: Iterable[str]) -> set[str]:
    """Which of a probe's entries the present Redis master has."""
    client = redis_master(targets, timeout_seconds=QUERY_SECONDS, connections=4)
    present: set[str] = set()
    try:
        for chunk in _chunks(sorted(identifiers)):
            answers = await client.smismember(SETS[probe], list(chunk))
            present.update(
                identifier for identifier, here in zip(chunk, answers, strict=True) if int(here) == 1
            )
    finally:
        await client.aclose()
    return present


async def counter_value(targets: Targets) -> int:
    """What the present Redis master has counted."""
    client = redis_master(targets, timeout_seconds=QUERY_SECONDS, connections=4)
    try:
        return int(await client.get(COUNTER) or 0)
    finally:
        await client.aclose()


async def _query(targets: Targets, query: str, identifiers: Sequence[str]) -> list[tuple[Any, ...]]:
    postgres = Postgres(targets.database_url, password_file=targets.database_password_file)
    rows: list[tuple[Any, ...]] = []
    try:
        for chunk in _chunks(identifiers):
            connection = await postgres.take()
            rows += await postgres.execute(connection, query, {"ids": list(chunk)}, QUERY_SECONDS)
    finally:
        await postgres.close()
    return rows


def _chunks(identifiers: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(identifiers), CHUNK):
        yield identifiers[start : start + CHUNK]
