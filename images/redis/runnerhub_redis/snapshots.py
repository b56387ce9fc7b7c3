"""Keeps the data of a former master as a snapshot on its volume, before it is replaced by the new master's."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from datetime import UTC, datetime
from pathlib import Path

from . import volume
from .files import sync_directory
from .log import log
from .network import NO_ANSWER
from .resp import Connection, RespError
from .settings import Paths

# What takes longer is given up: a pod that only saves is no replica meanwhile.
SAVE_SECONDS = 120.0
CALL_SECONDS = 2.0
POLL_SECONDS = 0.1
KEPT = 3
# Older snapshots go before the volume is as full as this.
MOST_USED_PERCENT = 80
STOP_SECONDS = 5.0
SAVED, NOT_SAVED = ".rdb", ".not-saved"
_TOLD = (SAVED, NOT_SAVED, volume.DAMAGED)


class NotSavedError(Exception):
    """The message is a sentence."""


def save(redis: Connection, paths: Paths, offset: int, *, seconds: float = SAVE_SECONDS) -> Path:
    """Have a running master save its data set; the file, named with time and offset.

    Raises NotSavedError, and OSError when the server ends meanwhile.
    """
    ends = time.monotonic() + seconds
    history = redis.info("replication")["master_replid"]
    _begin_save(redis, ends)
    while (info := redis.info("persistence"))["rdb_bgsave_in_progress"] != "0":
        _pause_until(ends)
    if info["rdb_last_bgsave_status"] != "ok":
        raise NotSavedError("BGSAVE failed; is the volume full?")
    kept = keep(paths, name_of(offset))
    after = redis.info("replication")
    if after["role"] != "master" or after["master_replid"] != history:
        # What a replica receives is written to the same file.
        kept.unlink()
        raise NotSavedError("another master's data came meanwhile")
    return kept


def save_at_rest(paths: Paths, offset: int, descriptor: int) -> Path:
    """The same for data that no server has yet: one loads it that nobody can reach. Raises NotSavedError.

    `descriptor`: the lock of the volume, which that server holds too.
    """
    ends = time.monotonic() + SAVE_SECONDS
    socket = paths.runtime / "save.sock"
    command = ["redis-server", "--port", "0", "--unixsocket", str(socket), "--dir", str(paths.redis_data)]
    command += ["--appendonly", "yes", "--save", "", "--auto-aof-rewrite-percentage", "0"]
    server = subprocess.Popen(command, pass_fds=(descriptor,))
    try:
        _wait_for(server, socket, ends)
        with Connection(str(socket), 0, None, deadline_seconds=max(1.0, ends - time.monotonic())) as redis:
            redis.call("SAVE")
        return keep(paths, name_of(offset))
    except NO_ANSWER as error:
        raise NotSavedError(str(error)) from error
    finally:
        _stop(server)


def _wait_for(server: subprocess.Popen[bytes], socket: Path, ends: float) -> None:
    while True:
        if (code := server.poll()) is not None:
            raise NotSavedError(f"the server that loads the data ended with {code}")
        try:
            with Connection(str(socket), 0, None, deadline_seconds=CALL_SECONDS) as redis:
                redis.call("PING")
                return
        except NO_ANSWER:
            # It starts, or loads.
            _pause_until(ends)


def _stop(server: subprocess.Popen[bytes]) -> None:
    server.terminate()
    try:
        server.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()


def name_of(offset: int, kind: str = SAVED) -> str:
    """Name of a file, in the order of time."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-offset-{offset}{kind}"


def tell_unsaved(paths: Paths, offset: int, reason: str) -> None:
    """Leave word of data that could not be saved, for the operator."""
    log("THE DATA OF THIS FORMER MASTER IS NOT SAVED", offset=offset, error=reason)
    try:
        paths.diverged.mkdir(exist_ok=True)
        (paths.diverged / name_of(offset, NOT_SAVED)).touch()
        _forget_old(paths, NOT_SAVED)
    except OSError as error:
        log("this cannot be told to the operator", error=str(error))


def told(paths: Paths) -> list[str]:
    """Names of what was saved, of what could not be, and of damaged files that were put aside."""
    return sorted(path.name for path in paths.diverged.glob("*") if path.suffix in _TOLD)


def _begin_save(redis: Connection, ends: float) -> None:
    """Begin a save of the data as it is now; one that Redis has begun itself, or a rewrite, is waited for."""
    while True:
        try:
            redis.call("BGSAVE")
        except RespError as error:
            if "progress" not in str(error) and "child process" not in str(error):
                raise NotSavedError(str(error)) from error
            _pause_until(ends)
        else:
            return


def _pause_until(ends: float) -> None:
    if time.monotonic() > ends:
        raise NotSavedError("it took too long")
    time.sleep(POLL_SECONDS)


def keep(paths: Paths, name: str) -> Path:
    """Keep the last snapshot under a name of its own, and the newest few of those kept before.

    Raises NotSavedError.
    """
    kept = paths.diverged / name
    try:
        paths.diverged.mkdir(exist_ok=True)
        kept.unlink(missing_ok=True)
        _share(paths.redis_data / "dump.rdb", kept)
        sync_directory(paths.diverged)
    except OSError as error:
        raise NotSavedError(str(error)) from error
    _forget_old(paths, SAVED)
    return kept


def _forget_old(paths: Paths, kind: str) -> None:
    *others, _ = sorted(paths.diverged.glob(f"*{kind}"))
    for number, old in enumerate(others):
        too_many = len(others) - number >= KEPT
        if too_many or (volume.used_percent(paths.data) or 0) >= MOST_USED_PERCENT:
            old.unlink()


def _share(source: Path, target: Path) -> None:
    try:
        # The next snapshot replaces the file and does not write into it.
        os.link(source, target)
    except OSError:
        # Not every file system has links. Half a copy never has the name of a whole one.
        part = target.with_suffix(".part")
        try:
            shutil.copy(source, part)
            with part.open("rb") as file:
                os.fsync(file.fileno())
            part.replace(target)
        finally:
            part.unlink(missing_ok=True)
