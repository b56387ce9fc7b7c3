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

# What follows the passwords of a component while it runs.
_FOLLOWERS: Final = {
    names.POSTGRES: (names.POSTGRES, names.POOLER, names.ORCHESTRATOR),
    names.REDIS: (names.REDIS, names.ORCHESTRATOR),
}
# What needs no escape in the address of a database, by which programs find it that read no file.
_PLAIN: Final = re.compile(r"[A-Za-z0-9._~-]+")


@dataclass(frozen=True, slots=True)
class Known:
    """What was seen last: the versions of all Secrets, while nothing is asked of them, and the hash of each password.

    The hashes are of the database's and the queue's, by Secret and key, and of this process only.
    """

    versions: tuple[str, ...] = ()
    values: Mapping[tuple[str, str], int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Rotation:
    """What is to be done about passwords now, what to tell, and what to remember."""

    generate: tuple[GeneratePasswords, ...] = ()
    marks: tuple[MarkPods, ...] = ()
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
    generate, told = _asked(cluster, snapshot)
    values: dict[tuple[str, str], int] = {}
    marks: list[MarkPods] = []
    for component, followers in _FOLLOWERS.items():
        name = names.credentials(cluster.name, component)
        data: Mapping[str, Any] = (snapshot.child("Secret", name) or {}).get("data") or {}
        found = {(name, key): hash(str(value)) for key, value in sorted(data.items())}
        values.update(found)
        changed = [at[1] for at, value in found.items() if known.values.get(at, value) != value]
        if not changed:
            continue
        pods = tuple(pod.name for follower in followers for pod in snapshot.pods_of(follower))
        live = snapshot.children.live("Secret", name)
        # By component: pods that follow both must see two values.
        marks.append(MarkPods(pods, f"{component}-{live.resource_version if live is not None else ''}"))
        text = f"Secret {name} has a new {', '.join(changed)}; it comes into effect while everything goes on"
        told.append(EventNote("Normal", "PasswordsChanged", text))
        told += [note for key in changed if (note := _unsuitable(snapshot, name, key)) is not None]
    return Rotation(generate, tuple(marks), tuple(told), Known(() if generate else versions, values))


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
        keys = tuple(key for key in possible if key in wanted)
        if left := [key for key in wanted if key not in keys]:
            there = f"there is {', '.join(possible)} and {ALL}"
            text = f"Secret {name}: no new {', '.join(left)} can be made: {there}"
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
