"""What all unit tests share."""

from __future__ import annotations

import socket
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

# How long examples take tells more of the machine's load than of the code.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")


@pytest.fixture
def nowhere(monkeypatch: pytest.MonkeyPatch) -> str:
    """A name without an address, which no name server is asked for: one that is away is waited for."""
    name, look_up = "no-such-host.invalid", socket.getaddrinfo

    def played(host: Any, *arguments: Any, **options: Any) -> Any:
        if host == name:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return look_up(host, *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", played)
    return name
