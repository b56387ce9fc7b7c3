"""Whether the orchestrator beside this agent is fit to lead."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, Final

import aiohttp

from ..kube.lease import boot_clock

log = logging.getLogger(__name__)

ASK_EVERY_SECONDS: Final = 2.0
# After a failure the next look decides whether leadership must move, so it comes soon.
ASK_AGAIN_SECONDS: Final = 0.5
ANSWER_WITHIN_SECONDS: Final = 2.0

# Nobody listens: the process is gone, and coming back takes longer than a hand-over.
REFUSALS_UNTIL_UNFIT: Final = 3
# It listens but says 503, or says nothing: usually a dependency, which another orchestrator lacks as well. So this
# counts only where others are better off.
FAILING_SECONDS_UNTIL_UNFIT: Final = 10.0


class Outcome(StrEnum):
    """What came of asking the orchestrator for its health."""

    OK = "ok"
    REFUSED = "refused"
    FAILING = "failing"


@dataclass(frozen=True, slots=True)
class Candidacy:
    """What is known about the orchestrator's health; times on any monotonic clock, in seconds."""

    last: Outcome | None = None
    ever_ok: bool = False
    refusals: int = 0
    failures: int = 0
    failing_since: float = 0.0
    detail: str = "not asked yet"

    def after(self, outcome: Outcome, detail: str, now: float) -> Candidacy:
        """Take in one more answer."""
        if outcome is Outcome.OK:
            return Candidacy(outcome, ever_ok=True, detail=detail)
        return replace(
            self,
            last=outcome,
            refusals=self.refusals + 1 if outcome is Outcome.REFUSED else 0,
            failures=self.failures + 1,
            failing_since=now if self.last in (None, Outcome.OK) else self.failing_since,
            detail=detail,
        )

    def fit(self, now: float, *, others_better: bool = True) -> bool:
        """Whether it may lead: it was well once, and what came later can still be a hiccup, or is everybody's."""
        if not self.ever_ok or self.refusals >= REFUSALS_UNTIL_UNFIT:
            return False
        if self.last is Outcome.OK or not others_better:
            return True
        return now - self.failing_since < FAILING_SECONDS_UNTIL_UNFIT

    @property
    def next_ask_seconds(self) -> float:
        """When to ask again."""
        return ASK_EVERY_SECONDS if self.last is Outcome.OK else ASK_AGAIN_SECONDS


async def ask(session: aiohttp.ClientSession, url: str) -> tuple[Outcome, str]:
    """Ask once, with a deadline."""
    try:
        async with asyncio.timeout(ANSWER_WITHIN_SECONDS), session.get(url) as response:
            status = response.status
    except aiohttp.ClientConnectorError as error:
        return Outcome.REFUSED, f"nobody listens: {type(error).__name__}"
    except TimeoutError:
        return Outcome.FAILING, f"no answer in {ANSWER_WITHIN_SECONDS:g} s"
    except (aiohttp.ClientError, OSError) as error:
        return Outcome.FAILING, f"no answer: {type(error).__name__}"
    return (Outcome.OK if status == 200 else Outcome.FAILING), f"HTTP {status}"


class Orchestrator:
    """Keeps asking the orchestrator beside this agent. `on_change` is called when its fitness changes.

    `retries`: so many bad answers in a row make it down for those who ask this agent; its leadership has a measure of
    its own. `others_better`: whether another orchestrator would lead better while this one fails.
    """

    def __init__(
        self,
        session: aiohttp.ClientSession,
        url: str,
        *,
        retries: int = 1,
        on_change: Callable[[], None] = lambda: None,
        others_better: Callable[[], bool] = lambda: True,
        clock: Callable[[], float] = boot_clock,
    ) -> None:
        self._others_better = others_better
        self._session = session
        self._url = url
        self._retries = retries
        self._on_change = on_change
        self._clock = clock
        self._asked_at: float | None = None
        self.candidacy = Candidacy()

    @property
    def fit(self) -> bool:
        """Whether it may lead."""
        return self.candidacy.fit(self._clock(), others_better=self._others_better())

    @property
    def failing(self) -> bool:
        """Whether it listens, and its last answer was bad or none."""
        return self.candidacy.last is Outcome.FAILING

    @property
    def healthy(self) -> bool:
        """Whether it was well, and fewer answers in a row than count have been bad since."""
        return self.candidacy.ever_ok and self.candidacy.failures < self._retries

    @property
    def _status(self) -> str:
        if self.candidacy.last is None:
            return "unknown"
        if not self.healthy:
            return "down"
        # The other agents compare by the last answer alone.
        return "up" if self.candidacy.last is Outcome.OK else "failing"

    def render(self) -> dict[str, Any]:
        """For the JSON answers."""
        return {
            "status": self._status,
            "ageSeconds": None if self._asked_at is None else round(self._clock() - self._asked_at, 1),
            "answer": self.candidacy.detail,
            "fitToLead": self.fit,
        }

    async def run(self) -> None:
        """Ask for ever."""
        while True:
            await self.once()
            await asyncio.sleep(self.candidacy.next_ask_seconds)

    async def once(self) -> Outcome:
        """Ask once and keep the answer."""
        was_fit = self.fit
        outcome, detail = await ask(self._session, self._url)
        self._asked_at = self._clock()
        self.candidacy = self.candidacy.after(outcome, detail, self._asked_at)
        if self.fit != was_fit:
            log.info(
                "the orchestrator is %s to lead", "fit" if self.fit else "not fit", extra={"reason": detail}
            )
            self._on_change()
        return outcome
