"""How far the data on a pod's volume is, written down while Redis runs: a Redis that starts has forgotten it.

Its next life tells by it what this pod had as master and another has not, and all pods together which of them is to be
promoted when everybody was restarted and the master does not come back.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

from .files import write_private
from .resp import Connection, pairs, text
from .settings import Paths

NOTE_SECONDS = 2.0
_NUMBERS = ("master_repl_offset", "second_repl_offset")
_FIELDS = ("role", "master_replid", "master_replid2", *_NUMBERS)
# What was written down before there were other fields: that of a master that too few replicas followed.
_DEFAULTS = {"role": "master", "master_replid2": "0" * 40, "second_repl_offset": "-1"}


@dataclass(frozen=True, slots=True)
class Standing:
    """`info`: these fields of INFO replication; `at`: when that was, in seconds of this node's clock."""

    info: Mapping[str, str]
    at: float

    @property
    def was_master(self) -> bool:
        """Whether the data may have something that no other pod has."""
        return self.info["role"] == "master"

    def told(self) -> dict[str, object]:
        """As JSON."""
        return {**self.info, "at": self.at}


def parse(told: object) -> Standing | None:
    """Read what `told` gave; None when it is something else."""
    if not isinstance(told, Mapping):
        return None
    try:
        info = {name: str(told[name] if name in told else _DEFAULTS[name]) for name in _FIELDS}
        for name in _NUMBERS:
            int(info[name])
        return Standing(info, float(told.get("at", 0.0)))
    except (KeyError, TypeError, ValueError):
        return None


def read(paths: Paths) -> Standing | None:
    """What was written down last; None when that was nothing."""
    # Only older versions write the first; what they wrote is newer, then.
    for path in (paths.alone, paths.standing):
        with suppress(OSError, ValueError):
            return parse(json.loads(path.read_text(encoding="utf-8")))
    return None


def note(paths: Paths, info: Mapping[str, str]) -> None:
    """Write down how far the data on the volume is (INFO replication). Raises OSError."""
    found = {name: info[name] for name in _FIELDS}
    last = read(paths)
    if last is None or found != last.info:
        _write(paths, Standing(found, time.time()))


def note_saved(paths: Paths) -> None:
    """Write down that this pod has nothing of its own any more, as what it had is saved. Raises OSError.

    Its data is as old as before: made newer it would win against that of the master after it.
    """
    last = read(paths)
    if last is not None and last.was_master:
        _write(paths, Standing({**last.info, "role": "slave"}, last.at))


def _write(paths: Paths, standing: Standing) -> None:
    write_private(paths.standing, json.dumps(standing.told()))
    paths.alone.unlink(missing_ok=True)


def link_of(redis: Connection) -> str:
    """Names a replica's connection to its master: another copy of the data comes by another one.

    Raises ValueError when there is none.
    """
    _, there, rest = text(redis.call("CLIENT", "LIST", "TYPE", "master")).partition("id=")
    if not there:
        raise ValueError("this replica has no connection to a master")
    return rest.split()[0]


def is_on_disk(redis: Connection, *, copied: bool = True) -> bool:
    """Whether a replica in step would find all of its data after a restart.

    After a full copy Redis writes its append-only files anew; until that is done a start loads those of before.
    `copied`: there may have been one; when there was none, the files are whole while others take their place.
    """
    info = redis.info("persistence")
    if info["aof_enabled"] == "0" and pairs(redis.call("CONFIG", "GET", "appendonly"))["appendonly"] == "no":
        return True
    wanted = {"aof_enabled": "1", "aof_last_write_status": "ok"}
    if copied:
        wanted |= {
            "aof_rewrite_in_progress": "0",
            "aof_rewrite_scheduled": "0",
            "aof_last_bgrewrite_status": "ok",
        }
    return all(info[name] == value for name, value in wanted.items())
