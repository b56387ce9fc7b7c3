"""Reads the logs, asks the stores, and lets the oracle judge."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

from . import facts, oracle
from .journal import read
from .oracle import Verdict, Window, Writes
from .settings import Targets

POLL_SECONDS = 1.0


async def verify(
    targets: Targets, directory: Path, window: Window, *, wait_seconds: float, patience_seconds: float
) -> dict[str, Any]:
    """The verdict on everything written within the window, as a JSON object.

    Waits up to `wait_seconds` for acknowledged jobs to be completed. Raises FactsUnavailableError when a
    store could not be asked for `patience_seconds`: no verdict is better than a wrong one.
    """
    # All logs are read before the stores are asked: what is acknowledged meanwhile is not judged.
    writes = {
        probe: oracle.collect_writes(probe, read(directory, probe), window) for probe in oracle.WRITE_KINDS
    }
    verdicts: dict[str, Verdict] = {}
    jobs = writes["jobs"]
    if jobs.acknowledged or jobs.unknown:
        statuses = await wait_for_jobs(
            targets, jobs, wait_seconds=wait_seconds, patience_seconds=patience_seconds
        )
        executions = oracle.count_executions(read(directory, "runners"))
        verdicts["jobs"] = oracle.judge_jobs(jobs, statuses, executions)
    for probe, ask in (("rows", facts.present_rows), ("queue", facts.present_queue_writes)):
        tried = writes[probe].acknowledged | writes[probe].unknown
        present = await facts.persistently(lambda ask=ask, tried=tried: ask(targets, tried), patience_seconds)  # type: ignore[misc]
        verdicts[probe] = oracle.judge_writes(writes[probe], present)
    lost = sum(verdict.lost for verdict in verdicts.values())
    return {
        "acknowledged": sum(verdict.acknowledged for verdict in verdicts.values()),
        "lost": lost,
        "duplicates": sum(verdict.duplicates for verdict in verdicts.values()),
        "errors": sum(verdict.errors for verdict in verdicts.values()),
        "probes": {probe: verdict.as_json() for probe, verdict in verdicts.items()},
        "runners": oracle.summarise_runners(read(directory, "runners"), window),
        "websocket": oracle.summarise_websockets(read(directory, "websocket"), window),
    }


async def wait_for_jobs(
    targets: Targets, jobs: Writes, *, wait_seconds: float, patience_seconds: float
) -> dict[str, str]:
    """The status of all jobs, once all acknowledged ones have ended or the wait is over."""
    deadline = time.monotonic() + wait_seconds
    tried = jobs.acknowledged | jobs.unknown
    while True:
        statuses = await facts.persistently(lambda: facts.job_statuses(targets, tried), patience_seconds)
        if not oracle.unfinished(jobs, statuses) or time.monotonic() >= deadline:
            return statuses
        await asyncio.sleep(POLL_SECONDS)


def gaps(directory: Path, window: Window) -> dict[str, Any]:
    """The longest gap of each writing probe within the window, as a JSON object."""
    return {
        "since": window.since,
        "until": window.until,
        "probes": {
            probe: oracle.longest_gap(read(directory, probe), kind, window).as_json()
            for probe, kind in oracle.WRITE_KINDS.items()
            if (directory / f"{probe}.jsonl").exists()
        },
    }
