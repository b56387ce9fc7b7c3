"""When workers count as deaf: jobs wait, nobody has one, workers are connected, and it stays so."""

from __future__ import annotations

import base64
from dataclasses import replace

import pytest

from runnerhub_operator.agent.queues import DEAF_SECONDS, QueueView, Standstill, workers_of

STANDS = QueueView(waiting=3, active=0, workers=2, first="job-1")


def seen(*views: QueueView, every: float = DEAF_SECONDS) -> bool:
    """Whether the last of these looks, at equal distances, finds the workers deaf."""
    state = Standstill(views[0])
    for number, view in enumerate(views):
        state = state.after(view, number * every)
    return state.is_deaf((len(views) - 1) * every)


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
