"""One run of a fault of the suites, as the tests judge it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any, Final

import pytest

from e2e.faults import mend
from e2e.faults.arena import A
from e2e.faults.fault import Fault
from e2e.faults.results import RunResult
from e2e.faults.run import run_once
from e2e.lab import report

RESULTS: dict[str, list[dict[str, Any]]] = {}

# A gap may be so many times its target before a test fails: one run on a slow and busy machine tells no percentile.
SLOW_MACHINE: Final = 5.0
# The exit code of a run that found a promise broken: none of pytest's, so that `make test` tries nothing once more.
EXIT_BROKEN: Final = 10


def try_once(arena: A, fault: Fault[A], *, longest_gap_seconds: float) -> None:
    """Break something; it must keep every promise and pass. Figures go to build/reports/e2e-<tier>-faults.json.

    Whose promises were kept and whose clients were slowed or refused is tried once more, and judged by that: it may be
    the machine that stood still.
    """
    result = _run(arena, fault)
    if not list(broken(result)) and list(shortcomings(fault, result, longest_gap_seconds)):
        result = _run(arena, fault)
    assert list(shortcomings(fault, result, longest_gap_seconds)) == []


def _run(arena: A, fault: Fault[A]) -> RunResult:
    result = run_once(arena, fault)
    results = RESULTS.setdefault(arena.COMPONENT, [])
    results.append(asdict(result))
    report.write(f"e2e-{arena.COMPONENT}-faults", results)
    keeps_its_promises(asdict(result))
    if result.problem is not None:
        mend.mend(arena.bed)
    return result


def keeps_its_promises(found: Mapping[str, Any]) -> None:
    """End all tests when an acknowledged write is lost or changed, or two led at once: nothing excuses that.

    `found`: a run as its report has it, or a verdict of the oracle.
    """
    kinds = ("lost", "partial", "phantoms", *(() if found.get("at_least_once") else ("duplicates",)))
    told = {kind: found[kind] for kind in kinds if found.get(kind)}
    if found.get("figures", {}).get("leader", {}).get("two_leaders"):
        told["two leaders"] = found["figures"]["leader"]["told"]
    if told:
        pytest.exit(f"a promise is broken: {told}; {json.dumps(found)}", returncode=EXIT_BROKEN)


def shortcomings(fault: Fault[Any], result: RunResult, longest_gap_seconds: float) -> Iterator[str]:
    """What was not as it must be; where the target allows clients no error, one is too many."""
    yield from broken(result)
    target = fault.target
    if target is not None:
        longest_gap_seconds = min(longest_gap_seconds, SLOW_MACHINE * target.p95_seconds)
    if target is not None and not target.errors_allowed and result.errors:
        yield f"clients saw {result.errors} errors: {result.error_classes}"
    if result.gap_seconds is None or result.gap_seconds > longest_gap_seconds:
        yield f"the longest gap was {result.gap_seconds} s, and may be {longest_gap_seconds:g} s"


def broken(result: RunResult) -> Iterator[str]:
    """What no machine excuses."""
    if result.problem is not None:
        yield result.problem
    if result.broken_promises:
        yield f"{result.broken_promises} promises were broken"
    if not result.acknowledged:
        yield "nothing was acknowledged"
