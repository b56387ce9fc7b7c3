"""One line of a log: what a probe did and how it ended."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class Outcome(StrEnum):
    """How a try ended, as far as the client can tell.

    acked: the server said yes, so it must be there afterwards. unknown: no answer, it may be there or not.
    error: certainly not done. note: nothing was tried, something was observed.
    """

    ACKED = "acked"
    UNKNOWN = "unknown"
    ERROR = "error"
    NOTE = "note"


@dataclass(frozen=True, slots=True)
class Record:
    """`wall` and `monotonic` are seconds at the end of the try, `latency` its duration in seconds."""

    probe: str
    kind: str
    outcome: Outcome
    wall: float
    monotonic: float
    identifier: str = ""
    latency: float | None = None
    error: str | None = None
    details: dict[str, Any] = field(default_factory=dict)

    def line(self) -> str:
        """One JSON object, without a line feed; empty fields are left out."""
        value: dict[str, Any] = {
            "probe": self.probe,
            "kind": self.kind,
            "outcome": self.outcome.value,
            "wall": round(self.wall, 6),
            "mono": round(self.monotonic, 6),
        }
        if self.identifier:
            value["id"] = self.identifier
        if self.latency is not None:
            value["latency"] = round(self.latency, 6)
        if self.error:
            value["error"] = self.error
        return json.dumps({**value, **self.details}, separators=(",", ":"))


_FIELDS = frozenset({"probe", "kind", "outcome", "wall", "mono", "id", "latency", "error"})


def parse(line: str) -> Record | None:
    """The record of a line; None when the line is no record (cut off by a crash)."""
    try:
        value = json.loads(line)
        return Record(
            probe=value["probe"],
            kind=value["kind"],
            outcome=Outcome(value["outcome"]),
            wall=float(value["wall"]),
            monotonic=float(value["mono"]),
            identifier=str(value.get("id", "")),
            latency=value.get("latency"),
            error=value.get("error"),
            details={key: item for key, item in value.items() if key not in _FIELDS},
        )
    except (ValueError, KeyError, TypeError):
        return None
