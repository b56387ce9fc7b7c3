"""The short form of `make faults-postgres`: a handful of its faults, once each, by the same code."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from e2e.faults import mend
from e2e.faults.postgres.arena import PostgresArena
from e2e.faults.postgres.suite import PostgresSuite
from e2e.lab import bed as test_bed
from e2e.lab.bed import Bed
from e2e.lab.hub import Hub
from e2e.lab.load import LoadClient
from e2e.tests.short_form import try_once

# Seconds; the longest target of the design, with room for a slow machine. The full suite measures the figures.
LONGEST_GAP_SECONDS = 35.0


@pytest.fixture(scope="module")
def arena(bed: Bed, hub: Hub, load: LoadClient) -> Iterator[PostgresArena]:
    """The cluster of all tests under the load of the fault suite; the usual load comes back afterwards."""
    mend.pin_dns(bed)
    arena = PostgresArena(bed, hub, load)
    arena.start_load()
    yield arena
    load.start(test_bed.CLIENT_IMAGE)


@pytest.mark.parametrize(
    "name",
    [
        "planned-switchover",
        "password-rotation",
        "pooler-killed",
        "graceful-delete",
        "postmaster-killed",
        "patroni-killed",
        "postgres-stopped",
        "split-brain",
        "api-server-away",
    ],
)
def test_a_fault_breaks_no_promise_and_passes(arena: PostgresArena, name: str) -> None:
    try_once(arena, PostgresSuite.fault(name), longest_gap_seconds=LONGEST_GAP_SECONDS)
