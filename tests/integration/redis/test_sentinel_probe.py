"""What the operator asks a Sentinel, asked of real ones."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable
from datetime import UTC, datetime

import pytest

from runnerhub_operator import names
from runnerhub_operator.probes.sentinel import SentinelView, can_fail_over, read_sentinels
from tests.integration.redis.conftest import (
    ADDRESSES,
    ANSWER_SECONDS,
    NAME,
    QUICK_MILLISECONDS,
    SENTINELS_TILT_MILLISECONDS,
    Pods,
    wait_until,
)

Ask = Callable[[], dict[str, SentinelView]]


@pytest.fixture
def ask(pods: Pods, monkeypatch: pytest.MonkeyPatch) -> Ask:
    """Asks all Sentinels as the operator does."""
    pods.start_all()
    monkeypatch.setattr(names, "PORT_SENTINEL", pods.sentinel_port)

    def views() -> dict[str, SentinelView]:
        hosts = {str(ordinal): address for ordinal, address in ADDRESSES.items()}
        return {view.sentinel: view for view in asyncio.run(read_sentinels(hosts, "", ANSWER_SECONDS))}

    return views


def test_a_sentinel_that_stood_still_tells_that_it_does_nothing(pods: Pods, ask: Ask) -> None:
    assert can_fail_over(tuple(ask().values()), len(ADDRESSES))
    stopped = [pods.processes["sentinel", ordinal] for ordinal in (1, 2)]
    for ordinal in (1, 2):
        pods.distrust_clock_after(ordinal, SENTINELS_TILT_MILLISECONDS)
    for process in stopped:
        process.send_signal(signal.SIGSTOP)
    # More than two seconds between two looks at the clock are a leap of time.
    time.sleep(4)
    for process in stopped:
        process.send_signal(signal.SIGCONT)

    def all_tell() -> bool:
        views = ask()
        tilted = {name for name, view in views.items() if view.tilt}
        return tilted == {"1", "2"} and not can_fail_over(tuple(views.values()), len(ADDRESSES))

    wait_until(all_tell)


def test_a_sentinel_without_the_others_tells_that_it_has_no_quorum(pods: Pods, ask: Ask) -> None:
    for ordinal in (1, 2):
        pods.processes["sentinel", ordinal].kill()
    pods.sentinel(0).execute_command("SENTINEL", "SET", NAME, "down-after-milliseconds", QUICK_MILLISECONDS)

    def has_no_quorum() -> bool:
        view = ask().get("0")
        return view is not None and not view.quorum_ok

    wait_until(has_no_quorum)


def test_sentinels_tell_when_they_last_heard_from_a_master_that_hangs(pods: Pods, ask: Ask) -> None:
    # So long that the moment of the stop and that of a look are apart on a busy machine too.
    for ordinal in ADDRESSES:
        pods.sentinel(ordinal).execute_command("SENTINEL", "SET", NAME, "down-after-milliseconds", 5000)
    pods.processes["redis", 0].send_signal(signal.SIGSTOP)
    stopped = datetime.now(UTC)
    told: list[float] = []

    def moved() -> bool:
        views = ask().values()
        told.extend(
            (view.heard_at - stopped).total_seconds()
            for view in views
            if view.master_ip == ADDRESSES[0] and view.master_down and view.heard_at is not None
        )
        return bool(views) and all(view.master_ip != ADDRESSES[0] for view in views)

    wait_until(moved, 40)
    assert told, "it was asked while the master was taken for dead"
    # They ask it once a second.
    assert all(-4 < seconds < 2.5 for seconds in told), told
    wait_until(lambda: all(view.heard_at is not None and view.heard_at > stopped for view in ask().values()))
