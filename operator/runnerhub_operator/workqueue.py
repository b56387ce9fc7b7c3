"""The work queue: one worker per cluster at a time, many clusters at once, what people ask for first.

A key that is added while its work runs is run once more afterwards; a burst of additions becomes one run. A failure
is repeated with exponential backoff and jitter, per key, not before the time that the error asks for
(`retry_after_seconds`); a success may ask to be run again after some time.
Modelled on the guarantees of client-go's workqueue.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar

K = TypeVar("K", bound=Hashable)

FIRST_BACKOFF_SECONDS: Final = 0.5
MAX_BACKOFF_SECONDS: Final = 60.0
# Events come in bursts (a StatefulSet, its pods, their endpoints); a short wait makes one run of them.
DEBOUNCE_SECONDS: Final = 0.1
# An addition with a longer delay is a routine visit: it asks for no further run of a key that runs just now.
MAX_DEBOUNCE_SECONDS: Final = 0.5
RETRY_ON_NEWS_SECONDS: Final = 1.0


@dataclass(slots=True)
class _Entry:
    running: bool = False
    again: bool = False
    queued: bool = False
    urgent: bool = False
    failures: int = 0
    timer: asyncio.TimerHandle | None = field(default=None, repr=False)
    due: float = 0.0
    not_before: float = 0.0


class WorkQueue(Generic[K]):
    """Runs `work(key)`; what it returns is the time in seconds after which the key is run again, or None.

    An exception of `work` goes to `failed(key, error)` and is followed by a repetition with backoff.
    """

    def __init__(
        self,
        work: Callable[[K], Awaitable[float | None]],
        *,
        failed: Callable[[K, Exception], None],
        workers: int,
        depth: Callable[[int], None] = lambda _: None,
    ) -> None:
        self._work = work
        self._failed = failed
        self._workers = workers
        self._depth = depth
        # Hundreds of routine visits may wait; an edit does not wait behind them.
        self._urgent: deque[K] = deque()
        self._routine: deque[K] = deque()
        self._available = asyncio.Semaphore(0)
        self._entries: dict[K, _Entry] = {}

    def add(self, key: K, delay_seconds: float = DEBOUNCE_SECONDS, *, urgent: bool = False) -> None:
        """Ask for a run of `key`, at the latest after `delay_seconds`; an urgent one overtakes those that wait."""
        entry = self._entries.setdefault(key, _Entry())
        entry.urgent = entry.urgent or urgent
        if entry.running:
            if delay_seconds <= MAX_DEBOUNCE_SECONDS:
                entry.again = True
            return
        if entry.queued:
            if urgent and key in self._routine:
                self._routine.remove(key)
                self._urgent.append(key)
            return
        loop = asyncio.get_running_loop()
        # News may be what makes the next try pass, but a server that refuses is not stormed.
        due = max(loop.time() + delay_seconds, entry.not_before)
        if entry.timer is not None:
            if entry.due <= due:
                return
            entry.timer.cancel()
        entry.due = due
        entry.timer = loop.call_at(due, self._enqueue, key)

    def forget(self, key: K) -> None:
        """Drop a key that no longer exists."""
        entry = self._entries.get(key)
        if entry is None or entry.running or entry.queued:
            return
        if entry.timer is not None:
            entry.timer.cancel()
        del self._entries[key]

    async def run(self) -> None:
        """Work until cancelled."""
        async with asyncio.TaskGroup() as group:
            for _ in range(self._workers):
                group.create_task(self._worker())

    def _enqueue(self, key: K) -> None:
        entry = self._entries[key]
        entry.timer = None
        entry.queued = True
        (self._urgent if entry.urgent else self._routine).append(key)
        self._depth(len(self._urgent) + len(self._routine))
        self._available.release()

    async def _worker(self) -> None:
        while True:
            await self._available.acquire()
            key = (self._urgent or self._routine).popleft()
            self._depth(len(self._urgent) + len(self._routine))
            entry = self._entries[key]
            entry.queued = entry.urgent = False
            entry.running = True
            delay: float | None
            try:
                delay = await self._work(key)
                entry.failures = 0
            except Exception as error:
                # What fails while a cancelled visit clears up must not hide that it was cancelled.
                if (task := asyncio.current_task()) is not None and task.cancelling():
                    raise asyncio.CancelledError from error
                entry.failures += 1
                asked = getattr(error, "retry_after_seconds", 0.0)
                delay = max(backoff_seconds(entry.failures), asked)
                entry.not_before = asyncio.get_running_loop().time() + max(
                    asked, min(delay, RETRY_ON_NEWS_SECONDS)
                )
                self._failed(key, error)
            finally:
                entry.running = False
            if entry.again:
                entry.again = False
                delay = DEBOUNCE_SECONDS
            if delay is None:
                self.forget(key)
            else:
                self.add(key, delay)


def backoff_seconds(failures: int) -> float:
    """Time until the next try after `failures` failures in a row: doubled each time, with jitter of a quarter."""
    base = min(FIRST_BACKOFF_SECONDS * 2.0 ** min(failures - 1, 16), MAX_BACKOFF_SECONDS)
    return base * random.uniform(0.75, 1.25)  # noqa: S311 -- jitter, not cryptography
