"""Brings waiting runners and waiting jobs together, on behalf of all long polls of this pod."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import uuid
from collections import Counter
from dataclasses import dataclass, field

from .background import Background
from .errors import EntryGoneError, QueueUnavailableError
from .job_queue import Entry, JobQueue, folded

log = logging.getLogger(__name__)

# How long a job waits at most for an idle runner when the news of it got lost, or when another pod has parked it.
TICK_SECONDS = 1.0
AFTER_ERROR_SECONDS = 0.5
TAKEN_PER_LOOK = 100


@dataclass(eq=False, slots=True)
class Waiter:
    """A runner's long poll: what it can do, in one case, and where its entry goes."""

    labels: frozenset[str]
    entry: asyncio.Future[Entry] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    error: QueueUnavailableError | None = None

    def suits(self, entry: Entry) -> bool:
        """Whether this poll still waits and its runner has every label that the job asks for, in whatever case."""
        return not self.entry.done() and folded(entry.labels) <= self.labels


class Dispatcher:
    """One loop takes entries from the queue, as long as somebody waits for one."""

    def __init__(self, queue: JobQueue) -> None:
        self._queue = queue
        self._waiters: list[Waiter] = []
        self._wake = asyncio.Event()
        self.background = Background("dispatcher")

    def start(self) -> None:
        """Begin to dispatch."""
        self.background.start(self._run)

    async def close(self) -> None:
        """Stop; waiting polls end with nothing, and nothing taken is kept."""
        await self.background.close()
        for waiter in self._waiters:
            waiter.entry.cancel()

    def wake(self) -> None:
        """Look at the queue now: there is news of a job."""
        self._wake.set()

    @property
    def waiting(self) -> int:
        """Number of runners that wait for a job."""
        return len(self._waiters)

    async def next_entry(self, labels: frozenset[str], timeout_seconds: float) -> Entry | None:
        """An entry for a runner with these labels, or None when none came in time.

        Raises QueueUnavailableError when the queue was out of reach at the end.
        """
        waiter = Waiter(folded(labels))
        self._waiters.append(waiter)
        self.wake()
        try:
            await asyncio.wait({waiter.entry}, timeout=timeout_seconds)
        finally:
            self._waiters.remove(waiter)
            if not waiter.entry.done():
                waiter.entry.cancel()
        if waiter.entry.cancelled():
            if waiter.error:
                raise waiter.error
            return None
        return waiter.entry.result()

    def _unserved(self) -> list[Waiter]:
        """Polls that got nothing yet; a served one stays in the list until its handler runs."""
        return [waiter for waiter in self._waiters if not waiter.entry.done()]

    async def _run(self) -> None:
        while True:
            self._wake.clear()
            error = await self._round()
            for waiter in self._waiters:
                waiter.error = error
            if error:
                await asyncio.sleep(AFTER_ERROR_SECONDS)
            elif not self._unserved():
                await self._wake.wait()
            else:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(TICK_SECONDS):
                        await self._wake.wait()

    async def _round(self) -> QueueUnavailableError | None:
        try:
            await self._serve()
        except QueueUnavailableError as error:
            return error
        return None

    async def _serve(self) -> None:
        taken = 0
        while waiting := self._unserved():
            if taken % TAKEN_PER_LOOK == 0:
                # First, or jobs that come later would be served before those that wait for their runner; and again, as
                # runners come while many are put aside.
                await self._queue.unpark(Counter(waiter.labels for waiter in waiting))
            taken += 1
            entry = await self._queue.take(str(uuid.uuid4()))
            for poll in self._waiters:
                # A round may last, and the queue is within reach again.
                poll.error = None
            if entry is None:
                return
            waiter = next((waiter for waiter in self._waiters if waiter.suits(entry)), None)
            if waiter:
                waiter.entry.set_result(entry)
                continue
            try:
                await self._queue.park(entry, frozenset().union(*(waiter.labels for waiter in self._waiters)))
            except EntryGoneError as error:
                log.info("entry was gone already", extra={"jobId": entry.job_id, "why": str(error)})
