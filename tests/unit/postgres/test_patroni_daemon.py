"""The launcher of Patroni in the image: it loads, and what it changes is what this Patroni reads."""

from __future__ import annotations

import inspect
import runpy
import time
from typing import Any

import patroni.postgresql
import pytest

from kindbed.paths import REPOSITORY

LAUNCHER = REPOSITORY / "images" / "postgres" / "bin" / "patroni-daemon"


@pytest.fixture
def launcher() -> dict[str, Any]:
    """Its names; nothing is started."""
    return runpy.run_path(str(LAUNCHER))


def test_patroni_still_takes_the_breaks_that_are_made_shorter(launcher: dict[str, Any]) -> None:
    assert launcher["STOP_POLLING_SECONDS"] < patroni.postgresql.STOP_POLLING_INTERVAL
    break_ = (
        f"time.sleep({launcher['PATRONIS_LOCK_SECONDS']})  # Give a time to somebody to take the leader lock"
    )
    assert inspect.getsource(launcher["patroni"].ha).count(break_) == 2


def test_other_breaks_and_clocks_stay(launcher: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[float] = []
    monkeypatch.setattr(time, "sleep", taken.append)
    clock = launcher["Clock"]()
    for seconds in (1, launcher["PATRONIS_LOCK_SECONDS"], 0.25):
        clock.sleep(seconds)
    assert taken == [1, launcher["LOCK_SECONDS"], 0.25]
    assert clock.monotonic is time.monotonic
