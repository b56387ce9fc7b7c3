"""A network in two parts with clients, and a pooler, on both sides of it."""

from __future__ import annotations

from contextlib import contextmanager

from kindbed.console import TestBedError

from ...lab import bed as test_bed
from ...lab.kubectl import wait_for
from ...lab.load import LoadClient, now
from .. import nodes
from ..arena import Before
from ..fault import Break
from .arena import PostgresArena

AGAIN_SECONDS = 120


def _inside(arena: PostgresArena) -> LoadClient:
    return LoadClient(arena.hub, "client-inside")


@contextmanager
def cut(arena: PostgresArena, before: Before) -> Break:
    """Cut the primary's node off while clients on it write through a pooler on it, and others through the others."""
    inside = _inside(arena)
    pods = [pod for pod in arena.hub.pods("pooler") if pod["spec"].get("nodeName") == before.primary.node]
    if not pods:
        raise TestBedError(f"no pooler on {before.primary.node}")
    inside.start(
        test_bed.CLIENT_IMAGE,
        *arena.LOAD_ARGUMENTS,
        probes=arena.WRITERS,
        node=before.primary.node,
        database=pods[0]["status"]["podIP"],
    )
    with nodes.partition(arena, before):
        yield


def verdict(arena: PostgresArena) -> dict[str, float]:
    """What the clients inside were told, and what of it is missing. Raises TestBedError when something is."""
    inside, since = _inside(arena), now()
    wait_for(
        "the clients inside to write again",
        lambda: all(inside.acknowledged(probe, since) > 0 for probe in arena.WRITERS),
        AGAIN_SECONDS,
    )
    found = inside.verify()
    pod = arena.hub.kubectl.get("pod", inside.pod) or {}
    gap = inside.measure(pod["metadata"]["creationTimestamp"], now())["stores"]["postgres"]["gap_seconds"]
    inside.stop()
    broken = {key: found[key] for key in ("lost", "partial", "phantoms", "duplicates") if found[key]}
    if broken:
        raise TestBedError(f"of what was acknowledged inside: {broken}")
    return {"inside_acknowledged": found["acknowledged"], "inside_lost": 0, "inside_gap_seconds": gap}
