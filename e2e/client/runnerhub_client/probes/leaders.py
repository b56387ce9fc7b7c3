"""Asks every orchestrator and its ha-agent, several times a second and not through the load balancer, whether it leads.

Only who says yes is written down, with the moment before it was asked: the answer was true at an instant between that
one and the moment of the record. A line a second tells how many were asked and how many answered.
"""

from __future__ import annotations

import asyncio
import socket
import time
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from ..journal import Journal
from ..pacing import pause
from ..record import Outcome
from .context import Context

AGENT_PORT, ORCHESTRATOR_PORT = 9808, 3001
ASK_EVERY_SECONDS = 0.2
ANSWER_SECONDS = 1.0
LOOK_UP_SECONDS = 1.0
# A pod that is frozen, or whose name is gone, may still believe that it leads when it comes back.
REMEMBER_SECONDS = 120.0


@dataclass(frozen=True, slots=True)
class Asked:
    """Whom to ask: the ha-agent or the orchestrator at an address; `node` names the field with the pod's name."""

    by: str
    port: int
    path: str
    node: str


AGENT = Asked("agent", AGENT_PORT, "/leader", "holder")
ORCHESTRATOR = Asked("orchestrator", ORCHESTRATOR_PORT, "/health", "node")


@dataclass(slots=True)
class Looks:
    """How often somebody was asked and answered since the last line, and when each address was last known."""

    asked: int = 0
    answered: int = 0
    seen: dict[str, float] = field(default_factory=dict)


async def run(context: Context) -> None:
    """Run until stopped."""
    journal = Journal(context.directory, "leaders")
    looks = Looks()
    asking: dict[str, list[asyncio.Task[None]]] = {}
    while not context.stop.is_set():
        now = time.monotonic()
        looks.seen.update(dict.fromkeys(await addresses(context.load.leaders), now))
        for address, seen_at in list(looks.seen.items()):
            if now - seen_at > REMEMBER_SECONDS:
                del looks.seen[address]
                for task in asking.pop(address, ()):
                    task.cancel()
            elif address not in asking:
                asking[address] = [
                    asyncio.create_task(keep_asking(context, journal, address, whom, looks))
                    for whom in (AGENT, ORCHESTRATOR)
                ]
        journal.write("look", Outcome.NOTE, asked=looks.asked, answered=looks.answered)
        looks.asked = looks.answered = 0
        await pause(context.stop, LOOK_UP_SECONDS)
    tasks = [task for of_address in asking.values() for task in of_address]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    journal.close()


async def addresses(host: str) -> set[str]:
    """What a name stands for now; nothing while nobody can tell."""
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            found = await asyncio.get_running_loop().getaddrinfo(host, None, family=socket.AF_INET)
    except (OSError, TimeoutError):
        return set()
    return {str(address[0]) for *_, address in found}


async def keep_asking(context: Context, journal: Journal, address: str, whom: Asked, looks: Looks) -> None:
    """Ask one of them until stopped."""
    while not context.stop.is_set():
        asked_at = time.monotonic()
        looks.asked += 1
        answer = await _ask(context.session, f"http://{address}:{whom.port}{whom.path}")
        looks.answered += answer is not None
        if answer is not None and answer.get("leader") and answer.get("fencingToken") is not None:
            journal.write(
                "claim",
                Outcome.NOTE,
                identifier=str(answer.get(whom.node, "")),
                by=whom.by,
                token=int(answer["fencingToken"]),
                asked=round(asked_at, 6),
            )
        await pause(context.stop, ASK_EVERY_SECONDS - (time.monotonic() - asked_at))


async def _ask(session: aiohttp.ClientSession, url: str) -> dict[str, Any] | None:
    try:
        async with session.get(url, timeout=aiohttp.ClientTimeout(total=ANSWER_SECONDS)) as response:
            # 503 is who does not lead, or is not well; both have the same body as 200.
            answer = await response.json(content_type=None)
    except (aiohttp.ClientError, OSError, TimeoutError, ValueError):
        return None
    return answer if isinstance(answer, dict) else None
