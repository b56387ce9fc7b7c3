"""The kopf side: the watch of the RunnerHubClusters, which tells the queue what to visit.

kopf's change handlers and their annotations are not used: every decision is made from what is there now. The children
are followed by reflectors (`kube.reflector`), which notice what vanished while a watch was interrupted and keep each
object packed.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

import kopf

from . import names
from .reconcile import Key

_CLUSTERS: Final = "clusters"


def _trim(body: Mapping[str, Any]) -> dict[str, Any]:
    """The object without what nobody here reads."""
    metadata = {key: value for key, value in body["metadata"].items() if key != "managedFields"}
    return {**body, "metadata": metadata}


def _key(body: Mapping[str, Any]) -> Key:
    return body["metadata"]["namespace"], body["metadata"]["name"]


class ClusterIndex:
    """The RunnerHubClusters as the watch last told them, kept in kopf's index."""

    def __init__(self) -> None:
        self._indices: Mapping[str, Any] = {}

    def attach(self, indices: Mapping[str, Any]) -> None:
        """Take over the index when kopf starts."""
        self._indices = indices

    def cluster(self, key: Key) -> Mapping[str, Any] | None:
        """A RunnerHubCluster, None when it is gone.

        One that vanished while the watch had lost track stays in kopf's index, before a new one of the same name.
        """
        found: list[Mapping[str, Any]] = list(self._indices.get(_CLUSTERS, {}).get(key, ()))
        return found[-1] if found else None

    def count(self) -> int:
        """Number of RunnerHubClusters."""
        return len(self._indices.get(_CLUSTERS, {}))


def registry(index: ClusterIndex, changed: Callable[[Key, bool], None]) -> kopf.OperatorRegistry:
    """Handlers that fill the index; `changed(key, edited)` is told when a cluster is new, changed or gone.

    `edited`: people did it. Otherwise only the status is another one, in most cases by the operator itself; but
    somebody may have scribbled on it, and only the next visit can tell.
    """
    result = kopf.OperatorRegistry()
    known: dict[str, tuple[object, int]] = {}

    def tell(body: Mapping[str, Any], event_type: str | None) -> None:
        metadata = body["metadata"]
        request = metadata.get("annotations", {}).get(names.ANNOTATION_SWITCH_PRIMARY)
        edit = metadata.get("generation"), metadata.get("deletionTimestamp"), request
        now = edit, hash(json.dumps(body.get("status"), sort_keys=True))
        before = known.pop(metadata["uid"], (None, 0))
        if event_type != "DELETED":
            known[metadata["uid"]] = now
        if event_type == "DELETED" or before != now:
            changed(_key(body), event_type == "DELETED" or before[0] != edit)

    @kopf.on.login(registry=result)
    async def login(**kwargs: Any) -> kopf.ConnectionInfo | None:
        return kopf.login_with_service_account(**kwargs) or kopf.login_with_kubeconfig(**kwargs)

    @kopf.on.startup(registry=result)
    async def attach(**kwargs: Any) -> None:
        index.attach({_CLUSTERS: kwargs[_CLUSTERS]})

    @kopf.index(names.API_GROUP, names.API_VERSION, names.PLURAL, id=_CLUSTERS, registry=result)
    async def clusters(body: kopf.Body, **_: Any) -> dict[Key, Any]:
        return {_key(body): _trim(dict(body))}

    @kopf.on.event(names.API_GROUP, names.API_VERSION, names.PLURAL, registry=result)
    async def cluster_event(event: Mapping[str, Any], **_: Any) -> None:
        tell(event["object"], event["type"])

    return result


class _Backoffs:
    """Breaks between tries in seconds, for ever: kopf would give up, and the operator with it."""

    def __iter__(self) -> Iterator[float]:
        return itertools.chain((1, 1, 2, 3, 5, 8), itertools.repeat(10))


def settings() -> kopf.OperatorSettings:
    """kopf's settings: no Events of its own, no annotations, no finalisers."""
    result = kopf.OperatorSettings()
    result.posting.enabled = False
    result.scanning.disabled = True
    result.watching.server_timeout = 300
    result.watching.client_timeout = 330
    result.watching.connect_timeout = 10
    result.networking.request_timeout = 30
    result.networking.error_backoffs = _Backoffs()
    return result
