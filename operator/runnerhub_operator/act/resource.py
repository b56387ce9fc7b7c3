"""The RunnerHubCluster itself: whether it is as it was read, its status and its Events."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

from .. import names
from ..api import RunnerHubCluster
from ..errors import ConflictError, KubeError, NotFoundError
from ..kube.client import KubeClient, ObjectRef
from ..kube.events import EventNote, Involved, event_manifest

logger = logging.getLogger(__name__)


class ClusterResource:
    """Reads and writes clusters at the API server. `reporter` names this operator in Events."""

    def __init__(self, client: KubeClient, reporter: str) -> None:
        self._client = client
        self._reporter = reporter

    async def is_current(self, cluster: RunnerHubCluster) -> bool:
        """Whether the API server still has the cluster as it was read; asked before anything is changed.

        A watch may be late, and after an interruption it may never tell that a cluster is gone. NotFoundError: it is.
        """
        ref = _ref_of(cluster.key)
        metadata = (await self._client.get(ref))["metadata"]
        if metadata["uid"] != cluster.uid or "deletionTimestamp" in metadata:
            raise NotFoundError(f"{ref} of uid {cluster.uid} is gone", 404)
        return bool(metadata.get("generation") == cluster.generation)

    async def write_status(
        self, key: tuple[str, str], version: str, previous: Mapping[str, Any], wanted: Mapping[str, Any]
    ) -> str:
        """Bring the status from `previous` to `wanted`; fields that are gone are removed. Gives the new version.

        ConflictError: the cluster is not at `version` any more. NotFoundError: it is gone.
        """
        patch = {"metadata": {"resourceVersion": version}, "status": _patch_of(previous, wanted)}
        logger.debug("status of %s/%s: %s", *key, ", ".join(_changed(previous, wanted)))
        answer = await self._client.merge_patch(_ref_of(key), patch, subresource="status")
        written: str = answer["metadata"]["resourceVersion"]
        return written

    async def emit(self, cluster: RunnerHubCluster | Involved, note: EventNote, now: datetime) -> None:
        """Record an Event; the same one within a minute is recorded once.

        One that cannot be recorded is logged: what was done must still be remembered, and what is to be done goes on.
        """
        try:
            await self._client.create(event_manifest(cluster, note, self._reporter, now))
        except (ConflictError, NotFoundError):
            return
        except KubeError as error:
            logger.warning(
                "not recorded as an Event, %s: %s: %s",
                error,
                note.reason,
                note.message,
                extra={"cluster": f"{cluster.namespace}/{cluster.name}"},
            )


def _ref_of(key: tuple[str, str]) -> ObjectRef:
    return ObjectRef(f"{names.API_GROUP}/{names.API_VERSION}", names.KIND, *key)


def _patch_of(before: Any, after: Any) -> Any:
    """JSON merge patch from one value to another: keys that are gone become null."""
    if not isinstance(before, Mapping) or not isinstance(after, Mapping):
        return after
    gone = {key: None for key in before if key not in after}
    return {**{key: _patch_of(before.get(key), value) for key, value in after.items()}, **gone}


def _changed(before: Any, after: Any, path: str = "") -> Iterator[str]:
    """The fields in which two statuses differ, such as redis.replicas[0].lagBytes."""
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        for key in {**before, **after}:
            yield from _changed(before.get(key), after.get(key), f"{path}.{key}" if path else key)
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        for index, (was, now) in enumerate(zip(before, after, strict=True)):
            yield from _changed(was, now, f"{path}[{index}]")
    elif before != after:
        yield path
