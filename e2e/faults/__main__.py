"""`make faults-postgres`, `make faults-redis` and `make faults-hub`: each fault of a tier many times, while clients
write; report in build/reports/.

Exit code 1 when an acknowledged write was lost, a promise of another kind broken, a run did not go as it must, the
audit at the end gave no verdict, or the control run lost nothing; with --strict also when a target was missed or a
fault skipped.
"""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence
from dataclasses import replace
from types import FrameType
from typing import Any

from kindbed import paths, versions
from kindbed.console import TestBedError

from ..lab import bed as test_bed
from ..lab import report
from ..lab.kubectl import KubectlError, WaitTimeoutError
from .hub.orchestrators import TWO_DOWN
from .hub.suite import HubSuite
from .postgres.suite import PostgresSuite
from .redis.suite import RedisSuite
from .suite import Plan, Suite
from .watchers import API_SERVER_AWAY

SUITES: dict[str, type[Suite[Any]]] = {suite.TIER: suite for suite in (PostgresSuite, RedisSuite, HubSuite)}


def plan_from(options: argparse.Namespace) -> Plan[Any]:
    """What the command line asks for; raises KeyError for a fault that there is not."""
    suite = SUITES[options.tier]
    wanted = [name for name in options.faults.split(",") if name]
    chosen = [suite.fault(name) for name in wanted if name not in suite.BENCHES]
    outages = {API_SERVER_AWAY: options.api_away_seconds, TWO_DOWN: options.two_down_seconds}
    return Plan(
        faults=tuple(
            replace(fault, broken_seconds=outages.get(fault.name, fault.broken_seconds))
            for fault in (chosen if wanted else suite.faults())
        ),
        runs=options.runs,
        bench=any(name in suite.BENCHES for name in wanted) if wanted else True,
        control=not options.no_control,
        earlier=report.read(f"faults-{suite.TIER}") if options.resume else None,
    )


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="e2e.faults", description=__doc__)
    parser.add_argument("tier", choices=sorted(SUITES))
    parser.add_argument("--runs", type=int, default=10, help="of each fault")
    parser.add_argument("--faults", default="", metavar="A,B", help="only these, or pgbench; see --list")
    parser.add_argument("--cluster", default=versions.DEFAULT_CLUSTER, help="kind cluster, made if missing")
    parser.add_argument("--api-away-seconds", type=float, default=60.0, help="the design asks for 600")
    parser.add_argument(
        "--two-down-seconds", type=float, default=60.0, help="of hub; the design asks for 600"
    )
    parser.add_argument("--no-control", action="store_true", help="leave the control run out")
    parser.add_argument("--resume", action="store_true", help="count the runs of the report that is there")
    parser.add_argument(
        "--strict", action="store_true", help="fail when a target was missed or a fault skipped"
    )
    parser.add_argument("--list", action="store_true", help="print the names of the faults")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the suite; the exit code."""
    options = parse(arguments)
    if options.list:
        suite = SUITES[options.tier]
        print("\n".join(f"{fault.name:20} {fault.title}" for fault in suite.faults()))
        return 0
    try:
        plan = plan_from(options)
    except KeyError as unknown:
        print(unknown.args[0], file=sys.stderr)
        return 2
    _heal_on_signals()
    kubeconfig = paths.KUBECONFIG
    if options.cluster != versions.DEFAULT_CLUSTER:
        kubeconfig = paths.BUILD_DIR / f"kubeconfig-{options.cluster}"
    try:
        bed = test_bed.bring_up(options.cluster, kubeconfig)
        bed.install_operator()
        found = SUITES[options.tier](bed, plan).run()
    except (TestBedError, KubectlError, WaitTimeoutError) as problem:
        print(f"the suite cannot go on: {problem}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; what was found so far is in build/reports", file=sys.stderr)
        return 130
    print(f"\n{found.text()}\nReport: {found.write().relative_to(paths.REPOSITORY)}")
    failures = found.failures(strict=options.strict)
    for sentence in failures:
        print(f"FAILED: {sentence}", file=sys.stderr)
    return 1 if failures else 0


def _heal_on_signals() -> None:
    """Let the first signal end the suite, which heals on its way out, and further ones wait for that."""
    told = False

    def end(_number: int, _frame: FrameType | None) -> None:
        nonlocal told
        if told:
            print("healing; please wait", file=sys.stderr, flush=True)
            return
        told = True
        raise KeyboardInterrupt

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, end)


if __name__ == "__main__":
    sys.exit(main())
