"""The kopf side: watches fill the cache and tell the queue which cluster to visit.

kopf's change handlers and their annotations are not used: every decision is made from what is there now.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

import kopf

from . import names
from .reconcile import Key
from .workqueue import WorkQueue

# Our children by kind; the label selector makes the API server send only our own objects.
_CHILDREN: Final = (
    ("", "v1", "configmaps"),
    ("", "v1", "pods"),
    ("", "v1", "secrets"),
    ("", "v1", "serviceaccounts"),
    ("", "v1", "services"),
    ("apps", "v1", "deployments"),
    ("apps", "v1", "statefulsets"),
    ("networking.k8s.io", "v1", "ingresses"),
    ("policy", "v1", "poddisruptionbudgets"),
    ("rbac.authorization.k8s.io", "v1", "rolebindings"),
    ("rbac.authorization.k8s.io", "v1", "roles"),
)
_LEASES: Final = ("coordination.k8s.io", "v1", "leases")
_OURS: Final = f"{names.LABEL_MANAGED_BY}={names.FIELD_MANAGER},{names.LABEL_CLUSTER}"
_CLUSTERS: Final = "clusters"
_OBJECTS: Final = "objects"


def trim(body: Mapping[str, Any]) -> dict[str, Any]:
    """The parts of an object that decisions need; keeps the cache small and the queue quiet."""
    metadata = {
        key: value
        for key, value in body["metadata"].items()
        if key not in ("managedFields", "creationTimestamp", "resourceVersion")
    }
    trimmed = {key: value for key, value in body.items() if key != "metadata"}
    if body.get("kind") == "Pod":
        # Patroni writes its WAL position into an annotation every few seconds.
        metadata.pop("annotations", None)
        trimmed["spec"] = {"nodeName": body.get("spec", {}).get("nodeName", "")}
    return {**trimmed, "metadata": metadata}


def _key(body: Mapping[str, Any]) -> Key:
    return body["metadata"]["namespace"], body["metadata"]["name"]


class IndexCache:
    """The watched objects, kept in kopf's indices."""

    def __init__(self) -> None:
        self._indices: Mapping[str, Any] = {}

    def attach(self, indices: Mapping[str, Any]) -> None:
        """Take over the indices when kopf starts."""
        self._indices = indices

    def cluster(self, key: Key) -> Mapping[str, Any] | None:
        """The RunnerHubCluster, None when it is gone."""
        found = self._indices[_CLUSTERS].get(key, ())
        return next(iter(found), None)

    def children(self, key: Key) -> list[Mapping[str, Any]]:
        """Our objects of a cluster."""
        return list(self._indices[_OBJECTS].get(key, ()))


def registry(cache: IndexCache, queue: WorkQueue[Key]) -> kopf.OperatorRegistry:
    """Handlers that feed the cache and the queue."""
    result = kopf.OperatorRegistry()
    fingerprints: dict[str, str] = {}

    def changed(body: Mapping[str, Any], event_type: str | None) -> bool:
        uid = body["metadata"]["uid"]
        if event_type == "DELETED":
            fingerprints.pop(uid, None)
            return True
        fingerprint = json.dumps(trim(body), sort_keys=True, default=str)
        digest = f"{hash(fingerprint):x}"
        if fingerprints.get(uid) == digest:
            return False
        fingerprints[uid] = digest
        return True

    @kopf.on.login(registry=result)
    async def login(**kwargs: Any) -> kopf.ConnectionInfo | None:
        return kopf.login_with_service_account(**kwargs) or kopf.login_with_kubeconfig(**kwargs)

    @kopf.on.startup(registry=result)
    async def attach(**kwargs: Any) -> None:
        cache.attach({_CLUSTERS: kwargs[_CLUSTERS], _OBJECTS: kwargs[_OBJECTS]})

    @kopf.index(names.API_GROUP, names.API_VERSION, names.PLURAL, id=_CLUSTERS, registry=result)
    async def clusters(body: kopf.Body, **_: Any) -> dict[Key, Any]:
        return {_key(body): dict(body)}

    @kopf.on.event(names.API_GROUP, names.API_VERSION, names.PLURAL, registry=result)
    async def cluster_event(event: Mapping[str, Any], **_: Any) -> None:
        body = event["object"]
        # The operator's own status writes come back as events; only what people change is news.
        relevant = {**body, "status": {}}
        if changed(relevant, event["type"]):
            queue.add(_key(body))

    async def index_object(body: kopf.Body, **_: Any) -> dict[Key, Any] | None:
        labels = body["metadata"].get("labels", {})
        return {(body["metadata"]["namespace"], labels[names.LABEL_CLUSTER]): trim(dict(body))}

    async def object_event(event: Mapping[str, Any], **_: Any) -> None:
        body = event["object"]
        cluster = body["metadata"].get("labels", {}).get(names.LABEL_CLUSTER)
        if cluster and changed(body, event["type"]):
            queue.add((body["metadata"]["namespace"], cluster))

    for group, version, plural in (*_CHILDREN, _LEASES):
        kopf.index(group, version, plural, id=_OBJECTS, registry=result)(index_object)
        kopf.on.event(group, version, plural, registry=result)(object_event)
    return result


def settings() -> kopf.OperatorSettings:
    """kopf's settings: selectors on the server, no Events of its own, no annotations, no finalisers."""
    result = kopf.OperatorSettings()
    result.posting.enabled = False
    result.scanning.disabled = True
    result.watching.server_timeout = 300
    result.watching.client_timeout = 330
    result.watching.connect_timeout = 10
    result.networking.request_timeout = 30
    for group, version, plural in _CHILDREN:
        result.watching.label_selectors[group, version, plural] = _OURS
    # The Lease that the orchestrators' agents renew every two seconds carries another component label.
    result.watching.label_selectors[_LEASES] = f"{_OURS},{names.LABEL_COMPONENT}!={names.ORCHESTRATOR}"
    return result
