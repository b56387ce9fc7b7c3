"""The HAProxy of this pod, by its runtime API: which members it takes for the primary, and telling it of a new one.

Source: https://docs.haproxy.org/3.0/management.html#9.3
"""

from __future__ import annotations

import socket
from dataclasses import dataclass

from .settings import LOCAL

PRIMARY = "primary"
REPLICAS = "replicas"
ANSWER_SECONDS = 1.0
_RUNNING = "2"
_UNKNOWN_ADDRESS = "-"
# Source: https://docs.haproxy.org/3.0/management.html#9.3 (show servers state, srv_admin_state)
_DRAINED = 0x08


class ProxyError(Exception):
    """HAProxy does not answer as expected; the message is a sentence."""


class ProxyGoneError(ProxyError):
    """HAProxy is not there, and so nobody has a connection to the database."""


@dataclass(frozen=True, slots=True)
class Server:
    """One member as a server of a route. `check_port`: of its Patroni. `is_drained`: told to get no connections."""

    name: str
    address: str
    port: int
    check_port: int
    is_up: bool
    is_drained: bool = False

    @property
    def is_known(self) -> bool:
        """Whether its address has been found."""
        return self.address != _UNKNOWN_ADDRESS


class Proxy:
    """HAProxy's runtime API on loopback."""

    def __init__(self, port: int) -> None:
        self._port = port

    def servers(self, backend: str = PRIMARY) -> tuple[Server, ...]:
        """The members as HAProxy sees them. Raises ProxyError."""
        return parse_servers(self._ask(f"show servers state {backend}"))

    def mark(self, server: str, state: str) -> None:
        """Tell a server's health, up or down, before the next check does; that check may say otherwise."""
        self._set(f"{PRIMARY}/{server} health {state}")

    def set_state(self, server: str, state: str) -> None:
        """Have a replica get no more connections (drain), or again as its checks say (ready). Raises ProxyError."""
        self._set(f"{REPLICAS}/{server} state {state}")

    def _set(self, what: str) -> None:
        answer = self._ask(f"set server {what}").strip()
        if answer:
            raise ProxyError(f"HAProxy does not set {what}: {answer}")

    def _ask(self, command: str) -> str:
        try:
            with socket.create_connection((LOCAL, self._port), ANSWER_SECONDS) as connection:
                connection.sendall(f"{command}\n".encode())
                received = bytearray()
                while chunk := connection.recv(65536):
                    received += chunk
        except ConnectionRefusedError as error:
            raise ProxyGoneError(f"HAProxy does not answer: {error}") from error
        except OSError as error:
            raise ProxyError(f"HAProxy does not answer: {error}") from error
        return received.decode(errors="replace")


def parse_servers(text: str) -> tuple[Server, ...]:
    """Read an answer to `show servers state`: a version, the names of the columns, a line for each server.

    Raises ProxyError when it is none.
    """
    lines = [line for line in text.splitlines() if line.strip()]
    try:
        columns = next(line for line in lines if line.startswith("#")).removeprefix("#").split()
        rows = [
            dict(zip(columns, line.split(), strict=False))
            for line in lines
            if line.count(" ") > 1 and not line.startswith("#")
        ]
        return tuple(
            Server(
                name=row["srv_name"],
                address=row["srv_addr"],
                port=int(row["srv_port"]),
                check_port=int(row["srv_check_port"]),
                is_up=row["srv_op_state"] == _RUNNING,
                is_drained=bool(int(row["srv_admin_state"]) & _DRAINED),
            )
            for row in rows
        )
    except (StopIteration, KeyError, ValueError) as error:
        raise ProxyError(f"HAProxy tells no servers: {text[:100]!r}") from error
