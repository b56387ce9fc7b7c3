"""The scale bench's report: its shape, its targets, its table."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

RSS_MIB = 256.0
COLD_START_SECONDS = 60.0
EDIT_P99_SECONDS = 2.0
UNRELATED_RSS_MIB = 5.0


@dataclass(frozen=True, slots=True)
class Size:
    """What was measured with so many clusters.

    `edits` are seconds by size of burst, `server` those that the API server took for each of the operator's calls
    meanwhile; `calls` are per minute.
    """

    clusters: int
    creation_seconds: float
    cold_start_seconds: float
    rss_mib: float
    rss_peak_mib: float
    cpu_seconds_per_hour: float
    busy_cores: float
    edits: Mapping[int, Sequence[float]]
    server: Sequence[float]
    calls: Mapping[tuple[str, str], float]

    def report(self) -> dict[str, Any]:
        """As JSON."""
        every = [seconds for times in self.edits.values() for seconds in times]
        return {
            "clusters": self.clusters,
            "creation_seconds": round(self.creation_seconds, 1),
            "cold_start_seconds": round(self.cold_start_seconds, 1),
            "rss_mib": round(self.rss_mib, 1),
            "rss_peak_mib": round(self.rss_peak_mib, 1),
            "cpu_seconds_per_hour": round(self.cpu_seconds_per_hour),
            "machine_busy_cores": round(self.busy_cores, 2),
            "edit_to_write_seconds": {**quantiles(every), "edits": len(every)},
            "edit_to_write_seconds_by_burst": {
                str(burst): quantiles(times) for burst, times in self.edits.items()
            },
            "api_server_seconds_per_call_while_editing": quantiles(self.server),
            "api_calls_per_minute": {
                " ".join(call): round(count, 1) for call, count in sorted(self.calls.items())
            },
        }

    def unexpected_calls(self) -> dict[str, float]:
        """Calls of the steady state that are neither a watch nor the operator's Lease."""
        return {
            " ".join(call): count
            for call, count in self.calls.items()
            if call[0] != "watch" and call[1] != "leases"
        }


def quantiles(seconds: Sequence[float]) -> dict[str, float]:
    """p50, p99 and the worst; by nearest rank, so each was really seen."""
    ordered = sorted(seconds)

    def rank(share: float) -> float:
        return round(ordered[max(0, math.ceil(share * len(ordered)) - 1)], 3)

    return {"p50": rank(0.5), "p99": rank(0.99), "max": rank(1.0)}


def targets(size: Size, unrelated_rss_mib: float | None) -> list[dict[str, Any]]:
    """What is asked for at the largest size, and whether it was seen; None: not measured."""
    p99 = quantiles([seconds for times in size.edits.values() for seconds in times])["p99"]
    limits = [
        ("rss_mib", RSS_MIB, size.rss_mib),
        ("cold_start_seconds", COLD_START_SECONDS, size.cold_start_seconds),
        ("edit_to_write_p99_seconds", EDIT_P99_SECONDS, p99),
        ("unexpected_calls_per_minute", 0, sum(size.unexpected_calls().values())),
    ]
    if unrelated_rss_mib is not None:
        limits.append(("unrelated_objects_rss_mib", UNRELATED_RSS_MIB, unrelated_rss_mib))
    return [
        {
            "target": name,
            "clusters": size.clusters,
            "limit": limit,
            "seen": round(seen, 2),
            "held": seen <= limit,
        }
        for name, limit, seen in limits
    ]


def table(report: Mapping[str, Any]) -> str:
    """For people."""
    heads = (
        "clusters",
        "cold start",
        "RSS",
        "peak",
        "CPU s/h",
        "edit p50",
        "p99",
        "API p50",
        "calls/min",
        "made in",
    )
    rows = [
        (
            str(size["clusters"]),
            f"{size['cold_start_seconds']:.1f} s",
            f"{size['rss_mib']:.0f} MiB",
            f"{size['rss_peak_mib']:.0f} MiB",
            str(size["cpu_seconds_per_hour"]),
            f"{size['edit_to_write_seconds']['p50']:.2f} s",
            f"{size['edit_to_write_seconds']['p99']:.2f} s",
            f"{size['api_server_seconds_per_call_while_editing']['p50']:.3f} s",
            f"{sum(size['api_calls_per_minute'].values()):.1f}",
            f"{size['creation_seconds']:.0f} s",
        )
        for size in report["sizes"]
    ]
    lines = [_line(heads, heads, rows), _line(["-" * len(head) for head in heads], heads, rows)]
    lines += [_line(row, heads, rows) for row in rows]
    lines.append("")
    for target in report["targets"]:
        held = "held" if target["held"] else "MISSED"
        lines.append(f"{held:7} {target['target']}: {target['seen']} (limit {target['limit']})")
    return "\n".join(lines)


def _line(cells: Sequence[str], heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[column]) for row in (heads, *rows)) for column in range(len(heads))]
    return "  ".join(cell.rjust(width) for cell, width in zip(cells, widths, strict=True))
