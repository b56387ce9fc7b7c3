"""A master that others do not reach while their Sentinels reach each other."""

from __future__ import annotations

from contextlib import contextmanager

from .. import mend
from ..arena import Before
from ..fault import Break
from .arena import RedisArena

PORT = "6379"


@contextmanager
def cut_master_off(arena: RedisArena, before: Before) -> Break:
    """Drop everything to and from the master's Redis on its node; the Sentinel of the same pod is not touched."""
    node = before.primary.node
    pod = arena.hub.kubectl.get("pod", before.primary.name) or {}
    address = pod["status"]["podIP"]
    rules = (
        f"FORWARD -d {address} -p tcp --dport {PORT}",
        f"FORWARD -s {address} -p tcp --sport {PORT}",
    )
    try:
        mend.drop(arena.bed, node, rules)
        yield
    finally:
        mend.connect_again(arena.bed, node)
