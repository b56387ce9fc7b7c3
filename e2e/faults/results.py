"""Figures of runs, and what a report makes of them: pure functions, no input or output."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from .fault import Fault, Target


@dataclass(frozen=True, slots=True)
class RunResult:
    """One run of one fault.

    `since` and `until` are the window in RFC 3339. `gap_seconds` is the longest time in which no writer was
    acknowledged, `redundancy_seconds` the time from the fault until the cluster was whole again; both None when they
    could not be measured. `errors` are failed tries of writers. `beside`: gap_seconds, errors, acknowledged and, where
    they are judged, lost and duplicates of the probes that are told apart from the writers. `at_least_once`: duplicates
    are told, and no promise is broken by them. `figures` is what else the tier measures. `problem` is what did not go
    as it must, beyond losses.
    """

    fault: str
    since: str
    until: str
    gap_seconds: float | None = None
    errors: int = 0
    error_classes: dict[str, int] = field(default_factory=dict)
    acknowledged: int = 0
    lost: int = 0
    partial: int = 0
    phantoms: int = 0
    duplicates: int = 0
    redundancy_seconds: float | None = None
    primary: str | None = None
    new_primary: str | None = None
    pooler_on_node: bool = False
    beside: dict[str, dict[str, float]] = field(default_factory=dict)
    notes: dict[str, float] = field(default_factory=dict)
    figures: dict[str, Any] = field(default_factory=dict)
    at_least_once: bool = False
    problem: str | None = None

    @property
    def broken_promises(self) -> int:
        """Writes that contradict what the client was told."""
        return self.lost + self.partial + self.phantoms + (0 if self.at_least_once else self.duplicates)


def percentile(values: Sequence[float], share: float) -> float | None:
    """The value of the nearest rank, None for no values."""
    if not values:
        return None
    return sorted(values)[max(math.ceil(share * len(values)), 1) - 1]


def spread(values: Sequence[float], **shares: float) -> dict[str, float | None]:
    """Percentiles by name, rounded; None for no values."""
    found = {name: percentile(values, share) for name, share in shares.items()}
    return {name: None if value is None else round(value, 2) for name, value in found.items()}


def known(values: Iterable[float | None]) -> list[float]:
    """Those that could be measured."""
    return [value for value in values if value is not None]


def entry(fault: Fault[Any], runs: Sequence[RunResult]) -> dict[str, Any]:
    """One fault in the shape of the design's faults-<tier>.json."""
    return {
        "fault": fault.title,
        "runs": len(runs),
        "gap_seconds": spread(known(run.gap_seconds for run in runs), min=0.0, p50=0.5, p95=0.95, max=1.0),
        "errors": sum(run.errors for run in runs),
        "acknowledged": sum(run.acknowledged for run in runs),
        "lost": sum(run.lost for run in runs),
        "duplicates": sum(run.duplicates for run in runs),
        "redundancy_seconds": spread(known(run.redundancy_seconds for run in runs), p50=0.5, max=1.0),
    }


def is_held(target: Target | None, runs: Sequence[RunResult]) -> bool | None:
    """Whether the runs kept a target; None without a target, or without a figure to judge."""
    held = keeps(target, known(run.gap_seconds for run in runs))
    if held is not None and target is not None and not target.errors_allowed:
        return held and not any(run.errors for run in runs)
    return held


def keeps(target: Target | None, gaps: Sequence[float]) -> bool | None:
    """Whether these gaps kept a target; None without a target, or without any of them."""
    p50, p95 = percentile(gaps, 0.5), percentile(gaps, 0.95)
    if target is None or p50 is None or p95 is None:
        return None
    return p50 <= target.p50_seconds and p95 <= target.p95_seconds


def beside(probe: str, runs: Sequence[RunResult]) -> dict[str, Any]:
    """One probe over all runs of a fault, for the probes that are told apart."""
    found = [run.beside[probe] for run in runs if probe in run.beside]
    counts = [
        name for name in ("errors", "acknowledged", "lost", "duplicates") if any(name in one for one in found)
    ]
    return {
        "gap_seconds": spread([one["gap_seconds"] for one in found], p50=0.5, max=1.0),
        **{name: int(sum(one.get(name, 0) for one in found)) for name in counts},
    }


def details(fault: Fault[Any], runs: Sequence[RunResult]) -> dict[str, Any]:
    """What else there is to know of a fault, beside the shape that tools read."""
    classes: Counter[str] = Counter()
    for run in runs:
        classes.update(run.error_classes)
    return {
        "name": fault.name,
        "target": None if fault.target is None else asdict(fault.target),
        "held": is_held(fault.target, runs),
        "partial": sum(run.partial for run in runs),
        "phantoms": sum(run.phantoms for run in runs),
        "error_classes": dict(classes.most_common()),
        "beside": {
            probe: beside(probe, runs) for probe in sorted({name for run in runs for name in run.beside})
        },
        "problems": [run.problem for run in runs if run.problem is not None],
        "each_run": [asdict(run) for run in runs],
    }
