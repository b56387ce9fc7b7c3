"""Mends the end of the append-only file before Redis loads it, and keeps what is cut off.

A power cut leaves half a command at the end, or blocks that were never written. Redis would drop the first without a
copy, and not start at all with the second. Source: redis-check-aof of Redis 8.0.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from .log import log
from .settings import Paths

CHECK_SECONDS = 600.0
KEPT_TAILS = 3
MOST_KEPT_BYTES = 64 * 1024 * 1024
CHUNK_BYTES = 1024 * 1024

_ANALYZED = re.compile(r"AOF analyzed: .*?size=(\d+), ok_up_to=(\d+)", re.DOTALL)
# The file ends in the middle of a command, or of a transaction: Redis would go on without that.
_TORN = re.compile(r"Expected to read \d+ bytes, got \d+ bytes|Reached EOF before reading EXEC")


@dataclass(frozen=True, slots=True)
class Analysis:
    """`size` of an append-only file and `whole`, how much of it from the beginning is whole commands, in bytes.

    `torn`: the rest is a command that is not complete.
    """

    size: int
    whole: int
    torn: bool = False


def mend(paths: Paths) -> None:
    """Cut the last append-only file after its last whole command, when what is behind it is no command.

    Damage of another kind is left to Redis, which refuses to start: there may be whole commands behind it, and another
    pod may have all of them.
    """
    path = last_increment(paths)
    if path is None:
        return
    found = analyze(path)
    if found.whole >= found.size:
        return
    never_written = _is_zero(path, found.whole)
    if not found.torn and not never_written:
        log("the append-only file is damaged", file=path.name, bytes=found.size, whole=found.whole)
        return
    kept = None if never_written else _keep(paths, path, found.whole)
    with path.open("r+b") as file:
        file.truncate(found.whole)
        os.fsync(file.fileno())
    cut = found.size - found.whole
    log("the end of the append-only file was damaged and is cut off", file=path.name, bytes=cut, kept=kept)


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


def analyze(path: Path) -> Analysis:
    """What Redis' own program finds. All is whole where it says nothing that is understood: then Redis decides."""
    size = path.stat().st_size
    try:
        done = subprocess.run(
            ["redis-check-aof", str(path)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            timeout=CHECK_SECONDS,
        )
    except (subprocess.TimeoutExpired, OSError) as error:
        log("the append-only file is not checked", error=str(error))
        return Analysis(size, size)
    text = done.stdout.decode(errors="replace")
    found = _ANALYZED.search(text)
    if found is None:
        return Analysis(size, size)
    return Analysis(int(found[1]), int(found[2]), torn=_TORN.search(text) is not None)


def _is_zero(path: Path, start: int) -> bool:
    """Whether nothing but zeros follows: blocks that the file got and that were never written."""
    with path.open("rb") as file:
        file.seek(start)
        while chunk := file.read(CHUNK_BYTES):
            if chunk.count(0) != len(chunk):
                return False
    return True


def _keep(paths: Paths, path: Path, start: int) -> str | None:
    """Copy the rest of a file; its name, None when there is no room for it or it is too long."""
    if path.stat().st_size - start > MOST_KEPT_BYTES:
        return None
    kept = paths.tails / f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{path.name}-from-{start}"
    try:
        paths.tails.mkdir(exist_ok=True)
        with path.open("rb") as source, kept.open("wb") as target:
            source.seek(start)
            shutil.copyfileobj(source, target)
            target.flush()
            os.fsync(target.fileno())
    except OSError as error:
        log("what is cut off the append-only file is not kept", error=str(error))
        kept.unlink(missing_ok=True)
        return None
    for old in sorted(paths.tails.iterdir())[:-KEPT_TAILS]:
        old.unlink()
    return kept.name
