"""Whether clients get in: both PgBouncers answer, and so does the HAProxy that leads from them to the database.

A connection alone would tell nothing, the kernel makes it for a process that hangs as well. The database is not asked:
without it every pod would be taken out of the Service, and clients could not even wait.
"""

from __future__ import annotations

import socket
import struct

from .haproxy import Proxy, ProxyError
from .settings import LOCAL, Settings

# All together less than kubelet waits for an answer.
ANSWER_SECONDS = 0.7
# Asks for TLS, which PgBouncer answers before any login, by one letter.
# Source: https://www.postgresql.org/docs/17/protocol-message-formats.html (SSLRequest)
_QUESTION = struct.pack("!ii", 8, 80877103)
_ANSWERS = (b"S", b"N")


def closed_way(settings: Settings, proxy: Proxy) -> str | None:
    """The first way in that is closed, in a sentence; None when all are open."""
    for port in (settings.pooler_port, settings.read_only_port):
        if not _answers(port):
            return f"PgBouncer at port {port} does not answer"
    try:
        proxy.servers()
    except ProxyError as error:
        return str(error)
    return None


def _answers(port: int) -> bool:
    try:
        with socket.create_connection((LOCAL, port), ANSWER_SECONDS) as connection:
            connection.sendall(_QUESTION)
            return connection.recv(1) in _ANSWERS
    except OSError:
        return False
