"""Whether this pod leads, as its ha-agent says it, believed no longer than the lease is valid."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
from pydantic import AliasGenerator, AwareDatetime, BaseModel, ConfigDict, ValidationError
from pydantic.alias_generators import to_camel

from .background import Background
from .settings import LeaderSettings

log = logging.getLogger(__name__)

ASK_TIMEOUT_SECONDS = 2.0


class AgentAnswer(BaseModel):
    """Body of the ha-agent's GET /leader, and content of its leader file."""

    model_config = ConfigDict(alias_generator=AliasGenerator(validation_alias=to_camel), extra="ignore")

    leader: bool
    holder: str = ""
    fencing_token: int = 0
    valid_until: AwareDatetime | None = None
    alone_without: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Leadership:
    """The right to do singleton work. `fencing_token` is None where no election takes place."""

    fencing_token: int | None
    valid_until_monotonic: float

    def is_valid(self) -> bool:
        """Whether the lease has not run out, on this process's own clock."""
        return time.monotonic() < self.valid_until_monotonic


def judge(
    answer: AgentAnswer | None, *, now: datetime, asked_at_monotonic: float, lease_seconds: float
) -> Leadership | None:
    """Turn an answer into leadership.

    The rest of the lease is counted from the moment the question was asked, on the monotonic clock, and
    is never longer than a whole lease: a wall clock that jumps, or an agent that promises too much, can
    only shorten it.
    """
    if answer is None or not answer.leader or answer.valid_until is None:
        return None
    remaining = min((answer.valid_until - now).total_seconds(), lease_seconds)
    if remaining <= 0:
        return None
    return Leadership(answer.fencing_token, asked_at_monotonic + remaining)


class LeadershipWatch:
    """Keeps asking the ha-agent; `current()` answers at once from the latest valid answer."""

    def __init__(self, settings: LeaderSettings) -> None:
        self._settings = settings
        self._leadership: Leadership | None = None
        self._leads = False
        # Stores that this pod has lost and others have, as its agent said a moment ago.
        self.alone_without: tuple[str, ...] = ()
        self.background = Background("leadership")

    def start(self) -> None:
        """Begin to ask."""
        self.background.start(self._run)

    async def close(self) -> None:
        """Stop asking and stop leading."""
        await self.background.close()
        self._leadership = None

    def current(self) -> Leadership | None:
        """This pod's leadership, if it has a valid one."""
        if not self._settings.enabled:
            return Leadership(None, float("inf"))
        leadership = self._leadership
        return leadership if leadership and leadership.is_valid() else None

    async def _run(self) -> None:
        if not self._settings.enabled:
            return
        timeout = aiohttp.ClientTimeout(total=ASK_TIMEOUT_SECONDS)
        async with aiohttp.ClientSession(timeout=timeout) as session:
            while True:
                asked_at = time.monotonic()
                answer = await self._ask(session)
                self._leadership = judge(
                    answer,
                    now=datetime.now(UTC),
                    asked_at_monotonic=asked_at,
                    lease_seconds=self._settings.lease_seconds,
                )
                self.alone_without = answer.alone_without if answer else ()
                self._tell()
                await asyncio.sleep(self._settings.poll_seconds)

    async def _ask(self, session: aiohttp.ClientSession) -> AgentAnswer | None:
        try:
            async with session.get(f"{self._settings.agent_url}/leader") as response:
                # 200 leads, 503 does not; both carry the same body.
                return AgentAnswer.model_validate(await response.json(content_type=None))
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError, ValidationError):
            # The agent may just be restarting; what it wrote last is as good, its validity is checked anyway.
            return await asyncio.to_thread(_read, self._settings.leader_file)

    def _tell(self) -> None:
        leads = self.current() is not None
        if leads != self._leads:
            token = self._leadership.fencing_token if self._leadership else None
            log.info("leadership gained" if leads else "leadership lost", extra={"fencingToken": token})
        self._leads = leads


def _read(path: Path | None) -> AgentAnswer | None:
    if path is None:
        return None
    try:
        content: Any = json.loads(path.read_text())
        return AgentAnswer.model_validate(content)
    except (OSError, ValueError, ValidationError):
        return None
