"""Asks the load balancer's pods whether HAProxy has taken up its settings, and sends a request through it."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

import aiohttp

from .. import names
from ..errors import ProbeError
from .http import Program

_log = logging.getLogger(__name__)

_PROGRAM: Final = Program("the load balancer's program", names.PORT_LB_STATE)
# What each request needs, by the names in the answer of GET /health.
_NEEDED: Final = (names.ORCHESTRATOR, "database", "redis")
# What a pod says is not to be trusted with the size of the status.
_LONGEST_REASON: Final = 300


@dataclass(frozen=True, slots=True)
class BalancerState:
    """What one pod tells.

    `loaded`: digest of the configuration that HAProxy works by; `refused`: why it does not work by the latest files;
    `certificate_until`: when its certificate ends, None without one.
    """

    pod: str
    loaded: str
    refused: str | None = None
    certificate_until: datetime | None = None


def configuration_digest(text: str) -> str:
    """As the pod's program makes it of haproxy.cfg."""
    return hashlib.sha256(text.encode()).hexdigest()


async def read_states(
    http: aiohttp.ClientSession, hosts: Mapping[str, str], *, deadline_seconds: float
) -> tuple[BalancerState, ...]:
    """Ask all at once; `hosts` maps pods to addresses. Those that do not answer in time are left out."""

    async def ask(pod: str, host: str) -> BalancerState | None:
        try:
            text = await _PROGRAM.call(http, "GET", host, "/state", deadline_seconds=deadline_seconds)
            return parse_state(pod, json.loads(text))
        except (ProbeError, ValueError) as error:
            _log.debug("%s: %s", pod, error)
            return None

    found = await asyncio.gather(*(ask(pod, host) for pod, host in hosts.items()))
    return tuple(state for state in found if state is not None)


async def why_unserved(http: aiohttp.ClientSession, hosts: Iterable[str], *, deadline_seconds: float) -> str:
    """Why no request through any of the hosts is served, "" when one is.

    The answer comes through HAProxy from the agent beside an orchestrator, which looks at that and at what it needs.
    """
    found = await asyncio.gather(*(_why(http, host, deadline_seconds) for host in hosts))
    return min(found, default="")


async def _why(http: aiohttp.ClientSession, host: str, deadline_seconds: float) -> str:
    bracketed = f"[{host}]" if ":" in host else host
    url = f"http://{bracketed}:{names.PORT_ORCHESTRATOR}/health"
    try:
        async with http.get(url, timeout=aiohttp.ClientTimeout(total=deadline_seconds)) as response:
            told = json.loads(await response.text()) if response.status in (200, 503) else {}
    except ValueError:
        told = {}
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        _log.debug("%s: %s", url, error)
        return f"port {names.PORT_ORCHESTRATOR} of the load balancer gives the operator no answer"
    checks = told.get("dependencies") if isinstance(told, Mapping) else None
    if not isinstance(checks, Mapping):
        return f"HAProxy answers {response.status}, because it has no orchestrator that is well"
    # Without the shared storage, or with a worker that hangs, requests are served.
    down = [name for name in _NEEDED if (checks.get(name) or {}).get("status") != "up"]
    return f"the orchestrators tell of no working {' and '.join(down)}" if down else ""


def parse_state(pod: str, body: object) -> BalancerState:
    """Read an answer of GET /state. Raises ValueError when it is none."""
    told = body if isinstance(body, Mapping) else {}
    loaded, refused, until = told.get("loaded"), told.get("refused"), told.get("certificate_until")
    if not isinstance(loaded, str):
        raise ValueError("the answer tells no configuration")  # noqa: TRY004 - it comes from a program in a pod
    return BalancerState(
        pod,
        loaded,
        refused[:_LONGEST_REASON] if isinstance(refused, str) else None,
        datetime.strptime(until, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
        if isinstance(until, str)
        else None,
    )
