"""Mends the append-only files before Redis loads them, and keeps what is cut off.

A power cut leaves half a command at the end, or blocks that were never written; a volume that was full leaves a hole of
zeros in the middle, with nothing missing. Redis would drop the first without a copy, and not start at all with the
others. Source: redis-check-aof and aof.c of Redis 8.0.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from . import volume
from .log import log
from .settings import Paths

CHECK_SECONDS = 600.0
KEPT_TAILS = 3
MOST_KEPT_BYTES = 64 * 1024 * 1024
CHUNK_BYTES = 1024 * 1024
# Lines that begin with # are no commands; Redis reads up to 127 bytes of one.
NOTE_BYTES = 64
MANIFEST = "appendonly.aof.manifest"
# Of a command, and of the time that Redis notes when it is told to.
_BEGINNINGS = (b"*", b"#")

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


def mend(paths: Paths, *, all_of_it: bool = False) -> None:
    """Have Redis find append-only files that it can load.

    Cut the last one after its last whole command, when what is behind it is no command; fill holes. Damage of another
    kind: all files are put aside, and what is whole before the damage stays, as DAMAGED. `all_of_it`: look at the
    snapshot that the files begin with too, which takes as long as to load it. Raises OSError when there is no room.
    """
    volume.finish_putting_aside(paths)
    base, increments = listed(paths)
    if base is None and not increments and any(paths.append_only.glob("*.*.*")):
        # Redis would begin an empty data set.
        log("THE MANIFEST OF THE APPEND-ONLY FILES IS DAMAGED")
        volume.put_aside(paths, None, [], None, 0)
        return
    if all_of_it and base is not None and not _loads(base):
        volume.put_aside(paths, None, [], None, 0)
        return
    for number, path in enumerate(increments):
        whole = _mend_one(paths, path, is_last=path is increments[-1])
        if whole is not None:
            volume.put_aside(paths, base, increments[:number], path, whole)
            return


def _mend_one(paths: Paths, path: Path, *, is_last: bool) -> int | None:
    """Mend one file; where the damage begins if that cannot be mended."""
    while (found := analyze(path)).whole < found.size:
        zeros = _zeros(path, found.whole)
        behind = found.whole + zeros
        if zeros > 1 and behind < found.size and _byte(path, behind) in _BEGINNINGS:
            _fill_hole(path, found.whole, zeros)
            log("a hole in the append-only file is filled", file=path.name, bytes=zeros, at=found.whole)
        elif is_last and (found.torn or behind == found.size):
            _cut(paths, path, found, keep=behind < found.size)
        else:
            log("THE APPEND-ONLY FILE IS DAMAGED", file=path.name, bytes=found.size, whole=found.whole)
            return found.whole
    return None


def _cut(paths: Paths, path: Path, found: Analysis, *, keep: bool) -> None:
    kept = _keep(paths, path, found.whole) if keep else None
    with path.open("r+b") as file:
        file.truncate(found.whole)
        os.fsync(file.fileno())
    cut = found.size - found.whole
    log("the end of the append-only file was damaged and is cut off", file=path.name, bytes=cut, kept=kept)


def _fill_hole(path: Path, start: int, size: int) -> None:
    """Make lines of it that Redis passes over, which takes no copy of the file.

    Redis leaves zeros when a volume was full: it takes back what it wrote of a command, and goes on further behind.
    """
    lines, rest = divmod(size, NOTE_BYTES)
    if rest == 1:  # no line is as short
        lines, rest = lines - 1, NOTE_BYTES + 1
    with path.open("r+b") as file:
        file.seek(start)
        for _ in range(lines):
            file.write(_note(NOTE_BYTES))
        file.write(_note(rest) if rest else b"")
        file.flush()
        os.fsync(file.fileno())


def _note(size: int) -> bytes:
    return b"#" + b"-" * (size - 2) + b"\n"


def _byte(path: Path, at: int) -> bytes:
    with path.open("rb") as file:
        file.seek(at)
        return file.read(1)


def listed(paths: Paths) -> tuple[Path | None, list[Path]]:
    """The snapshot and the files after it, in the order in which Redis loads them, as its manifest says."""
    base, increments = None, []
    try:
        text = (paths.append_only / MANIFEST).read_text(encoding="utf-8")
    except (OSError, ValueError):
        return None, []
    for line in text.splitlines():
        match line.split():
            case ["file", name, "seq", _, "type", "b", *_]:
                base = paths.append_only / name
            case ["file", name, "seq", _, "type", "i", *_]:
                increments.append(paths.append_only / name)
            case _:
                # History, which Redis removes.
                pass
    # One that is missing is not mended, and an empty one is whole.
    return base, [path for path in increments if path.exists() and path.stat().st_size]


def _check(command: str, path: Path) -> subprocess.CompletedProcess[bytes] | None:
    """What Redis' own program says of a file; None when it does not come to an end."""
    try:
        return subprocess.run(
            [command, str(path)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            timeout=CHECK_SECONDS,
        )
    except (subprocess.TimeoutExpired, OSError) as error:
        log("the append-only file is not checked", error=str(error))
        return None


def _loads(base: Path) -> bool:
    """Whether Redis' own program can read a snapshot; when it does not tell, Redis decides."""
    command = "redis-check-rdb" if base.suffix == ".rdb" else "redis-check-aof"
    done = _check(command, base)
    if done is None:
        return True
    if done.returncode < 0:
        # As by the kernel, for want of memory: that says nothing of the file.
        log("the append-only file is not checked", error=f"{command} was ended by signal {-done.returncode}")
        return True
    if b"handle RDB format version" in done.stdout:
        # It is whole, and Redis ends: nothing is put aside for an image that must not be used.
        log("THE DATA WAS WRITTEN BY A LATER REDIS THAN THAT OF THIS IMAGE", file=base.name)
        return True
    if done.returncode:
        log(
            "THE APPEND-ONLY FILE IS DAMAGED",
            file=base.name,
            said=done.stdout.decode(errors="replace")[-500:],
        )
    return done.returncode == 0


def analyze(path: Path) -> Analysis:
    """What Redis' own program finds. All is whole where it says nothing that is understood: then Redis decides."""
    size = path.stat().st_size
    done = _check("redis-check-aof", path)
    if done is None:
        return Analysis(size, size)
    text = done.stdout.decode(errors="replace")
    found = _ANALYZED.search(text)
    if found is None:
        return Analysis(size, size)
    return Analysis(int(found[1]), int(found[2]), torn=_TORN.search(text) is not None)


def _zeros(path: Path, start: int) -> int:
    """How many zeros follow: blocks that the file got and that were never written."""
    count = 0
    with path.open("rb") as file:
        file.seek(start)
        while chunk := file.read(CHUNK_BYTES):
            rest = len(chunk.lstrip(b"\0"))
            count += len(chunk) - rest
            if rest:
                break
    return count


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
