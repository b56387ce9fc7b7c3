"""The program's HTTP interface, for the operator and for the Postgres pods.

`POST /pause`       {"primary": NAME, "seconds": N}: hold clients back while NAME gives up its role, N seconds at most.
                    200 once no transaction runs; 409 when some did not end in time, or another one is the primary;
                    410 when nobody is served here; 503 when that cannot be told.
`POST /resume`      let them go on now
`POST /leave`       {"member": NAME}: have readers leave a replica that stops. 200 when they have, or need no longer be
                    waited for; 503 when that could not be done.
`POST /checkpoint`  have the primary write what it has in memory, so that it stops sooner
`GET /needs`        the max_connections that PgBouncer's settings in effect need, 503 when not known; needs no password
`GET /healthz`      200 while the program runs; tells whether clients are sent elsewhere because the pod stops; needs no
                    password
`GET /readyz`       200 while clients get in, else 503 with the reason; needs no password
"""

from __future__ import annotations

import base64
import hmac
import json
import socket
import sys
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import psycopg

from .console import ConsoleError
from .credentials import Credentials
from .gate import MAX_PAUSE_SECONDS, Gate, RefusedError
from .haproxy import ProxyError
from .log import log
from .settings import ADMIN_USER

MAX_BODY_BYTES = 4096
# The preStop hook of Postgres looks for it.
MOVING = "moving clients"

Answer = tuple[int, str]


def serve(
    port: int,
    credentials: Credentials,
    gate: Gate,
    leave: Callable[[str], None],
    checkpoint: Callable[[], None],
    closed_way: Callable[[], str | None],
    needs: Callable[[], int | None],
    is_moving_clients: Callable[[], bool],
) -> None:
    """Serve in the background. `closed_way`: which way in for clients is closed, None when all are open."""
    routes: dict[str, Callable[[bytes], Answer]] = {
        "/pause": lambda body: _pause(gate, body),
        "/resume": lambda _: _resume(gate),
        "/leave": lambda body: _leave(leave, body),
        "/checkpoint": lambda _: _checkpoint(checkpoint),
    }

    class Handler(BaseHTTPRequestHandler):
        timeout = 5

        def do_GET(self) -> None:  # the name is http.server's
            if self.path == "/healthz":
                self._send(200, MOVING if is_moving_clients() else "ok")
            elif self.path == "/readyz":
                closed = closed_way()
                self._send(*((200, "ok") if closed is None else (503, closed)))
            elif self.path == "/needs":
                needed = needs()
                self._send(*((200, str(needed)) if needed is not None else (503, "not known yet")))
            else:
                self._send(404, "not found")

        def do_POST(self) -> None:  # the name is http.server's
            # Before the body is read: strangers get no further.
            if not is_admin(self.headers.get("Authorization", ""), credentials):
                self._send(401, "name and password are wrong")
                return
            route = routes.get(self.path)
            length = self.headers.get("Content-Length", "0")
            if route is None:
                self._send(404, "not found")
            elif not length.isdigit() or int(length) > MAX_BODY_BYTES:
                self._send(413, "too long")
            else:
                self._send(*route(self.rfile.read(int(length))))

        def _send(self, status: int, message: str) -> None:
            raw = json.dumps({"message": message}).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  http.server's
            """Say nothing: probes come every few seconds, and the rest is logged where it happens."""

    server = _Server(("", port), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()


class _Server(ThreadingHTTPServer):
    """IPv4, and IPv6 too where the machine has it."""

    address_family = socket.AF_INET6 if socket.has_dualstack_ipv6() else socket.AF_INET

    def server_bind(self) -> None:
        """Listen for both families."""
        if self.address_family == socket.AF_INET6:
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        super().server_bind()

    def handle_error(self, request: object, client_address: object) -> None:
        """One that asked and did not wait for the answer is no error."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]


def is_admin(given: str, credentials: Credentials) -> bool:
    """Whether an Authorization header is one of those that are let in."""
    answers = [
        hmac.compare_digest(given.encode(), authorization(word).encode()) for word in credentials.admins()
    ]
    return any(answers)


def authorization(password: str) -> str:
    """The Authorization header of a password."""
    return "Basic " + base64.b64encode(f"{ADMIN_USER}:{password}".encode()).decode()


def parse_pause(body: bytes) -> tuple[str, float]:
    """Primary and seconds of a request. Raises ValueError with a sentence."""
    primary, given = _named(body, "primary")
    seconds = given.get("seconds")
    is_number = isinstance(seconds, int | float) and not isinstance(seconds, bool)
    if not is_number or not 0 < seconds <= MAX_PAUSE_SECONDS:
        raise ValueError(f"seconds is no number above 0 and up to {MAX_PAUSE_SECONDS:g}")
    return primary, float(seconds)


def _named(body: bytes, key: str) -> tuple[str, dict[str, Any]]:
    """The name that a request has under a key, and the whole request. Raises ValueError with a sentence."""
    given = json.loads(body)
    name = given.get(key) if isinstance(given, dict) else None
    if not isinstance(name, str) or name == "":
        raise ValueError(f"{key} is no name")
    return name, given


def _pause(gate: Gate, body: bytes) -> Answer:
    try:
        primary, seconds = parse_pause(body)
    except ValueError as error:
        return 400, str(error)
    try:
        gate.close(primary, seconds)
    except RefusedError as error:
        log("not paused", primary=primary, why=str(error))
        return error.status, str(error)
    return 200, "paused"


def _resume(gate: Gate) -> Answer:
    gate.resume("it was asked for")
    return (503, "PgBouncer does not answer, tried again soon") if gate.is_closed else (200, "resumed")


def _leave(leave: Callable[[str], None], body: bytes) -> Answer:
    try:
        member, _ = _named(body, "member")
    except ValueError as error:
        return 400, str(error)
    try:
        leave(member)
    except (ProxyError, ConsoleError) as error:
        return 503, str(error)
    return 200, "left"


def _checkpoint(checkpoint: Callable[[], None]) -> Answer:
    try:
        checkpoint()
    except (psycopg.Error, ProxyError) as error:
        return 503, str(error).strip()
    return 200, "done"
