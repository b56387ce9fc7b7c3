"""The generated passwords: which are to be made, and which are lost for good."""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from .. import names
from ..api import ConditionReason, ConditionType, RunnerHubCluster
from ..resources.common import BuildContext, Manifest
from ..resources.credentials import CredentialSecret, credential_secrets
from ..resources.token_keys import known_keys, token_keys_secret
from ..snapshot import Snapshot
from .conditions import Verdict

# Of the servers that keep a password; the key of the orchestrators is made anew.
_CONDITIONS = {names.POSTGRES: ConditionType.POSTGRES, names.REDIS: ConditionType.REDIS}


def credentials_hash(cluster: RunnerHubCluster, snapshot: Snapshot) -> str | None:
    """Hash of what orchestrators read only when they start: they restart when it changes. None: not known yet.

    Ours reads everything from files, and so never restarts. Other images may know no file.
    """
    key = snapshot.children.secret_value(names.credentials(cluster.name, names.ORCHESTRATOR), "jwt-secret")
    if key is None:
        return None
    if cluster.spec.orchestrator.image is None:
        return ""
    wanted = (
        (names.POSTGRES, "app-password"),
        (names.REDIS, "password"),
        (names.REDIS, "sentinel-password"),
    )
    passwords = [
        snapshot.children.secret_value(names.credentials(cluster.name, component), name)
        for component, name in wanted
    ]
    if None in passwords:
        return None
    # Whoever may read the pods must not be able to try passwords by it: the key is as long as a hash.
    return hmac.digest(key.encode(), "\0".join(map(str, passwords)).encode(), "sha256").hex()[:16]


def token_keys(context: BuildContext, snapshot: Snapshot, runner_token: str) -> tuple[Manifest, ...]:
    """The Secret with the keys by which orchestrators judge tokens; none while there is no key."""
    read = snapshot.children.secret_value
    known = known_keys(read, context.name)
    if known is None:
        return ()
    newest = read(names.credentials(context.name, names.ORCHESTRATOR), "jwt-secret") or known.accepted[0]
    return (token_keys_secret(context, known.after(newest, runner_token, snapshot.now)),)


def missing_secrets(context: BuildContext, snapshot: Snapshot) -> list[CredentialSecret]:
    """Secrets to make, each with the keys that it lacks."""
    return [
        replace(secret, keys=keys)
        for secret, keys in _incomplete(context, snapshot)
        if not _is_irreplaceable(secret, snapshot)
    ]


def lost_credentials(context: BuildContext, snapshot: Snapshot) -> dict[ConditionType, str]:
    """Secrets whose passwords somebody deleted while servers still use them, by the condition of their component."""
    return {
        _CONDITIONS[secret.manifest["metadata"]["labels"][names.LABEL_COMPONENT]]: secret.manifest[
            "metadata"
        ]["name"]
        for secret, _ in _incomplete(context, snapshot)
        if _is_irreplaceable(secret, snapshot)
    }


def with_lost_credentials(verdicts: list[Verdict], lost: Mapping[ConditionType, str]) -> list[Verdict]:
    """Replace the verdict of a component whose generated passwords somebody deleted."""
    return [
        Verdict(
            verdict.type,
            "False",
            ConditionReason.CREDENTIALS_MISSING,
            f"Secret {lost[verdict.type]} or a key of it is gone, but the running servers still use its passwords: "
            "restore it; new ones would lock everybody out",
            full=False,
        )
        if verdict.type in lost
        else verdict
        for verdict in verdicts
    ]


def _incomplete(context: BuildContext, snapshot: Snapshot) -> list[tuple[CredentialSecret, tuple[str, ...]]]:
    found = []
    for secret in credential_secrets(context):
        live: Mapping[str, Any] = snapshot.child("Secret", secret.manifest["metadata"]["name"]) or {}
        keys = tuple(key for key in secret.keys if key not in (live.get("data") or {}))
        if keys:
            found.append((secret, keys))
    return found


def _is_irreplaceable(secret: CredentialSecret, snapshot: Snapshot) -> bool:
    """Whether a running database or queue still has the lost passwords: new ones would lock everybody out."""
    metadata = secret.manifest["metadata"]
    owner = metadata["name"].removesuffix("-credentials")
    component = metadata["labels"][names.LABEL_COMPONENT]
    if component not in _CONDITIONS:
        return False
    # While a StatefulSet is made anew only its pods tell that there is a server.
    return ("StatefulSet", owner) in snapshot.children or any(
        not pod.terminating for pod in snapshot.pods_of(component)
    )
