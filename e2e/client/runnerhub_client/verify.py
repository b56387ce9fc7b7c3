"""Reads the logs, asks the stores, and lets the oracle judge."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Sequence
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
        probe: oracle.collect_writes(probe, read(directory, probe, window.since), window)
        for probe in oracle.WRITE_KINDS
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
        tried = writes[probe].tried
        present = await facts.persistently(lambda ask=ask, tried=tried: ask(targets, tried), patience_seconds)  # type: ignore[misc]
        verdicts[probe] = oracle.judge_writes(writes[probe], present)
    transactions = writes["transactions"]
    stored = await facts.persistently(
        lambda: facts.stored_transactions(targets, transactions.tried), patience_seconds
    )
    verdicts["transactions"] = oracle.judge_transactions(transactions, stored)
    return {
        **{
            name: sum(getattr(verdict, name) for verdict in verdicts.values())
            for name in ("acknowledged", "lost", "partial", "phantoms", "duplicates", "errors")
        },
        "probes": {probe: verdict.as_json() for probe, verdict in verdicts.items()},
        "runners": oracle.summarise_runners(read(directory, "runners", window.since), window),
        "websocket": oracle.summarise_websockets(read(directory, "websocket", window.since), window),
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
    """The longest gap of each probe within the window, and of each store over all its writers; a JSON object."""
    probes = [probe for probe in oracle.GAP_KINDS if (directory / f"{probe}.jsonl").exists()]
    stores = {store: [probe for probe in of if probe in probes] for store, of in oracle.STORES.items()}
    return {
        "since": window.since,
        "until": window.until,
        "probes": {probe: _gap(directory, (probe,), window) for probe in probes},
        "stores": {store: _gap(directory, writers, window) for store, writers in stores.items() if writers},
    }


def _gap(directory: Path, probes: Sequence[str], window: Window) -> dict[str, Any]:
    records = itertools.chain.from_iterable(read(directory, probe, window.since) for probe in probes)
    kinds = {oracle.GAP_KINDS[probe] for probe in probes}
    return oracle.longest_gap(records, kinds, window).as_json()
