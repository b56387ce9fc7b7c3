"""The pod's volume: what is on it, and who may use it."""

from __future__ import annotations

import fcntl
import os
import shutil
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

from .decision import Volume
from .files import sync_directory
from .log import log
from .settings import Paths

_DATA_FILES = ("dump.rdb", "appendonlydir/*")
CHUNK_BYTES = 1024 * 1024
# Of directories with append-only files that Redis could not load; each may be as large as all data.
DAMAGED = ".damaged"
KEPT_DAMAGED = 2
LOCK_RETRY_SECONDS = 0.1
LOCK_REPORT_SECONDS = 10.0


def inspect(paths: Paths) -> Volume:
    """What the volume holds."""
    if paths.complete_marker.exists():
        return Volume.COMPLETE
    if paths.damaged_marker.exists():
        return Volume.DAMAGED
    if any(True for pattern in _DATA_FILES for _ in paths.redis_data.glob(pattern)):
        return Volume.UNSYNCED
    return Volume.BLANK


def used_percent(path: Path) -> int | None:
    """How full the volume is, as `df` counts it; None when that cannot be told."""
    try:
        found = os.statvfs(path)
    except OSError:
        return None
    used = found.f_blocks - found.f_bfree
    return -(-100 * used // max(1, used + found.f_bavail))


def mark_complete(paths: Paths) -> None:
    """Note, safely against a power cut, that the volume holds a whole data set."""
    _mark(paths.complete_marker)
    paths.damaged_marker.unlink(missing_ok=True)


def put_aside(
    paths: Paths, base: Path | None, before: Sequence[Path], damaged: Path | None, whole: int
) -> None:
    """Keep append-only files as they are, and leave what is whole: `base`, `before`, `whole` bytes of `damaged`.

    A master's data replaces that. Raises OSError when there is no room.
    """
    if inspect(paths) is Volume.UNSYNCED:
        log("a copy of a master's data that was never whole is removed")
        shutil.rmtree(paths.append_only)
        return
    fresh = paths.append_only_fresh
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir()
    lines = []
    for kind, path in [*(("b", path) for path in (base,) if path), *(("i", path) for path in before)]:
        # Redis never writes into these again, as it does into the last one.
        _link(path, fresh / path.name)
        lines.append((kind, path))
    if damaged is not None:
        with damaged.open("rb") as source, (fresh / damaged.name).open("wb") as target:
            copy_bytes(source, target, whole)
            target.flush()
            os.fsync(target.fileno())
        lines.append(("i", damaged))
    manifest = "".join(
        f"file {path.name} seq {path.name.split('.')[-3]} type {kind}\n" for kind, path in lines
    )
    if manifest:  # an empty one keeps Redis from starting
        (fresh / "appendonly.aof.manifest").write_text(manifest, encoding="utf-8")
    sync_directory(fresh)
    # In this order, so that a start in between trusts the volume too little and never too much.
    _mark(paths.damaged_marker)
    paths.complete_marker.unlink(missing_ok=True)
    paths.diverged.mkdir(exist_ok=True)
    kept = paths.diverged / f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}{DAMAGED}"
    paths.append_only.rename(kept)
    finish_putting_aside(paths)
    for old in sorted(paths.diverged.glob(f"*{DAMAGED}"))[:-KEPT_DAMAGED]:
        shutil.rmtree(old)
    log("append-only files are put aside", kept=kept.name, left=[path.name for _, path in lines])


def finish_putting_aside(paths: Paths) -> None:
    """Do what is left when that was cut off after the damaged files were moved."""
    if paths.append_only_fresh.exists() and not paths.append_only.exists():
        paths.append_only_fresh.rename(paths.append_only)
        sync_directory(paths.redis_data)


def copy_bytes(source: BinaryIO, target: BinaryIO, count: int) -> None:
    """Copy so many bytes, or up to the end."""
    while count > 0 and (chunk := source.read(min(count, CHUNK_BYTES))):
        target.write(chunk)
        count -= len(chunk)


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:
        # Not every file system has links.
        shutil.copy(source, target)


def _mark(path: Path) -> None:
    with path.open("w", encoding="utf-8") as marker:
        os.fsync(marker.fileno())
    sync_directory(path.parent)


def tidy(paths: Paths) -> None:
    """Remove what saves and rewrites of a server that was killed have left: nobody would, and they fill the volume."""
    for left in (*paths.redis_data.glob("temp-*"), *paths.append_only.glob("temp-*")):
        left.unlink()


def lock(path: Path) -> int:
    """Wait until nobody else uses the directory; return the descriptor that holds the lock.

    A pod that was deleted by force runs on for seconds beside its successor on the same node: two servers on
    the same files would destroy them. The server inherits the descriptor, and so holds the lock itself.
    """
    path.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    os.set_inheritable(descriptor, True)
    reported = 0.0
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() - reported > LOCK_REPORT_SECONDS:
                reported = time.monotonic()
                log("waiting: another process uses the volume", path=path)
            time.sleep(LOCK_RETRY_SECONDS)
        else:
            return descriptor
