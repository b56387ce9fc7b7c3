"""What a spec would change: the same comparison as at a visit, told instead of done."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from .. import names
from ..api import RunnerHubCluster
from ..kube.compare import differences
from ..resources.common import Images, Manifest
from ..resources.patroni import dynamic_config_patch, patroni_dynamic_config
from ..snapshot import Snapshot
from . import credentials, layout, migration, objects, volumes

# Annotations that the operator keeps for itself.
_OWN = f"metadata.annotations.{names.API_GROUP}/"


@dataclass(frozen=True, slots=True)
class Change:
    """One object: created, changed (at these paths), removed, or replaced without its pods."""

    verb: str
    kind: str
    name: str
    paths: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Restart:
    """Pods of a component that are renewed, in words, in the order in which that happens."""

    component: str
    how: str


@dataclass(frozen=True, slots=True)
class Preview:
    """`restarts` in order, one component at a time; `waiting`: components that keep an older layout for now."""

    changes: tuple[Change, ...]
    restarts: tuple[Restart, ...]
    patroni: tuple[str, ...]
    waiting: tuple[str, ...]


def preview(cluster: RunnerHubCluster, snapshot: Snapshot, images: Images) -> Preview:
    """What would happen if the cluster had this spec now."""
    status = cluster.status
    scaled = objects.scaled(cluster, snapshot)
    context = objects.context_of(
        cluster,
        snapshot,
        images,
        redis_bootstrapped=status.redis.bootstrapped,
        redis_counted=cluster.spec.redis.replicas,
        scaled=scaled,
    )
    # Where there are to be more or fewer pods they come and go one at a time; what is told is the end of that.
    context = replace(context, cluster=cluster, postgres_instances=None, redis_pods=None)
    desired = objects.desired(context, snapshot)
    secrets = tuple(
        Change("create", "Secret", secret.manifest["metadata"]["name"])
        for secret in credentials.missing_secrets(context, snapshot)
    )
    written = tuple(
        change for manifest in desired.manifests if (change := _change(manifest, snapshot)) is not None
    )
    migrating = migration.look(desired.orchestrator, snapshot, database_serves=True)
    jobs = () if migrating.job is None else (Change("create", "Job", migrating.wanted),)
    removed = tuple(
        Change("remove", body["kind"], body["metadata"]["name"])
        for body in objects.surplus(cluster, snapshot, desired.manifests, migrating).prune
    )
    restarts = tuple(
        restart
        for component in _ORDER
        for manifest in desired.manifests
        if (restart := _restart(component, manifest, cluster, snapshot)) is not None
    )
    patch: Mapping[str, Any] = {}
    if snapshot.patroni_config is not None:
        patch = dynamic_config_patch(patroni_dynamic_config(desired.postgres), snapshot.patroni_config) or {}
    grown = tuple(
        Change("change", "PersistentVolumeClaim", name, ("spec.resources.requests.storage",))
        for name in volumes.small_claims(cluster, snapshot)
    )
    return Preview(
        (*secrets, *jobs, *written, *grown, *removed), restarts, tuple(_leaves(patch)), desired.waiting
    )


# As plan.rollout goes: stateful components first.
_ORDER = (names.POSTGRES, names.REDIS, names.POOLER, names.ORCHESTRATOR, names.LOAD_BALANCER)


def _change(manifest: Manifest, snapshot: Snapshot) -> Change | None:
    kind, name = manifest["kind"], manifest["metadata"]["name"]
    live = snapshot.child(kind, name)
    if live is None:
        return Change("create", kind, name)
    paths = tuple(path for path in differences(manifest, live) if not path.startswith(_OWN))
    verb = "replace" if volumes.is_outgrown(manifest, snapshot) else "change"
    return Change(verb, kind, name, paths) if paths else None


def _restart(
    component: str, manifest: Manifest, cluster: RunnerHubCluster, snapshot: Snapshot
) -> Restart | None:
    kind, metadata = manifest["kind"], manifest["metadata"]
    if kind not in layout.WORKLOADS or metadata["labels"][names.LABEL_COMPONENT] != component:
        return None
    live = snapshot.child(kind, metadata["name"])
    if live is None or not objects.has_other_template(manifest, live):
        return None
    pods = [pod.name for pod in reversed(snapshot.pods_of(component))]
    if kind == "Deployment":
        return Restart(component, f"{len(pods)} pods; a new one is ready before an old one goes")
    last = cluster.status.postgres.primary if component == names.POSTGRES else cluster.status.redis.master
    first = ", ".join(name for name in pods if name != last)
    role = "primary" if component == names.POSTGRES else "master"
    if last is None or last not in pods:
        return Restart(component, f"{', '.join(pods)}; the {role} last, after it handed over")
    return Restart(component, f"{first}, then {last}, after it handed the role of {role} over")


def _leaves(patch: Mapping[str, Any], path: str = "") -> list[str]:
    found: list[str] = []
    for key, value in patch.items():
        here = f"{path}.{key}" if path else str(key)
        found += _leaves(value, here) if isinstance(value, Mapping) else [f"{here}: {value}"]
    return found
