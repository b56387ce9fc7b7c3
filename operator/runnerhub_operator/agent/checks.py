"""Health checks that run in the background, so that whoever asks gets the last result at once."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any, Final

from ..errors import ProbeError
from ..kube.lease import boot_clock
from .settings import CheckTiming

log = logging.getLogger(__name__)

Details = Mapping[str, Any]

# A failure is looked at again this soon, not only after the interval: both the outage and its end are known
# early.
RECHECK_SECONDS: Final = 1.0
# A probe that does not even end after its cancellation blocks the next one; more than this never pile up.
MAX_ABANDONED: Final = 2


class Status(StrEnum):
    """What is known about a dependency."""

    UNKNOWN = "unknown"
    UP = "up"
    DOWN = "down"


@dataclass(frozen=True, slots=True)
class CheckState:
    """The last results of one check. Times are seconds on the boot clock."""

    status: Status = Status.UNKNOWN
    failures: int = 0
    checked_at: float | None = None
    changed_at: float | None = None
    succeeded_at: float | None = None
    latency_seconds: float | None = None
    error: str | None = None
    details: Details = field(default_factory=dict)

    def succeeded(self, details: Details, started: float, now: float) -> CheckState:
        """Take in a success."""
        return CheckState(
            status=Status.UP,
            checked_at=now,
            changed_at=self.changed_at if self.status is Status.UP else now,
            succeeded_at=now,
            latency_seconds=now - started,
            details=details,
        )

    def failed(self, error: str, now: float, retries: int) -> CheckState:
        """Take in a failure: so many in a row make the dependency down, and one that never was up at once."""
        failures = self.failures + 1
        down = self.status is not Status.UP or failures >= retries
        return replace(
            self,
            status=Status.DOWN if down else self.status,
            failures=failures,
            checked_at=now,
            changed_at=now if down and self.status is not Status.DOWN else self.changed_at,
            error=error,
        )

    def overdue(self, now: float, timing: CheckTiming) -> bool:
        """Whether the last result is too old to be believed, as after the process was frozen."""
        patience = 2 * timing.interval_seconds + timing.timeout_seconds
        return self.checked_at is not None and now - self.checked_at > patience

    def healthy(self, now: float, timing: CheckTiming) -> bool:
        """Whether the dependency works as far as is known."""
        return self.status is Status.UP and not self.overdue(now, timing)

    def render(self, now: float, timing: CheckTiming) -> dict[str, Any]:
        """For the JSON answers: the result with its age."""
        overdue = self.overdue(now, timing)
        result: dict[str, Any] = {
            "status": "overdue" if overdue else str(self.status),
            "ageSeconds": None if self.checked_at is None else round(now - self.checked_at, 1),
            "since": None if self.changed_at is None else _wall_clock(now - self.changed_at),
            "failures": self.failures,
            "latencySeconds": None if self.latency_seconds is None else round(self.latency_seconds, 4),
        }
        if self.error is None:
            return result | dict(self.details)
        return result | {"error": self.error, "lastGood": dict(self.details)}


def _wall_clock(seconds_ago: float) -> str:
    return (datetime.now(UTC) - timedelta(seconds=seconds_ago)).strftime("%Y-%m-%dT%H:%M:%SZ")


class Check:
    """One check in the background.

    `probe` gives details for people or raises ProbeError; `on_success` is told the seconds since the success
    before (None for the first) and the seconds that the probe took. A failure is looked at again after
    `recheck_seconds`.
    """

    def __init__(
        self,
        name: str,
        probe: Callable[[], Awaitable[Details]],
        timing: CheckTiming,
        *,
        on_success: Callable[[float | None, float], None] = lambda _gap, _latency: None,
        recheck_seconds: float = RECHECK_SECONDS,
        clock: Callable[[], float] = boot_clock,
    ) -> None:
        self.name = name
        self.timing = timing
        self.state = CheckState()
        self._probe = probe
        self._on_success = on_success
        self._recheck_seconds = recheck_seconds
        self._clock = clock
        self._abandoned: set[asyncio.Task[Details]] = set()

    @property
    def healthy(self) -> bool:
        """Whether the dependency works as far as is known."""
        return self.state.healthy(self._clock(), self.timing)

    def render(self) -> dict[str, Any]:
        """For the JSON answers."""
        return self.state.render(self._clock(), self.timing)

    async def run(self) -> None:
        """Check for ever."""
        while True:
            await self.once()
            wait = self.timing.interval_seconds
            if self.state.failures:
                wait = min(wait, self._recheck_seconds)
            await asyncio.sleep(wait)

    async def once(self) -> None:
        """Check once and keep the result."""
        before, started = self.state, self._clock()
        try:
            details = await self._within_deadline()
        except ProbeError as error:
            self.state = before.failed(str(error), self._clock(), self.timing.retries)
        else:
            now = self._clock()
            self.state = before.succeeded(details, started, now)
            # While the agent itself was away, nobody knows what was acknowledged.
            known = None if before.overdue(started, self.timing) else before.succeeded_at
            gap = None if known is None else now - known
            self._on_success(gap, now - started)
        if self.state.status is not before.status:
            level = logging.INFO if self.state.status is Status.UP else logging.WARNING
            log.log(
                level,
                "%s is %s",
                self.name,
                self.state.status,
                extra={"dependency": self.name, "reason": self.state.error},
            )

    async def _within_deadline(self) -> Details:
        """The probe's result, not a moment later than the deadline even if the probe ignores its
        cancellation.
        """
        if len(self._abandoned) >= MAX_ABANDONED:
            raise ProbeError("earlier checks still hang")
        task = asyncio.ensure_future(self._probe())
        done, _ = await asyncio.wait({task}, timeout=self.timing.timeout_seconds)
        if done:
            return task.result()
        self._abandoned.add(task)
        task.add_done_callback(self._forget)
        task.cancel()
        raise ProbeError(f"no answer in {self.timing.timeout_seconds:g} s")

    def _forget(self, task: asyncio.Task[Details]) -> None:
        self._abandoned.discard(task)
        if not task.cancelled():
            task.exception()
