"""The HTTP interface of the pooler's program."""

from __future__ import annotations

import socket
import struct
import threading
from typing import cast

import pytest

from images.pooler.runnerhub_pooler.credentials import Credentials
from images.pooler.runnerhub_pooler.gate import Gate
from images.pooler.runnerhub_pooler.server import serve
from tests.share import free_port


def test_one_that_does_not_wait_for_its_answer_leaves_no_word(capfd: pytest.CaptureFixture[str]) -> None:
    """A kubelet that gives up, or a pod that ends."""
    asked, gone, answered = threading.Event(), threading.Event(), threading.Event()

    def closed_way() -> str | None:
        asked.set()
        gone.wait(10)
        return "x" * 10_000

    def needs() -> int:
        answered.set()
        return 1

    port = free_port()
    serve(port, cast("Credentials", None), cast("Gate", None), str, lambda: None, closed_way, needs, bool)
    with socket.create_connection(("127.0.0.1", port)) as client:
        client.sendall(b"GET /readyz HTTP/1.1\r\n\r\n")
        assert asked.wait(10)
        # Closed by a reset.
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    gone.set()
    with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
        client.sendall(b"GET /needs HTTP/1.0\r\n\r\n")
        assert client.recv(4096).startswith(b"HTTP/1.0 200")
    assert answered.is_set()
    for thread in threading.enumerate():
        if "process_request_thread" in thread.name:
            thread.join(10)
    assert capfd.readouterr() == ("", "")
