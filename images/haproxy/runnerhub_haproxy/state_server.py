"""Tells the operator over HTTP what HAProxy works by: `GET /state`."""

from __future__ import annotations

import json
import sys
import threading
from dataclasses import asdict, dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: object, client_address: object) -> None:
        """One that asked and did not wait for the answer is no error."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]


@dataclass(slots=True)
class State:
    """`loaded`: digest of the configuration; `refused`: why HAProxy does not work by the latest files.

    `certificate_until`: when the first certificate in use ends, RFC 3339; None without one, and until it is known.
    """

    loaded: str = ""
    refused: str | None = None
    certificate_until: str | None = None


def serve(state: State, port: int) -> None:
    """Serve in the background."""

    class Handler(BaseHTTPRequestHandler):
        timeout = 5

        def do_GET(self) -> None:  # the name is http.server's
            found = self.path == "/state"
            raw = json.dumps(asdict(state)).encode() if found else b"not found"
            self.send_response(200 if found else 404)
            self.send_header("Content-Length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  http.server's
            """Say nothing: the operator asks every few seconds."""

    server = _Server(("", port), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
