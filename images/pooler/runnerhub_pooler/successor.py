"""Finding the new primary as soon as it takes writes, sooner than HAProxy's next checks would."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import closing, suppress
from http.client import HTTPConnection, HTTPException

import psycopg

from .database import Database
from .haproxy import Proxy, ProxyError, Server

PATRONI_SECONDS = 0.5
# In a search, which waits for nobody: Patroni answers late while its node starts what another node had.
PATIENT_SECONDS = 2.0
ASK_SECONDS = 0.05
SEARCH_PATIENCE_SECONDS = 0.25
LOOK_SECONDS = 0.25

Address = tuple[str, int]


class Scout:
    """Looks for another primary than the one that leaves, and has HAProxy send connections there and nowhere else."""

    def __init__(self, database: Database, proxy: Proxy) -> None:
        self._database = database
        self._proxy = proxy
        self._search: Search | None = None

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
            if self._search is None:
                self._search = Search(self._database)
            found = self._search.first(others, SEARCH_PATIENCE_SECONDS)
            if found is None:
                return None
            for server in servers:
                if server.is_up != (server.name == found.name):
                    self._proxy.mark(server.name, "up" if server.name == found.name else "down")
            return found.name if self.running() == (found.name,) else None
        except ProxyError:
            return None

    def rest(self) -> None:
        """Look for no successor any more."""
        if self._search is not None:
            self._search.end()
        self._search = None

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


class Search:
    """Asks members again and again which of them has become the primary, each in a thread of its own.

    One that does not answer keeps nobody from hearing another, and one that answers late is heard all the same. Each is
    asked by one login, which lives through a promotion: a login costs a busy machine more than a hundred such
    questions, and clients wait meanwhile.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._asked: set[Address] = set()
        self._primary: Server | None = None
        self._found = threading.Event()
        self._over = threading.Event()

    def first(self, servers: Sequence[Server], patience_seconds: float) -> Server | None:
        """The primary as one of them has told since this was called last; waits so long for it."""
        for server in servers:
            if _address(server) not in self._asked:
                self._asked.add(_address(server))
                threading.Thread(target=self._ask, args=(server,), daemon=True).start()
        self._found.wait(patience_seconds)
        self._found.clear()
        primary, self._primary = self._primary, None
        return next((one for one in servers if primary and _address(one) == _address(primary)), None)

    def end(self) -> None:
        """Ask nobody any more; the logins end."""
        self._over.set()

    def _ask(self, server: Server) -> None:
        while not self._over.is_set():
            with suppress(psycopg.Error), closing(self._database.connect(server)) as connection:
                while not self._over.is_set():
                    if self._database.is_writable_by(connection) and _leads(server, PATIENT_SECONDS):
                        self._primary = server
                        self._found.set()
                    self._over.wait(ASK_SECONDS)
            self._over.wait(ASK_SECONDS)


def _address(server: Server) -> Address:
    return server.address, server.port


def _first(servers: Sequence[Server], is_it: Callable[[Server], bool]) -> Server | None:
    """The first of which it is true. All are asked at once, as those that are not there may not even refuse."""
    if not servers:
        return None
    pool = ThreadPoolExecutor(len(servers))
    try:
        asked = {pool.submit(is_it, server): server for server in servers}
        return next((asked[one] for one in as_completed(asked) if one.result()), None)
    finally:
        pool.shutdown(wait=False)


def _leads(server: Server, seconds: float = PATRONI_SECONDS) -> bool:
    connection = HTTPConnection(server.address, server.check_port, timeout=seconds)
    try:
        connection.request("OPTIONS", "/primary")
        return connection.getresponse().status == 200
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()
