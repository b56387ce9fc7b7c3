"""Volumes that are played: a driver that gives each claim what it asks for, and classes that do not."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

from e2e.stage.api import Object

# The default class: volumes grow as soon as their claims ask for more.
GROWING: Final = "growing"
# The driver does its part and the node never does; a test lets a volume grow by writing its capacity.
SLOW: Final = "slow"
# The API server refuses to let claims of this class grow.
FIXED: Final = "fixed"


def storage_classes() -> list[Object]:
    """The classes of the stage."""
    return [
        {
            "apiVersion": "storage.k8s.io/v1",
            "kind": "StorageClass",
            "metadata": {
                "name": name,
                "annotations": {
                    "storageclass.kubernetes.io/is-default-class": "true" if name == GROWING else "false"
                },
            },
            "provisioner": "stage.runnerhub.io/played",
            "allowVolumeExpansion": name != FIXED,
        }
        for name in (GROWING, SLOW, FIXED)
    ]


def played_status(claim: Object) -> Object | None:
    """The change of a claim's status that is due, None when there is none."""
    spec, status = claim["spec"], claim.get("status", {})
    asked = spec["resources"]["requests"]["storage"]
    if status.get("phase") != "Bound":
        return {"phase": "Bound", "accessModes": spec["accessModes"], "capacity": {"storage": asked}}
    if status.get("capacity", {}).get("storage") == asked:
        return None
    if spec.get("storageClassName") != SLOW:
        return {"capacity": {"storage": asked}, "conditions": None}
    if status.get("conditions"):
        return None
    pending = {
        "type": "FileSystemResizePending",
        "status": "True",
        "lastTransitionTime": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
    }
    return {"conditions": [pending]}
