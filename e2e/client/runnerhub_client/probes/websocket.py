"""Holds WebSockets and counts what arrives and how often they break."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time

import aiohttp

from ..journal import Journal
from ..pacing import pause
from ..record import Outcome
from .context import Context

COUNT_SECONDS = 1.0
RECONNECT_SECONDS = 0.5
PING_SECONDS = 5.0
CLOSE_SECONDS = 2.0
# Each socket is a client of its own for the load balancer, as behind an Ingress. Source: RFC 5737, TEST-NET-2
FORWARDED_FOR = "198.51.100.{number}"


async def run(context: Context) -> None:
    """Run until stopped."""
    journal = Journal(context.directory, "websocket")
    await asyncio.gather(*(_hold(context, journal, n) for n in range(context.load.websockets)))
    journal.close()


async def _hold(context: Context, journal: Journal, number: int) -> None:
    name = f"ws-{number}"
    forwarded = {"X-Forwarded-For": FORWARDED_FOR.format(number=number % 254 + 1)}
    while not context.stop.is_set():
        started = time.monotonic()
        try:
            # A heartbeat notices a peer that vanished without a word.
            async with asyncio.timeout(context.load.timeout_seconds):
                socket = await context.session.ws_connect(
                    context.targets.websocket_url,
                    headers={**context.tokens.headers(), **forwarded},
                    heartbeat=PING_SECONDS,
                )
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            journal.write("connect", Outcome.ERROR, identifier=name, started=started, error=error)
        else:
            journal.write("connect", Outcome.ACKED, identifier=name, started=started)
            silent = await _count(context, journal, name, socket)
            if not context.stop.is_set():
                journal.write(
                    "disconnect", Outcome.NOTE, identifier=name, code=socket.close_code, silent=silent
                )
        await pause(context.stop, RECONNECT_SECONDS)


async def _count(
    context: Context, journal: Journal, name: str, socket: aiohttp.ClientWebSocketResponse
) -> float:
    """Count events until the socket ends, a line per second that had some; for how long it was silent at last."""
    events = 0
    node = ""
    counted_at = heard_at = time.monotonic()
    try:
        while not context.stop.is_set() and not socket.closed:
            try:
                message = await socket.receive(timeout=COUNT_SECONDS)
            except TimeoutError:
                message = None
            if message is not None:
                if message.type is not aiohttp.WSMsgType.TEXT:
                    break
                heard_at = time.monotonic()
                event = json.loads(message.data)
                if event.get("type") == "hello":
                    node = str(event.get("node", ""))
                else:
                    events += 1
            if events and time.monotonic() - counted_at >= COUNT_SECONDS:
                journal.write("events", Outcome.NOTE, identifier=name, events=events, node=node)
                events, counted_at = 0, time.monotonic()
        return round(time.monotonic() - heard_at, 3)
    finally:
        if events:
            journal.write("events", Outcome.NOTE, identifier=name, events=events, node=node)
        with contextlib.suppress(aiohttp.ClientError, OSError, TimeoutError):
            async with asyncio.timeout(CLOSE_SECONDS):
                await socket.close()
