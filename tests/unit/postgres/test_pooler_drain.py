"""Whom a PgBouncer that stops tells to leave, and when."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import cast

import pytest

from images.pooler.runnerhub_pooler import drain as drain_module
from images.pooler.runnerhub_pooler.console import Console
from images.pooler.runnerhub_pooler.drain import drain

LAST_SECONDS = 25.0


class Clock:
    """Time that passes only while somebody sleeps."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


class Clients:
    """A console that has a client to the end; `rests` are the seconds that one must have rested, by the time."""

    def __init__(self, clock: Clock, oldest_request: float) -> None:
        self._clock = clock
        self._oldest_request = oldest_request
        self.rests: dict[float, float] = {}

    def close_resting(self, rest: Callable[[float], float]) -> int:
        self.rests[self._clock.now] = rest(self._oldest_request)
        return int(self._clock.now < LAST_SECONDS)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(drain_module, "time", clock)
    return clock


def rests(clock: Clock, oldest_request: float = 0.0, is_held_back: bool = False) -> dict[float, float]:
    clients = Clients(clock, oldest_request)
    assert drain(cast("Console", clients), lambda: True, lambda: is_held_back) == "no client is left"
    return clients.rests


def test_those_that_rest_are_told_first_and_the_busy_ones_by_and_by(clock: Clock) -> None:
    told = rests(clock)
    assert {rest for at, rest in told.items() if at <= drain_module.BUSY_AFTER_SECONDS} == {
        drain_module.RESTING_SECONDS
    }
    ramp = [rest for at, rest in told.items() if at >= drain_module.BUSY_AFTER_SECONDS]
    steps = [
        (before, after) for before, after in pairwise(ramp) if before > drain_module.SHORTEST_REST_SECONDS
    ]
    assert len(steps) >= 4
    assert all(after >= before / 2 for before, after in steps)
    assert ramp[-1] == drain_module.SHORTEST_REST_SECONDS


def test_nobody_is_told_while_somebody_waits_long_until_patience_ends(clock: Clock) -> None:
    told = rests(clock, oldest_request=drain_module.SLOW_SECONDS)
    ends = drain_module.PATIENCE_SECONDS + drain_module.RESTING_SECONDS
    assert {rest for at, rest in told.items() if at < ends - 1} == {0.0}
    assert {rest for at, rest in told.items() if at > ends} == {drain_module.SHORTEST_REST_SECONDS}


def test_nobody_is_told_while_clients_are_held_back(clock: Clock) -> None:
    assert set(rests(clock, is_held_back=True).values()) == {0.0}
