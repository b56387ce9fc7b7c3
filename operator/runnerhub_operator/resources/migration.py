"""The Job that brings the database's schema to an orchestrator image, once for each image, before its pods serve."""

from __future__ import annotations

from typing import Final

from .. import names
from .additions import (
    TEMPORARY_MOUNT,
    container_additions,
    dump,
    init_containers,
    placement,
    variables,
    volumes,
)
from .common import (
    BuildContext,
    Manifest,
    config_hash,
    container_security_context,
    metadata,
    resource_requirements,
    secret_volume,
)
from .orchestrator import CREDENTIALS_FOLDER, orchestrator_environment
from .storage import storage_environment, storage_mounts, storage_volumes

# The database may fail over while a migration runs.
RETRIES: Final = 3
# Of our own image; its pods find nothing left to do when they start.
OWN_COMMAND: Final = ("python", "-m", "runnerhub_orchestrator.migrate")
_DATABASE_KEY: Final = "app-password"


def migration_command(context: BuildContext) -> tuple[str, ...]:
    """What the Job runs; empty: the image has no migrations that the operator knows of."""
    spec = context.cluster.spec.orchestrator
    if spec.migrations.command is not None:
        return spec.migrations.command
    return OWN_COMMAND if spec.image is None else ()


def orchestrator_image(context: BuildContext) -> str:
    """The image of the orchestrators."""
    return context.cluster.spec.orchestrator.image or context.images.orchestrator


def migration_name(context: BuildContext) -> str:
    """Name of the Job: another one for each image and command, so that each runs once."""
    told = config_hash(orchestrator_image(context), migration_command(context))[:10]
    return f"{names.child(context.name, 'migrate')}-{told}"


def migration_job(context: BuildContext) -> Manifest:
    """The Job. One pod at a time, also when the node of one is lost: the next waits until that one is gone."""
    spec = context.cluster.spec.orchestrator
    labels = names.labels(context.name, names.MIGRATION)
    # Our own image migrates without it, also while a share is away.
    shared = spec.image is not None
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": metadata(context, migration_name(context), names.MIGRATION),
        "spec": {
            "backoffLimit": RETRIES,
            "activeDeadlineSeconds": spec.migrations.timeout_seconds,
            "podReplacementPolicy": "Failed",
            "template": {
                "metadata": {
                    "labels": {**spec.pod_template.labels, **labels},
                    "annotations": dict(spec.pod_template.annotations),
                },
                "spec": {
                    **{
                        key: value
                        for key, value in placement(context).items()
                        if key != "topologySpreadConstraints"
                    },
                    "automountServiceAccountToken": False,
                    "enableServiceLinks": False,
                    "restartPolicy": "Never",
                    **init_containers(context),
                    "containers": [
                        {
                            "name": names.MIGRATION,
                            "image": orchestrator_image(context),
                            "command": list(migration_command(context)),
                            "env": [
                                *orchestrator_environment(context),
                                *(storage_environment(context, reads_files=False) if shared else ()),
                                *variables(spec.env),
                            ],
                            **container_additions(spec),
                            # What went wrong is told in the condition, without the right to read logs.
                            "terminationMessagePolicy": "FallbackToLogsOnError",
                            "resources": resource_requirements(spec.resources, cpu="50m", memory="128Mi"),
                            "securityContext": container_security_context(),
                            "volumeMounts": [
                                {"name": "credentials", "mountPath": CREDENTIALS_FOLDER, "readOnly": True},
                                TEMPORARY_MOUNT,
                                *(storage_mounts(context, reads_files=False) if shared else ()),
                                *(dump(mount) for mount in spec.volume_mounts),
                            ],
                        }
                    ],
                    "volumes": [
                        {"name": "tmp", "emptyDir": {"sizeLimit": "1Gi"}},
                        secret_volume(
                            "credentials", names.credentials(context.name, names.POSTGRES), (_DATABASE_KEY,)
                        ),
                        *(storage_volumes(context) if shared else ()),
                        *volumes(spec.volumes),
                    ],
                },
            },
        },
    }
