"""The shared storage: a claim that every orchestrator mounts. It has no owner, so that it outlives the cluster.

An NFS share comes as a static PersistentVolume with a claim of its own, because the `restricted` Pod Security Standard
does not let pods mount NFS themselves.
"""

from __future__ import annotations

from typing import Final

from .. import names
from .common import BuildContext, Manifest, config_hash, metadata, unowned

STORAGE_PATH: Final = "/mnt/shared/runnerhub"
VOLUME: Final = "shared-storage"
# Kubernetes wants a size; a share has that of its server.
_NOMINAL_SIZE: Final = "1Gi"


def claim_name(context: BuildContext) -> str | None:
    """Name of the claim; None without shared storage. Another share has another claim: neither can be changed."""
    wanted = context.cluster.spec.shared_storage
    if wanted is None:
        return None
    if wanted.nfs is not None:
        return f"{names.shared_claim(context.name)}-{config_hash(wanted.nfs.server, wanted.nfs.path)[:8]}"
    given = wanted.claim.name if wanted.claim is not None else None
    return given or names.shared_claim(context.name)


def storage_manifests(context: BuildContext) -> list[Manifest]:
    """The claim, and the volume behind it, as far as they are ours to make."""
    wanted, name = context.cluster.spec.shared_storage, claim_name(context)
    if wanted is None or name is None:
        return []
    if wanted.nfs is not None:
        volume = f"{context.cluster.namespace}-{name}"
        return [
            _nfs_volume(context, volume, name, wanted.nfs.server, wanted.nfs.path),
            _claim(context, name, _NOMINAL_SIZE, {"storageClassName": "", "volumeName": volume}),
        ]
    if wanted.claim is None or wanted.claim.size is None:
        return []
    storage_class = wanted.claim.storage_class_name
    chosen = {} if storage_class is None else {"storageClassName": storage_class}
    return [_claim(context, name, wanted.claim.size, chosen)]


def storage_environment(context: BuildContext) -> list[Manifest]:
    """Variables of those who mount it; names as the architecture document has them."""
    wanted = context.cluster.spec.shared_storage
    if wanted is None:
        return []
    found = {"SHARED_STORAGE_PATH": STORAGE_PATH}
    if wanted.nfs is not None:
        found |= {"NFS_SERVER": wanted.nfs.server, "NFS_MOUNT_POINT": wanted.nfs.path}
    return [{"name": name, "value": value} for name, value in found.items()]


def storage_volumes(context: BuildContext) -> list[Manifest]:
    """The volume of the pods."""
    name = claim_name(context)
    return [] if name is None else [{"name": VOLUME, "persistentVolumeClaim": {"claimName": name}}]


def storage_mounts(context: BuildContext) -> list[Manifest]:
    """Where the containers see it."""
    return [] if claim_name(context) is None else [{"name": VOLUME, "mountPath": STORAGE_PATH}]


def _claim(context: BuildContext, name: str, size: str, more: Manifest) -> Manifest:
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": unowned(metadata(context, name, names.SHARED)),
        "spec": {
            "accessModes": ["ReadWriteMany"],
            "resources": {"requests": {"storage": size}},
            **more,
        },
    }


def _nfs_volume(context: BuildContext, name: str, claim: str, server: str, path: str) -> Manifest:
    told = unowned(metadata(context, name, names.SHARED))
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {key: value for key, value in told.items() if key != "namespace"},
        "spec": {
            "accessModes": ["ReadWriteMany"],
            "capacity": {"storage": _NOMINAL_SIZE},
            "persistentVolumeReclaimPolicy": "Retain",
            "nfs": {"server": server, "path": path},
            # Nobody else's claim may take it.
            "claimRef": {
                "apiVersion": "v1",
                "kind": "PersistentVolumeClaim",
                "namespace": context.cluster.namespace,
                "name": claim,
            },
        },
    }
