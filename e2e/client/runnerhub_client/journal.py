"""Logs on disk: one file per probe, one flushed line per event."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from .record import Outcome, Record, parse

PROBES = ("jobs", "rows", "queue", "runners", "websocket")
LONGEST_ERROR = 300


class Journal:
    """Appends the events of one probe to DIR/<probe>.jsonl."""

    def __init__(self, directory: Path, probe: str) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._probe = probe
        path = directory / f"{probe}.jsonl"
        torn = _ends_within_line(path)
        self._file: TextIO = path.open("a", encoding="utf-8")
        if torn:
            # The last writer was killed; our first line must not become part of its last one.
            self._file.write("\n")

    def write(
        self,
        kind: str,
        outcome: Outcome,
        *,
        identifier: str = "",
        started: float | None = None,
        error: BaseException | str | None = None,
        **details: Any,
    ) -> None:
        """Write one event now. `started` is the monotonic time at which the try began."""
        now = time.monotonic()
        record = Record(
            probe=self._probe,
            kind=kind,
            outcome=outcome,
            wall=time.time(),
            monotonic=now,
            identifier=identifier,
            latency=None if started is None else now - started,
            error=describe(error),
            details=details,
        )
        self._file.write(record.line() + "\n")
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _ends_within_line(path: Path) -> bool:
    if not path.exists() or not path.stat().st_size:
        return False
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read() != b"\n"


def describe(error: BaseException | str | None) -> str | None:
    """An error's type and first line, bounded."""
    if error is None or isinstance(error, str):
        return error
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else ''}"[:LONGEST_ERROR]


def read(directory: Path, probe: str) -> Iterator[Record]:
    """All records of a probe, in the order written; lines cut off by a crash are left out."""
    path = directory / f"{probe}.jsonl"
    if not path.exists():
        return
    with path.open(encoding="utf-8", errors="replace") as file:
        for line in file:
            record = parse(line)
            if record is not None:
                yield record
