"""Keeps Redis and Sentinel at the addresses that the pods' own Services have.

A Service that is made anew can have another address when its own is taken, or is none of this Kubernetes. Redis is told
of it while it runs and goes on with what it has. A Sentinel starts anew, which takes a second, because it keeps
addresses that it once heard of.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

from .log import log
from .network import LOCAL, NO_ANSWER, Resolver
from .resp import Connection
from .settings import PORT_REDIS, Settings

LOOK_SECONDS = 5.0
CALL_SECONDS = 3.0


class Watch:
    """Looks at one pod's Redis. `used`: the addresses, by ordinal, with which it was started."""

    def __init__(
        self,
        settings: Settings,
        used: Mapping[int, str],
        looked_up: Callable[[], Mapping[int, str]],
        *,
        local: str = LOCAL,
    ) -> None:
        self._settings = settings
        self._looked_up = looked_up
        self._local = local
        self._used = dict(used)

    def run(self, goes_on: Callable[[], bool]) -> None:
        """Look again and again."""
        while goes_on():
            with suppress(*NO_ANSWER):  # it starts or loads, and is told the next time
                self.look()
            time.sleep(LOOK_SECONDS)

    def look(self) -> None:
        """Tell Redis of addresses that have changed. Raises one of NO_ANSWER."""
        found = dict(self._looked_up())
        if len(found) < self._settings.replicas or found == self._used:
            return
        log("the addresses of the pods have changed", before=self._used, now=found)
        self._tell(found)
        self._used = found

    def _tell(self, found: Mapping[int, str]) -> None:
        today = {old: found[ordinal] for ordinal, old in self._used.items() if ordinal in found}
        own = found[self._settings.ordinal]
        login = self._settings.redis_login
        with Connection(self._local, PORT_REDIS, login, deadline_seconds=CALL_SECONDS) as redis:
            redis.call("CONFIG", "SET", "replica-announce-ip", own)
            info = redis.info("replication")
            if info["role"] != "slave":
                return
            master = info["master_host"]
            if today.get(master, master) != master:
                redis.call("REPLICAOF", today[master], str(PORT_REDIS))
            else:
                # It announces itself when it connects.
                redis.call("CLIENT", "KILL", "TYPE", "master")


def end_when_moved(settings: Settings, resolver: Resolver, members: Sequence[str]) -> None:
    """End this program once the pods have other addresses than those that its Sentinel was started with."""
    while True:
        time.sleep(LOOK_SECONDS)
        found = resolver.looked_up()
        now = [found[ordinal] for ordinal in sorted(found)]
        if len(found) == settings.replicas and now != list(members):
            log("the addresses of the pods have changed; Sentinel starts anew", before=members, now=now)
            os.kill(os.getpid(), signal.SIGTERM)
            return
