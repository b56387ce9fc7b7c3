"""A RunnerHubCluster as read from the API server."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from .. import names
from ..errors import InvalidSpecError
from .spec import RunnerHubClusterSpec
from .status import RunnerHubClusterStatus


@dataclass(frozen=True, slots=True)
class RunnerHubCluster:
    """One cluster resource: identity, validated spec, last written status."""

    namespace: str
    name: str
    uid: str
    generation: int
    spec: RunnerHubClusterSpec
    status: RunnerHubClusterStatus

    @property
    def key(self) -> tuple[str, str]:
        """Namespace and name."""
        return self.namespace, self.name

    @property
    def owner_reference(self) -> dict[str, Any]:
        """Owner reference for the children, so that Kubernetes removes them with the cluster."""
        return {
            "apiVersion": f"{names.API_GROUP}/{names.API_VERSION}",
            "kind": names.KIND,
            "name": self.name,
            "uid": self.uid,
            "controller": True,
            "blockOwnerDeletion": True,
        }


def parse_status(body: Mapping[str, Any]) -> RunnerHubClusterStatus:
    """Read the last written status; one that this version cannot read counts as empty, it will be written anew."""
    try:
        return RunnerHubClusterStatus.model_validate(body.get("status") or {})
    except ValidationError:
        return RunnerHubClusterStatus()


def parse_cluster(body: Mapping[str, Any]) -> RunnerHubCluster:
    """Read a resource as the API server sent it.

    Raises InvalidSpecError with one sentence per wrong field when the spec does not hold.
    """
    metadata = body["metadata"]
    if len(metadata["name"]) > names.MAX_CLUSTER_NAME_LENGTH:
        raise InvalidSpecError(f"metadata.name must have at most {names.MAX_CLUSTER_NAME_LENGTH} characters")
    try:
        spec = RunnerHubClusterSpec.model_validate(body.get("spec") or {})
    except ValidationError as error:
        wrong = "; ".join(
            f"spec.{'.'.join(str(part) for part in item['loc'])}: {item['msg']}" for item in error.errors()
        )
        raise InvalidSpecError(wrong) from error
    return RunnerHubCluster(
        namespace=metadata["namespace"],
        name=metadata["name"],
        uid=metadata["uid"],
        generation=int(metadata.get("generation", 0)),
        spec=spec,
        status=parse_status(body),
    )
