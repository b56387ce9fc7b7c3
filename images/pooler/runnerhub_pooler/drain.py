"""Sending the clients of a PgBouncer that stops to other pods, without an error.

Its preStop hook (`pooler-drain`) leaves a file, and waits until this program has removed it. The pod is out of the
Service by then. Clients that leave by themselves find another pod and see nothing. The others are told between two
transactions, first those that rest: a pool of idle connections notices that one was closed, and makes another. Whoever
is in a transaction is left alone until it ends, or until the time is over.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

from .console import Console, ConsoleError
from .log import log

# Beside PgBouncer's user list; the hook's name for it, too.
REQUEST = "drain"
# Nodes learn of the endpoint's removal a moment later; until then they still send new connections here.
REMOVAL_SECONDS = 3.0
LOOK_SECONDS = 0.5
# How long a client must have rested to be told: one that sends its next statement at the very moment sees an error.
RESTING_SECONDS = 2.0
# From this time on those that never rest so long are told as well, in ever shorter pauses: a few with each look, as
# many logins at once hold up whoever makes them and the PgBouncer that they go to.
BUSY_AFTER_SECONDS = 17.0
SHORTER = 0.5
SHORTEST_REST_SECONDS = 0.05
# While somebody waits so long for an answer, and for RESTING_SECONDS after it, nobody is told; somebody who waits is
# heeded until this time.
SLOW_SECONDS = 1.0
PATIENCE_SECONDS = 20.0
# One that does not answer for so long has nobody to wait for.
SILENT_SECONDS = 10.0


def drain(console: Console, is_wanted: Callable[[], bool], is_held_back: Callable[[], bool]) -> str:
    """Wait until no client of others is left, or nobody wants it any more; returns how it ended, for the log.

    `is_held_back`: whether clients are, as the primary of the same node hands its role over.
    """
    started = answered = time.monotonic()
    slow = started - RESTING_SECONDS

    def rest(oldest_request: float) -> float:
        # PgBouncer takes a client for resting since it asked: one that waited long would be told as soon as it has its
        # answer, perhaps when it asks for the next thing.
        nonlocal slow
        now = time.monotonic()
        age = now - started
        if is_held_back() or (age < PATIENCE_SECONDS and oldest_request >= SLOW_SECONDS):
            slow = now
        if now - slow < RESTING_SECONDS:
            return 0.0
        steps = max(0.0, age - BUSY_AFTER_SECONDS) / LOOK_SECONDS
        return max(SHORTEST_REST_SECONDS, RESTING_SECONDS * SHORTER**steps)

    time.sleep(REMOVAL_SECONDS)
    while is_wanted():
        try:
            if console.close_resting(rest) == 0:
                return "no client is left"
            answered = time.monotonic()
        except ConsoleError as error:
            if time.monotonic() - answered > SILENT_SECONDS:
                return str(error)
        time.sleep(LOOK_SECONDS)
    return "clients are left"


def watch(console: Console, request: Path, route: str, is_held_back: Callable[[], bool]) -> None:
    """Wait for the hook of a PgBouncer, for ever."""
    while True:
        time.sleep(LOOK_SECONDS)
        if request.exists():
            started = time.monotonic()
            outcome = drain(console, lambda: _renewed(request), is_held_back)
            log("drained", route=route, outcome=outcome, seconds=round(time.monotonic() - started, 1))
            request.unlink(missing_ok=True)


def _renewed(request: Path) -> bool:
    """Whether the hook still waits; it is told that somebody is at work."""
    try:
        os.utime(request)
    except FileNotFoundError:
        return False
    return True
