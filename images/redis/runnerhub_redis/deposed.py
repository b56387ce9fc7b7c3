"""A master that others have replaced, and that does not know it: one that was frozen, or cut off the network.

Two masters are there then. Sentinel makes the old one a replica after eight seconds or more; what it alone was told by
clients meanwhile, or just before, goes with that. So this pod looks itself. It refuses writes at once, saves its data
as a snapshot if it has something that the new master has not, and becomes that one's replica.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path

from .config import PRIORITY_NEVER
from .decision import known_master
from .handover import follow
from .log import log
from .network import LOCAL, NO_ANSWER, ask_sentinels
from .resp import Connection, RespError
from .settings import PORT_REDIS, Paths, Settings

LOOK_SECONDS = 1.0
CALL_SECONDS = 2.0
# Sentinel comes after eight seconds and is not waited for; what is copied from the new master ends a save that is
# still under way when it is loaded.
SAVE_SECONDS = 120.0
POLL_SECONDS = 0.1
KEPT_SNAPSHOTS = 3
_REPLICAS_TO_WRITE = "min-replicas-to-write"
# More replicas than there can be, so that every write is refused; and the number in the operator's configuration.
_NEVER, _ALWAYS = "1000", "1"


def watch(
    settings: Settings,
    addresses: Callable[[], Mapping[int, str]],
    goes_on: Callable[[], bool],
    deposed: Callable[[], None],
) -> None:
    """Look again and again while `goes_on`; `deposed` is called after this pod has become a replica."""
    fenced = False
    while goes_on():
        time.sleep(LOOK_SECONDS)
        try:
            if fenced:
                # A try before this one was cut off.
                _let_write(settings)
                fenced = False
            successor = find_successor(settings, addresses())
            if successor is not None and goes_on():
                fenced = True
                give_way(settings, successor)
                fenced = False
                deposed()
        except NO_ANSWER as error:
            log("this master has been replaced and does not answer", error=str(error))


def find_successor(settings: Settings, addresses: Mapping[int, str]) -> str | None:
    """Who is master by the word of most Sentinels, while this pod's Redis is one too; None in any other case."""
    own = addresses.get(settings.ordinal)
    if own is None or not _is_master(settings):
        return None
    everybody = {**addresses, settings.ordinal: LOCAL}
    answers = list(ask_sentinels(settings, everybody).values())
    known = known_master(answers, frozenset(addresses.values()))
    if known is None or known.address == own or known.votes < settings.replicas // 2 + 1:
        return None
    return known.address


def _is_master(settings: Settings) -> bool:
    try:
        with Connection(LOCAL, PORT_REDIS, settings.password, deadline_seconds=CALL_SECONDS) as local:
            return local.info("replication")["role"] == "master"
    except NO_ANSWER:
        return False


def give_way(settings: Settings, successor: str) -> None:
    """Refuse writes, save what the successor has not, become its replica. Raises one of NO_ANSWER."""
    started = time.monotonic()
    log("another is master; this one refuses writes", master=successor)
    with Connection(LOCAL, PORT_REDIS, settings.password, deadline_seconds=SAVE_SECONDS + 10) as local:
        local.call("CONFIG", "SET", _REPLICAS_TO_WRITE, _NEVER)
        saved: Path | None = None
        try:
            own = local.info("replication")
            if has_diverged(own, _replication_of(settings, successor)):
                saved = save(local, settings.paths, int(own["master_repl_offset"]))
            # Until it is in step again it must not be promoted: it may have the higher offset.
            local.call("CONFIG", "SET", "replica-priority", str(PRIORITY_NEVER))
            follow(local, successor)
        finally:
            local.call("CONFIG", "SET", _REPLICAS_TO_WRITE, _ALWAYS)
    log(
        "this pod is a replica now",
        master=successor,
        saved=saved.name if saved else None,
        seconds=round(time.monotonic() - started, 2),
    )


def _let_write(settings: Settings) -> None:
    with Connection(LOCAL, PORT_REDIS, settings.password, deadline_seconds=CALL_SECONDS) as local:
        local.call("CONFIG", "SET", _REPLICAS_TO_WRITE, _ALWAYS)


def _replication_of(settings: Settings, host: str) -> dict[str, str]:
    """INFO replication of another server; empty when it does not answer."""
    try:
        with Connection(host, PORT_REDIS, settings.password, deadline_seconds=CALL_SECONDS) as there:
            return there.info("replication")
    except NO_ANSWER:
        return {}


def has_diverged(own: Mapping[str, str], theirs: Mapping[str, str]) -> bool:
    """Whether the own data may have something that theirs has not, by INFO replication of both.

    A promoted replica remembers whose history it goes on with, and up to which offset (`second_repl_offset`, the first
    that is its own). Who cannot be asked may lack anything.
    """
    history = own["master_replid"]
    if not theirs or history not in (theirs["master_replid"], theirs["master_replid2"]):
        return True
    if history == theirs["master_replid"]:
        return int(own["master_repl_offset"]) > int(theirs["master_repl_offset"])
    return int(own["master_repl_offset"]) + 1 > int(theirs["second_repl_offset"])


def save(local: Connection, paths: Paths, offset: int) -> Path | None:
    """Save the data set under a name with time and offset; None when that failed, which is told in the log.

    Raises OSError when the server ends meanwhile.
    """
    before = local.call("LASTSAVE")
    try:
        local.call("BGSAVE", "SCHEDULE")
    except RespError as error:
        log("THE DATA OF THIS FORMER MASTER IS NOT SAVED", error=str(error))
        return None
    ends = time.monotonic() + SAVE_SECONDS
    while True:
        time.sleep(POLL_SECONDS)
        info = local.info("persistence")
        pending = info["rdb_bgsave_in_progress"] != "0" or info.get("rdb_saves_scheduled", "0") != "0"
        if not pending and (info["rdb_last_bgsave_status"] != "ok" or local.call("LASTSAVE") != before):
            break
        if time.monotonic() > ends:
            log("THE DATA OF THIS FORMER MASTER IS NOT SAVED", error=f"not within {SAVE_SECONDS:g} s")
            return None
    if info["rdb_last_bgsave_status"] != "ok":
        log("THE DATA OF THIS FORMER MASTER IS NOT SAVED", error="BGSAVE failed; is the volume full?")
        return None
    moment = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    return keep(paths, f"{moment}-offset-{offset}.rdb")


def keep(paths: Paths, name: str) -> Path:
    """Keep the last snapshot under a name of its own, and the newest few of those kept before."""
    paths.diverged.mkdir(exist_ok=True)
    kept = paths.diverged / name
    kept.unlink(missing_ok=True)
    # The next snapshot replaces the file and does not write into it.
    os.link(paths.redis_data / "dump.rdb", kept)
    for old in sorted(paths.diverged.glob("*.rdb"))[:-KEPT_SNAPSHOTS]:
        old.unlink()
    return kept
