"""The pod's volume: what is on it, and who may use it."""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path

from .decision import Volume
from .log import log
from .settings import Paths

_DATA_FILES = ("dump.rdb", "appendonlydir/*")
LOCK_RETRY_SECONDS = 0.1
LOCK_REPORT_SECONDS = 10.0


def inspect(paths: Paths) -> Volume:
    """What the volume holds."""
    if paths.complete_marker.exists():
        return Volume.COMPLETE
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
    with paths.complete_marker.open("w", encoding="utf-8") as marker:
        os.fsync(marker.fileno())
    directory = os.open(paths.complete_marker.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


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
