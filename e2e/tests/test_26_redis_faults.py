"""The short form of `make faults-redis`: a handful of its faults, once each, by the same code."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

import pytest

from e2e.faults import mend
from e2e.faults.redis.arena import RedisArena
from e2e.faults.redis.suite import RedisSuite
from e2e.lab import bed as test_bed
from e2e.lab.bed import Bed
from e2e.lab.hub import Hub
from e2e.lab.kubectl import wait_for
from e2e.lab.load import LoadClient
from e2e.tests.short_form import try_once

# Seconds; the longest target of the design, with room for a slow machine. The full suite measures the figures.
LONGEST_GAP_SECONDS = 15.0
MEMBERS = 3
# A Sentinel at rest takes less than a hundredth of a processor, a spinning one on a crowded machine still a fifth.
SPINNING_SHARE = 0.1
SPIN_SECONDS = 10.0


@pytest.fixture(scope="module")
def arena(bed: Bed, hub: Hub, load: LoadClient) -> Iterator[RedisArena]:
    """The cluster of all tests under the load of the fault suite; the usual load comes back afterwards."""
    mend.pin_dns(bed)
    arena = RedisArena(bed, hub, load)
    arena.start_load()
    yield arena
    load.start(test_bed.CLIENT_IMAGE)


@pytest.mark.parametrize("name", ["graceful-delete", "sentinels-killed", "volume-empty", "redis-stopped"])
def test_a_fault_breaks_no_promise_and_passes(arena: RedisArena, name: str) -> None:
    try_once(arena, RedisSuite.fault(name), longest_gap_seconds=LONGEST_GAP_SECONDS)


def test_no_sentinel_spins_after_a_pod_was_away(arena: RedisArena) -> None:
    """They try to reach it while its Service has no pod (https://github.com/redis/redis/issues/9956)."""
    arena.hub.kubectl("delete", "pod", f"{arena.hub.name}-redis-2")
    wait_for("the queue to be whole", lambda: len(arena.pod_uids()) == MEMBERS and arena.is_whole(), 180)
    before = {name: _processor_seconds(arena, name) for name in arena.pod_uids()}
    started = time.monotonic()
    time.sleep(SPIN_SECONDS)
    used = {name: _processor_seconds(arena, name) - before[name] for name in before}
    seconds = time.monotonic() - started
    assert max(used.values()) / seconds < SPINNING_SHARE, used


def _processor_seconds(arena: RedisArena, pod: str) -> float:
    """User and system time of a pod's Sentinel; see proc_pid_stat(5), fields 14 and 15."""
    script = "cat /proc/$(pidof redis-sentinel)/stat"
    stat = arena.hub.kubectl("exec", pod, "-c", "sentinel", "--", "sh", "-c", script)
    fields = stat.rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
