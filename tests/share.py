"""What tests that run at the same time share out: each process of pytest-xdist has ports and networks of its own."""

from __future__ import annotations

import contextlib
import os
import random
import socket
from collections.abc import Sequence
from typing import Final, TypeVar

T = TypeVar("T")

_PROCESSES: Final = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
_NUMBER: Final = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % _PROCESSES


def own(of: Sequence[T]) -> Sequence[T]:
    """The part of it that no other process takes anything from."""
    return of[_NUMBER::_PROCESSES]


# Below those that the kernel gives to connections: the many that are made here would take one that is free for now.
_PORTS: Final = iter(random.sample(own(range(20000, 32000)), 12000 // _PROCESSES))


def free_port() -> int:
    """A port that nobody listens on, at any address of loopback; each is given once."""
    for port in _PORTS:
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.bind(("", port))
            return port
    raise AssertionError("no port is free")
