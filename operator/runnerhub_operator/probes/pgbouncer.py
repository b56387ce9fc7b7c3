"""The agents beside the PgBouncers: holding clients back while the primary changes, and letting them go on.

Each agent opens by itself as soon as another member takes writes, and when the time is over; see
`images/pooler/runnerhub_pooler`.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

import aiohttp

from .. import names
from ..errors import ProbeError, UnknownPathError
from .http import Login, Program

# How long clients are held back at most (an agent allows 15). A switchover takes about three seconds; one that takes
# longer than clients are patient gains nothing by holding them back, and an operator that dies meanwhile costs this.
HELD_BACK_SECONDS: Final = 8
# When nobody else can take over there is nothing to gain by opening sooner; the longest that an agent allows.
LONGEST_HELD_BACK_SECONDS: Final = 15
# Nobody is held back yet, so waiting for one that is slow costs no client anything.
HEALTH_DEADLINE_SECONDS: Final = 3.0
# An agent prepares for 1.5 s at most, gives running transactions 2.5 s at most to end, and then needs a moment to let
# everybody go on.
PAUSE_DEADLINE_SECONDS: Final = 6.0
RESUME_DEADLINE_SECONDS: Final = 3.0
CHECKPOINT_DEADLINE_SECONDS: Final = 12.0
# An agent gives running reads 2 s to end.
LEAVE_DEADLINE_SECONDS: Final = 3.0
NEEDS_DEADLINE_SECONDS: Final = 2.0


async def silent(
    session: aiohttp.ClientSession,
    hosts: Sequence[str],
    *,
    deadline_seconds: float = HEALTH_DEADLINE_SECONDS,
    port: int = names.PORT_POOLER_AGENT,
) -> Mapping[str, str]:
    """Ask all poolers at once for a sign of life, which disturbs no client; gives why there is none, by host."""
    return await _ask_all(session, hosts, port, "/healthz", None, deadline_seconds, method="GET")


async def pause(
    session: aiohttp.ClientSession,
    hosts: Sequence[str],
    primary: str,
    *,
    seconds: int,
    login: Login,
    deadline_seconds: float = PAUSE_DEADLINE_SECONDS,
    port: int = names.PORT_POOLER_AGENT,
) -> Mapping[str, str]:
    """Ask all poolers at once to hold their clients back; gives what those answered that do not, by host.

    An agent holds them back until another member than `primary` takes writes, at most `seconds`.
    """
    body = {"primary": primary, "seconds": seconds}
    return await _ask_all(session, hosts, port, "/pause", login, deadline_seconds, body)


async def resume(
    session: aiohttp.ClientSession,
    hosts: Sequence[str],
    *,
    login: Login,
    deadline_seconds: float = RESUME_DEADLINE_SECONDS,
    port: int = names.PORT_POOLER_AGENT,
) -> Mapping[str, str]:
    """Ask all poolers at once to let their clients go on; gives what those answered that did not, by host."""
    return await _ask_all(session, hosts, port, "/resume", login, deadline_seconds)


async def leave(
    session: aiohttp.ClientSession,
    hosts: Sequence[str],
    member: str,
    *,
    login: Login,
    deadline_seconds: float = LEAVE_DEADLINE_SECONDS,
    port: int = names.PORT_POOLER_AGENT,
) -> Mapping[str, str]:
    """Ask all poolers at once to have readers leave a replica; gives what those answered that did not, by host."""
    return await _ask_all(session, hosts, port, "/leave", login, deadline_seconds, {"member": member})


async def checkpoint(
    session: aiohttp.ClientSession,
    host: str,
    *,
    login: Login,
    deadline_seconds: float = CHECKPOINT_DEADLINE_SECONDS,
    port: int = names.PORT_POOLER_AGENT,
) -> None:
    """Have the primary write what it has in memory, so that it stops sooner. Raises ProbeError."""
    await _agent(port).call(
        session, "POST", host, "/checkpoint", login=login, deadline_seconds=deadline_seconds
    )


async def needed_connections(
    session: aiohttp.ClientSession,
    hosts: Sequence[str],
    *,
    deadline_seconds: float = NEEDS_DEADLINE_SECONDS,
    port: int = names.PORT_POOLER_AGENT,
) -> Mapping[str, int | None]:
    """The max_connections that the settings in effect in each pooler need, by host.

    None: its image is of before settings were read while it runs, so it has those that it was started with. Raises
    ProbeError when one does not tell.
    """

    async def ask(host: str) -> int | None:
        try:
            answer = await _agent(port).call(
                session, "GET", host, "/needs", deadline_seconds=deadline_seconds
            )
        except UnknownPathError:
            return None
        try:
            return int(json.loads(answer)["message"])
        except (ValueError, KeyError, TypeError) as error:
            raise ProbeError(f"the pooler at {host} answered /needs with {answer[:100]!r}") from error

    return dict(zip(hosts, await asyncio.gather(*map(ask, hosts)), strict=True))


def _agent(port: int) -> Program:
    return Program("the pooler", port)


async def _ask_all(
    session: aiohttp.ClientSession,
    hosts: Sequence[str],
    port: int,
    path: str,
    login: Login | None,
    deadline_seconds: float,
    body: Mapping[str, Any] | None = None,
    method: str = "POST",
) -> Mapping[str, str]:
    async def ask(host: str) -> tuple[str, str | None]:
        try:
            await _agent(port).call(
                session, method, host, path, login=login, deadline_seconds=deadline_seconds, body=body
            )
        except ProbeError as error:
            return host, str(error)
        return host, None

    answers = await asyncio.gather(*(ask(host) for host in hosts))
    return {host: error for host, error in answers if error is not None}
