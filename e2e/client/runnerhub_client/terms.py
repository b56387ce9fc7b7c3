"""Who led when, by the word of those who led: pure functions over the records of the probe `leaders`.

Each claim is true at some instant between the question and the answer, both on the one clock of whoever asked. A later
term has a higher fencing token. So when somebody who was asked after the first answer of a term still claims an
earlier one, two led at the same time, and so did two with the same token.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from .oracle import SHOWN_IDS, Window
from .record import Record

AGENT, ORCHESTRATOR = "agent", "orchestrator"


@dataclass(frozen=True, slots=True)
class Claim:
    """`by` its agent or the orchestrator itself, pod `node` said that it leads with a token.

    `asked` and `answered`: monotonic seconds between which that was so; `wall`: the latter on the wall clock.
    """

    by: str
    node: str
    token: int
    asked: float
    answered: float
    wall: float


@dataclass(frozen=True, slots=True)
class Overlap:
    """`late` claimed its term at least `seconds` after the first claim of a later one, or of the same by another."""

    late: Claim
    other: Claim

    @property
    def seconds(self) -> float:
        """For how long at least."""
        return max(self.late.asked - self.other.answered, 0.0)

    def sentence(self) -> str:
        """For people."""
        return (
            f"{self.late.node} ({self.late.by}) led with token {self.late.token} {self.seconds:.3f} s after "
            f"{self.other.node} ({self.other.by}) had led with {self.other.token}"
        )


def claims(records: Iterable[Record], window: Window) -> list[Claim]:
    """The claims within a window, in the order of their answers."""
    found = [
        Claim(
            by=str(record.details["by"]),
            node=record.identifier,
            token=int(record.details["token"]),
            asked=float(record.details["asked"]),
            answered=record.monotonic,
            wall=record.wall,
        )
        for record in records
        if record.kind == "claim" and window.holds(record)
    ]
    return sorted(found, key=lambda claim: claim.answered)


def overlaps(found: Sequence[Claim]) -> list[Overlap]:
    """Every claim that contradicts an earlier one; `found` in the order of the answers."""
    first: dict[int, Claim] = {}
    seen: list[Overlap] = []
    highest = 0
    for claim in found:
        highest = max(highest, claim.token)
        same = first.setdefault(claim.token, claim)
        if same.node != claim.node:
            seen.append(Overlap(claim, same))
            continue
        if claim.token == highest:
            continue
        later = [
            other for token, other in first.items() if token > claim.token and other.answered < claim.asked
        ]
        if later:
            seen.append(Overlap(claim, min(later, key=lambda other: other.answered)))
    return seen


def two_leaders(records: Iterable[Record], window: Window) -> list[Overlap]:
    """Where two led at the same time by the word of their agents."""
    return overlaps([claim for claim in claims(records, window) if claim.by == AGENT])


def longest_gap(found: Sequence[Claim], window: Window) -> float:
    """The longest time without a claim, counted from edge to edge of a finite window."""
    edges = [window.since, *sorted(claim.wall for claim in found), window.until]
    return round(max(after - before for before, after in itertools.pairwise(edges)), 3)


def judge(records: Iterable[Record], window: Window) -> dict[str, Any]:
    """The judgement on a finite window, as a JSON object.

    By the agents: `gap_seconds`, in which none led, and `two_leaders`, which must be none. By the orchestrators, which
    believe their agents: their gap, and for how long at most one of them believed that it leads while another one's
    agent led; the token keeps that one's work out of the database.
    """
    if not (math.isfinite(window.since) and math.isfinite(window.until)) or window.until < window.since:
        raise ValueError("terms need a window with a beginning and a later end")
    listed = list(records)
    everything = claims(listed, window)
    agents = [claim for claim in everything if claim.by == AGENT]
    orchestrators = [claim for claim in everything if claim.by == ORCHESTRATOR]
    wrong = two_leaders(listed, window)
    late = [found for found in overlaps(everything) if found.late.by == ORCHESTRATOR]
    return {
        "claims": len(agents),
        "looks": sum(record.kind == "look" and window.holds(record) for record in listed),
        "terms": len({claim.token for claim in agents}),
        "highest_token": max((claim.token for claim in agents), default=0),
        "gap_seconds": longest_gap(agents, window),
        "orchestrators_gap_seconds": longest_gap(orchestrators, window),
        "two_leaders": len(wrong),
        "told": [found.sentence() for found in wrong[:SHOWN_IDS]],
        "believed_longer_seconds": round(max((found.seconds for found in late), default=0.0), 3),
    }
