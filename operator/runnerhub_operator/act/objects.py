"""The cluster's objects, written and deleted without stopping anything that runs."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Mapping
from typing import Any

from .. import names
from ..actions import GrowVolume, MarkPods, OrphanPods
from ..api import RunnerHubCluster
from ..errors import ConflictError, NotFoundError, RefusedError
from ..kube.client import KubeClient, ObjectRef
from ..kube.compare import needs_apply
from ..resources.common import Manifest
from ..snapshot import LiveObject, Snapshot
from .ownership import check_label, check_owner

logger = logging.getLogger(__name__)


class ObjectWriter:
    """Writes objects that are the cluster's; those of somebody else raise ForeignObjectError."""

    def __init__(self, client: KubeClient) -> None:
        self._client = client

    async def apply(
        self, cluster: RunnerHubCluster, manifest: Manifest, live: Mapping[str, Any] | None
    ) -> Manifest | None:
        """Write one object that differs from the cached live one; what the cache does not have is looked up first.

        Gives the object as the API server has it then, None when there was nothing to write. Raises ForeignObjectError
        when an object of that name belongs to somebody else.
        """
        ref = ObjectRef.of(manifest)
        cached = live is not None
        if live is None:
            try:
                live = await self._client.get(ref)
            except NotFoundError:
                live = None
        if live is not None:
            check = check_owner if manifest["metadata"].get("ownerReferences") else check_label
            check(cluster, ref, live)
            if live["kind"] == "PersistentVolume" and live.get("status", {}).get("phase") == "Released":
                await self._offer_again(ref, live)
        # Late watches, and kinds that are not watched at all, must not have the same written again and again.
        if not cached and not needs_apply(manifest, live):
            return None
        written = await self._write(ref, manifest, live)
        logger.info("%s %s", "created" if live is None else "changed", ref)
        return written

    async def _write(self, ref: ObjectRef, manifest: Manifest, live: Mapping[str, Any] | None) -> Manifest:
        """Apply an object. A Service that cannot have its former address again gets another one."""
        try:
            return await self._client.apply(manifest)
        except RefusedError as error:
            asked = manifest["spec"].get("clusterIP", "None") if ref.kind == "Service" else "None"
            if live is not None or asked == "None":
                raise
            logger.warning("%s cannot have the address %s: %s", ref, asked, error)
            spec = {name: value for name, value in manifest["spec"].items() if name != "clusterIP"}
            return await self._client.apply({**manifest, "spec": spec})

    async def _offer_again(self, ref: ObjectRef, live: Mapping[str, Any]) -> None:
        """Have a volume bind to the claim that it names again: Kubernetes remembers the former one by its uid."""
        patch = {
            "metadata": {"resourceVersion": live["metadata"]["resourceVersion"]},
            "spec": {"claimRef": {"uid": None, "resourceVersion": None}},
        }
        with contextlib.suppress(NotFoundError, ConflictError):
            await self._client.merge_patch(ref, patch)
            logger.info("%s was released and is offered to its claim again", ref)

    async def prune(self, body: Mapping[str, Any]) -> None:
        """Delete an object that the spec no longer asks for."""
        ref = ObjectRef.of(body)
        try:
            await self._client.delete(ref, uid=body["metadata"]["uid"])
        except (NotFoundError, ConflictError):
            return
        logger.info("removed %s", ref)

    async def orphan(self, cluster: RunnerHubCluster, snapshot: Snapshot, action: OrphanPods) -> None:
        """Delete a StatefulSet and leave its pods running.

        Until the next one takes them over they have no owner but the cluster: if that is deleted just then, they go
        with it.
        """
        owner = {**cluster.owner_reference, "controller": False, "blockOwnerDeletion": False}
        for pod in snapshot.pods_of(action.component):
            ref = ObjectRef("v1", "Pod", cluster.namespace, pod.name)
            patch = {"metadata": {"uid": pod.uid, "ownerReferences": [owner]}}
            try:
                await self._client.strategic_patch(ref, patch)
            except (NotFoundError, ConflictError):
                continue
        ref = ObjectRef.of(action.stateful_set)
        try:
            await self._client.delete(ref, uid=action.stateful_set["metadata"]["uid"], orphan=True)
        except (NotFoundError, ConflictError):
            return
        logger.info("removed %s without its pods, to make it anew", ref)

    async def mark_pods(self, cluster: RunnerHubCluster, mark: MarkPods) -> None:
        """Annotate pods, those that are there."""
        patch = {"metadata": {"annotations": {names.ANNOTATION_MOUNTED: mark.version}}}
        for pod in mark.pods:
            with contextlib.suppress(NotFoundError, ConflictError):
                await self._client.merge_patch(ObjectRef("v1", "Pod", cluster.namespace, pod), patch)

    async def grow_volume(self, cluster: RunnerHubCluster, step: GrowVolume) -> bool:
        """Have a claim ask for more; False: it is gone. Raises RefusedError when it may not."""
        ref = ObjectRef("v1", "PersistentVolumeClaim", cluster.namespace, step.claim)
        requests = {"storage": step.size}
        patch = {"metadata": {"uid": step.uid}, "spec": {"resources": {"requests": requests}}}
        try:
            await self._client.merge_patch(ref, patch)
        except (NotFoundError, ConflictError):
            return False
        logger.info("%s", step)
        return True

    async def take_lease(
        self, cluster: RunnerHubCluster, manifest: Manifest, live: LiveObject | None
    ) -> None:
        """Write the disruption Lease unless somebody wrote it after `live` was read.

        ConflictError: somebody did, a person's command or another operator.
        """
        if live is None:
            try:
                await self._client.create(manifest)
            except ConflictError:
                ref = ObjectRef.of(manifest)
                check_owner(cluster, ref, await self._client.get(ref))
                raise
            return
        metadata = {**manifest["metadata"], "resourceVersion": live.resource_version}
        await self._client.apply({**manifest, "metadata": metadata})
