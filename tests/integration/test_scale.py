"""The scale bench in a short form: twenty clusters on a stage without machines. `make bench-scale` has the sizes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from bench.report import Size, quantiles
from bench.scale import ScaleBench
from e2e.lab.kubectl import wait_for
from e2e.stage import OperatorProcess, Stage
from tests.integration.conftest import PATIENT

CLUSTERS = 20
# Two visits of each cluster and more.
QUIET_SECONDS = 5.0
IDLE_SECONDS = 12.0
# A pod that answers too late, for the machine is busy, is a reason to write; none is so each time.
IDLE_WINDOWS = 3
BURSTS = ((1, 5), (10, 2))


class PatientStage(Stage):
    """Its operators keep their Lease on a busy machine."""

    def start_operator(self, name: str, **settings: str) -> OperatorProcess:
        return super().start_operator(name, **{**PATIENT, **settings})


class QuietBench(ScaleBench):
    """Takes the first idle time without a call of the operator's own accord; the last of a few if there is none."""

    def _idle(self) -> tuple[float, float, float, dict[tuple[str, str], float]]:
        found = super()._idle()
        for _ in range(IDLE_WINDOWS - 1):
            if all(verb == "watch" or resource == "leases" for verb, resource in found[3]):
                break
            self.settle()
            found = super()._idle()
        return found


@pytest.fixture(scope="module")
def bench() -> Iterator[ScaleBench]:
    """An operator on a stage."""
    with PatientStage() as stage:
        yield QuietBench(stage, idle_seconds=IDLE_SECONDS, bursts=BURSTS, quiet_seconds=QUIET_SECONDS)


@pytest.fixture(scope="module")
def size(bench: ScaleBench) -> Size:
    """Figures with twenty clusters, all of which became Ready; the operator was restarted once."""
    return bench.measure(CLUSTERS)


def test_a_settled_operator_calls_for_its_lease_and_its_watches_only(size: Size) -> None:
    assert size.unexpected_calls() == {}
    assert ("update", "leases") in size.calls


def test_an_edit_reaches_the_child_within_seconds(size: Size) -> None:
    # The median of single ones: the slowest, and many at once, tell how busy the machine is with other things.
    assert quantiles(size.edits[1])["p50"] <= 5.0


def test_memory_stays_small(size: Size) -> None:
    # Python with its libraries takes half of it.
    assert size.rss_peak_mib <= 128


def test_the_operator_counts_its_writes_as_the_api_server_does(bench: ScaleBench, size: Size) -> None:
    def same() -> tuple[int, int] | None:
        counts = bench.writes()
        return counts if counts[0] == counts[1] else None

    counted, _ = wait_for("both to have counted the same writes", same, 20, every=0.2)
    assert counted >= len(BURSTS)
