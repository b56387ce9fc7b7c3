"""The work queue: one worker per cluster at a time, many clusters at once.

A key that is added while its work runs is run once more afterwards; a burst of additions becomes one run. A failure
is repeated with exponential backoff and jitter, per key; a success may ask to be run again after some time.
Modelled on the guarantees of client-go's workqueue.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar

K = TypeVar("K", bound=Hashable)

FIRST_BACKOFF_SECONDS: Final = 0.5
MAX_BACKOFF_SECONDS: Final = 60.0
# Events come in bursts (a StatefulSet, its pods, their endpoints); a short wait makes one run of them.
DEBOUNCE_SECONDS: Final = 0.1


@dataclass(slots=True)
class _Entry:
    running: bool = False
    again: bool = False
    queued: bool = False
    failures: int = 0
    timer: asyncio.TimerHandle | None = field(default=None, repr=False)
    due: float = 0.0


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
        self._ready: asyncio.Queue[K] = asyncio.Queue()
        self._entries: dict[K, _Entry] = {}

    def add(self, key: K, delay_seconds: float = DEBOUNCE_SECONDS) -> None:
        """Ask for a run of `key`, at the latest after `delay_seconds`."""
        entry = self._entries.setdefault(key, _Entry())
        if entry.running:
            if delay_seconds <= DEBOUNCE_SECONDS:
                entry.again = True
            return
        if entry.queued:
            return
        loop = asyncio.get_running_loop()
        due = loop.time() + delay_seconds
        if entry.timer is not None:
            if entry.due <= due:
                return
            entry.timer.cancel()
        entry.due = due
        entry.timer = loop.call_later(delay_seconds, self._enqueue, key)

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
        self._ready.put_nowait(key)
        self._depth(self._ready.qsize())

    async def _worker(self) -> None:
        while True:
            key = await self._ready.get()
            self._depth(self._ready.qsize())
            entry = self._entries[key]
            entry.queued = False
            entry.running = True
            delay: float | None
            try:
                delay = await self._work(key)
                entry.failures = 0
            except Exception as error:
                entry.failures += 1
                delay = backoff_seconds(entry.failures)
                self._failed(key, error)
            finally:
                entry.running = False
            if entry.again:
                entry.again = False
                delay = DEBOUNCE_SECONDS if entry.failures == 0 else min(delay or 0, 1.0)
            if delay is None:
                self.forget(key)
            else:
                self.add(key, delay)


def backoff_seconds(failures: int) -> float:
    """Time until the next try after `failures` failures in a row: doubled each time, with jitter of a quarter."""
    base = min(FIRST_BACKOFF_SECONDS * 2.0 ** min(failures - 1, 16), MAX_BACKOFF_SECONDS)
    return base * random.uniform(0.75, 1.25)  # noqa: S311 -- jitter, not cryptography
