"""A member of the database that freezes keeps nobody who asks it something."""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from images.pooler.runnerhub_pooler.credentials import Credentials, Passwords
from images.pooler.runnerhub_pooler.database import Database
from images.pooler.runnerhub_pooler.haproxy import Server
from images.pooler.runnerhub_pooler.settings import Settings

SSL_REQUEST = 80877103


def let_in_and_freeze(listener: socket.socket, over: threading.Event) -> None:
    link, _ = listener.accept()
    with link:
        while True:
            (length,) = struct.unpack("!i", link.recv(4))
            (code,) = struct.unpack("!i", link.recv(length - 4)[:4])
            if code != SSL_REQUEST:
                break
            link.sendall(b"N")
        # It lets in without a password, and is ready.
        link.sendall(b"R" + struct.pack("!ii", 8, 0) + b"Z" + struct.pack("!i", 5) + b"I")
        over.wait(30)


@pytest.fixture
def database() -> Database:
    """Members whose port is found out later, and which let in without a password."""
    settings = Settings(1, 5432, 5433, 2, "hub", Path("/none"), ())
    return Database(settings, Credentials(Passwords("app", "monitoring", "admin")))


@pytest.fixture
def frozen() -> Iterator[Server]:
    """A member that freezes after one login."""
    over = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=let_in_and_freeze, args=(listener, over), daemon=True)
        thread.start()
        yield Server("hub-postgres-0", "127.0.0.1", listener.getsockname()[1], 8008, is_up=True)
        over.set()
        thread.join(20)


@pytest.mark.parametrize("question", ["writes", "room"])
def test_one_that_freezes_after_the_login_is_waited_for_shortly(
    question: str, database: Database, frozen: Server
) -> None:
    started = time.monotonic()
    with pytest.raises(psycopg.Error, match="no answer within"):
        database.is_writable(frozen) if question == "writes" else database.room([frozen])
    assert time.monotonic() - started < 10
