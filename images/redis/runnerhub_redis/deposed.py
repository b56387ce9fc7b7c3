"""A master that others have replaced, and that does not know it: one that was frozen, or cut off the network.

Two masters are there then. Sentinel makes the old one a replica after eight seconds or more; what it alone was told by
clients meanwhile, or just before, goes with that. So this pod looks itself. It refuses writes at once, saves its data
as a snapshot if it has something that the new master has not, and becomes that one's replica.

A master that has only just been promoted looks the same for a second: the Sentinels still name the one before. So a
pod gives way only when they have named it, and then name another under a higher epoch.
"""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path

from . import volume
from .config import PRIORITY_NEVER
from .decision import KnownMaster, known_master
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
# Older snapshots go before the volume is as full as this.
MOST_USED_PERCENT = 80
_REPLICAS_TO_WRITE = "min-replicas-to-write"
# More replicas than there can be, so that every write is refused; and the number in the operator's configuration.
_NEVER, _ALWAYS = "1000", "1"


class Watch:
    """Looks at one pod's Redis. `deposed` is called once it is a replica that may not be promoted yet.

    `busy` is held while the pod gives way; whoever stops Redis waits for it.
    """

    def __init__(
        self,
        settings: Settings,
        addresses: Callable[[], Mapping[int, str]],
        deposed: Callable[[], None],
        *,
        local: str = LOCAL,
    ) -> None:
        self._settings = settings
        self._addresses = addresses
        self._deposed = deposed
        self._local = local
        self.busy = threading.Lock()
        # Epoch under which the Sentinels named this pod while it was master; None when they have not.
        self._reign: int | None = None
        # What a try that was cut off may have left.
        self._fenced = False
        self._lowered = False

    def run(self, goes_on: Callable[[], bool]) -> None:
        """Look again and again."""
        while goes_on():
            time.sleep(LOOK_SECONDS)
            with self.busy:
                if goes_on():
                    self._try_to_look()

    def _try_to_look(self) -> None:
        try:
            self.look()
        except NO_ANSWER as error:
            if self._fenced or self._lowered:
                log("this former master does not answer", error=str(error))

    def look(self) -> None:
        """Look once, and give way when it is time; what is left to do then is done by the next look.

        Raises one of NO_ANSWER.
        """
        role = self._role()
        if role is None:
            return
        if self._fenced:
            self._set(_REPLICAS_TO_WRITE, _ALWAYS)
            self._fenced = False
        if role != "master":
            self._reign = None
            if self._lowered:
                self._lowered = False
                self._deposed()
            return
        known = self._known()
        if known is not None and known.address == self._own():
            self._reign = known.config_epoch
        elif known is not None and self._reign is not None and known.config_epoch > self._reign:
            self._give_way(known.address)

    def _own(self) -> str | None:
        return self._addresses().get(self._settings.ordinal)

    def _known(self) -> KnownMaster | None:
        """The master that most Sentinels name; None when there is none."""
        addresses = self._addresses()
        if self._settings.ordinal not in addresses:
            return None
        everybody = {**addresses, self._settings.ordinal: self._local}
        answers = list(ask_sentinels(self._settings, everybody).values())
        known = known_master(answers, frozenset(addresses.values()))
        majority = self._settings.replicas // 2 + 1
        return known if known is not None and known.votes >= majority else None

    def _connect(self, seconds: float = CALL_SECONDS) -> Connection:
        return Connection(self._local, PORT_REDIS, self._settings.redis_login, deadline_seconds=seconds)

    def _role(self) -> str | None:
        """Of a Redis that has loaded its data; None when it does not answer."""
        try:
            with self._connect() as redis:
                loading = redis.info("persistence")["loading"] != "0"
                return None if loading else redis.info("replication")["role"]
        except NO_ANSWER:
            return None

    def _set(self, name: str, value: str) -> None:
        with self._connect() as redis:
            redis.call("CONFIG", "SET", name, value)

    def _give_way(self, successor: str) -> None:
        """Refuse writes, save what the successor has not, become its replica. Raises one of NO_ANSWER."""
        started = time.monotonic()
        log("another is master; this one refuses writes", master=successor)
        self._fenced = True
        self._set(_REPLICAS_TO_WRITE, _NEVER)
        saved = self._save_for(successor)
        known = self._known()
        if known is None or known.address != successor:
            # It took its time, and things have changed: the next look decides, and lifts the fence.
            log("the Sentinels name another meanwhile", master=known.address if known else None)
            return
        with self._connect() as redis:
            # Until it is in step again it must not be promoted: it may have the higher offset.
            self._lowered = True
            redis.call("CONFIG", "SET", "replica-priority", str(PRIORITY_NEVER))
            follow(redis, successor)
        seconds = round(time.monotonic() - started, 2)
        log(
            "this pod is a replica now",
            master=successor,
            saved=saved.name if saved else None,
            seconds=seconds,
        )

    def _save_for(self, successor: str) -> Path | None:
        with self._connect(SAVE_SECONDS + CALL_SECONDS) as redis:
            own = redis.info("replication")
            if not has_diverged(own, self._replication_of(successor)):
                return None
            return save(redis, self._settings.paths, int(own["master_repl_offset"]))

    def _replication_of(self, host: str) -> dict[str, str]:
        """INFO replication of another server; empty when it does not answer."""
        try:
            with Connection(
                host, PORT_REDIS, self._settings.redis_login, deadline_seconds=CALL_SECONDS
            ) as there:
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


def save(redis: Connection, paths: Paths, offset: int) -> Path | None:
    """Save the data set under a name with time and offset; None when that failed, which is told in the log.

    Raises OSError when the server ends meanwhile.
    """
    ends = time.monotonic() + SAVE_SECONDS
    try:
        _begin_save(redis, ends)
        while (info := redis.info("persistence"))["rdb_bgsave_in_progress"] != "0":
            _pause_until(ends)
        if info["rdb_last_bgsave_status"] != "ok":
            raise _NotSavedError("BGSAVE failed; is the volume full?")
        return keep(paths, f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-offset-{offset}.rdb")
    except _NotSavedError as error:
        log("THE DATA OF THIS FORMER MASTER IS NOT SAVED", error=str(error))
        return None


class _NotSavedError(Exception):
    """The message is a sentence."""


def _begin_save(redis: Connection, ends: float) -> None:
    """Begin a save of the data as it is now; one that Redis has begun itself, or a rewrite, is waited for."""
    while True:
        try:
            redis.call("BGSAVE")
        except RespError as error:
            if "progress" not in str(error) and "child process" not in str(error):
                raise _NotSavedError(str(error)) from error
            _pause_until(ends)
        else:
            return


def _pause_until(ends: float) -> None:
    if time.monotonic() > ends:
        raise _NotSavedError(f"not within {SAVE_SECONDS:g} s")
    time.sleep(POLL_SECONDS)


def keep(paths: Paths, name: str) -> Path:
    """Keep the last snapshot under a name of its own, and the newest few of those kept before."""
    kept = paths.diverged / name
    try:
        paths.diverged.mkdir(exist_ok=True)
        kept.unlink(missing_ok=True)
        _share(paths.redis_data / "dump.rdb", kept)
    except OSError as error:
        raise _NotSavedError(str(error)) from error
    *others, _ = sorted(paths.diverged.glob("*.rdb"))
    for number, old in enumerate(others):
        too_many = len(others) - number >= KEPT_SNAPSHOTS
        if too_many or (volume.used_percent(paths.data) or 0) >= MOST_USED_PERCENT:
            old.unlink()
    return kept


def _share(source: Path, target: Path) -> None:
    try:
        # The next snapshot replaces the file and does not write into it.
        os.link(source, target)
    except OSError:
        # Not every file system has links.
        shutil.copy(source, target)
