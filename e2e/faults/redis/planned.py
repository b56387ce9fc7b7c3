"""Deliberate acts: nothing is broken."""

from __future__ import annotations

from contextlib import contextmanager

from .. import planned
from ..arena import Before
from ..fault import Break
from .arena import RedisArena

_MEMORY_REQUESTS = ("100Mi", "104Mi")


@contextmanager
def rolling_update(arena: RedisArena, _before: Before) -> Break:
    """Change the pod template of the queue."""
    planned.renew_pods(arena.hub, "redis", _MEMORY_REQUESTS)
    yield
