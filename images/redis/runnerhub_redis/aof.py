"""Mends the end of the append-only file before Redis loads it, and keeps what is cut off.

A power cut leaves half a command at the end, or blocks that were never written. Redis would drop the first without a
copy, and not start at all with the second. Source: redis-check-aof of Redis 8.0.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from datetime import UTC, datetime
from pathlib import Path

from .log import log
from .settings import Paths

CHECK_SECONDS = 600.0
KEPT_TAILS = 3
# A tail is at most what one second wrote; more than this is a damage that nobody mends by reading the end.
MOST_KEPT_BYTES = 64 * 1024 * 1024

_ANALYZED = re.compile(r"AOF analyzed: .*?size=(\d+), ok_up_to=(\d+)", re.DOTALL)


def mend(paths: Paths) -> None:
    """Cut the last append-only file after its last whole command, if there is anything behind it."""
    path = last_increment(paths)
    if path is None:
        return
    size, good = analyze(path)
    if good >= size:
        return
    kept = _keep(paths, path, good)
    with path.open("r+b") as file:
        file.truncate(good)
        os.fsync(file.fileno())
    log(
        "the end of the append-only file was damaged and is cut off",
        file=path.name,
        bytes=size - good,
        kept=kept,
    )


def last_increment(paths: Paths) -> Path | None:
    """The file that Redis wrote to last; None when there is none, or it is empty."""
    numbered = {
        int(found[1]): path
        for path in paths.append_only.glob("*.incr.aof")
        if (found := re.search(r"\.(\d+)\.incr\.aof$", path.name))
    }
    if not numbered:
        return None
    path = numbered[max(numbered)]
    return path if path.stat().st_size else None


def analyze(path: Path) -> tuple[int, int]:
    """Size of an append-only file, and how much of it from the beginning is whole commands, in bytes.

    All of it where the program says nothing that is understood: then Redis itself decides.
    """
    size = path.stat().st_size
    try:
        done = subprocess.run(
            ["redis-check-aof", str(path)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            timeout=CHECK_SECONDS,
        )
    except subprocess.TimeoutExpired:
        return size, size
    found = _ANALYZED.search(done.stdout.decode(errors="replace"))
    return (int(found[1]), int(found[2])) if found else (size, size)


def _keep(paths: Paths, path: Path, good: int) -> str | None:
    if path.stat().st_size - good > MOST_KEPT_BYTES:
        return None
    paths.tails.mkdir(exist_ok=True)
    kept = paths.tails / f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{path.name}-from-{good}"
    with path.open("rb") as source, kept.open("wb") as target:
        source.seek(good)
        shutil.copyfileobj(source, target)
        target.flush()
        os.fsync(target.fileno())
    for old in sorted(paths.tails.iterdir())[:-KEPT_TAILS]:
        old.unlink()
    return kept.name
