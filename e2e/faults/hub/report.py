"""What the suite tells beyond what all tell: requests and how fast they were, WebSockets, leaders."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ...lab import report
from ..fault import Fault, Target
from ..report import Report, seconds, target_text
from ..results import RunResult, is_held, keeps, known, percentile, spread
from .arena import HubFault

TIMES = ("before", "during", "after")
_HEADER = (
    "fault", "requests", "errors", *(f"p50 / p99 {when}" for when in TIMES), "WebSockets dropped", "back p50", "max",
    "no leader p50", "max", "target p50/p95", "held", "two leaders", "notes",
)  # fmt: skip


@dataclass(slots=True)
class HubReport(Report):
    """See the module."""

    def more(self, fault: Fault[Any], runs: Sequence[RunResult]) -> dict[str, Any]:
        """Further keys of a fault in faults-hub.json; latencies are the median and the largest of the runs' ones."""
        told = [run.figures for run in runs if run.figures]
        target = _leader_target(fault)
        gaps = _leader_gaps(runs)
        return {
            "requests": sum(found["requests"] for found in told),
            "latency_seconds": {when: _latency(told, when) for when in TIMES},
            "websockets": _websockets([found["websockets"] for found in told]),
            "leader": {
                "gap_seconds": spread(gaps, p50=0.5, p95=0.95, max=1.0),
                "held": keeps(target, gaps),
                "two_leaders": sum(found["leader"]["two_leaders"] for found in told),
                "claims": sum(found["leader"]["claims"] for found in told),
                "believed_longer_seconds": max(
                    (found["leader"]["believed_longer_seconds"] for found in told), default=None
                ),
            },
        }

    def more_tables(self) -> list[str]:
        """The same as a table."""
        rows = [self._row(self.faults[name], runs) for name, runs in self.runs.items()]
        return [report.table(_HEADER, rows)] if rows else []

    def missed(self, fault: Fault[Any], runs: Sequence[RunResult]) -> bool:
        """Whether a target of the fault was missed, its own or the leader's."""
        held = (is_held(fault.target, runs), keeps(_leader_target(fault), _leader_gaps(runs)))
        return False in held

    def _row(self, fault: Fault[Any], runs: Sequence[RunResult]) -> tuple[object, ...]:
        found = self.more(fault, runs)
        sockets, leader = found["websockets"], found["leader"]
        back, gap = sockets["reconnect_seconds"], leader["gap_seconds"]
        return (
            fault.title, found["requests"], sum(run.errors for run in runs),
            *(_milliseconds(found["latency_seconds"][when]) for when in TIMES),
            sockets["dropped"], seconds(back["p50"]), seconds(back["max"]),
            seconds(gap["p50"]), seconds(gap["max"]), target_text(_leader_target(fault)),
            {True: "yes", False: "NO", None: "-"}[leader["held"]], leader["two_leaders"], _notes(runs),
        )  # fmt: skip


def _leader_target(fault: Fault[Any]) -> Target | None:
    return fault.leader_target if isinstance(fault, HubFault) else None


def _leader_gaps(runs: Sequence[RunResult]) -> list[float]:
    return known(run.figures["leader"]["gap_seconds"] for run in runs if run.figures)


def _latency(told: Sequence[dict[str, Any]], when: str) -> dict[str, float | None]:
    """The median of the runs' p50, and the largest of their p99: the many fast requests of one run hide no slow one."""
    values = [found["latency_seconds"].get(when) or {} for found in told]
    p50 = percentile(known(value.get("p50") for value in values), 0.5)
    return {"p50": p50, "p99": max(known(value.get("p99") for value in values), default=None)}


def _websockets(told: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Sums, and the times of each run's median and slowest socket."""

    def times(name: str) -> dict[str, float | None]:
        each = [found[name] for found in told if found[name]]
        p50 = percentile([value["p50"] for value in each], 0.5)
        return {"p50": p50, "max": max((value["max"] for value in each), default=None)}

    return {
        "dropped": sum(found["dropped"] for found in told),
        "never_back": sum(found["never_back"] for found in told),
        "reconnect_seconds": times("reconnect_seconds"),
        "away_seconds": times("away_seconds"),
    }


def _milliseconds(found: dict[str, float | None]) -> str:
    def text(value: float | None) -> str:
        return "-" if value is None else f"{1000 * value:.0f}"

    return f"{text(found['p50'])} / {text(found['p99'])} ms"


def _notes(runs: Sequence[RunResult]) -> str:
    return ", ".join(_median_notes(runs))


def _median_notes(runs: Sequence[RunResult]) -> Iterator[str]:
    for name in sorted({name for run in runs for name in run.notes}):
        value = percentile([run.notes[name] for run in runs if name in run.notes], 0.5)
        yield f"{name} {value:g}"
