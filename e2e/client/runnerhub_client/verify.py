"""Reads the logs, asks the stores, and lets the oracle judge."""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from . import facts, oracle, terms
from .journal import read
from .oracle import Verdict, Window, Writes
from .probes.queue import SETS
from .settings import Targets

POLL_SECONDS = 1.0
# What BullMQ needs to begin a job again whose worker was lost; the stores may have used up all other patience.
WORKERS_SECONDS = 20.0
# When no missing job was worked on for so long, none will be.
STUCK_SECONDS = 30.0
# How much longer than asked for is waited while there is progress: runners may have thousands of jobs before them.
LATE_SECONDS = 600.0
# By so much a job may be executed before its client hears that it was accepted.
EARLIER_SECONDS = 60.0


async def verify(
    targets: Targets, directory: Path, window: Window, *, wait_seconds: float, patience_seconds: float
) -> dict[str, Any]:
    """The verdict on everything written within the window, as a JSON object.

    Waits up to `wait_seconds` for acknowledged jobs to be completed. Raises FactsUnavailableError when a
    store could not be asked for `patience_seconds`: no verdict is better than a wrong one.
    """
    started = time.monotonic()
    # All logs are read before the stores are asked: what is acknowledged meanwhile is not judged.
    writes = {
        probe: oracle.collect_writes(probe, read(directory, probe, window.since), window)
        for probe in (*oracle.WRITE_KINDS, *oracle.UNCONFIRMED_KINDS)
    }
    counted = list(read(directory, "counter", window.since))
    verdicts: dict[str, Verdict] = {}
    jobs = writes["jobs"]
    if jobs.acknowledged or jobs.unknown:
        statuses = await wait_for_jobs(
            targets, jobs, wait_seconds=wait_seconds, patience_seconds=patience_seconds
        )
        # A job is executed after it was accepted; what the log of hours has before that is not read.
        executions = oracle.count_executions(read(directory, "runners", window.since - EARLIER_SECONDS))
        verdicts["jobs"] = oracle.judge_jobs(jobs, statuses, executions)
    rows = writes["rows"]
    present = await facts.persistently(lambda: facts.present_rows(targets, rows.tried), patience_seconds)
    verdicts["rows"] = oracle.judge_writes(rows, present)
    for probe in SETS:
        tried = writes[probe].tried
        present = await facts.persistently(
            lambda probe=probe, tried=tried: facts.present_entries(targets, probe, tried),  # type: ignore[misc]
            patience_seconds,
        )
        verdicts[probe] = oracle.judge_writes(writes[probe], present)
    if counted:
        value = await facts.persistently(lambda: facts.counter_value(targets), patience_seconds)
        verdicts["counter"] = oracle.judge_counter(counted, value, window)
    transactions = writes["transactions"]
    stored = await facts.persistently(
        lambda: facts.stored_transactions(targets, transactions.tried), patience_seconds
    )
    verdicts["transactions"] = oracle.judge_transactions(transactions, stored)
    for probe in oracle.WORKER_KINDS:
        if writes[probe].tried:
            left = max(wait_seconds - (time.monotonic() - started), min(wait_seconds, WORKERS_SECONDS))
            processed = await wait_for_workers(directory, probe, window, writes[probe], wait_seconds=left)
            verdicts[probe] = oracle.judge_deliveries(writes[probe], processed)
    promised = [verdict for probe, verdict in verdicts.items() if probe in oracle.WRITE_KINDS]
    others = [verdict for probe, verdict in verdicts.items() if probe in oracle.UNCONFIRMED_KINDS]
    return {
        **_sums(promised),
        "unconfirmed": _sums(others),
        "probes": {probe: verdict.as_json() for probe, verdict in verdicts.items()},
        "runners": oracle.summarise_runners(read(directory, "runners", window.since), window),
        "two_leaders": len(terms.two_leaders(read(directory, "leaders", window.since), window)),
        "websocket": oracle.summarise_websockets(read(directory, "websocket", window.since), window),
    }


def _sums(verdicts: Sequence[Verdict]) -> dict[str, int]:
    return {
        name: sum(getattr(verdict, name) for verdict in verdicts)
        for name in ("acknowledged", "lost", "partial", "phantoms", "duplicates", "errors")
    }


async def wait_for_workers(
    directory: Path, probe: str, window: Window, writes: Writes, *, wait_seconds: float
) -> Counter[str]:
    """How often each job was worked on, once all acknowledged ones were, no more will be, or the wait is over."""
    deadline = time.monotonic() + wait_seconds
    fewest, since = len(writes.acknowledged) + 1, time.monotonic()
    while True:
        processed = oracle.count_processed(read(directory, f"{probe}-worker", window.since))
        missing, now = len(writes.acknowledged - processed.keys()), time.monotonic()
        if missing < fewest:
            fewest, since = missing, now
        if not missing or now >= min(deadline, since + STUCK_SECONDS):
            return processed
        await asyncio.sleep(POLL_SECONDS)


async def wait_for_jobs(
    targets: Targets, jobs: Writes, *, wait_seconds: float, patience_seconds: float
) -> dict[str, str]:
    """The status of all jobs, once all acknowledged ones have ended or the wait is over.

    It is not over while jobs are completed that came before the last of these: a queue is worked off in its order.
    """
    deadline = time.monotonic() + wait_seconds
    tried = jobs.acknowledged | jobs.unknown
    fewest, since = math.inf, time.monotonic()
    while True:
        statuses = await facts.persistently(lambda: facts.job_statuses(targets, tried), patience_seconds)
        if not oracle.unfinished(jobs, statuses):
            return statuses
        ahead = await facts.persistently(
            lambda: facts.jobs_ahead(targets, jobs.acknowledged), patience_seconds
        )
        now = time.monotonic()
        if ahead < fewest:
            fewest, since = ahead, now
        if now >= min(max(deadline, since + STUCK_SECONDS), deadline + LATE_SECONDS):
            return statuses
        await asyncio.sleep(POLL_SECONDS)
