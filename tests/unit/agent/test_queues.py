"""When workers count as deaf: jobs wait, nobody has one, workers are connected, and it stays so."""

from __future__ import annotations

import base64
from dataclasses import replace

import pytest

from runnerhub_operator.agent.queues import (
    DEAF_SECONDS,
    SILENT_SECONDS,
    QueueView,
    Standstill,
    workers_of,
)

STANDS = QueueView(waiting=3, active=0, workers=2, first="job-1")


def seen(*views: QueueView, every: float = DEAF_SECONDS) -> bool:
    """Whether the last of these looks, at equal distances, finds the workers deaf."""
    state = Standstill(views[0])
    for number, view in enumerate(views):
        state = state.after(view, number * every)
    return state.is_deaf


def test_the_same_job_next_for_so_long_is_deaf() -> None:
    assert not seen(STANDS)
    assert not seen(STANDS, STANDS, every=DEAF_SECONDS / 2)
    assert seen(STANDS, STANDS)
    assert seen(STANDS, replace(STANDS, waiting=9)), "more jobs came, and none went"


@pytest.mark.parametrize(
    "other",
    [
        replace(STANDS, first="job-2"),
        replace(STANDS, active=1),
        replace(STANDS, waiting=0),
        replace(STANDS, workers=0),
        replace(STANDS, held=True),
    ],
)
def test_whatever_moves_or_has_a_reason_is_not(other: QueueView) -> None:
    assert not seen(STANDS, other)
    assert not seen(STANDS, other, STANDS), "it counts anew"


def checks(*told: str, every: float = 10.0) -> list[bool]:
    """Whether each look finds workers deaf that are known only by when they looked for stalled jobs."""
    view = replace(STANDS, workers=0)
    state = Standstill(view, check=told[0])
    found = []
    for number, check in enumerate(told):
        state = state.after(replace(view, check=check), number * every)
        found.append(state.is_deaf)
    return found


def test_a_worker_whose_blocking_connection_led_to_a_master_that_is_gone_is_deaf() -> None:
    found = checks("1", "1", "", "2", "2", "2", "3", "3", "", "")
    assert found == [False] * 6 + [True] * 4, (
        "two signs of life half a minute apart, and the job is there still"
    )


def test_a_queue_without_a_worker_is_not() -> None:
    assert not any(checks(*[""] * 20))
    assert not any(checks("1", "1", "", *[""] * 20)), "the worker went before it could have taken the job"
    later = checks("1", "2", *[""] * 9, "3", "3")
    assert SILENT_SECONDS < 9 * 10
    assert not any(later), "another one that has just come"


def test_a_restart_of_the_workers_counts_anew() -> None:
    state = Standstill(STANDS)
    for now, workers in ((0, 1), (20, 1), (30, 0), (40, 1)):
        state = state.after(replace(STANDS, workers=workers), now)
    assert not state.is_deaf


def test_workers_are_known_by_the_names_of_node_and_python() -> None:
    encoded = base64.b64encode(b"github-jobs").decode()
    names = [
        f"bull:{encoded}",
        f"bull:{encoded}:w:one",
        "bull:github-jobs",
        f"bull:{encoded}:qe",
        "other",
        "",
    ]
    assert workers_of("github-jobs", names) == 3
