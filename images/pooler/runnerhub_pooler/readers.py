"""Leaving a replica that stops, before it does: its readers go on at another one, between two transactions.

HAProxy sends nobody there any more, and the read-only PgBouncer makes its connections anew, each when its transaction
has ended. Whoever asked may die: HAProxy uses the replica again as soon as it was down, or when the time is over.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable

from .console import Console, ConsoleError
from .haproxy import REPLICAS, Proxy, ProxyError, Server
from .log import log

# How long running transactions may take to end; the pod of the replica waits meanwhile.
PATIENCE_SECONDS = 2.0
# A replica that was left and still runs then does not stop.
AVOIDED_SECONDS = 32.0
# One that stops is seen to be down by then; one that is up has come back, so the next can be left for it.
STOPPED_SECONDS = 5.0
LOOK_SECONDS = 1.0


class Readers:
    """Safe for several threads. `watch` must run in one of its own."""

    def __init__(self, console: Console, proxy: Proxy, clock: Callable[[], float] = time.monotonic) -> None:
        self._console = console
        self._proxy = proxy
        self._clock = clock
        self._lock = threading.Lock()
        self._left: dict[str, float] = {}
        self._avoids = threading.Event()
        # A process before this one may have left some, and PgBouncer's pool small.
        self._avoids.set()
        self._is_small = True

    def leave(self, member: str) -> None:
        """Have no reader be at a member, or wait no longer than one may. Raises ProxyError, ConsoleError.

        Fine when nobody is sent there anyway.
        """
        with self._lock:
            servers = self._proxy.servers(REPLICAS)
            if not any(server.name == member and server.is_up for server in servers):
                return
            self._let_back((server for server in servers if server.name != member), STOPPED_SECONDS)
            self._left[member] = self._clock()
            self._avoids.set()
            self._proxy.set_state(member, "drain")
        try:
            is_left = self._console.reconnect(PATIENCE_SECONDS)
        except ConsoleError:
            self._is_small = True
            self._avoids.set()
            raise
        log("left", replica=member, transactions_ended=is_left)

    def tick(self) -> None:
        """Let members that were left be used again, once their checks say so. Raises ProxyError, ConsoleError."""
        with self._lock:
            self._let_back(self._proxy.servers(REPLICAS), AVOIDED_SECONDS)
            # HAProxy may never have heard of some, or have forgotten them.
            self._left = {
                name: at for name, at in self._left.items() if self._is_recent(name, AVOIDED_SECONDS)
            }
            if not self._left and not self._is_small:
                self._avoids.clear()
        if self._is_small:
            self._is_small = False
            try:
                self._console.reload(log_in=False)
            except ConsoleError:
                self._is_small = True
                raise

    def _let_back(self, servers: Iterable[Server], seconds: float) -> None:
        """Those that have gone down, or were left so many seconds ago."""
        for server in servers:
            if server.is_drained and not (server.is_up and self._is_recent(server.name, seconds)):
                self._proxy.set_state(server.name, "ready")
                self._left.pop(server.name, None)

    def _is_recent(self, member: str, seconds: float) -> bool:
        return member in self._left and self._clock() - self._left[member] < seconds

    def watch(self) -> None:
        """Look again and again while one is left; never ends."""
        while True:
            self._avoids.wait()
            time.sleep(LOOK_SECONDS)
            try:
                self.tick()
            except (ProxyError, ConsoleError):
                # They forget by themselves when they start anew.
                continue
