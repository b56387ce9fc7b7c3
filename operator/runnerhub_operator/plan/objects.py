"""Which objects there should be, which of them must be written, which must go."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from .. import names
from ..api import ConditionType, RunnerHubCluster
from ..kube.compare import needs_apply, with_applied_hash
from ..resources.common import BuildContext, Manifest
from ..resources.credentials import CredentialSecret, credential_secrets
from ..resources.ingress import ingress_manifests
from ..resources.loadbalancer import loadbalancer_manifests
from ..resources.orchestrator import orchestrator_manifests
from ..resources.pooler import pooler_manifests
from ..resources.postgres import postgres_manifests
from ..resources.redis import ADDRESS_PREFIX, redis_manifests, state_config_map_name
from ..snapshot import Snapshot, secret_value
from . import conditions

_PRUNED_KINDS = frozenset(
    {
        "ConfigMap",
        "Deployment",
        "Ingress",
        "PodDisruptionBudget",
        "Role",
        "RoleBinding",
        "Service",
        "ServiceAccount",
        "StatefulSet",
    }
)


def desired_objects(context: BuildContext) -> list[Manifest]:
    """All objects of a cluster, in the order in which they are applied."""
    # Without the key that the pods' template carries they would restart as soon as it is known.
    orchestrators = [
        manifest
        for manifest in orchestrator_manifests(context)
        if manifest["kind"] != "Deployment" or context.token_secret_hash is not None
    ]
    return [
        *postgres_manifests(context),
        *pooler_manifests(context),
        *redis_manifests(context),
        *orchestrators,
        *loadbalancer_manifests(context),
        *ingress_manifests(context),
    ]


def differing(objects: list[Manifest], snapshot: Snapshot) -> list[Manifest]:
    """Objects that must be written, in order, each with the hash of itself as an annotation."""
    result = []
    for manifest in objects:
        hashed = with_applied_hash(manifest)
        if needs_apply(hashed, snapshot.child(manifest["kind"], manifest["metadata"]["name"])):
            result.append(hashed)
    return result


def token_secret_hash(cluster: RunnerHubCluster, snapshot: Snapshot) -> str | None:
    """Hash of the key that signs API tokens: the orchestrators restart when it changes. None: not known yet."""
    key = secret_value(snapshot.children, names.credentials(cluster.name, names.ORCHESTRATOR), "jwt-secret")
    return hashlib.sha256(key.encode()).hexdigest()[:16] if key is not None else None


def had_redis_master(cluster: RunnerHubCluster, snapshot: Snapshot) -> bool:
    """Whether an earlier cluster of this name, whose volumes may still be there, has had a Redis master."""
    state: Mapping[str, Any] = snapshot.child("ConfigMap", state_config_map_name(cluster.name)) or {}
    return bool(state.get("data", {}).get("bootstrapped") == "true")


def redis_addresses(cluster: RunnerHubCluster, snapshot: Snapshot) -> dict[str, str]:
    """ClusterIPs of the Redis pods' Services: the live ones, else those that were written down before."""
    state: Mapping[str, Any] = snapshot.child("ConfigMap", state_config_map_name(cluster.name)) or {}
    found = {}
    for ordinal in range(cluster.spec.redis.replicas):
        name = names.member(cluster.name, names.REDIS, ordinal)
        live: Mapping[str, Any] = snapshot.child("Service", name) or {}
        address = live.get("spec", {}).get("clusterIP") or state.get("data", {}).get(
            f"{ADDRESS_PREFIX}{name}"
        )
        if address:
            found[name] = address
    return found


def missing_secrets(context: BuildContext, snapshot: Snapshot) -> list[CredentialSecret]:
    """Secrets to make, each with the keys that it lacks."""
    missing = []
    for secret in credential_secrets(context):
        live: Mapping[str, Any] = snapshot.child("Secret", secret.manifest["metadata"]["name"]) or {}
        keys = tuple(key for key in secret.keys if key not in live.get("data", {}))
        if keys and not _is_irreplaceable(secret, snapshot):
            missing.append(replace(secret, keys=keys))
    return missing


def _is_irreplaceable(secret: CredentialSecret, snapshot: Snapshot) -> bool:
    """Whether a running database or queue still has the lost passwords: new ones would lock everybody out."""
    owner = secret.manifest["metadata"]["name"].removesuffix("-credentials")
    return snapshot.child("StatefulSet", owner) is not None


def with_lost_credentials(
    verdicts: list[conditions.Verdict], context: BuildContext, snapshot: Snapshot
) -> list[conditions.Verdict]:
    """Replace the verdict of a component whose generated passwords somebody deleted."""
    kinds = {names.POSTGRES: ConditionType.POSTGRES, names.REDIS: ConditionType.REDIS}
    lost = {}
    for secret in credential_secrets(context):
        metadata = secret.manifest["metadata"]
        live: Mapping[str, Any] = snapshot.child("Secret", metadata["name"]) or {}
        if _is_irreplaceable(secret, snapshot) and any(
            key not in live.get("data", {}) for key in secret.keys
        ):
            lost[kinds[metadata["labels"][names.LABEL_COMPONENT]]] = metadata["name"]
    return [
        conditions.Verdict(
            verdict.type,
            "False",
            "CredentialsMissing",
            f"Secret {lost[verdict.type]} or a key of it is gone, but the running servers still use its passwords: "
            "restore it; new ones would lock everybody out",
            full=False,
        )
        if verdict.type in lost
        else verdict
        for verdict in verdicts
    ]


def surplus(cluster: RunnerHubCluster, snapshot: Snapshot, objects: list[Manifest]) -> list[Manifest]:
    """Our objects that the spec no longer asks for."""
    wanted = {(item["kind"], item["metadata"]["name"]) for item in objects}
    wanted.add(("Deployment", names.child(cluster.name, names.ORCHESTRATOR)))
    return [
        dict(body)
        for (kind, name), body in snapshot.children.items()
        if kind in _PRUNED_KINDS
        and (kind, name) not in wanted
        and "deletionTimestamp" not in body["metadata"]
        # A member that is going still hands its role over, under the address of its own Service.
        and not (kind == "Service" and snapshot.pod(name) is not None)
        and any(owner.get("uid") == cluster.uid for owner in body["metadata"].get("ownerReferences", ()))
    ]
