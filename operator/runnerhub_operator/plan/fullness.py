"""Volumes and memory that run full: told early, and not made worse.

A primary whose volume is full stops, and a Redis master refuses what it cannot write to its file. Long before that
people are told; shortly before, no member is renewed or restarted any more, because a member that comes back has
more to write than one that runs, and a role that moves to a full volume stops there. What makes room goes on: larger
volumes, parameters that need no restart, repairs, a switchover that is asked for to a member with room.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from ..api import FULL_PERCENT, NEARLY_FULL_PERCENT, EventReason, RedisStatus
from ..kube.events import EventNote

# Below that the pods tell how full volumes are in steps of five.
_STEPS_UP_TO: Final = 80

_MARKS: Final[tuple[tuple[EventReason, int], ...]] = (
    ("VolumeNearlyFull", NEARLY_FULL_PERCENT),
    ("VolumeFull", FULL_PERCENT),
)

# Where the size of the volumes of each component is.
POSTGRES_SIZE: Final = "spec.postgres.storage.size"
REDIS_SIZE: Final = "spec.redis.storage.size"


def calm(before: int | None, now: int | None) -> int | None:
    """The percentage to tell: one step less, of those in which volumes tell it, may be none at all."""
    if before is None or now is None or now >= before:
        return now
    step = 1 if before > _STEPS_UP_TO else 5
    return before if before - now <= step else now


def fullest(members: Iterable[Any], percent: int) -> dict[str, int]:
    """Members whose volume is at least so full, by name; of what has `name` and `volume_used_percent`."""
    return {
        member.name: member.volume_used_percent
        for member in members
        if member.volume_used_percent is not None and member.volume_used_percent >= percent
    }


def told(members: Iterable[Any], size: str) -> list[str]:
    """Clauses for the condition of a component; `size` is the field that mends it."""
    found = fullest(members, NEARLY_FULL_PERCENT)
    if not found:
        return []
    volumes = ", ".join(f"{name} ({percent} %)" for name, percent in found.items())
    return [f"volumes nearly full: {volumes}; raise {size} or remove data"]


def events(before: Iterable[Any], after: Iterable[Any], size: str) -> list[EventNote]:
    """What is told once, when a volume passes one of the marks."""
    before, after = tuple(before), tuple(after)
    found = []
    for reason, mark in _MARKS:
        known = fullest(before, mark)
        for name, percent in fullest(after, mark).items():
            if name not in known:
                text = f"the volume of {name} is {percent} % full; raise {size} or remove data"
                found.append(EventNote("Warning", reason, text))
    return found


def memory_told(status: RedisStatus) -> list[str]:
    """A clause for the queue's condition when the master's memory runs full."""
    percent = status.memory_used_percent
    if percent is None or percent < NEARLY_FULL_PERCENT:
        return []
    refuses = "refuses new jobs" if percent >= 100 else "refuses new jobs at 100 %"
    return [
        f"memory {percent} % full: the master {refuses}; raise spec.redis.resources.limits.memory, where that is not "
        f"set {REDIS_SIZE}, or work jobs off"
    ]
