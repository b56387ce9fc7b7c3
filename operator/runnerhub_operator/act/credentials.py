"""The Secrets with generated passwords."""

from __future__ import annotations

import base64
import logging
import secrets
import string
from collections.abc import Iterable

from .. import names
from ..actions import GeneratePasswords
from ..api import RunnerHubCluster
from ..errors import ConflictError, NotFoundError
from ..kube.client import KubeClient, ObjectRef
from ..resources.credentials import CredentialSecret
from .ownership import check_label

logger = logging.getLogger(__name__)

_ALPHABET = string.ascii_letters + string.digits
PASSWORD_LENGTH = 32


class CredentialWriter:
    """Makes passwords; what a person wrote is never changed unasked."""

    def __init__(self, client: KubeClient) -> None:
        self._client = client

    async def ensure(self, cluster: RunnerHubCluster, wanted: CredentialSecret) -> None:
        """Generate the missing keys of a Secret; keys that exist are never changed."""
        ref = ObjectRef.of(wanted.manifest)
        generated = _passwords(wanted.keys)
        try:
            await self._client.create({**wanted.manifest, "data": generated})
        except ConflictError:
            live = await self._client.get(ref)
            check_label(cluster, ref, live)
            missing = {key: value for key, value in generated.items() if key not in live.get("data", {})}
            if not missing:
                return
            version = live["metadata"]["resourceVersion"]
            await self._client.merge_patch(ref, {"metadata": {"resourceVersion": version}, "data": missing})
        logger.info("generated credentials in %s", ref)

    async def generate(self, cluster: RunnerHubCluster, asked: GeneratePasswords) -> None:
        """Make new passwords, once: the annotation that asked for them goes in the same write."""
        ref = ObjectRef("v1", "Secret", cluster.namespace, asked.secret)
        try:
            live = await self._client.get(ref)
            check_label(cluster, ref, live)
            metadata = live["metadata"]
            if names.ANNOTATION_ROTATE not in metadata.get("annotations", {}):
                return
            gone = {names.ANNOTATION_ROTATE: None}
            patch = {"metadata": {"resourceVersion": metadata["resourceVersion"], "annotations": gone}}
            await self._client.merge_patch(ref, {**patch, "data": _passwords(asked.keys)})
        except (NotFoundError, ConflictError):
            return
        logger.info("made a new %s in %s", ", ".join(asked.keys) or "nothing", ref)


def _passwords(keys: Iterable[str]) -> dict[str, str]:
    """New passwords by key, as the data of a Secret."""
    return {
        key: base64.b64encode(
            "".join(secrets.choice(_ALPHABET) for _ in range(PASSWORD_LENGTH)).encode()
        ).decode()
        for key in keys
    }
