"""The short form of `make faults-hub`: three of its faults, once each, by the same code."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from e2e.faults import mend
from e2e.faults.hub.arena import HubArena
from e2e.faults.hub.suite import HubSuite
from e2e.lab import bed as test_bed
from e2e.lab.bed import Bed
from e2e.lab.hub import Hub
from e2e.lab.load import LoadClient
from e2e.tests.short_form import try_once

# Seconds; the longest target of the design, with room for a slow machine. The full suite measures the figures.
LONGEST_GAP_SECONDS = 15.0


class GentleArena(HubArena):
    """Half the load: the machines of continuous integration may be several times slower than others."""

    LOAD_ARGUMENTS = (*HubArena.LOAD_ARGUMENTS, "--jobs-rate=5", "--gets-rate=10")


@pytest.fixture(scope="module")
def arena(bed: Bed, hub: Hub, load: LoadClient) -> Iterator[HubArena]:
    """The cluster of all tests under the load of the fault suite; the usual load comes back afterwards."""
    mend.pin_dns(bed)
    arena = GentleArena(bed, hub, load)
    arena.start_load()
    yield arena
    load.start(test_bed.CLIENT_IMAGE)


@pytest.mark.parametrize("name", ["rolling-update", "agent-stopped", "balancer-force-deleted"])
def test_a_fault_breaks_no_promise_and_passes(arena: HubArena, name: str) -> None:
    try_once(arena, HubSuite.fault(name), longest_gap_seconds=LONGEST_GAP_SECONDS)
