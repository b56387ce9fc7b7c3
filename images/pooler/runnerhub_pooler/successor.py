"""Finding the new primary as soon as it takes writes, sooner than HAProxy's next checks would."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from http.client import HTTPConnection, HTTPException

import psycopg

from .database import Database
from .haproxy import Proxy, ProxyError, Server

PATRONI_SECONDS = 0.5
LOOK_SECONDS = 0.25


class Scout:
    """Looks for another primary than the one that leaves, and has HAProxy send connections there and nowhere else."""

    def __init__(self, database: Database, proxy: Proxy) -> None:
        self._database = database
        self._proxy = proxy

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
            found = self._serving([item for item in servers if item.name != leaving and item.is_known])
            if found is None:
                return None
            for server in servers:
                if server.is_up != (server.name == found.name):
                    self._proxy.mark(server.name, "up" if server.name == found.name else "down")
            return found.name if self.running() == (found.name,) else None
        except ProxyError:
            return None

    def settle(self) -> None:
        """Leave one server where HAProxy takes several for the primary.

        It does so when it has just started and has checked none yet, and while a former primary, which may be back and
        refuse writes by then, does not answer its checks.
        """
        try:
            up = [server for server in self._proxy.servers() if server.is_up]
            found = self._serving(up) if len(up) > 1 else None
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

    def _serving(self, servers: Sequence[Server]) -> Server | None:
        """The one that serves; all are asked at once, as those that are not there may not even refuse."""
        if not servers:
            return None
        pool = ThreadPoolExecutor(len(servers))
        try:
            asked = {pool.submit(self._serves, server): server for server in servers}
            return next((asked[answer] for answer in as_completed(asked) if answer.result()), None)
        finally:
            pool.shutdown(wait=False)

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


def _leads(server: Server) -> bool:
    connection = HTTPConnection(server.address, server.check_port, timeout=PATRONI_SECONDS)
    try:
        connection.request("OPTIONS", "/primary")
        return connection.getresponse().status == 200
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()
