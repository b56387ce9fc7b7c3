"""Leaving a replica that stops, before it does: its readers go on at another one, between two transactions.

HAProxy sends nobody there any more, and the read-only PgBouncer makes its connections anew, each when its transaction
has ended. Whoever asked may die: HAProxy uses the replica again as soon as it was down, or when the time is over.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from .console import Console
from .haproxy import REPLICAS, Proxy, ProxyError
from .log import log

# How long running transactions may take to end; the pod of the replica waits meanwhile.
PATIENCE_SECONDS = 2.0
# A replica that was left and still runs then does not stop.
AVOIDED_SECONDS = 30.0
LOOK_SECONDS = 1.0


class Readers:
    """Safe for several threads. `watch` must run in one of its own."""

    def __init__(
        self, console: Callable[[], Console], proxy: Proxy, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._console = console
        self._proxy = proxy
        self._clock = clock
        self._until: dict[str, float] = {}
        self._avoids = threading.Event()
        # A process before this one may have left some.
        self._avoids.set()

    def leave(self, member: str) -> None:
        """Have no reader be at a member, or wait no longer than one may. Raises ProxyError, ConsoleError.

        Fine when nobody is sent there anyway.
        """
        if not any(server.name == member and server.is_up for server in self._proxy.servers(REPLICAS)):
            return
        self._until[member] = self._clock() + AVOIDED_SECONDS
        self._avoids.set()
        self._proxy.set_state(member, "drain")
        is_left = self._console().reconnect(PATIENCE_SECONDS)
        log("left", replica=member, transactions_ended=is_left)

    def tick(self) -> None:
        """Let members that were left be used again, once their checks say so. Raises ProxyError."""
        for server in self._proxy.servers(REPLICAS):
            if server.is_drained and not (server.is_up and self._clock() < self._until.get(server.name, 0.0)):
                self._proxy.set_state(server.name, "ready")
                self._until.pop(server.name, None)
        if not self._until:
            self._avoids.clear()

    def watch(self) -> None:
        """Look again and again while one is left; never ends."""
        while True:
            self._avoids.wait()
            time.sleep(LOOK_SECONDS)
            try:
                self.tick()
            except ProxyError:
                # It forgets by itself when it starts anew.
                continue
