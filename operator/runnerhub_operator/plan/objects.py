"""Which objects there should be, which of them must be written, which must go."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from .. import names
from ..api import RunnerHubCluster
from ..kube.compare import is_subset, needs_apply, with_applied_hash
from ..resources.common import BuildContext, Images, Manifest
from ..resources.ingress import ingress_manifests
from ..resources.redis import ADDRESS_PREFIX, state_config_map_name
from ..resources.runners import shared_manifests
from ..resources.storage import claim_name, storage_manifests
from ..snapshot import Scaled, Snapshot
from . import credentials, layout, resize_redis, shrink, volumes
from .migration import Migration, stays

_PRUNED_KINDS = frozenset(
    {
        "ConfigMap",
        "Deployment",
        "HorizontalPodAutoscaler",
        names.HTTP_ROUTE,
        "Ingress",
        "Job",
        "PodDisruptionBudget",
        "Role",
        "RoleBinding",
        "Service",
        "ServiceAccount",
        "StatefulSet",
    }
)
# The pooler's size fixes how many connections Postgres has room for, so it belongs to the spec alone.
_SCALABLE = (names.ORCHESTRATOR, names.LOAD_BALANCER)


@dataclass(frozen=True, slots=True)
class Desired:
    """What there should be, in the order of application.

    `waiting`: components whose pods keep an older layout for now. `postgres` and `orchestrator` are the contexts of
    their parts.
    """

    manifests: tuple[Manifest, ...]
    waiting: tuple[str, ...]
    postgres: BuildContext
    orchestrator: BuildContext


@dataclass(frozen=True, slots=True)
class Surplus:
    """Our objects that the spec no longer asks for; `held`: some more must stay until their pods are gone."""

    prune: tuple[Manifest, ...]
    held: bool


def context_of(
    cluster: RunnerHubCluster,
    snapshot: Snapshot,
    images: Images,
    *,
    redis_bootstrapped: bool,
    redis_counted: int,
    scaled: Mapping[str, Scaled],
) -> BuildContext:
    """All that the builders need. Its cluster has the number of Redis pods of now, while some have yet to go."""
    today = resize_redis.of_now(cluster, snapshot)
    return BuildContext(
        today,
        images,
        redis_bootstrapped=redis_bootstrapped or _had_redis_master(cluster, snapshot),
        redis_addresses=_redis_addresses(today, snapshot),
        redis_pods=resize_redis.replicas(cluster, snapshot),
        redis_counted=redis_counted,
        redis_volume_bytes=volumes.smallest_redis_volume(today, snapshot),
        credentials_hash=credentials.credentials_hash(cluster, snapshot),
        scaled={component: size.replicas for component, size in scaled.items() if size.left_alone},
        autoscaled=next((size.replicas for size in scaled.values() if size.asked_for), None),
        postgres_instances=shrink.instances(cluster, snapshot),
        postgres_volume_bytes=volumes.smallest_postgres_volume(cluster, snapshot),
        serves_http_routes=snapshot.http_routes,
    )


def desired(context: BuildContext, snapshot: Snapshot) -> Desired:
    """All objects of a cluster."""
    manifests: list[Manifest] = []
    waiting = []
    contexts = {}
    for component in layout.COMPONENTS:
        built = layout.build(component, context, snapshot)
        contexts[component.name] = built.context
        manifests += built.manifests
        if built.waits:
            waiting.append(component.name)
    # Without the key that the pods' template carries they would restart as soon as it is known.
    if context.credentials_hash is None:
        withheld = "Deployment", names.child(context.name, names.ORCHESTRATOR)
        manifests = [item for item in manifests if (item["kind"], item["metadata"]["name"]) != withheld]
    # Runners that are to go still need what they share.
    if context.cluster.spec.runner_pools or snapshot.pods_of(names.RUNNER):
        manifests += shared_manifests(context)
    manifests = [*_storage(context, snapshot), *manifests]
    return Desired(
        (*manifests, *ingress_manifests(context)),
        tuple(waiting),
        contexts[names.POSTGRES],
        contexts[names.ORCHESTRATOR],
    )


def _storage(context: BuildContext, snapshot: Snapshot) -> Iterator[Manifest]:
    """What is missing of the shared storage: a claim that is there is only enlarged, and its volume is its own."""
    name = claim_name(context)
    there = snapshot.volume(name) if name is not None else None
    for manifest in storage_manifests(context):
        if there is None or (manifest["kind"] == "PersistentVolume" and not there.bound):
            yield manifest


# Hash of a manifest and digest of the live object that was found to be as it says, by kind and name.
Matches = Mapping[tuple[str, str], tuple[str, int]]


@dataclass(frozen=True, slots=True)
class Comparison:
    """`pending`: objects that must be written, in order, each with the hash of itself as an annotation."""

    pending: tuple[Manifest, ...]
    matches: Matches


def compare(objects: Iterable[Manifest], snapshot: Snapshot, known: Matches) -> Comparison:
    """Compare with what is there; what is `known` to match and changed on neither side is not looked at again."""
    pending = []
    matches = {}
    for manifest in objects:
        key = manifest["kind"], manifest["metadata"]["name"]
        hashed = with_applied_hash(manifest)
        live = snapshot.children.live(*key)
        match = (hashed["metadata"]["annotations"][names.ANNOTATION_APPLIED], live.spec_digest if live else 0)
        if live is not None and (known.get(key) == match or not needs_apply(hashed, snapshot.child(*key))):
            matches[key] = match
        else:
            pending.append(hashed)
    return Comparison(tuple(pending), matches)


def differing(objects: Iterable[Manifest], snapshot: Snapshot) -> tuple[Manifest, ...]:
    """Objects that must be written, in order, each with the hash of itself as an annotation."""
    return compare(objects, snapshot, {}).pending


def renews_pods(manifest: Manifest, snapshot: Snapshot) -> bool:
    """Whether writing this Deployment replaces pods that are there."""
    if manifest["kind"] != "Deployment":
        return False
    live = snapshot.child("Deployment", manifest["metadata"]["name"])
    return live is not None and has_other_template(manifest, live)


def has_other_template(manifest: Manifest, live: Mapping[str, Any]) -> bool:
    """Whether writing a workload changes its pod template, also by leaving something out that was written before."""
    told = (live["metadata"].get("annotations") or {}).get(names.ANNOTATION_TEMPLATE)
    wanted = manifest["metadata"].get("annotations", {}).get(names.ANNOTATION_TEMPLATE)
    if told is not None and wanted is not None and told != wanted:
        return True
    return not is_subset(manifest["spec"]["template"], live["spec"].get("template"))


def scaled(cluster: RunnerHubCluster, snapshot: Snapshot) -> dict[str, Scaled]:
    """Deployments whose size somebody else set, such as a HorizontalPodAutoscaler: it is not fought over."""
    found = {}
    wanted = {
        names.ORCHESTRATOR: cluster.spec.orchestrator.replicas,
        names.LOAD_BALANCER: cluster.spec.load_balancer.replicas,
    }
    for component in _SCALABLE:
        live = snapshot.children.live("Deployment", names.child(cluster.name, component))
        if live is None:
            continue
        asked_for = component == names.ORCHESTRATOR and cluster.spec.orchestrator.autoscaling is not None
        if not live.scaled_by and not asked_for:
            continue
        body = live.body()
        replicas = body["spec"].get("replicas")
        if not isinstance(replicas, int):
            continue
        if asked_for:
            by = live.scaled_by or "nobody yet"
            found[component] = Scaled(replicas, by, asked_for=True, left_alone=bool(live.scaled_by))
            continue
        # An autoscaler that the spec no longer asks for has no say any more.
        if names.ANNOTATION_AUTOSCALED in (body["metadata"].get("annotations") or {}):
            continue
        if replicas != wanted[component]:
            found[component] = Scaled(replicas, live.scaled_by)
    return found


def surplus(
    cluster: RunnerHubCluster, snapshot: Snapshot, objects: Iterable[Manifest], migration: Migration
) -> Surplus:
    """Our objects that the spec no longer asks for."""
    wanted = {(item["kind"], item["metadata"]["name"]) for item in objects}
    wanted.add(("Job", migration.wanted))
    wanted.add(("Deployment", names.child(cluster.name, names.ORCHESTRATOR)))
    prune = []
    held = False
    for kind, name in snapshot.children:
        if kind not in _PRUNED_KINDS or (kind, name) in wanted:
            continue
        metadata: Mapping[str, Any] = (snapshot.child(kind, name) or {})["metadata"]
        ours = any(owner.get("uid") == cluster.uid for owner in metadata.get("ownerReferences", ()))
        if not ours or "deletionTimestamp" in metadata:
            continue
        # A member that is going still hands its role over, under the address of its own Service.
        if kind == "Service" and snapshot.pod(name) is not None:
            held = True
            continue
        if kind == "Job" and stays(snapshot, name, migration):
            held = True
            continue
        # The old way in stays until the new one can be made.
        if kind == "Ingress" and _waits_for_gateway_api(cluster, snapshot):
            held = True
            continue
        prune.append(dict(snapshot.child(kind, name) or {}))
    return Surplus(tuple(prune), held)


def _waits_for_gateway_api(cluster: RunnerHubCluster, snapshot: Snapshot) -> bool:
    ingress = cluster.spec.ingress
    return ingress is not None and ingress.gateway is not None and not snapshot.http_routes


def _had_redis_master(cluster: RunnerHubCluster, snapshot: Snapshot) -> bool:
    """Whether an earlier cluster of this name, whose volumes may still be there, has had a Redis master."""
    state: Mapping[str, Any] = snapshot.child("ConfigMap", state_config_map_name(cluster.name)) or {}
    return bool((state.get("data") or {}).get("bootstrapped") == "true")


def _redis_addresses(cluster: RunnerHubCluster, snapshot: Snapshot) -> dict[str, str]:
    """ClusterIPs of the Redis pods' Services: the live ones, else those that were written down before."""
    state: Mapping[str, Any] = snapshot.child("ConfigMap", state_config_map_name(cluster.name)) or {}
    found = {}
    for name in names.members(cluster.name, names.REDIS, cluster.spec.redis.replicas):
        live: Mapping[str, Any] = snapshot.child("Service", name) or {}
        address = live.get("spec", {}).get("clusterIP") or (state.get("data") or {}).get(
            f"{ADDRESS_PREFIX}{name}"
        )
        if address:
            found[name] = address
    return found
