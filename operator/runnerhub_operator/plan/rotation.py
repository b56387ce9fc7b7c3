"""Passwords that change while everything runs.

A person writes a new value into a Secret, or has the operator make one by an annotation. The pods bring it into effect
by themselves, each as soon as Kubernetes has renewed its copy of the Secret. Kubernetes does that about once a minute,
and at once when the pod's own object changes: so the operator marks the pods.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from .. import names
from ..actions import GeneratePasswords, MarkPods
from ..api import RunnerHubCluster
from ..kube.events import EventNote
from ..resources.credentials import CREDENTIAL_KEYS
from ..snapshot import Snapshot

ALL: Final = "all"

# What follows the passwords of the database while it runs.
_FOLLOWERS: Final = (names.POSTGRES, names.POOLER, names.ORCHESTRATOR)
# What needs no escape in the address of a database, by which programs find it that read no file.
_PLAIN: Final = re.compile(r"[A-Za-z0-9._~-]+")


@dataclass(frozen=True, slots=True)
class Known:
    """What was seen last: the versions of all Secrets, while nothing is asked of them, and the hash of each password.

    The hashes are of the database's, and of this process only.
    """

    versions: tuple[str, ...] = ()
    values: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Rotation:
    """What is to be done about passwords now, what to tell, and what to remember."""

    generate: tuple[GeneratePasswords, ...] = ()
    mark: MarkPods | None = None
    events: tuple[EventNote, ...] = ()
    known: Known = field(default_factory=Known)


def look(cluster: RunnerHubCluster, snapshot: Snapshot, known: Known) -> Rotation:
    """Compare the Secrets with what was known of them."""
    versions = tuple(
        live.resource_version if live is not None else ""
        for component in CREDENTIAL_KEYS
        for live in (snapshot.children.live("Secret", names.credentials(cluster.name, component)),)
    )
    if versions == known.versions:
        return Rotation(known=known)
    generate, refusals = _asked(cluster, snapshot)
    name = names.credentials(cluster.name, names.POSTGRES)
    data: Mapping[str, Any] = (snapshot.child("Secret", name) or {}).get("data") or {}
    values = {key: hash(str(value)) for key, value in data.items()}
    seen = Known(() if generate else versions, values)
    changed = [key for key, value in sorted(values.items()) if known.values.get(key, value) != value]
    if not changed:
        return Rotation(generate, None, tuple(refusals), seen)
    pods = tuple(pod.name for component in _FOLLOWERS for pod in snapshot.pods_of(component))
    told = EventNote(
        "Normal",
        "PasswordsChanged",
        f"Secret {name} has a new {', '.join(changed)}; it comes into effect while everything goes on",
    )
    warnings = [note for key in changed if (note := _unsuitable(snapshot, name, key)) is not None]
    version = versions[list(CREDENTIAL_KEYS).index(names.POSTGRES)]
    return Rotation(generate, MarkPods(pods, version), (*refusals, told, *warnings), seen)


def _asked(
    cluster: RunnerHubCluster, snapshot: Snapshot
) -> tuple[tuple[GeneratePasswords, ...], list[EventNote]]:
    """What annotations ask to be made anew, and what is said to those that ask for the impossible."""
    found, refusals = [], []
    for component, possible in CREDENTIAL_KEYS.items():
        name = names.credentials(cluster.name, component)
        body = snapshot.child("Secret", name) or {}
        asked = body.get("metadata", {}).get("annotations", {}).get(names.ANNOTATION_ROTATE)
        if asked is None:
            continue
        wanted = possible if asked.strip() == ALL else tuple(part.strip() for part in asked.split(","))
        keys = tuple(key for key in possible if key in wanted) if component != names.REDIS else ()
        if left := [key for key in wanted if key not in keys]:
            why = (
                "passwords of the queue cannot be changed while it runs"
                if component == names.REDIS
                else f"there is {', '.join(possible)} and {ALL}"
            )
            text = f"Secret {name}: no new {', '.join(left)} can be made: {why}"
            refusals.append(EventNote("Warning", "RotationRefused", text))
        # Also without a key: the annotation goes.
        found.append(GeneratePasswords(name, keys))
    return tuple(found), refusals


def _unsuitable(snapshot: Snapshot, secret: str, key: str) -> EventNote | None:
    value = snapshot.children.secret_value(secret, key) or ""
    if not value.rstrip("\r\n") or not value.rstrip("\r\n").isprintable():
        text = (
            f"Secret {secret}: {key} is empty or cannot be printed; the one before stays in effect, and pods that "
            "start may fail for it"
        )
        return EventNote("Warning", "PasswordNotUsed", text)
    if key == "app-password" and not _PLAIN.fullmatch(value):
        text = (
            f"Secret {secret}: {key} has characters that an address cannot have as they are; images that take it from "
            "DATABASE_URL cannot log in. Letters, digits and . _ ~ - are safe"
        )
        return EventNote("Warning", "PasswordUnsuitable", text)
    return None
