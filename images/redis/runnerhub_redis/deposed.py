"""A master that others have replaced, and that does not know it: one that was frozen, or cut off the network.

Two masters are there then. Sentinel makes the old one a replica after eight seconds or more; what it alone was told by
clients meanwhile, or just before, goes with that. So this pod looks itself. It refuses writes at once, saves its data
as a snapshot if it has something that the new master has not, and becomes that one's replica. Until then it obeys no
Sentinel, whose order would end the save. One that ends before is saved by its next life, which knows by what this one
wrote down.

A master that has only just been promoted looks the same for a second: the Sentinels still name the one before. So a
pod gives way only when they have named it, and then name another under a higher epoch.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from . import access, snapshots, standing
from .config import PRIORITY_NEVER
from .decision import KnownMaster, known_master
from .handover import REPLICAS_TO_WRITE, follow, followers
from .history import has_diverged
from .log import log
from .network import LOCAL, NO_ANSWER, ask_sentinels, replication_of
from .resp import Connection, pairs
from .settings import PORT_REDIS, Settings

LOOK_SECONDS = 1.0
CALL_SECONDS = 2.0
# More replicas than there can be, so that every write is refused.
_NEVER = "1000"
_ORDERS = ("slaveof", "replicaof")


class Watch:
    """Looks at one pod's Redis. `deposed` is called once it is a replica that may not be promoted yet.

    `busy` is held while the pod gives way; whoever stops Redis waits for it. `on_disk`: whether a restart would find
    all of the data, as far as that is known.
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
        # What a try that was cut off may have left: replicas to write as they were, and when writes were refused.
        self._fenced: tuple[str, float] | None = None
        self._lowered = False
        self._noted = -standing.NOTE_SECONDS
        # The connection to the master by which the data on disk has come.
        self._link: str | None = None
        # Whether a restart would find all of the data; not yet known, or a copy is only in memory.
        self.on_disk = False
        # History and offset that are saved already, or given up.
        self._settled: tuple[str, str] | None = None

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
        except (*NO_ANSWER, RuntimeError) as error:  # the latter for want of threads
            if self._fenced or self._lowered:
                log("this former master does not answer", error=str(error))

    def look(self) -> None:
        """Look once, and give way when it is time; what is left to do then is done by the next look.

        Raises one of NO_ANSWER.
        """
        info = self._replication()
        if info is None:
            return
        self._settings.paths.starting.unlink(missing_ok=True)
        if info["role"] != "master":
            self._unfence()
            self._reign = None
            if self._lowered:
                self._lowered = False
                self._deposed()
            if info["master_link_status"] == "up" and self._is_time_to_note():
                with self._connect() as redis:
                    link = standing.link_of(redis)
                    self.on_disk = standing.is_on_disk(redis, copied=link != self._link)
                if self.on_disk:
                    self._link = link
                    self._note(info)
            return
        known = self._known()
        if known is not None and known.address == self._own():
            self._unfence()
            self._reign = known.config_epoch
        elif known is not None and self._reign is not None and known.config_epoch > self._reign:
            self._give_way(known.address)
            return
        # What it has while too few follow it may be of its own.
        if followers(info) < self._settings.replicas_to_write or self._is_time_to_note():
            with self._connect() as redis:
                # The copy of one that was promoted early may be in memory only.
                self.on_disk = standing.is_on_disk(redis, copied=not self.on_disk)
            if self.on_disk:
                self._note(info)

    def _is_time_to_note(self) -> bool:
        return time.monotonic() - self._noted >= standing.NOTE_SECONDS

    def _note(self, info: Mapping[str, str]) -> None:
        standing.note(self._settings.paths, info)
        self._noted = time.monotonic()

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
        return known if known is not None and known.votes >= self._settings.quorum else None

    def _connect(self, seconds: float = CALL_SECONDS) -> Connection:
        return Connection(self._local, PORT_REDIS, self._settings.redis_login, deadline_seconds=seconds)

    def _replication(self) -> dict[str, str] | None:
        """INFO replication of a Redis that has loaded its data; None when it does not answer."""
        try:
            with self._connect() as redis:
                loading = redis.info("persistence")["loading"] != "0"
                return None if loading else redis.info("replication")
        except NO_ANSWER:
            return None

    def _fence(self) -> float:
        """Refuse writes, and orders of the Sentinels, who would end a save; since when, by the monotonic clock."""
        with self._connect() as redis:
            if self._fenced is None:
                before = pairs(redis.call("CONFIG", "GET", REPLICAS_TO_WRITE))[REPLICAS_TO_WRITE]
                self._fenced = before, time.monotonic()
            redis.call("CONFIG", "SET", REPLICAS_TO_WRITE, _NEVER)
            self._obey(redis, "-")
        return self._fenced[1]

    def _unfence(self) -> None:
        if self._fenced is not None:
            with self._connect() as redis:
                redis.call("CONFIG", "SET", REPLICAS_TO_WRITE, self._fenced[0])
                self._obey(redis, "+")
            self._fenced = None

    def _obey(self, redis: Connection, sign: str) -> None:
        if self._settings.credentials is not None:
            redis.call("ACL", "SETUSER", access.SENTINEL, *(sign + order for order in _ORDERS))

    def _give_way(self, successor: str) -> None:
        """Refuse writes, save what the successor has not, become its replica. Raises one of NO_ANSWER."""
        if self._fenced is None:
            log("another is master; this one refuses writes", master=successor)
        since = self._fence()
        try:
            saved = self._save_for(successor, since)
        except snapshots.NotSavedError as error:
            log("the data of this former master is not saved yet", error=str(error))
            return
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
        seconds = round(time.monotonic() - since, 2)
        log(
            "this pod is a replica now",
            master=successor,
            saved=saved.name if saved else None,
            seconds=seconds,
        )

    def _save_for(self, successor: str, since: float) -> Path | None:
        """The snapshot; None when there is nothing to save, or no time. Raises NotSavedError, to try again."""
        paths, left = self._settings.paths, since + snapshots.SAVE_SECONDS - time.monotonic()
        with self._connect(max(0.0, left) + CALL_SECONDS) as redis:
            own = redis.info("replication")
            state, offset = (own["master_replid"], own["master_repl_offset"]), int(own["master_repl_offset"])
            if state == self._settled or not has_diverged(own, replication_of(self._settings, successor)):
                return None
            with suppress(OSError):
                # Should this life end before it is saved.
                standing.note(paths, own)
            try:
                saved = snapshots.save(redis, paths, offset, seconds=left)
            except snapshots.NotSavedError as error:
                if since + snapshots.SAVE_SECONDS > time.monotonic():
                    raise
                snapshots.tell_unsaved(paths, offset, str(error))
                saved = None
        self._settled = state
        # The next life must not take the new master's data for this.
        with suppress(OSError):
            standing.note_saved(paths)
        return saved
