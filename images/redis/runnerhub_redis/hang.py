"""A master that hangs: it was stopped, or waits for a disk that does not answer.

The Sentinels have another promoted then. Should the old one wake, it answers what its clients have sent it meanwhile
before it learns of that: it acknowledges writes that are gone a moment later. So its own pod ends it before they elect,
when another can take its place, and has that one promoted.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import suppress

from .decision import replaceable
from .log import log
from .network import LOCAL, NO_ANSWER
from .resp import Connection
from .settings import PORT_REDIS, Settings
from .start import gather

LOOK_SECONDS = 0.5
# Parts of down-after, so that it is over before the Sentinels elect. It is asked twice: while the node is frozen, time
# goes by for this program as well as for Redis, which answers as soon as both go on.
PATIENCE, ONCE_MORE = 0.6, 0.2


class Watch:
    """Looks at one pod's Redis; `end` ends it at once, whatever it does."""

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
        self._was_master = False

    def run(self, goes_on: Callable[[], bool]) -> None:
        """Look again and again."""
        while goes_on():
            time.sleep(LOOK_SECONDS)
            reason = self.look()
            if reason is not None and goes_on():
                log("Redis hangs and is ended", reason=reason)
                self._end()

    def look(self) -> str | None:
        """Why Redis is to be ended; None when it answers, was no master, or nobody can take its place."""
        down_after = self._down_after_seconds()
        if self._answers(PATIENCE * down_after) or self._answers(ONCE_MORE * down_after):
            return None
        if not self._was_master:
            return None
        addresses = self._addresses()
        if self._settings.ordinal not in addresses:
            return None
        return replaceable(gather(self._settings, addresses, own_redis=False, waited=0.0))

    def _down_after_seconds(self) -> float:
        settings = self._settings
        with suppress(*NO_ANSWER):  # the file may just be being replaced
            settings = settings.today()
        return settings.down_after_milliseconds / 1000

    def _answers(self, seconds: float) -> bool:
        login = self._settings.redis_login
        try:
            with Connection(self._local, PORT_REDIS, login, deadline_seconds=seconds) as redis:
                self._was_master = redis.info("replication")["role"] == "master"
        except TimeoutError:
            return False
        except NO_ANSWER:
            # It starts, loads or ends: others see to that.
            pass
        return True
