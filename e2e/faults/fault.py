"""What a class of fault is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from enum import Enum
from typing import Generic

from .arena import A_contra, Arena, Before

Inject = Callable[[A_contra, Before], AbstractContextManager[None]]
# The body of an Inject, for functions under @contextmanager: breaks something, yields, heals.
Break = Iterator[None]


class Primary(Enum):
    """What the fault does to the role of the primary or master."""

    MOVES = "moves"
    STAYS = "stays"
    MAY_MOVE = "may move"


@dataclass(frozen=True, slots=True)
class Target:
    """A service level of the design: the longest gap in seconds, and whether a client may see errors."""

    p50_seconds: float
    p95_seconds: float
    errors_allowed: bool = True


# "Gap 0": writes are 20 ms apart, and a second is what a busy machine makes of that without any fault.
UNNOTICED = Target(1.0, 1.0)


def _nothing_more(_arena: Arena, _before: Before) -> bool:
    return True


def _as_it_is(_arena: Arena) -> None:
    return


def _no_notes(_arena: Arena) -> dict[str, float]:
    return {}


@dataclass(frozen=True, slots=True)
class Fault(Generic[A_contra]):
    """One class of fault.

    `inject` is entered to break something and left to heal it; leaving heals whatever happened in between.
    `primary` tells whether the role moves. `came_true` says beyond a whole cluster what shows that the fault really
    happened and is over, such as a pod with a new uid. `broken_seconds`: for how long at least it stays broken.
    `writes_go_on`: whether clients must get through again before it is healed. `api_answers`: whether kubectl works
    while it is broken. `aftermath` is waited for right after healing, and gives figures for the report. `arrange`
    makes of a whole cluster the one that the fault is about. `loses_nothing`: not even what the servers acknowledged
    without a promise, as the oracle judges it of the probes that are told apart.
    """

    name: str
    title: str
    inject: Inject[A_contra]
    primary: Primary
    target: Target | None = None
    came_true: Callable[[A_contra, Before], bool] = _nothing_more
    broken_seconds: float = 0.0
    writes_go_on: bool = True
    api_answers: bool = True
    aftermath: Callable[[A_contra], dict[str, float]] = _no_notes
    arrange: Callable[[A_contra], None] = _as_it_is
    loses_nothing: bool = False
