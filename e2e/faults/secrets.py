"""Secrets with generated passwords, and having the operator make new ones."""

from __future__ import annotations

import base64
import hashlib

from ..lab.hub import Hub
from ..lab.kubectl import wait_for

ROTATE_ANNOTATION = "runnerhub.io/rotate"
MADE_SECONDS = 30


def values(hub: Hub, component: str) -> dict[str, str]:
    """The passwords of a component by key."""
    found = hub.kubectl.get("secret", _name(hub, component))
    assert found is not None
    return {key: base64.b64decode(value).decode() for key, value in found["data"].items()}


def hashes(hub: Hub, component: str) -> dict[str, str]:
    """SHA-256 of each, by which pods tell what they have."""
    return {key: hashlib.sha256(value.encode()).hexdigest() for key, value in values(hub, component).items()}


def renew_all(hub: Hub, component: str) -> dict[str, str]:
    """Have every password of a component made anew; those of before."""
    old = values(hub, component)
    hub.kubectl("annotate", "secret", _name(hub, component), f"{ROTATE_ANNOTATION}=all", "--overwrite")
    wait_for(
        "new passwords", lambda: not set(old.values()) & set(values(hub, component).values()), MADE_SECONDS
    )
    return old


def _name(hub: Hub, component: str) -> str:
    return f"{hub.name}-{component}-credentials"
