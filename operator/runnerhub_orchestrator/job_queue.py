"""The BullMQ queue `github-jobs`: who is next. Its content can always be made again from the rows."""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import random
import time
from collections.abc import Awaitable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

from bullmq import Queue, Worker
from redis.exceptions import RedisError

from .errors import EntryGoneError, QueueUnavailableError
from .jobs import Job
from .logs import AnswersLog
from .redis_link import RedisLink

log = logging.getLogger(__name__)

T = TypeVar("T")

QUEUE_NAME = "github-jobs"
PREFIX = "bull"
JOB_NAME = "github-job"
# BullMQ refuses ids that are whole numbers, because it makes such ids itself.
ID_PREFIX = "job-"
ATTEMPTS = 3
KEEP_FINISHED = 1000
# BullMQ fails a job that stalled too often; here the row counts the attempts, so its limit must never bite.
STALLED_LIMIT = 1_000_000
# Jobs that met only runners that cannot take them are delayed, and found by their labels when one comes that can:
# <...>:jobs:<labels> has those that ask for these labels, by age, and <...>:labels:<label> such lists of labels.
PARKED = "runnerhub:parked"
# The delay is only for those that get lost there: as long as the job has waited already, within these bounds, so that
# those that wait for weeks cost next to nothing.
PARKED_SECONDS = (60.0, 3600.0)
FORGET_PARKED_SECONDS = 7200
SPARE_PARKED = 100
# BullMQ promotes a job behind all that wait, where those that cannot take it may meet it before its runner does.
_TO_THE_FRONT = """
if redis.call("LREM", KEYS[1], 1, ARGV[1]) == 1 then redis.call("RPUSH", KEYS[1], ARGV[1]) end
"""
ALIVE_STATES = ("waiting", "active", "delayed", "prioritized", "paused")
# Of each state: more in one answer keep Redis from all others for long.
IDS_PER_PAGE = 10_000
# BullMQ reports a lost lock or a missing entry as TypeError; Scripts.finishedErrors in its scripts.py.
_GONE = ("Missing key", "Missing lock", "Lock mismatch", "Job ")
COUNTED_STATES = ("waiting", "active", "delayed", "completed", "failed")


@dataclass(frozen=True, slots=True)
class Entry:
    """One job taken from the queue under a lock that `token` names."""

    job_id: int
    labels: frozenset[str]
    token: str
    handle: Any


class _Parked(NamedTuple):
    """A job that is parked, or was: since when it is in the queue, its id, the key that has it, and its labels."""

    since: float
    name: str
    key: str
    asked: frozenset[str]


def folded(labels: Iterable[str]) -> frozenset[str]:
    """GitHub's labels are the same in upper and lower case: `runs-on: [self-hosted, Linux]` finds a runner `linux`."""
    return frozenset(label.casefold() for label in labels)


class JobQueue:
    """Producer, consumer and stalled check on one Sentinel-backed client.

    Jobs are fetched by hand (Worker.moveToActive), never by BullMQ's blocking read: a blocking read on a
    master that vanished is what makes idle workers deaf. All methods raise QueueUnavailableError; those that
    name a token raise EntryGoneError when somebody else has the entry by now.
    """

    def __init__(self, link: RedisLink, *, timeout_seconds: float, lock_seconds: float) -> None:
        self._client = link.client()
        self._timeout_seconds = timeout_seconds
        self._lock_milliseconds = int(lock_seconds * 1000)
        options = {"connection": self._client, "prefix": PREFIX, "skipVersionCheck": True}
        self._queue = Queue(QUEUE_NAME, options)
        self._worker = Worker(
            QUEUE_NAME,
            None,
            {**options, "autorun": False, "lockDuration": self._lock_milliseconds},
        )
        self._told = AnswersLog(log, "queue")

    async def add(self, job: Job) -> None:
        """Put a job into the queue; nothing happens when it is there already."""
        await self._bounded(
            self._queue.add(
                JOB_NAME,
                {
                    "jobId": job.job_id,
                    "delegationId": str(job.delegation_id),
                    "runId": job.run_id,
                    "repository": job.repository,
                    "workflow": job.workflow,
                    "labels": list(job.labels),
                },
                {
                    "jobId": f"{ID_PREFIX}{job.job_id}",
                    "attempts": ATTEMPTS,
                    "removeOnComplete": {"count": KEEP_FINISHED},
                    "removeOnFail": {"count": KEEP_FINISHED},
                },
            )
        )

    async def replace(self, job: Job) -> None:
        """Put a job into the queue, whatever the queue remembers of it.

        BullMQ ignores an id that it knows, even one it has finished; an entry somebody holds stays.
        """
        await self._bounded(self._queue.backend.remove(f"{ID_PREFIX}{job.job_id}", True))
        await self.add(job)

    async def take(self, token: str) -> Entry | None:
        """The next job under a lock, or None when nothing waits."""
        handle = await self._bounded(self._worker.moveToActive(token))
        if handle is None:
            return None
        # Anybody may put entries into the queue, so nothing about their data is sure.
        data = handle.data if isinstance(handle.data, dict) else {}
        labels = data.get("labels")
        entry = Entry(
            job_id=_number(handle.id, data),
            labels=frozenset(str(label) for label in labels) if isinstance(labels, list) else frozenset(),
            token=token,
            handle=handle,
        )
        if entry.job_id == 0:
            log.warning("entry without a job id discarded", extra={"entry": str(handle.id)})
            await self.discard(entry)
            return None
        return entry

    async def put_back(self, entry: Entry) -> None:
        """Let others have the entry at once."""
        await self._bounded(
            self._worker.backend.moveToDelayed(
                entry.handle.id, round(time.time() * 1000), 1, entry.token, {"skipAttempt": True}
            )
        )

    async def park(self, entry: Entry, labels: frozenset[str]) -> None:
        """Put aside an entry that no runner here can take, until `unpark` finds it or its delay ends.

        `labels`: those of all runners here, in one case.
        """
        asked = folded(entry.labels)
        jobs = json.dumps(sorted(asked))
        # Runners look by their own labels: under one that none of them has, it is in nobody's way.
        where = _where(min(asked - labels or asked, default=""))
        now, since = time.time(), entry.handle.timestamp
        shortest, longest = PARKED_SECONDS
        delay = min(max(now - since / 1000, shortest), longest) * random.uniform(0.5, 1)  # noqa: S311 - jitter
        scripts = self._worker.backend.scripts
        keys, arguments = scripts.moveToDelayedArgs(
            entry.handle.id, round(now * 1000), entry.token, int(delay * 1000), {"skipAttempt": True}
        )
        # At one moment, so that none is delayed for long that nobody finds.
        async with self._client.pipeline(transaction=True) as pipe:
            pipe.zadd(f"{PARKED}:jobs:{jobs}", {entry.handle.id: since})
            pipe.expire(f"{PARKED}:jobs:{jobs}", FORGET_PARKED_SECONDS)
            pipe.zadd(where, {jobs: now})
            pipe.zremrangebyscore(where, "-inf", now - FORGET_PARKED_SECONDS)
            pipe.expire(where, FORGET_PARKED_SECONDS)
            await scripts.commands["moveToDelayed"](keys=keys, args=arguments, client=pipe)
            *_, code = await self._bounded(pipe.execute())
        if code < 0:
            raise EntryGoneError(f"entry {entry.handle.id} is not held under this token ({code})")

    async def unpark(self, wanted: Mapping[frozenset[str], int]) -> None:
        """Let parked entries wait again, the oldest first, as many as there are runners that can take them.

        `wanted`: the number of runners by their labels in one case.
        """
        while wanted and await self._unpark(wanted):
            pass

    async def _unpark(self, wanted: Mapping[frozenset[str], int]) -> bool:
        """One step; whether it found only what waits no longer, so that there may be more behind it."""
        parked = await self._parked(wanted)
        if not parked:
            return False
        waiting = await self._waiting([entry.name for entry in parked])
        chosen: dict[str, _Parked] = {}
        for labels, runners in wanted.items():
            left = runners
            for entry in parked:
                if left and entry.name not in chosen and entry.asked <= labels:
                    chosen[entry.name] = entry
                    left -= entry.name in waiting
        scripts = self._queue.backend.scripts
        async with self._client.pipeline(transaction=True) as pipe:
            for entry in sorted(chosen.values(), reverse=True):
                pipe.zrem(entry.key, entry.name)
                if entry.name not in waiting:
                    # To look for it would go through all that wait.
                    continue
                # What is not delayed by now it leaves alone.
                keys, arguments = scripts.promoteArgs(entry.name)
                await scripts.commands["promote"](keys=keys, args=arguments, client=pipe)
                pipe.eval(_TO_THE_FRONT, 1, f"{PREFIX}:{QUEUE_NAME}:wait", entry.name)
            await self._bounded(pipe.execute())
        return waiting.isdisjoint(chosen)

    async def _waiting(self, names: Sequence[str]) -> set[str]:
        """Those that wait, delayed or not; the others are gone, finished, or somebody has them."""
        jobs = [f"{PREFIX}:{QUEUE_NAME}:{name}" for name in names]
        async with self._client.pipeline(transaction=False) as pipe:
            for job in jobs:
                pipe.hmget(job, "timestamp", "finishedOn")
                pipe.exists(f"{job}:lock")
            facts = iter(await self._bounded(pipe.execute()))
        waiting = set()
        for name, (since, finished), held in zip(names, facts, facts, strict=True):
            if since is not None and finished is None and not held:
                waiting.add(name)
        return waiting

    async def _parked(self, wanted: Mapping[frozenset[str], int]) -> list[_Parked]:
        """The oldest of those that these runners can take, and some more for those that are parked no longer."""
        async with self._client.pipeline(transaction=False) as pipe:
            for label in frozenset({""}).union(*wanted):
                pipe.zrange(_where(label), 0, -1)
            known = set().union(*await self._bounded(pipe.execute()))
        asked = {labels: frozenset(json.loads(labels)) for labels in known}
        able = [labels for labels in known if any(asked[labels] <= runners for runners in wanted)]
        async with self._client.pipeline(transaction=False) as pipe:
            for labels in able:
                pipe.zrange(
                    f"{PARKED}:jobs:{labels}", 0, sum(wanted.values()) + SPARE_PARKED, withscores=True
                )
            found = await self._bounded(pipe.execute())
        return sorted(
            _Parked(since, name, f"{PARKED}:jobs:{labels}", asked[labels])
            for labels, entries in zip(able, found, strict=True)
            for name, since in entries
        )

    async def finish(self, entry_id: int, token: str, result: dict[str, Any]) -> None:
        """Show the job as completed. Best effort: an entry that stays is discarded by the next claim."""
        handle = await self._bounded(self._queue.getJob(f"{ID_PREFIX}{entry_id}"))
        if handle is not None:
            await self._bounded(handle.moveToCompleted(result, token))

    async def discard(self, entry: Entry) -> None:
        """Remove an entry whose row needs no execution, so that the id can be added again."""
        await self._bounded(
            self._worker.backend.moveToCompleted(entry.handle, None, True, entry.token, False)
        )

    async def extend(self, job_id: int, token: str) -> None:
        """Keep the lock as long as the lease lives."""
        await self._bounded(
            self._worker.backend.extendLock(f"{ID_PREFIX}{job_id}", token, self._lock_milliseconds)
        )

    async def return_stalled(self, interval_seconds: float) -> list[str]:
        """Move entries whose lock expired back to the waiting ones; at most once per interval."""
        stalled: list[str] = await self._bounded(
            self._worker.backend.moveStalledJobsToWait(STALLED_LIMIT, int(interval_seconds * 1000))
        )
        return stalled

    async def alive_job_ids(self) -> list[int]:
        """Ids of all jobs that wait or are held. Of very many it may miss some that move meanwhile: see `is_alive`."""
        found: list[int] = []
        for start in itertools.count(0, IDS_PER_PAGE):
            ids: list[str] = await self._bounded(
                self._queue.backend.getRanges(list(ALIVE_STATES), start, start + IDS_PER_PAGE - 1)
            )
            found += filter(None, (_number(identifier, {}) for identifier in ids))
            if len(ids) < IDS_PER_PAGE:
                break
        return found

    async def is_alive(self, job_id: int) -> bool:
        """Whether the job waits or is held."""
        state: str = await self._bounded(self._queue.backend.getState(f"{ID_PREFIX}{job_id}"))
        return state in ALIVE_STATES

    async def counts(self) -> dict[str, int]:
        """Number of entries per state."""
        counts: dict[str, Any] = await self._bounded(self._queue.getJobCounts(*COUNTED_STATES))
        return {state: int(counts.get(state) or 0) for state in COUNTED_STATES}

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def _bounded(self, operation: Awaitable[T]) -> T:
        try:
            async with asyncio.timeout(self._timeout_seconds):
                result = await operation
        except (RedisError, OSError, TimeoutError) as error:
            # Includes answers such as READONLY, NOREPLICAS and LOADING: all of them pass.
            self._told.failed(error)
            raise QueueUnavailableError(f"{type(error).__name__}: {error}") from error
        except TypeError as error:
            if not str(error).startswith(_GONE):
                raise
            raise EntryGoneError(str(error)) from error
        self._told.answered()
        return result


def _where(label: str) -> str:
    """The key of the lists of labels that are found by this one, which may be any text."""
    return f"{PARKED}:labels:{json.dumps(label)}"


def _number(identifier: Any, data: dict[str, Any]) -> int:
    """The job's number, from our own form of id or, for entries of other producers, from the data."""
    text = str(identifier)
    digits = text.removeprefix(ID_PREFIX) if text.startswith(ID_PREFIX) else ""
    value = int(digits) if digits.isascii() and digits.isdigit() else data.get("jobId")
    # What the database's bigint cannot hold is no job of ours.
    return value if isinstance(value, int) and 0 < value < 2**63 else 0
