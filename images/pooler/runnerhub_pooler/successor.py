"""Finding the new primary as soon as it takes writes, sooner than HAProxy's next checks would."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import suppress
from http.client import HTTPConnection, HTTPException

import psycopg

from .database import Database
from .haproxy import Proxy, ProxyError, Server

PATRONI_SECONDS = 0.5
# A member is asked two things, each answered at once by one that works. Another one must not wait for longer to be
# looked at again.
LOOK_PATIENCE_SECONDS = 1.5
LOOK_SECONDS = 0.25

Address = tuple[str, int]


class Scout:
    """Looks for another primary than the one that leaves, and has HAProxy send connections there and nowhere else."""

    def __init__(self, database: Database, proxy: Proxy) -> None:
        self._database = database
        self._proxy = proxy
        self._witnesses = Witnesses(database)

    def running(self) -> tuple[str, ...]:
        """Members that HAProxy takes for the primary now. Raises ProxyError."""
        return tuple(server.name for server in self._proxy.servers() if server.is_up)

    def serves(self, member: str) -> bool:
        """Whether a member is the primary and takes writes. Raises ProxyError."""
        return any(server.name == member and self._serves(server) for server in self._proxy.servers())

    def successor(self, leaving: str) -> str | None:
        """The new primary once connections made now reach it and only it; None while there is none."""
        try:
            servers = self._proxy.servers()
            others = [item for item in servers if item.name != leaving and item.is_known]
            search = self._witnesses.search
            found = _first(
                others,
                lambda server: self._witnesses.is_writable(server, search) and _leads(server),
                LOOK_PATIENCE_SECONDS,
            )
            if found is None:
                return None
            for server in servers:
                if server.is_up != (server.name == found.name):
                    self._proxy.mark(server.name, "up" if server.name == found.name else "down")
            return found.name if self.running() == (found.name,) else None
        except ProxyError:
            return None

    def rest(self) -> None:
        """Give back what was kept to look for a successor."""
        self._witnesses.dismiss()

    def settle(self) -> None:
        """Leave one server where HAProxy takes several for the primary.

        It does so when it has just started and has checked none yet, and while a former primary, which may be back and
        refuse writes by then, does not answer its checks.
        """
        try:
            up = [server for server in self._proxy.servers() if server.is_up]
            found = _first(up, self._serves) if len(up) > 1 else None
            for server in up if found is not None else ():
                if server != found:
                    self._proxy.mark(server.name, "down")
        except ProxyError:
            # The next look may tell.
            pass

    def watch(self) -> None:
        """Settle again and again, for ever."""
        while True:
            self.settle()
            time.sleep(LOOK_SECONDS)

    def _serves(self, server: Server) -> bool:
        """Whether a member is the primary and takes writes.

        Patroni calls itself the primary from the moment it has the leader key; Postgres' promotion ends only later.
        """
        if not server.is_known or not _leads(server):
            return False
        try:
            return self._database.is_writable(server)
        except psycopg.Error:
            return False


class Witnesses:
    """Connections to members whose promotion is waited for, kept from one question to the next.

    A login costs a busy machine more than a hundred such questions, and clients wait meanwhile. One that was made to a
    replica lives through its promotion. Safe for several threads.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._kept: dict[Address, psycopg.Connection] = {}
        self._asked: set[Address] = set()
        self._lock = threading.Lock()
        # The number of the search that connections are kept for.
        self.search = 0

    def is_writable(self, server: Server, search: int) -> bool:
        """Whether a member's promotion is complete; no when it does not tell, or still owes an answer.

        `search`: the one that this is asked for. When it is over by then, the connection is not kept.
        """
        address = (server.address, server.port)
        with self._lock:
            if address in self._asked:
                return False
            self._asked.add(address)
            connection = self._kept.pop(address, None)
        answer: bool | None = None
        try:
            with suppress(psycopg.Error):
                if connection is None:
                    connection = self._database.connect(server)
                answer = self._database.is_writable_by(connection)
        finally:
            with self._lock:
                self._asked.remove(address)
                if connection is not None and answer is not None and search == self.search:
                    self._kept[address], connection = connection, None
            if connection is not None:
                connection.close()
        return bool(answer)

    def dismiss(self) -> None:
        """The search is over: end what is kept, and what is in use when it has its answer."""
        with self._lock:
            self.search += 1
            kept, self._kept = self._kept, {}
        for connection in kept.values():
            connection.close()


def _first(
    servers: Sequence[Server], is_it: Callable[[Server], bool], patience_seconds: float | None = None
) -> Server | None:
    """The first of which it is true, within a time if given.

    All are asked at once, as those that are not there may not even refuse.
    """
    if not servers:
        return None
    pool = ThreadPoolExecutor(len(servers))
    try:
        asked = {pool.submit(is_it, server): server for server in servers}
        with suppress(TimeoutError):
            return next((asked[one] for one in as_completed(asked, patience_seconds) if one.result()), None)
        return None
    finally:
        pool.shutdown(wait=False)


def _leads(server: Server) -> bool:
    connection = HTTPConnection(server.address, server.check_port, timeout=PATRONI_SECONDS)
    try:
        connection.request("OPTIONS", "/primary")
        return connection.getresponse().status == 200
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()
