"""The Secrets with generated passwords: which exist and which keys they have.

They have no owner reference: like the volumes, whose data they open, they outlive the cluster, so that a cluster of
the same name made later finds its data usable.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from .. import names
from .common import BuildContext, Manifest, metadata, unowned


@dataclass(frozen=True, slots=True)
class CredentialSecret:
    """A Secret whose missing keys are generated once; keys that exist are never changed."""

    manifest: Manifest
    keys: tuple[str, ...]


CREDENTIAL_KEYS: Final = {
    names.POSTGRES: (
        "superuser-password",
        "replication-password",
        "app-password",
        "restapi-password",
        "monitoring-password",
    ),
    # The first two are known to the clients.
    names.REDIS: (
        "password",
        "sentinel-password",
        "operator-password",
        "replication-password",
        "failover-password",
        "monitoring-password",
    ),
    names.ORCHESTRATOR: ("jwt-secret",),
}


def credential_secrets(context: BuildContext) -> list[CredentialSecret]:
    """All Secrets of a cluster, without their values."""
    return [
        CredentialSecret(
            manifest={
                "apiVersion": "v1",
                "kind": "Secret",
                "metadata": unowned(metadata(context, names.credentials(context.name, component), component)),
                "type": "Opaque",
            },
            keys=keys,
        )
        for component, keys in CREDENTIAL_KEYS.items()
    ]
