"""Deliberate acts: nothing is broken."""

from __future__ import annotations

import json
from contextlib import contextmanager

from ..arena import Before
from ..fault import Break
from .arena import RedisArena

# Each run takes the value that is not in effect.
_MEMORY_REQUESTS = ("100Mi", "104Mi")


@contextmanager
def rolling_update(arena: RedisArena, _before: Before) -> Break:
    """Change the pod template of the queue."""
    redis = arena.hub.body()["spec"].get("redis", {})
    now = redis.get("resources", {}).get("requests", {}).get("memory")
    wanted = next(value for value in _MEMORY_REQUESTS if value != now)
    body = json.dumps({"spec": {"redis": {"resources": {"requests": {"memory": wanted}}}}})
    arena.hub.kubectl("patch", "rhc", arena.hub.name, "--type=merge", "-p", body)
    yield
