"""A master that hangs: it was stopped, or waits for a disk that does not answer.

The Sentinels have another promoted then. Should the old one wake, it answers what its clients have sent it meanwhile
before it learns of that: it acknowledges writes that are gone a moment later. So its own pod ends it before they elect,
when another can take its place, and has that one promoted.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

from . import standing
from .decision import replaceable
from .log import log
from .network import LOCAL, NO_ANSWER, ask_redis, ask_sentinels
from .resp import Connection, RespError
from .settings import PORT_REDIS, Settings

LOOK_SECONDS = 0.5
# Parts of down-after, so that it is over before the Sentinels elect. It is asked twice: while the node is frozen, time
# goes by for this program as well as for Redis, which answers as soon as both go on. And nobody is ended by what was
# so before the others were asked, which may take a second.
PATIENCE, ONCE_MORE, ONCE_MORE_AT_LEAST = 0.6, 0.2, 0.1
BUSY_SECONDS = 0.1


class Watch:
    """Looks at one pod's Redis; `end` ends it at once, whatever it does.

    Nothing here needs the volume before Redis is ended: it may be what Redis waits for.
    """

    def __init__(
        self,
        settings: Settings,
        addresses: Callable[[], Mapping[int, str]],
        end: Callable[[], None],
        *,
        local: str = LOCAL,
    ) -> None:
        self._settings = settings
        self._addresses = addresses
        self._end = end
        self._local = local
        self._members: Mapping[int, str] = {}
        # INFO replication as it was told last, once the data was loaded.
        self._info: Mapping[str, str] = {}

    def run(self, goes_on: Callable[[], bool]) -> None:
        """Look again and again."""
        while goes_on():
            time.sleep(LOOK_SECONDS)
            try:
                reason = self.look()
            except (*NO_ANSWER, RuntimeError) as error:  # the latter for want of threads
                log("whether Redis hangs is not known", error=str(error))
                continue
            if reason is not None and goes_on():
                log("Redis hangs and is ended", reason=reason)
                self._end()
                with suppress(OSError):  # for the next life, which saves what no other has
                    standing.note(self._settings.paths, self._info)

    def look(self) -> str | None:
        """Why Redis is to be ended; None when it answers, was no master, or nobody can take its place.

        Raises one of NO_ANSWER, or RuntimeError.
        """
        began, settings = time.monotonic(), self._today()
        down_after = settings.down_after_milliseconds / 1000
        if self._answers(PATIENCE * down_after):
            self._members = self._addresses()
            return None
        if self._info.get("role") != "master" or self._settings.ordinal not in self._members:
            return None
        reason = self._replaceable(settings.quorum)
        left = began + (PATIENCE + ONCE_MORE) * down_after - time.monotonic()
        if reason is None or self._answers(max(left, ONCE_MORE_AT_LEAST * down_after)):
            return None
        return reason

    def _today(self) -> Settings:
        with suppress(*NO_ANSWER):  # the file may just be being replaced
            return self._settings.today()
        return self._settings

    def _answers(self, seconds: float) -> bool:
        """Whether Redis answers by then; that it is BUSY with a script that does not end is no answer for Sentinel."""
        ends = time.monotonic() + seconds
        while (left := ends - time.monotonic()) > 0:
            try:
                with Connection(
                    self._local, PORT_REDIS, self._settings.redis_login, deadline_seconds=left
                ) as redis:
                    if redis.info("persistence")["loading"] == "0":
                        self._info = redis.info("replication")
            except TimeoutError:
                break
            except RespError as error:
                if error.code != "BUSY":
                    return True
                time.sleep(BUSY_SECONDS)
            except NO_ANSWER:
                # It starts or ends: others see to that.
                return True
            else:
                return True
        return False

    def _replaceable(self, majority: int) -> str | None:
        ordinal = self._settings.ordinal
        others = {number: host for number, host in self._members.items() if number != ordinal}
        with ThreadPoolExecutor(max_workers=1) as pool:
            redis = pool.submit(ask_redis, self._settings, others)
            sentinels = ask_sentinels(self._settings, {**others, ordinal: self._local})
        return replaceable(ordinal, majority, self._members, list(sentinels.values()), redis.result())
