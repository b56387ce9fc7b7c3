"""Open-loop pacing: tries begin at their time, however long earlier ones take, up to a bound."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

SPARE_TRIES = 10


def bound_in_flight(rate: float, timeout_seconds: float, most: int = 0) -> int:
    """Enough for every try of one timeout to hang, so that a hanging target does not slow the pace.

    `most` sets a lower bound to it, 0 none.
    """
    enough = int(rate * timeout_seconds) + SPARE_TRIES
    return min(enough, most) if most else enough


async def pace(
    rate: float,
    most_in_flight: int,
    stop: asyncio.Event,
    attempt: Callable[[], Awaitable[None]],
    *,
    patience_seconds: float,
) -> None:
    """Begin `attempt` `rate` times a second until `stop`; then wait for those in flight, and cancel the rest.

    At the bound, tries are left out, not caught up on: a burst after an outage would measure itself.
    """
    in_flight: set[asyncio.Task[None]] = set()
    due = time.monotonic()
    while not stop.is_set():
        if len(in_flight) < most_in_flight:
            task = asyncio.ensure_future(attempt())
            in_flight.add(task)
            task.add_done_callback(in_flight.discard)
        due = max(due + 1 / rate, time.monotonic())
        await pause(stop, due - time.monotonic())
    if in_flight:
        _, late = await asyncio.wait(in_flight, timeout=patience_seconds)
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)


async def pause(stop: asyncio.Event, seconds: float) -> None:
    """Sleep, but no longer than until `stop`."""
    if seconds <= 0:
        await asyncio.sleep(0)
        return
    try:
        async with asyncio.timeout(seconds):
            await stop.wait()
    except TimeoutError:
        pass
