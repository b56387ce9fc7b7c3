"""`python -m runnerhub_client run|verify|gaps|wait-idle|master|burst|github`.

Each command imports what it needs: `gaps` is asked for again and again while the machine is short of time.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import time
from collections.abc import Coroutine
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from . import oracle
from .gaps import gaps
from .journal import read
from .oracle import Window
from .settings import Load, Targets

T = TypeVar("T")

EXIT_LOST = 1
EXIT_UNDECIDED = 3
# Duplicates are not among them: jobs may be executed twice.
BROKEN_PROMISES = ("lost", "partial", "phantoms")


def main(arguments: list[str] | None = None) -> int:
    """0: fine; 1: a promise is broken (verify) or a job open (wait-idle); 2: usage; 3: no verdict."""
    parser = _parser()
    options = parser.parse_args(arguments)
    targets = Targets.from_environment(os.environ)
    if options.command == "run":
        from .run import run

        _run(run(targets, _load(options), options.log, options.duration))
        return 0
    if options.command == "master":
        from .sentinels import tell_master

        print(json.dumps(_run(tell_master(targets))))
        return 0
    if options.command == "github":
        from .github import serve as serve_github

        _run(serve_github(options.port, options.token))
        return 0
    if not options.log.is_dir():
        parser.error(f"there is no folder {options.log}")
    if options.command == "burst":
        from .burst import burst

        labels = tuple(label for label in options.labels.split(",") if label)
        found = _run(burst(targets, options.log, options.jobs, labels, wait_seconds=options.wait))
        print(json.dumps(found))
        return 0
    window = Window(options.since, options.until)
    if options.command == "gaps":
        # The window's end may be left open while a run goes on.
        window = Window(window.since, min(window.until, time.time()))
        print(json.dumps(gaps(options.log, window), indent=2))
        return 0
    return _ask_the_stores(options, targets, window)


def _ask_the_stores(options: argparse.Namespace, targets: Targets, window: Window) -> int:
    from .facts import FactsUnavailableError
    from .verify import verify

    try:
        if options.command == "wait-idle":
            return _run(_wait_idle(targets, options, window))
        verdict = _run(
            verify(targets, options.log, window, wait_seconds=options.wait, patience_seconds=options.patience)
        )
    except FactsUnavailableError as error:
        print(json.dumps({"undecided": str(error)}))
        return EXIT_UNDECIDED
    tried = verdict["acknowledged"] + verdict["errors"]
    if not verdict["acknowledged"] and (tried or not verdict["unconfirmed"]["acknowledged"]):
        # Nothing can be lost where nothing was acknowledged: that says nothing about the servers.
        print(json.dumps({"undecided": "nothing was acknowledged within the window", **verdict}, indent=2))
        return EXIT_UNDECIDED
    print(json.dumps(verdict, indent=2))
    return EXIT_LOST if any(verdict[name] for name in BROKEN_PROMISES) else 0


async def _wait_idle(targets: Targets, options: argparse.Namespace, window: Window) -> int:
    from .verify import wait_for_jobs

    jobs = oracle.collect_writes("jobs", read(options.log, "jobs"), window)
    statuses = await wait_for_jobs(
        targets, jobs, wait_seconds=options.wait, patience_seconds=options.patience
    )
    unfinished = oracle.unfinished(jobs, statuses)
    print(json.dumps({"acknowledged": len(jobs.acknowledged), "unfinished": unfinished}))
    return EXIT_LOST if unfinished else 0


def _run(work: Coroutine[Any, Any, T]) -> T:
    import asyncio

    return asyncio.run(work)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="runnerhub_client", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    _add_run(commands.add_parser("run", help="write until a signal, log every outcome"))
    commands.add_parser("master", help="what the Sentinels say of the Redis master")
    command = commands.add_parser("burst", help="post jobs at once and tell what became of them")
    command.add_argument("--log", type=Path, required=True, metavar="DIR")
    command.add_argument("--jobs", type=int, required=True)
    command.add_argument("--labels", default="", metavar="A,B")
    command.add_argument("--wait", type=float, default=0.0, help="seconds for the jobs to be completed")
    command = commands.add_parser("github", help="be the part of GitHub's API that runners use")
    command.add_argument("--port", type=int, default=8080)
    command.add_argument("--token", required=True, help="the one that runners must have")
    for name, text in (
        (
            "verify",
            "count what was acknowledged and is lost, and broken transactions; exits 1 when there are any",
        ),
        ("gaps", "longest time between two acknowledged writes"),
        ("wait-idle", "wait until all acknowledged jobs have ended"),
    ):
        command = commands.add_parser(name, help=text)
        command.add_argument("--log", type=Path, required=True, metavar="DIR")
        command.add_argument("--since", type=_moment, default=-math.inf, metavar="T", required=name == "gaps")
        command.add_argument("--until", type=_moment, default=math.inf, metavar="T")
        if name != "gaps":
            command.add_argument("--wait", type=float, default=60.0, help="seconds for jobs to be completed")
            command.add_argument("--patience", type=float, default=60.0, help="seconds for a store to answer")
    return parser


def _add_run(parser: argparse.ArgumentParser) -> None:
    load = Load()
    parser.add_argument("--log", type=Path, required=True, metavar="DIR")
    parser.add_argument("--duration", type=float, default=None, metavar="SECONDS")
    parser.add_argument("--jobs-rate", type=float, default=load.jobs_rate, help="per second; 0 for none")
    parser.add_argument("--rows-rate", type=float, default=load.rows_rate, help="per second; 0 for none")
    parser.add_argument(
        "--transactions-rate", type=float, default=load.transactions_rate, help="per second; 0 for none"
    )
    parser.add_argument(
        "--rows-per-transaction", type=int, default=load.rows_per_transaction, help="rows of each transaction"
    )
    parser.add_argument("--reads-rate", type=float, default=load.reads_rate, help="per second; 0 for none")
    parser.add_argument(
        "--connections", type=int, default=load.connections, help="kept by each database probe, used in turn"
    )
    parser.add_argument(
        "--most-connections", type=int, default=load.most_connections, help="while tries hang; 0: enough"
    )
    parser.add_argument("--queue-rate", type=float, default=load.queue_rate, help="per second; 0 for none")
    parser.add_argument(
        "--unconfirmed-rate", type=float, default=load.unconfirmed_rate, help="per second; 0 for none"
    )
    parser.add_argument("--plain-rate", type=float, default=load.plain_rate, help="per second; 0 for none")
    parser.add_argument(
        "--counter-rate", type=float, default=load.counter_rate, help="per second; 0 for none"
    )
    parser.add_argument("--bullmq-rate", type=float, default=load.bullmq_rate, help="per second; 0 for none")
    parser.add_argument("--runners", type=int, default=load.runners, help="loops; 0 for none")
    parser.add_argument("--websockets", type=int, default=load.websockets, help="sockets; 0 for none")
    parser.add_argument(
        "--gets-rate", type=float, default=load.gets_rate, help="requests by GET per second; 0 for none"
    )
    parser.add_argument(
        "--leaders",
        default=load.leaders,
        metavar="HOST",
        help="host name of the orchestrators, each of which is asked whether it leads",
    )
    parser.add_argument("--timeout", type=float, default=load.timeout_seconds, help="seconds per try")
    parser.add_argument("--work-seconds", type=float, default=load.work_seconds, help="duration of a job")
    parser.add_argument("--claim-wait", type=float, default=load.claim_wait_seconds, help="seconds per poll")
    parser.add_argument("--settle", type=float, default=load.settle_seconds, help="seconds to work off")
    parser.add_argument(
        "--no-wait", action="store_true", help="count Redis writes without WAIT as acknowledged"
    )
    parser.add_argument("--wait-milliseconds", type=int, default=load.wait_milliseconds, help="bound of WAIT")


def _load(options: argparse.Namespace) -> Load:
    return Load(
        jobs_rate=options.jobs_rate,
        rows_rate=options.rows_rate,
        transactions_rate=options.transactions_rate,
        rows_per_transaction=options.rows_per_transaction,
        reads_rate=options.reads_rate,
        connections=options.connections,
        most_connections=options.most_connections,
        queue_rate=options.queue_rate,
        unconfirmed_rate=options.unconfirmed_rate,
        plain_rate=options.plain_rate,
        counter_rate=options.counter_rate,
        bullmq_rate=options.bullmq_rate,
        runners=options.runners,
        websockets=options.websockets,
        gets_rate=options.gets_rate,
        leaders=options.leaders,
        timeout_seconds=options.timeout,
        work_seconds=options.work_seconds,
        claim_wait_seconds=options.claim_wait,
        wait_for_replicas=0 if options.no_wait else 1,
        wait_milliseconds=options.wait_milliseconds,
        settle_seconds=options.settle,
    )


def _moment(text: str) -> float:
    """Seconds since 1970, or an RFC 3339 time; without an offset it is UTC."""
    try:
        return float(text)
    except ValueError:
        moment = datetime.fromisoformat(text)
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


if __name__ == "__main__":
    sys.exit(main())
