"""A full volume. The test bed's own volumes are folders without a quota, so this fault has a cluster of its own.

Its Postgres volumes are small memory file systems, one mounted on each worker before the cluster exists and given to
Kubernetes as local PersistentVolumes: they are full when they are full. They would not survive a dead node, which is
why the other faults do not use them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from kindbed.console import TestBedError

from ...lab.bed import Bed
from ...lab.hub import Hub
from ...lab.load import LoadClient
from ..arena import CONTROL_PLANE_LABEL, Before
from ..fault import Break
from .arena import PostgresArena

NAMESPACE = "runnerhub-faults-volume"
STORAGE_CLASS = "runnerhub-bounded"
MOUNT = "/var/runnerhub-bounded"
FILLER = f"{MOUNT}/filler"
# The least that the API takes for a member's volume.
SIZE = "1Gi"
_MOUNT_SCRIPT = (
    f"mkdir -p {MOUNT} && {{ mountpoint -q {MOUNT} || mount -t tmpfs -o size=1g,mode=0777 tmpfs {MOUNT}; }}"
)
READY_DEADLINE_SECONDS = 420
# Below one page nothing more can be stored.
FULL_BYTES = 8192


@contextmanager
def bounded(bed: Bed) -> Iterator[PostgresArena]:
    """A cluster on volumes that can be full, and its load."""
    nodes = _workers(bed)
    try:
        for node in nodes:
            bed.on_node(node, "sh", "-c", _MOUNT_SCRIPT)
        bed.kubectl.apply(_storage_class(), *(_volume(node) for node in nodes))
        kubectl = bed.create_namespace(NAMESPACE)
        kubectl.apply(_cluster())
        hub = Hub(kubectl, "hub")
        arena = PostgresArena(bed, hub, LoadClient(hub))
        arena.wait_whole(READY_DEADLINE_SECONDS)
        arena.start_load()
        yield arena
    finally:
        remove(bed)


def remove(bed: Bed) -> None:
    """Remove all of it; fine when nothing is there."""
    bed.delete_namespace(NAMESPACE)
    nodes = _workers(bed)
    volumes = [_volume(node)["metadata"]["name"] for node in nodes]
    bed.kubectl("delete", "persistentvolume", *volumes, "--ignore-not-found", "--wait=true")
    bed.kubectl("delete", "storageclass", STORAGE_CLASS, "--ignore-not-found")
    for node in nodes:
        bed.on_node(node, "sh", "-c", f"! mountpoint -q {MOUNT} || umount {MOUNT}")


@contextmanager
def fill(arena: PostgresArena, before: Before) -> Break:
    """Take all that is left of the primary's volume."""
    node = before.primary.node
    try:
        # Ends with the error that is wanted; once more for what Postgres gave back meanwhile.
        arena.bed.on_node(node, "sh", "-c", f"for again in 1 2; do cat /dev/zero >>{FILLER}; done; exit 0")
        free = int(arena.bed.on_node(node, "sh", "-c", f"df -B1 --output=avail {MOUNT} | tail -n 1"))
        if free > FULL_BYTES:
            raise TestBedError(f"the volume of {before.primary.name} has {free} bytes left and is not full")
        yield
    finally:
        arena.bed.on_node(node, "rm", "-f", FILLER)


def _workers(bed: Bed) -> list[str]:
    return [node["metadata"]["name"] for node in bed.kubectl.items("node", f"!{CONTROL_PLANE_LABEL}")]


def _storage_class() -> dict[str, Any]:
    return {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {"name": STORAGE_CLASS},
        "provisioner": "kubernetes.io/no-provisioner",
        "volumeBindingMode": "WaitForFirstConsumer",
    }


def _volume(node: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": f"{STORAGE_CLASS}-{node}"},
        "spec": {
            "capacity": {"storage": SIZE},
            "accessModes": ["ReadWriteOnce"],
            "persistentVolumeReclaimPolicy": "Retain",
            "storageClassName": STORAGE_CLASS,
            "local": {"path": MOUNT},
            "nodeAffinity": {
                "required": {
                    "nodeSelectorTerms": [
                        {
                            "matchExpressions": [
                                {"key": "kubernetes.io/hostname", "operator": "In", "values": [node]}
                            ]
                        }
                    ]
                }
            },
        },
    }


def _cluster() -> dict[str, Any]:
    """A cluster that is small around its database."""
    return {
        "apiVersion": "runnerhub.io/v1alpha1",
        "kind": "RunnerHubCluster",
        "metadata": {"name": "hub"},
        "spec": {
            "orchestrator": {"replicas": 1},
            "loadBalancer": {"replicas": 1},
            "postgres": {"storage": {"size": SIZE, "storageClassName": STORAGE_CLASS}},
            "redis": {"storage": {"size": "256Mi"}},
        },
    }
