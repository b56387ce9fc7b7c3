"""The gate before the database: open, or closed for a bounded time while the primary changes.

Whoever closes it may die: it opens by itself as soon as there is another primary, or the same one again after it was
away, when the time is over, and when this program starts anew.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

from .console import ConsoleError, GoneError, StillBusyError
from .haproxy import ProxyError, ProxyGoneError
from .log import log

MAX_PAUSE_SECONDS = 15.0
# How long running transactions may take to end; clients wait meanwhile. Longer at the next try when they did not, as on
# a node without idle CPU. With a switchover after it, the longest still leaves clients within five seconds.
PATIENCE_SECONDS = (1.5, 2.0, 2.5)
FORGOTTEN_SECONDS = 60.0
LOOK_SECONDS = 0.05
RETRY_SECONDS = 0.5

# Statuses of HTTP: there is somebody who cannot be held back; there is nobody who would have to be; not known.
BUSY, NOBODY, UNKNOWN = 409, 410, 503


class RefusedError(Exception):
    """The gate stays open; `status` is that of the HTTP answer, the message a sentence."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Pooler(Protocol):
    """What holds clients back and lets them go."""

    def pause(self, patience_seconds: float) -> None:
        """Hold them back. Raises ConsoleError."""

    def resume(self) -> None:
        """Let them go. Raises GoneError when there is nobody, ConsoleError."""


class Lookout(Protocol):
    """What knows who the primary is."""

    def running(self) -> tuple[str, ...]:
        """Members that connections are sent to. Raises ProxyError."""

    def successor(self, leaving: str) -> str | None:
        """Another primary that takes writes."""

    def serves(self, member: str) -> bool:
        """Whether a member is the primary and takes writes. Raises ProxyError."""

    def rest(self) -> None:
        """Nobody looks for another primary for now."""


@dataclass(frozen=True, slots=True)
class Pause:
    """A closed gate: the primary that gives up its role, since when and until when at most, by the monotonic clock.

    `away`: connections were not sent to that primary any more.
    """

    primary: str
    since: float
    until: float
    away: bool = False

    def prolonged(self, until: float) -> Pause:
        """For another who wants the same; all together no longer than one may."""
        return replace(self, until=min(max(self.until, until), self.since + MAX_PAUSE_SECONDS))

    def over(self) -> Pause:
        """As it is when its time is over."""
        return replace(self, until=0.0)


# A process before this one may have left the gate closed.
_LEFT_OVER = Pause("", 0.0, 0.0)


class Gate:
    """Safe for several threads. `watch` must run in one of its own."""

    def __init__(self, pooler: Pooler, lookout: Lookout, clock: Callable[[], float] = time.monotonic) -> None:
        self._pooler = pooler
        self._lookout = lookout
        self._clock = clock
        self._lock = threading.Lock()
        self._pause: Pause | None = _LEFT_OVER
        self._closed = threading.Event()
        self._closed.set()
        # Tries in a row that transactions outlasted, and when the last one ended.
        self._outlasted, self._outlasted_at = 0, 0.0

    @property
    def is_closed(self) -> bool:
        """Whether clients are, or may be, held back."""
        return self._pause is not None

    def close(self, primary: str, seconds: float) -> None:
        """Hold clients back until the role has moved away from `primary`, at most so long. Raises RefusedError."""
        with self._lock:
            pause, now = self._pause, self._clock()
            if pause is not None and self._is_over(pause):
                self._open("the time is over")
            elif pause is not None and pause.primary == primary:
                # Two want the same: the operator, and the pod that stops.
                self._pause = pause.prolonged(now + seconds)
                return
            self._check(primary)
            # From here on it opens by itself, also when the next line fails half-way.
            self._pause = Pause(primary, now, now + min(seconds, MAX_PAUSE_SECONDS))
            self._closed.set()
            try:
                self._pooler.pause(self._patience(now))
            except ConsoleError as error:
                self._open(str(error))
                if isinstance(error, StillBusyError):
                    self._outlasted, self._outlasted_at = self._outlasted + 1, self._clock()
                raise RefusedError(_status(error), str(error)) from error
            log("paused", primary=primary, seconds=round(self._clock() - now, 3))

    def resume(self, why: str) -> None:
        """Let clients go on; fine when they are not held back."""
        with self._lock:
            if self._pause is not None:
                self._open(why)

    def tick(self) -> None:
        """Look once whether it is time to open."""
        pause = self._pause
        if pause is None:
            return
        why = self._reason(pause)
        if why is None:
            return
        with self._lock:
            if self._pause is pause:
                self._open(why)

    def watch(self) -> None:
        """Look again and again while closed; never ends."""
        while True:
            self._closed.wait()
            self.tick()
            while (pause := self._pause) is not None:
                time.sleep(RETRY_SECONDS if self._is_over(pause) else LOOK_SECONDS)
                self.tick()
            self._lookout.rest()

    def _patience(self, now: float) -> float:
        if now - self._outlasted_at > FORGOTTEN_SECONDS:
            self._outlasted = 0
        return PATIENCE_SECONDS[min(self._outlasted, len(PATIENCE_SECONDS) - 1)]

    def _check(self, primary: str) -> None:
        if self._pause is not None:
            other = self._pause.primary
            raise RefusedError(UNKNOWN, f"paused for {other}" if other else "PgBouncer is not there yet")
        try:
            running = self._lookout.running()
        except ProxyError as error:
            status = NOBODY if isinstance(error, ProxyGoneError) else UNKNOWN
            raise RefusedError(status, str(error)) from error
        if primary not in running:
            named = ", ".join(running) or "nobody"
            raise RefusedError(BUSY if running else NOBODY, f"{primary} is not the primary here but {named}")

    def _is_over(self, pause: Pause) -> bool:
        return self._clock() >= pause.until

    def _reason(self, pause: Pause) -> str | None:
        """Why it is time to open, None while it is not."""
        if self._is_over(pause):
            return "the time is over" if pause.primary else "this program has just started"
        successor = self._lookout.successor(pause.primary)
        if successor is not None:
            return f"{successor} is the primary"
        return f"{pause.primary} is back" if self._is_back(pause) else None

    def _is_back(self, pause: Pause) -> bool:
        """Whether the one that left is the primary again, as when nobody else could be; notes that it was away."""
        try:
            if pause.primary in self._lookout.running():
                return pause.away and self._lookout.serves(pause.primary)
        except ProxyError:
            return False
        with self._lock:
            if self._pause is pause:
                self._pause = replace(pause, away=True)
        return False

    def _open(self, why: str) -> None:
        try:
            self._pooler.resume()
        except GoneError:
            # It holds nobody back, and the next one begins open.
            pass
        except ConsoleError as error:
            # Tried again at the next look.
            if self._pause is not None:
                self._pause = self._pause.over()
                if self._pause.primary:
                    log("still paused", error=str(error))
            return
        if self._pause is not None and self._pause.primary:
            log("resumed", why=why, primary=self._pause.primary)
        self._pause = None
        self._closed.clear()


def _status(error: ConsoleError) -> int:
    match error:
        case StillBusyError():
            return BUSY
        case GoneError():
            return NOBODY
    return UNKNOWN
