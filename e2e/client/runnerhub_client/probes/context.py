"""What all probes of a run share."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp

from ..settings import Load, Targets
from ..targets import Tokens

# Ids begin where the run began, so that runs do not meet, and stay below 2^53, which JSON numbers can hold.
EPOCH_SECONDS = 1_700_000_000
IDS_PER_SECOND = 2**22
PAUSE_FILE = "no-jobs"


@dataclass(slots=True)
class Context:
    """`stop` ends the writers; `stop_runners` ends those who work off, a little later."""

    targets: Targets
    load: Load
    directory: Path
    session: aiohttp.ClientSession
    tokens: Tokens
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    stop_runners: asyncio.Event = field(default_factory=asyncio.Event)
    # Jobs that were acknowledged and have not been completed by our runners.
    open_jobs: set[int] = field(default_factory=set)
    # The last one of them, which must be found by whoever asks for it.
    last_job: int | None = None

    def jobs_paused(self) -> bool:
        """Whether no new jobs are wanted for now: somebody has put a file there."""
        return (self.directory / PAUSE_FILE).exists()


def unique_ids() -> Iterator[int]:
    """Numbers that no other run uses."""
    number = max(int(time.time()) - EPOCH_SECONDS, 1) * IDS_PER_SECOND
    while True:
        number += 1
        yield number
