"""Changes of the spec that renew pods, or anything else that a person does on purpose."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from ..lab.hub import Hub


def patch(hub: Hub, section: str, content: Any) -> None:
    """Change a section of the spec."""
    body = json.dumps({"spec": {section: content}})
    hub.kubectl("patch", "rhc", hub.name, "--type=merge", "-p", body)


def section(hub: Hub, name: str) -> dict[str, Any]:
    """A section of the spec as it is, {} when there is none."""
    found: dict[str, Any] = hub.body()["spec"].get(name, {})
    return found


def other(values: Sequence[Any], now: Any) -> Any:
    """The value that is not in effect, so that each run changes something."""
    return next(value for value in values if value != now)


def renew_pods(hub: Hub, name: str, memory_requests: Sequence[str]) -> None:
    """Renew all pods of a component by another memory request."""
    now = section(hub, name).get("resources", {}).get("requests", {}).get("memory")
    patch(hub, name, {"resources": {"requests": {"memory": other(memory_requests, now)}}})
