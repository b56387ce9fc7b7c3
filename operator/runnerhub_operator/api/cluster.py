"""A RunnerHubCluster as read from the API server."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from .. import names
from ..errors import InvalidSpecError
from .spec import NAME_RULES, RunnerHubClusterSpec
from .status import RunnerHubClusterStatus

# A condition's message is for people.
MAX_TOLD_ERRORS = 10
MAX_PATH_LENGTH = 200
MAX_MEMBER_NAME_LENGTH = 63


@dataclass(frozen=True, slots=True)
class RunnerHubCluster:
    """One cluster resource: identity, validated spec, last written status.

    `switch_primary_to`: the member that somebody wants to be the Postgres primary, by an annotation.
    """

    namespace: str
    name: str
    uid: str
    generation: int
    spec: RunnerHubClusterSpec
    status: RunnerHubClusterStatus
    switch_primary_to: str | None = None

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
    """Read the last written status; a section that this version cannot read counts as empty and is written anew."""
    given = body.get("status")
    if not isinstance(given, Mapping):
        return RunnerHubClusterStatus()
    try:
        return RunnerHubClusterStatus.model_validate(given, by_alias=True, by_name=False)
    except ValidationError as error:
        wrong = {item["loc"][0] for item in error.errors(include_input=False, include_url=False)}
        rest = {name: value for name, value in given.items() if name not in wrong}
        return RunnerHubClusterStatus.model_validate(rest, by_alias=True, by_name=False)


def _sentence(error: ValidationError) -> str:
    """One clause per wrong field, as many as a condition has room for."""
    wrong = error.errors(include_input=False, include_url=False)
    told = [
        f"{'.'.join(['spec', *(str(part) for part in item['loc'])])[:MAX_PATH_LENGTH]}: "
        f"{item['msg'].removeprefix('Value error, ')}"
        for item in wrong[:MAX_TOLD_ERRORS]
    ]
    more = len(wrong) - len(told)
    return "; ".join([*told, *([f"and {more} more"] if more else [])])


def parse_cluster(body: Mapping[str, Any]) -> RunnerHubCluster:
    """Read a resource as the API server sent it.

    Raises InvalidSpecError with one clause per wrong field when the spec does not hold.
    """
    metadata = body["metadata"]
    for rule in NAME_RULES:
        if not rule.holds(metadata["name"]):
            raise InvalidSpecError(rule.message)
    given = body.get("spec")
    try:
        spec = RunnerHubClusterSpec.model_validate(
            {} if given is None else given, by_alias=True, by_name=False
        )
    except ValidationError as error:
        raise InvalidSpecError(_sentence(error)) from error
    return RunnerHubCluster(
        namespace=metadata["namespace"],
        name=metadata["name"],
        uid=metadata["uid"],
        generation=int(metadata.get("generation", 0)),
        spec=spec,
        status=parse_status(body),
        switch_primary_to=_switch_primary_to(metadata),
    )


def _switch_primary_to(metadata: Mapping[str, Any]) -> str | None:
    """The request, cut to the length of a name: it goes into the status, and longer ones name nobody."""
    value = (metadata.get("annotations") or {}).get(names.ANNOTATION_SWITCH_PRIMARY, "")
    return value.strip()[:MAX_MEMBER_NAME_LENGTH] or None
