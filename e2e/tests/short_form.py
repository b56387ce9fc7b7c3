"""One run of a fault of the suites, as the tests judge it."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from e2e.faults import mend
from e2e.faults.arena import A
from e2e.faults.fault import Fault
from e2e.faults.run import run_once
from e2e.lab import report

RESULTS: dict[str, list[dict[str, Any]]] = {}


def try_once(arena: A, fault: Fault[A], *, longest_gap_seconds: float) -> None:
    """Break something once; it must keep every promise and pass. Figures go to build/reports/e2e-<tier>-faults.json."""
    result = run_once(arena, fault)
    results = RESULTS.setdefault(arena.COMPONENT, [])
    results.append(asdict(result))
    report.write(f"e2e-{arena.COMPONENT}-faults", results)
    if result.problem is not None:
        mend.mend(arena.bed)
    assert result.problem is None
    assert result.broken_promises == 0
    assert result.acknowledged > 0
    assert result.gap_seconds is not None
    assert result.gap_seconds <= longest_gap_seconds
