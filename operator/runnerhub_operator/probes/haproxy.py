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
# Plain HTTP whether there is a certificate or not.
_HAPROXY: Final = Program("the load balancer", names.PORT_ORCHESTRATOR)
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


async def serves(http: aiohttp.ClientSession, hosts: Iterable[str], *, deadline_seconds: float) -> bool:
    """Whether a request through any of the hosts is answered by an orchestrator that finds itself healthy."""

    async def ask(host: str) -> bool:
        try:
            await _HAPROXY.call(http, "GET", host, "/health", deadline_seconds=deadline_seconds)
        except ProbeError as error:
            _log.debug("%s", error)
            return False
        return True

    return any(await asyncio.gather(*(ask(host) for host in hosts)))


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
