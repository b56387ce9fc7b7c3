"""Starting and stopping runners."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Mapping, Sequence
from typing import Any

import aiohttp

from .. import names
from ..actions import MarkRunner, StopRunner
from ..api import RunnerHubCluster
from ..errors import ConflictError, NotFoundError, ProbeError, UnauthorizedProbeError
from ..kube.client import KubeClient, ObjectRef
from ..probes import runners
from ..resources.runners import CONTROL_KEY
from ..resources.token_keys import known_keys
from ..snapshot import Snapshot
from ..tokens import control_key
from .ownership import check_owner

logger = logging.getLogger(__name__)

# Shorter by far than a runner heeds it.
DRAIN_DEADLINE_SECONDS = 2.0


class RunnerPods:
    """The runners' pods, and what runners are asked themselves."""

    def __init__(self, client: KubeClient, http: aiohttp.ClientSession) -> None:
        self._client = client
        self._http = http

    async def create(self, cluster: RunnerHubCluster, manifest: Mapping[str, Any]) -> bool:
        """Create a runner's pod; False: its slot is taken, which the watch has not told yet.

        Raises RefusedError, and ForeignObjectError when the name is somebody else's.
        """
        ref = ObjectRef.of(manifest)
        try:
            await self._client.create(dict(manifest))
        except ConflictError:
            with contextlib.suppress(NotFoundError):
                check_owner(cluster, ref, await self._client.get(ref))
            return False
        logger.info("started runner %s", ref)
        return True

    async def stop(self, cluster: RunnerHubCluster, snapshot: Snapshot, step: StopRunner) -> bool:
        """Delete a runner's pod, after it has said that it has no job and takes no more; False: not yet.

        ProbeError: it cannot be asked, and without an answer it stays.
        """
        if step.ask and not await self._is_drained(cluster, snapshot, step):
            return False
        ref = ObjectRef("v1", "Pod", cluster.namespace, step.pod)
        try:
            await self._client.delete(ref, uid=step.uid)
        except (NotFoundError, ConflictError):
            return False
        logger.info("stopped runner %s: %s", ref, step.reason)
        return True

    async def _is_drained(self, cluster: RunnerHubCluster, snapshot: Snapshot, step: StopRunner) -> bool:
        key = snapshot.children.secret_value(names.runner_token(cluster.name), CONTROL_KEY)
        if key is None or not step.ip:
            return step.force
        keys = known_keys(snapshot.children.secret_value, cluster.name)
        # Its file may not have followed yet.
        former = [control_key(of) for of in keys.accepted] if keys is not None else []
        try:
            state = await self._drain(step.ip, tuple(dict.fromkeys((key, *former))))
        except UnauthorizedProbeError:
            # It lives, whoever it is.
            raise
        except ProbeError as error:
            if not step.force:
                raise
            logger.info("%s: %s", step.pod, error)
            return True
        return state == "drained"

    async def _drain(self, ip: str, keys: Sequence[str]) -> str:
        for key in keys[:-1]:
            with contextlib.suppress(UnauthorizedProbeError):
                return await runners.drain(self._http, ip, key, deadline_seconds=DRAIN_DEADLINE_SECONDS)
        return await runners.drain(self._http, ip, keys[-1], deadline_seconds=DRAIN_DEADLINE_SECONDS)

    async def mark(self, cluster: RunnerHubCluster, mark: MarkRunner) -> None:
        """Protect a runner that has a job from evictions, or one that has none no longer."""
        labels = {names.LABEL_BUSY: "true" if mark.busy else None}
        annotations = {names.ANNOTATION_SAFE_TO_EVICT: "false" if mark.busy else "true"}
        patch = {"metadata": {"uid": mark.uid, "labels": labels, "annotations": annotations}}
        with contextlib.suppress(NotFoundError, ConflictError):
            await self._client.merge_patch(ObjectRef("v1", "Pod", cluster.namespace, mark.pod), patch)
