"""Work in the background that must not end: what it ends by is told, and it begins anew."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

from .logs import describe

log = logging.getLogger(__name__)

FIRST_PAUSE_SECONDS = 1.0
# Shorter than what counts as a pause of the leaders (singleton.py), after which leases get more time.
LONGEST_PAUSE_SECONDS = 5.0
# Work that has gone on for so long after it crashed is well again.
CALM_SECONDS = 60.0


class Background:
    """One task, under a name for people; it ends by `close`, or when its work has returned."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._task: asyncio.Task[None] | None = None
        self._error: str | None = None
        self._begun_at = 0.0

    def start(self, work: Callable[[], Awaitable[None]]) -> None:
        """Begin; `work` is called anew, after a pause, whenever it raises."""
        self._task = asyncio.create_task(self._keep(work), name=self.name)

    async def close(self) -> None:
        """Stop."""
        if self._task:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    @property
    def error(self) -> str | None:
        """What it crashed by, until it has gone on for a while since."""
        calm = self._begun_at and time.monotonic() - self._begun_at >= CALM_SECONDS
        return None if calm else self._error

    async def _keep(self, work: Callable[[], Awaitable[None]]) -> None:
        pause = FIRST_PAUSE_SECONDS
        while True:
            self._begun_at = time.monotonic()
            try:
                await work()
            except Exception as error:
                # Anything may arrive here: it is told with its trace, and /health names the task.
                if time.monotonic() - self._begun_at >= CALM_SECONDS:
                    pause = FIRST_PAUSE_SECONDS
                self._begun_at, self._error = 0.0, describe(error)
                log.exception("background task crashed", extra={"task": self.name, "retry_seconds": pause})
                await asyncio.sleep(pause)
                pause = min(pause * 2, LONGEST_PAUSE_SECONDS)
            else:
                self._error = None
                return
