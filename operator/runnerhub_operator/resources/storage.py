"""The shared storage: a claim that every orchestrator mounts, or a bucket that they are told.

A claim has no owner, so that it outlives the cluster.

An NFS share comes as a static PersistentVolume with a claim of its own, because the `restricted` Pod Security Standard
does not let pods mount NFS themselves.
"""

from __future__ import annotations

from typing import Final

from .. import names
from ..api import S3Spec
from .common import BuildContext, Manifest, config_hash, metadata, secret_env, secret_volume, unowned

STORAGE_PATH: Final = "/mnt/shared/runnerhub"
VOLUME: Final = "shared-storage"
# Kubernetes wants a size; a share has that of its server.
_NOMINAL_SIZE: Final = "1Gi"
CREDENTIALS_FOLDER: Final = "/etc/runnerhub/s3-credentials"
CREDENTIALS_VOLUME: Final = "s3-credentials"
CA_FOLDER: Final = "/etc/runnerhub/s3-ca"
CA_VOLUME: Final = "s3-ca"
CA_KEY: Final = "ca.crt"
_KEYS: Final = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
_TOKEN: Final = "AWS_SESSION_TOKEN"  # noqa: S105 - a name


def claim_name(context: BuildContext) -> str | None:
    """Name of the claim; None when nothing is mounted. Another share has another claim: neither can be changed."""
    wanted = context.cluster.spec.shared_storage
    if wanted is None or wanted.s3 is not None:
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


def storage_environment(context: BuildContext, *, reads_files: bool) -> list[Manifest]:
    """Variables of those who use it; names as the architecture document has them, or as all programs for S3.

    `reads_files`: the program takes a bucket's credentials from files, which may change.
    """
    wanted = context.cluster.spec.shared_storage
    if wanted is None:
        return []
    if wanted.s3 is not None:
        return _bucket_environment(wanted.s3, reads_files=reads_files)
    found = {"SHARED_STORAGE_PATH": STORAGE_PATH}
    if wanted.nfs is not None:
        found |= {"NFS_SERVER": wanted.nfs.server, "NFS_MOUNT_POINT": wanted.nfs.path}
    return [{"name": name, "value": value} for name, value in found.items()]


def storage_volumes(context: BuildContext) -> list[Manifest]:
    """The volumes of the pods."""
    name, bucket = claim_name(context), _bucket(context)
    found: list[Manifest] = []
    if name is not None:
        found.append({"name": VOLUME, "persistentVolumeClaim": {"claimName": name}})
    if bucket is not None and bucket.credentials_secret_name is not None:
        # The variables of the orchestrator tell what is missing more clearly than a mount that fails.
        found.append(
            secret_volume(CREDENTIALS_VOLUME, bucket.credentials_secret_name, (*_KEYS, _TOKEN), optional=True)
        )
    if bucket is not None and bucket.ca_config_map_name is not None:
        items = [{"key": CA_KEY, "path": CA_KEY}]
        source = {"name": bucket.ca_config_map_name, "defaultMode": 0o444, "items": items}
        found.append({"name": CA_VOLUME, "configMap": source})
    return found


def storage_mounts(context: BuildContext, *, reads_files: bool) -> list[Manifest]:
    """Where the containers see them."""
    bucket = _bucket(context)
    found: list[Manifest] = []
    if claim_name(context) is not None:
        found.append({"name": VOLUME, "mountPath": STORAGE_PATH})
    if reads_files and bucket is not None and bucket.credentials_secret_name is not None:
        found.append({"name": CREDENTIALS_VOLUME, "mountPath": CREDENTIALS_FOLDER, "readOnly": True})
    if bucket is not None and bucket.ca_config_map_name is not None:
        found.append({"name": CA_VOLUME, "mountPath": CA_FOLDER, "readOnly": True})
    return found


def _bucket(context: BuildContext) -> S3Spec | None:
    storage = context.cluster.spec.shared_storage
    return None if storage is None else storage.s3


def _bucket_environment(bucket: S3Spec, *, reads_files: bool) -> list[Manifest]:
    region = bucket.effective_region
    told = {
        "S3_BUCKET": bucket.bucket,
        "S3_PREFIX": bucket.prefix,
        # No program for AWS has a variable for it; this is the most common name.
        "S3_FORCE_PATH_STYLE": "true" if bucket.uses_path_style else "false",
        # Python's programs know the second name only, most others the first.
        "AWS_REGION": region,
        "AWS_DEFAULT_REGION": region,
        "AWS_ENDPOINT_URL_S3": bucket.endpoint,
        "AWS_CA_BUNDLE": None if bucket.ca_config_map_name is None else f"{CA_FOLDER}/{CA_KEY}",
    }
    found: list[Manifest] = [
        {"name": name, "value": value} for name, value in told.items() if value is not None
    ]
    secret = bucket.credentials_secret_name
    if secret is None:
        return found
    if reads_files:
        return [*found, {"name": "S3_CREDENTIALS_FOLDER", "value": CREDENTIALS_FOLDER}]
    token = secret_env(_TOKEN, secret, _TOKEN)
    token["valueFrom"]["secretKeyRef"]["optional"] = True
    return [*found, *(secret_env(key, secret, key) for key in _KEYS), token]


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
