"""The scale bench in a short form: twenty clusters on a stage without machines. `make bench-scale` has the sizes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from bench.report import Size, quantiles
from bench.scale import ScaleBench
from e2e.lab.kubectl import wait_for
from e2e.stage import Stage

CLUSTERS = 20
# Two visits of each cluster and more.
QUIET_SECONDS = 5.0
IDLE_SECONDS = 12.0
BURSTS = ((1, 3), (10, 2))


@pytest.fixture(scope="module")
def bench() -> Iterator[ScaleBench]:
    """An operator on a stage."""
    with Stage() as stage:
        yield ScaleBench(stage, idle_seconds=IDLE_SECONDS, bursts=BURSTS, quiet_seconds=QUIET_SECONDS)


@pytest.fixture(scope="module")
def size(bench: ScaleBench) -> Size:
    """Figures with twenty clusters, all of which became Ready; the operator was restarted once."""
    return bench.measure(CLUSTERS)


def test_a_settled_operator_calls_for_its_lease_and_its_watches_only(size: Size) -> None:
    assert size.unexpected_calls() == {}
    assert ("update", "leases") in size.calls


def test_an_edit_reaches_the_child_within_two_seconds(size: Size) -> None:
    # The median: the slowest one tells how busy the machine is with other things.
    assert quantiles([seconds for times in size.edits.values() for seconds in times])["p50"] <= 2.0


def test_memory_stays_small(size: Size) -> None:
    # Python with its libraries takes half of it.
    assert size.rss_peak_mib <= 128


def test_the_operator_counts_its_writes_as_the_api_server_does(bench: ScaleBench, size: Size) -> None:
    def same() -> tuple[int, int] | None:
        counts = bench.writes()
        return counts if counts[0] == counts[1] else None

    counted, _ = wait_for("both to have counted the same writes", same, 20, every=0.2)
    assert counted >= len(BURSTS)
