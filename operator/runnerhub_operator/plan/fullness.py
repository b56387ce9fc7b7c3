"""Volumes of the database that run full: told early, and not made worse.

A primary whose volume is full stops. Long before that people are told; shortly before, no member is renewed or
restarted any more, because a member that comes back has more to write than one that runs, and a role that moves to
a full volume stops there. What makes room goes on: larger volumes, parameters that need no restart, repairs, a
switchover that is asked for to a member with room.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from ..api import PostgresStatus
from ..kube.events import EventNote

NEARLY_FULL_PERCENT: Final = 85
FULL_PERCENT: Final = 95


def fullest(members: Iterable[Any], percent: int) -> dict[str, int]:
    """Members whose volume is at least so full, by name; of what has `name` and `volume_used_percent`."""
    return {
        member.name: member.volume_used_percent
        for member in members
        if member.volume_used_percent is not None and member.volume_used_percent >= percent
    }


def told(status: PostgresStatus) -> list[str]:
    """Clauses for the database's condition."""
    found = fullest(status.instances, NEARLY_FULL_PERCENT)
    if not found:
        return []
    volumes = ", ".join(f"{name} ({percent} %)" for name, percent in found.items())
    return [f"volumes nearly full: {volumes}; raise spec.postgres.storage.size or remove data"]


def events(before: PostgresStatus, after: PostgresStatus) -> list[EventNote]:
    """What is told once, when a volume passes one of the marks."""
    found = []
    for reason, mark in (("VolumeNearlyFull", NEARLY_FULL_PERCENT), ("VolumeFull", FULL_PERCENT)):
        known = fullest(before.instances, mark)
        for name, percent in fullest(after.instances, mark).items():
            if name not in known:
                text = f"the volume of {name} is {percent} % full; raise spec.postgres.storage.size or remove data"
                found.append(EventNote("Warning", reason, text))
    return found
