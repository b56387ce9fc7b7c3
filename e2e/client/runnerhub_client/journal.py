"""Logs on disk: one file per probe, one flushed line per event."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, TextIO

from .record import Outcome, Record, parse

LONGEST_ERROR = 300
# The beginning of a window is looked for in steps; the lines of the last step are read and judged one by one.
SEARCH_STEP_BYTES = 1 << 16
# Lines are in the order of their times, but for a step of the clock.
CLOCK_STEP_SECONDS = 5.0


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
        """Write one event now. `started` is the monotonic time at which the try began.

        An exception leaves its class too: what it says itself, such as `HTTP 503`, the SQLSTATE of a database's
        answer, else the type's name.
        """
        now = time.monotonic()
        if isinstance(error, BaseException):
            details["class"] = error_class(error)
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


def error_class(error: BaseException) -> str:
    """What the exception calls itself, the SQLSTATE when the database gave one, else the name of its type."""
    own: str | None = getattr(error, "error_class", None) or getattr(error, "sqlstate", None)
    return own or type(error).__name__


def describe(error: BaseException | str | None) -> str | None:
    """An error's type and first line, bounded."""
    if error is None or isinstance(error, str):
        return error
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else ''}"[:LONGEST_ERROR]


def read(directory: Path, probe: str, since: float = -math.inf) -> Iterator[Record]:
    """Records of a probe, in the order written; lines cut off by a crash are left out.

    All that ended at or after `since` (wall-clock seconds) are there, and a few earlier ones: a long log is not
    read from its beginning.
    """
    path = directory / f"{probe}.jsonl"
    if not path.exists():
        return
    with path.open("rb") as file:
        _seek_line(file, _position_before(file, since - CLOCK_STEP_SECONDS))
        for line in file:
            record = _parse_bytes(line)
            if record is not None:
                yield record


def _position_before(file: BinaryIO, wall: float) -> int:
    """A position in the file before which every record ended earlier than `wall`."""
    earliest, latest = 0, file.seek(0, os.SEEK_END)
    while latest - earliest > SEARCH_STEP_BYTES:
        middle = (earliest + latest) // 2
        _seek_line(file, middle)
        record = next((found for found in map(_parse_bytes, file) if found is not None), None)
        if record is not None and record.wall < wall:
            earliest = middle
        else:
            latest = middle
    return earliest


def _parse_bytes(line: bytes) -> Record | None:
    return parse(line.decode("utf-8", errors="replace"))


def _seek_line(file: BinaryIO, position: int) -> None:
    """Go to the first line that begins at or after a position."""
    file.seek(max(position - 1, 0))
    if position > 0:
        file.readline()
