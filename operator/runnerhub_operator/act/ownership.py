"""Whose an object is: those of somebody else are left alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .. import names
from ..api import RunnerHubCluster
from ..errors import ForeignObjectError
from ..kube.client import ObjectRef


def check_owner(cluster: RunnerHubCluster, ref: ObjectRef, live: Mapping[str, Any]) -> None:
    """Raise ForeignObjectError unless the cluster owns an object."""
    owners = live["metadata"].get("ownerReferences", ())
    if any(owner.get("uid") == cluster.uid for owner in owners):
        return
    going = " and is being deleted" if "deletionTimestamp" in live["metadata"] else ""
    owner = f"{owners[0]['kind']} {owners[0]['name']}" if owners else "somebody else"
    raise ForeignObjectError(
        f"{ref} exists, belongs to {owner}{going}; rename the cluster or remove that object"
    )


def check_label(cluster: RunnerHubCluster, ref: ObjectRef, live: Mapping[str, Any]) -> None:
    """Raise ForeignObjectError unless an object without an owner has the cluster's label."""
    if live["metadata"].get("labels", {}).get(names.LABEL_CLUSTER) != cluster.name:
        raise ForeignObjectError(
            f"{ref} exists and is not this cluster's; rename the cluster or remove that object"
        )
