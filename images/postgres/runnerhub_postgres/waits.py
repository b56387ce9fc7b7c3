"""Ends commits that wait for a replica although their clients are gone, before they hold all connections.

Such a wait looks at nothing but the replicas: it sees neither that its client has left nor
`client_connection_check_interval`. Clients that give up and come again would use up `max_connections`, and the poolers'
ways in, for as long as nobody confirms.

The backend is terminated, never cancelled: a cancelled wait is answered like a confirmed commit, a terminated one by
nothing. What it wrote can be read from then on, before any replica has it, so no more are ended than must be.

Source: SyncRepWaitForLSN in src/backend/replication/syncrep.c of Postgres 17.
"""

from __future__ import annotations

import ipaddress
import logging
import os
import threading
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any, Final, NamedTuple

import psycopg

from .passwords import STATEMENT_SECONDS, SUPERUSER

logger = logging.getLogger(__name__)

PORT: Final = 5432
# Clients wait for some seconds before they give up and come again.
LOOK_SECONDS: Final = 5.0
# Of max_connections, for those whose clients are gone; a pooler's HAProxy has room for more than that.
MOST_SHARE: Final = 0.25
SOCKETS: Final = (Path("/proc/net/tcp"), Path("/proc/net/tcp6"))
_ESTABLISHED: Final = "01"

_WAITS = """
SELECT pid, backend_start, pg_catalog.host(client_addr), client_port
FROM pg_catalog.pg_stat_activity WHERE wait_event = 'SyncRep' AND client_port > 0 ORDER BY query_start
"""
_MOST = "SELECT pg_catalog.current_setting('max_connections')::int"
_END = """
SELECT pg_catalog.pg_terminate_backend(pid)
FROM pg_catalog.pg_stat_activity WHERE pid = %s AND backend_start = %s AND wait_event = 'SyncRep'
"""

Peer = tuple[str, int]


class Wait(NamedTuple):
    """A backend whose commit waits for a replica, and the client that it has or had."""

    pid: int
    backend_start: datetime
    address: str
    port: int


def connected_peers(sockets: str, port: int) -> set[Peer]:
    """Address and port of all whose connection to a local port stands, by a text of /proc/net/tcp or tcp6.

    Whoever closed its side (CLOSE_WAIT) or was given up by the kernel is not among them. Source: proc_pid_net(5).
    """
    found = set()
    for line in sockets.splitlines()[1:]:
        _, local, remote, state, *_ = line.split()
        if state == _ESTABLISHED and int(local.rpartition(":")[2], 16) == port:
            address, _, number = remote.rpartition(":")
            found.add((_address(address), int(number, 16)))
    return found


def _address(words: str) -> str:
    """The kernel writes addresses as words in the order of the machine, which is little-endian for all our images."""
    packed = b"".join(bytes.fromhex(words[at : at + 8])[::-1] for at in range(0, len(words), 8))
    address = ipaddress.ip_address(packed)
    return str(getattr(address, "ipv4_mapped", None) or address)


def read_peers(port: int = PORT) -> set[Peer]:
    """Those of this pod's network. Raises OSError."""
    return {
        peer for path in SOCKETS if path.exists() for peer in connected_peers(path.read_text("ascii"), port)
    }


def end_vanished(
    connection: psycopg.Connection[Any],
    peers: Callable[[], set[Peer]] = read_peers,
    most_share: float = MOST_SHARE,
) -> int:
    """End the waits of vanished clients that hold more than a share of all connections, the oldest first; how many.

    The connection is one of the superuser. Raises psycopg.Error or OSError.
    """
    waits = [Wait(*row) for row in connection.execute(_WAITS).fetchall()]
    if not waits:
        return 0
    # Looked at last: who is not connected now has been waited for in vain.
    there = peers()
    vanished = [wait for wait in waits if (wait.address, wait.port) not in there]
    row = connection.execute(_MOST).fetchone()
    surplus = len(vanished) - int(most_share * (row[0] if row else 0))
    ended = [
        connection.execute(_END, [wait.pid, wait.backend_start]).fetchone()
        for wait in vanished[: max(0, surplus)]
    ]
    return ended.count((True,))


def start(data_directory: Path) -> None:
    """Look in the background, as long as the process lives."""
    threading.Thread(target=_watch, args=(data_directory,), name="waits", daemon=True).start()


def _watch(data_directory: Path) -> None:
    pause = threading.Event()
    while not pause.wait(LOOK_SECONDS):
        # Only commits wait, and a replica has none.
        if (data_directory / "standby.signal").exists():
            continue
        try:
            with psycopg.connect(
                host=os.environ["PGHOST"],
                user=SUPERUSER,
                dbname="postgres",
                options=f"-c statement_timeout={int(STATEMENT_SECONDS * 1000)}",
                connect_timeout=2,
                autocommit=True,
            ) as connection:
                ended = end_vanished(connection)
        except (psycopg.Error, OSError):
            # A Postgres that starts or stops has no such waits.
            continue
        except Exception:
            # Whatever it is, the next look may pass.
            logger.exception("the waits for replicas could not be looked at")
            continue
        if ended:
            logger.warning("ended %d commits that waited for a replica, their clients are gone", ended)
