"""What all builders share: metadata, security contexts, spreading, hashes.

A builder is a pure function from a BuildContext to manifests, plain dictionaries as the API server reads them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from .. import names
from ..api import PullSecret, ResourceRequirements, RunnerHubCluster
from ..quantities import quantity

Manifest = dict[str, Any]


# Version of what the builders make of an unchanged spec. Raise it with each change of a pod template or of what its
# containers read, and keep building the older ones down to OLDEST_LAYOUT: an operator upgrade restarts no pod. Held by
# tests/unit/plan/layouts.yaml. Builds of before the first release are not upgraded from.
LAYOUT: Final = 1
OLDEST_LAYOUT: Final = 1


@dataclass(frozen=True, slots=True)
class Images:
    """Default images, from the operator's settings; a field of the spec overrides each."""

    operator: str
    postgres: str
    pooler: str
    redis: str
    haproxy: str
    orchestrator: str
    runner: str


@dataclass(frozen=True, slots=True)
class BuildContext:
    """All that a builder may look at.

    `redis_bootstrapped`: a Redis master was seen once, so an empty pod must not start as master any more.
    `redis_addresses`: ClusterIP of each Redis pod's own Service, by name, once it is known.
    `redis_pods`: pods of the queue now, while more have yet to come; None: as the spec says.
    `redis_counted`: of how many of them the majorities are; None: of all.
    `redis_volume_bytes`: the smallest volume of a Redis pod; None while there is none.
    `credentials_hash`: of the credentials that orchestrators read only when they start; None while they are not known.
    `scaled`: replicas of the Deployments that somebody else scales, such as a HorizontalPodAutoscaler, by component.
    `autoscaled`: replicas that the orchestrators' Deployment has now, where an autoscaler of the spec sets them.
    `postgres_instances`: members of the database while some have yet to go; None: as the spec says.
    `postgres_volume_bytes`: the smallest volume of a Postgres member; None while there is none.
    `serves_http_routes`: whether the API server has HTTPRoutes of the Gateway API.
    `layout`: the version of the pod templates to build, OLDEST_LAYOUT to LAYOUT.
    """

    cluster: RunnerHubCluster
    images: Images
    redis_bootstrapped: bool = False
    redis_addresses: Mapping[str, str] = field(default_factory=dict)
    redis_pods: int | None = None
    redis_counted: int | None = None
    redis_volume_bytes: int | None = None
    credentials_hash: str | None = None
    scaled: Mapping[str, int] = field(default_factory=dict)
    autoscaled: int | None = None
    postgres_instances: int | None = None
    postgres_volume_bytes: int | None = None
    serves_http_routes: bool = True
    layout: int = LAYOUT

    @property
    def name(self) -> str:
        """Name of the cluster."""
        return self.cluster.name

    def replicas_field(self, component: str, replicas: int) -> Manifest:
        """The field `replicas` of a Deployment's spec; none when somebody else scales it."""
        return {} if component in self.scaled else {"replicas": replicas}


def metadata(
    context: BuildContext,
    name: str,
    component: str,
    *,
    labels: Mapping[str, str] | None = None,
    annotations: Mapping[str, str] | None = None,
) -> Manifest:
    """Metadata of a child object, owned by the cluster."""
    result: Manifest = {
        "name": name,
        "namespace": context.cluster.namespace,
        "labels": {**names.labels(context.name, component), **(labels or {})},
        "ownerReferences": [context.cluster.owner_reference],
    }
    if annotations:
        result["annotations"] = dict(annotations)
    return result


def unowned(owned: Manifest) -> Manifest:
    """Metadata without owner reference: of what belongs to the volumes and outlives the cluster with them."""
    return {key: value for key, value in owned.items() if key != "ownerReferences"}


def pod_security_context() -> Manifest:
    """Pod security context of the `restricted` Pod Security Standard; all our images run as uid 1001.

    Source: https://kubernetes.io/docs/concepts/security/pod-security-standards/
    """
    return {
        "runAsNonRoot": True,
        "runAsUser": 1001,
        "runAsGroup": 1001,
        "fsGroup": 1001,
        "fsGroupChangePolicy": "OnRootMismatch",
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def pull_secrets(context: BuildContext, more: Iterable[PullSecret] = ()) -> Manifest:
    """The field `imagePullSecrets` of a pod's spec, if any: those of the cluster, and more."""
    secrets = dict.fromkeys(item.name for item in (*context.cluster.spec.image_pull_secrets, *more))
    return {"imagePullSecrets": [{"name": name} for name in secrets]} if secrets else {}


def container_security_context(*, read_only_root: bool = True) -> Manifest:
    """Container security context of the `restricted` Pod Security Standard."""
    return {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": read_only_root,
    }


def spread(cluster: str, component: str) -> list[Manifest]:
    """Topology spread constraints: over nodes and zones as far as the cluster has them, never blocking."""
    return [
        {
            "maxSkew": 1,
            "topologyKey": key,
            "whenUnsatisfiable": "ScheduleAnyway",
            "labelSelector": {"matchLabels": names.selector_labels(cluster, component)},
        }
        for key in ("kubernetes.io/hostname", "topology.kubernetes.io/zone")
    ]


def resource_requirements(given: ResourceRequirements, *, cpu: str, memory: str) -> Manifest:
    """Container resources: what the spec says, with default requests where it says nothing, never above a limit."""
    limits = given.limits.model_dump(exclude_none=True) if given.limits is not None else {}
    requests = {
        name: min(default, limits.get(name, default), key=quantity)
        for name, default in (("cpu", cpu), ("memory", memory))
    }
    if given.requests is not None:
        requests |= given.requests.model_dump(exclude_none=True)
    return {"requests": requests, "limits": limits} if limits else {"requests": requests}


def config_hash(*data: object) -> str:
    """Short hash of configuration, put on a pod template so that pods follow a change."""
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()[:16]


def secret_env(variable: str, secret: str, key: str, *, optional: bool = False) -> Manifest:
    """Environment variable read from a Secret. `optional`: the pod starts without the Secret or its key."""
    source: Manifest = {"name": secret, "key": key, **({"optional": True} if optional else {})}
    return {"name": variable, "valueFrom": {"secretKeyRef": source}}


def secret_volume(name: str, secret: str, keys: Sequence[str] = (), *, optional: bool = False) -> Manifest:
    """Volume with a file for each key of a Secret, or for some; Kubernetes renews the files when the Secret changes.

    `optional`: the pod starts without the Secret, and then finds no files.
    """
    source: Manifest = {
        "secretName": secret,
        "defaultMode": 0o440,
        **({"optional": True} if optional else {}),
    }
    if keys:
        source["items"] = [{"key": key, "path": key} for key in keys]
    return {"name": name, "secret": source}


def field_env(variable: str, path: str) -> Manifest:
    """Environment variable read from the pod's own fields, such as metadata.name."""
    return {"name": variable, "valueFrom": {"fieldRef": {"fieldPath": path}}}


def disruption_budget(context: BuildContext, component: str) -> Manifest:
    """PodDisruptionBudget of a component: one pod may be away."""
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": metadata(context, names.child(context.name, component), component),
        "spec": {
            "maxUnavailable": 1,
            "selector": {"matchLabels": names.selector_labels(context.name, component)},
        },
    }


def service_account(context: BuildContext, component: str) -> Manifest:
    """ServiceAccount of a component; pods that need no API access do not mount its token."""
    return {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": metadata(context, names.child(context.name, component), component),
        "automountServiceAccountToken": False,
    }


def role_with_binding(
    context: BuildContext, component: str, rules: list[Manifest], *, account: str | None = None
) -> list[Manifest]:
    """Role with the given rules, bound to a ServiceAccount, the component's own unless another is given."""
    name = names.child(context.name, component)
    return [
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "Role",
            "metadata": metadata(context, name, component),
            "rules": rules,
        },
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "RoleBinding",
            "metadata": metadata(context, name, component),
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name},
            "subjects": [
                {"kind": "ServiceAccount", "name": account or name, "namespace": context.cluster.namespace}
            ],
        },
    ]
