"""One HTTP request to a program in a pod: a member's Patroni, or the agent beside a pooler."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from ..errors import ProbeError, UnauthorizedProbeError, UnknownPathError

_KINDS: Mapping[int, type[ProbeError]] = {401: UnauthorizedProbeError, 404: UnknownPathError}


@dataclass(frozen=True, slots=True)
class Login:
    """A user with its password, for HTTP basic authentication."""

    user: str
    password: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Program:
    """A program that listens in pods; `name` is what people call it."""

    name: str
    port: int

    async def call(
        self,
        session: aiohttp.ClientSession,
        method: str,
        host: str,
        path: str,
        *,
        deadline_seconds: float,
        body: Mapping[str, Any] | None = None,
        login: Login | None = None,
        bearer: str | None = None,
    ) -> str:
        """The body of the answer. Every failure is a ProbeError that names program, host and path."""
        bracketed = f"[{host}]" if ":" in host else host
        headers = {"Authorization": aiohttp.encode_basic_auth(login.user, login.password)} if login else {}
        if bearer is not None:
            headers = {"Authorization": f"Bearer {bearer}"}
        try:
            async with session.request(
                method,
                f"http://{bracketed}:{self.port}{path}",
                json=body,
                headers=headers,
                timeout=aiohttp.ClientTimeout(total=deadline_seconds),
            ) as response:
                text = await response.text()
        except (aiohttp.ClientError, TimeoutError, OSError, UnicodeDecodeError) as error:
            reason = f"{type(error).__name__}: {error}"
            raise ProbeError(f"{self.name} at {host} does not answer {path}: {reason}") from error
        if response.status >= 300:
            kind = _KINDS.get(response.status, ProbeError)
            raise kind(f"{self.name} at {host} answered {response.status} to {path}: {_sentence(text)}")
        return text


def _sentence(text: str) -> str:
    """What an answer says to people: its `message` when it is JSON, or all of it."""
    try:
        return str(json.loads(text)["message"])[:200]
    except (ValueError, KeyError, TypeError):
        return text[:200].strip()
