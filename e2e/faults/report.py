"""The report of a suite: JSON in the design's shape, and a table for people. Written anew after each run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..lab import report
from .fault import Fault, Target
from .results import RunResult, details, entry, is_held

_HEADER = (
    "fault", "runs", "gap min", "p50", "p95", "max", "target p50/p95", "held", "errors", "acknowledged", "lost",
    "partial", "dup", "whole p50", "max", "problems",
)  # fmt: skip

# What the audit at the end counts, over all runs.
BROKEN_FOR_GOOD = ("lost", "partial", "phantoms", "two_leaders")

_HEADER_BESIDE = ("fault", "beside it", "gap p50", "max", "errors", "acknowledged", "lost", "dup")


@dataclass(slots=True)
class Report:
    """What a suite has found so far.

    `audit` is the oracle's verdict on everything written outside the control run, at the end: a write that
    one fault kept may be lost by a later one. `bench` is what pgbench found, of the database alone.
    """

    tier: str
    versions: dict[str, str]
    runs: dict[str, list[RunResult]] = field(default_factory=dict)
    faults: dict[str, Fault[Any]] = field(default_factory=dict)
    skipped: list[dict[str, str]] = field(default_factory=list)
    control: dict[str, Any] | None = None
    audit: dict[str, Any] | None = None
    bench: dict[str, Any] = field(default_factory=dict)

    def add(self, fault: Fault[Any], result: RunResult) -> None:
        """Take a run in."""
        self.faults[fault.name] = fault
        self.runs.setdefault(fault.name, []).append(result)

    def skip(self, fault: Fault[Any], reason: str) -> None:
        """Tell that a fault was not tried, and why."""
        self.skipped.append({"fault": fault.title, "reason": reason})

    def resume(self, earlier: Mapping[str, Any], faults: Iterable[Fault[Any]]) -> bool:
        """Take over what an earlier suite found of these faults; False, and nothing, when it tried other versions."""
        if _but_commit(earlier.get("versions", {})) != _but_commit(self.versions):
            return False
        runs = {found["name"]: found["each_run"] for found in earlier["details"]}
        for fault in faults:
            for result in runs.get(fault.name, ()):
                self.add(fault, RunResult(**result))
        self.control, self.bench = earlier["control"], earlier["pgbench"]
        return True

    def content(self) -> dict[str, Any]:
        """faults-<tier>.json; what tools need not read is in further keys."""
        found = [(self.faults[name], runs) for name, runs in self.runs.items()]
        return {
            "versions": self.versions,
            "faults": [{**entry(fault, runs), **self.more(fault, runs)} for fault, runs in found],
            "control": self.control,
            "audit": self.audit,
            "skipped": self.skipped,
            "pgbench": self.bench,
            "details": [details(fault, runs) for fault, runs in found],
        }

    def text(self) -> str:
        """The table, and below it what does not fit into one."""
        tables = [report.table(_HEADER, [_row(self.faults[name], runs) for name, runs in self.runs.items()])]
        others = [row for name, runs in self.runs.items() for row in _rows_beside(self.faults[name], runs)]
        tables += [report.table(_HEADER_BESIDE, others)] if others else []
        tables += self.more_tables()
        parts = [f"skipped: {item['fault']}: {item['reason']}" for item in self.skipped]
        if self.control is not None:
            parts.append(
                f"control ({self.control['fault']}): {self.control['lost']} of {self.control['acknowledged']} "
                "acknowledged writes lost; there must be some"
            )
        if self.audit is not None:
            parts.append(
                f"audit of all runs at the end: {self.audit['lost']} of {self.audit['acknowledged']} lost, "
                f"{self.audit['partial']} partial, {self.audit['phantoms']} phantoms, "
                f"{self.audit['two_leaders']} times two leaders"
            )
            if "problem" in self.audit:
                parts.append(f"the audit gave no verdict: {self.audit['problem']}")
        parts += _pgbench_lines(self.bench)
        parts += [
            f"problem: {name}, run {number}: {result.problem}"
            for name, runs in self.runs.items()
            for number, result in enumerate(runs, 1)
            if result.problem
        ]
        return "\n\n".join(tables + (["\n".join(parts)] if parts else [])) + "\n"

    def more(self, _fault: Fault[Any], _runs: Sequence[RunResult]) -> dict[str, Any]:
        """What a tier tells of a fault beyond what all tell."""
        return {}

    def more_tables(self) -> list[str]:
        """The same for people."""
        return []

    def missed(self, fault: Fault[Any], runs: Sequence[RunResult]) -> bool:
        """Whether a target of the fault was missed."""
        return is_held(fault.target, runs) is False

    def write(self) -> Path:
        """Write both files; the path of the JSON one."""
        path = report.write(f"faults-{self.tier}", self.content())
        path.with_suffix(".txt").write_text(self.text())
        return path

    def failures(self, *, strict: bool) -> list[str]:
        """Why the suite has failed, in sentences; none when it has not."""
        everything = [result for runs in self.runs.values() for result in runs]
        found = []
        if broken := sum(result.broken_promises for result in everything):
            found.append(f"{broken} writes were lost, partial, doubled or there although they had failed")
        if broken := self.bench.get("broken_promises"):
            found.append(f"{broken} writes around the fault under pgbench were not as they must")
        if self.audit is not None:
            found += _faults_of_audit(self.audit)
        if self.control is not None and not self.control["lost"]:
            found.append("the control run lost nothing, so the oracle proves nothing")
        if problems := sum(result.problem is not None for result in everything):
            found.append(f"{problems} runs did not go as they must")
        missed = [
            self.faults[name].title
            for name, runs in self.runs.items()
            if self.missed(self.faults[name], runs)
        ]
        if strict and missed:
            found.append(f"targets missed: {', '.join(missed)}")
        if strict and self.skipped:
            found.append(f"faults skipped: {', '.join(item['fault'] for item in self.skipped)}")
        return found


def _but_commit(versions: Mapping[str, str]) -> dict[str, str]:
    return {name: version for name, version in versions.items() if name != "commit"}


def _faults_of_audit(audit: Mapping[str, Any]) -> list[str]:
    if "problem" in audit:
        return [f"the audit at the end gave no verdict: {audit['problem']}"]
    if any(audit[name] for name in BROKEN_FOR_GOOD):
        return ["the audit at the end found broken promises"]
    if not audit["acknowledged"]:
        return ["the audit at the end found nothing acknowledged, so it proves nothing"]
    return []


def _row(fault: Fault[Any], runs: list[RunResult]) -> tuple[object, ...]:
    found = entry(fault, runs)
    gap, whole = found["gap_seconds"], found["redundancy_seconds"]
    return (
        fault.title, len(runs), *(seconds(gap[name]) for name in ("min", "p50", "p95", "max")),
        target_text(fault.target), {True: "yes", False: "NO", None: "-"}[is_held(fault.target, runs)],
        found["errors"], found["acknowledged"], found["lost"], sum(run.partial + run.phantoms for run in runs),
        found["duplicates"], seconds(whole["p50"]), seconds(whole["max"]),
        sum(run.problem is not None for run in runs),
    )  # fmt: skip


def _rows_beside(fault: Fault[Any], runs: list[RunResult]) -> list[tuple[object, ...]]:
    rows: list[tuple[object, ...]] = []
    for probe, found in details(fault, runs)["beside"].items():
        gap = found["gap_seconds"]
        counts = (found.get(name, "-") for name in ("errors", "acknowledged", "lost", "duplicates"))
        rows.append((fault.title, probe, seconds(gap["p50"]), seconds(gap["max"]), *counts))
    return rows


def target_text(target: Target | None) -> str:
    """A target for people."""
    if target is None:
        return "-"
    errors = "" if target.errors_allowed else ", 0 errors"
    return f"{target.p50_seconds:g} / {target.p95_seconds:g} s{errors}"


def seconds(value: float | None) -> str:
    """A figure for people."""
    return "-" if value is None else f"{value:.1f}"


def _pgbench_lines(found: dict[str, Any]) -> list[str]:
    lines = [f"pgbench: {found['missing']}"] if "missing" in found else []
    for way, scripts in found.get("ways", {}).items():
        if way in ("direct", "pooler"):
            told = ", ".join(
                f"{script} {figures['tps']:.0f}/s at {figures['latency_ms']:.2f} ms"
                for script, figures in scripts.items()
            )
            lines.append(f"pgbench {way}: {told}")
    if during := found.get("fault"):
        told = ", ".join(f"{when} {value}" for when, value in during["tps"].items())
        lines.append(f"pgbench around {during['fault']}: transactions per second: {told}")
    return lines
