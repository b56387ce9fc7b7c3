"""Asks the load balancer's pods whether HAProxy has taken up its settings, and sends a request through it."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Final

import aiohttp

from .. import names
from ..errors import ProbeError
from .http import Program

_log = logging.getLogger(__name__)

_PROGRAM: Final = Program("the load balancer's program", names.PORT_LB_STATE)
# Requests to the orchestrators, where /health never comes by. The operator's own image refuses the id without a look
# at the database; one that fails over it is asked for what every image must have.
_API_PATHS: Final = ("/api/jobs/0", "/api/jobs/metrics")
# No visit waits longer for it: whoever gives no answer in time may only be waiting for the database.
_API_DEADLINE_SECONDS: Final = 0.5
# What a pod says is not to be trusted with the size of the status.
_LONGEST_REASON: Final = 300
_LONGEST_NAME: Final = 100


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


@dataclass(frozen=True, slots=True)
class Health:
    """What the agents beside the orchestrators, and these themselves, tell through HAProxy.

    `unserved`: why no request is served, "" when one is. `refusal`: the master's answer to the writes that it refuses,
    "" when it takes one. `deaf`: BullMQ queues whose workers take no job; None when no agent was reached. `weak`: the
    error of each check that fails although requests are served without it, at one agent at least; None likewise.
    """

    unserved: str = ""
    refusal: str = ""
    deaf: frozenset[str] | None = None
    weak: Mapping[str, str] | None = None


async def read_health(
    http: aiohttp.ClientSession, hosts: Iterable[str], *, token: str = "", deadline_seconds: float
) -> Health:
    """Send requests through each of the hosts. One that is served, or one agent whose write is taken, is enough.

    `token`: of the orchestrators' API, "" for none.
    """
    found = await asyncio.gather(*(_through(http, host, token, deadline_seconds) for host in hosts))
    agents = [health for health in found if health.deaf is not None]
    return Health(
        unserved=min((health.unserved for health in found), default=""),
        refusal=min((health.refusal for health in agents), default=""),
        deaf=frozenset().union(*(health.deaf or () for health in agents)) if agents else None,
        weak=dict(item for health in agents for item in (health.weak or {}).items()) if agents else None,
    )


async def _through(http: aiohttp.ClientSession, host: str, token: str, deadline_seconds: float) -> Health:
    """What the agents say, and where they say that all is well, whether the orchestrators answer too."""
    bracketed = f"[{host}]" if ":" in host else host
    address = f"http://{bracketed}:{names.PORT_ORCHESTRATOR}"
    health, failure = await asyncio.gather(
        _health(http, f"{address}/health", deadline_seconds), _api_failure(http, address, token)
    )
    return health if health.unserved else replace(health, unserved=failure)


async def _api_failure(http: aiohttp.ClientSession, address: str, token: str) -> str:
    """A clause about requests that are answered with an error of a server, HAProxy's own 503 too; "" otherwise."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    failure = ""
    try:
        async with asyncio.timeout(_API_DEADLINE_SECONDS):
            for path in _API_PATHS:
                async with http.get(address + path, headers=headers) as response:
                    if response.status < 500:
                        return ""
                    failure = f"GET {path} through HAProxy is answered with {response.status}"
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        _log.debug("%s: %s", address, error)
        return ""
    return failure


async def _health(http: aiohttp.ClientSession, url: str, deadline_seconds: float) -> Health:
    try:
        async with http.get(url, timeout=aiohttp.ClientTimeout(total=deadline_seconds)) as response:
            told = json.loads(await response.text()) if response.status in (200, 503) else {}
    except ValueError:
        told = {}
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        _log.debug("%s: %s", url, error)
        return Health(f"port {names.PORT_ORCHESTRATOR} of the load balancer gives the operator no answer")
    told = told if isinstance(told, Mapping) else {}
    if not isinstance(told.get("dependencies"), Mapping):
        return Health(f"HAProxy answers {response.status}, because it has no orchestrator that is well")
    checks, queues = _objects(told["dependencies"]), _objects(told.get("queues"))
    down = [name for name in names.HEALTH_NEEDED if checks.get(name, {}).get("status") != "up"]
    _, _, refusal = str(checks.get("redis", {}).get("error", "")).partition(names.WRITE_REFUSED)
    return Health(
        unserved=f"the orchestrators tell of no working {' and '.join(down)}" if down else "",
        refusal=refusal[:_LONGEST_REASON] if "redis" in down else "",
        deaf=frozenset(
            name[:_LONGEST_NAME] for name, queue in queues.items() if queue.get("status") == "deaf"
        ),
        weak={
            name: str(checks[name].get("error", "no answer"))[:_LONGEST_REASON]
            for name in names.HEALTH_BESIDE
            # The canary goes through database and queue: without them it tells nothing of its own.
            if checks.get(name, {}).get("status") == "down" and not (name == "canary" and down)
        },
    )


def _objects(body: object) -> dict[str, Mapping[str, Any]]:
    """The members of an object that are objects themselves."""
    members = body.items() if isinstance(body, Mapping) else ()
    return {str(name): member for name, member in members if isinstance(member, Mapping)}


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
