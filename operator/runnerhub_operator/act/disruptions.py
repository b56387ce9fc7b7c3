"""The steps of a rolling change or repair, each of which stops something."""

from __future__ import annotations

import contextlib
import logging

from .. import actions, names
from ..api import RunnerHubCluster
from ..errors import ConflictError, NotFoundError
from ..kube.client import KubeClient, ObjectRef
from ..probes.pgbouncer import LONGEST_HELD_BACK_SECONDS
from ..snapshot import Snapshot
from .poolers import Poolers
from .postgres import Postgres

logger = logging.getLogger(__name__)


class Disruptions:
    """Pods and members of the database that stop or make way, one step at a time."""

    def __init__(self, client: KubeClient, postgres: Postgres, poolers: Poolers) -> None:
        self._client = client
        self._postgres = postgres
        self._poolers = poolers

    async def carry_out(
        self, cluster: RunnerHubCluster, snapshot: Snapshot, step: actions.Disruption
    ) -> str | None:
        """Carry out one disruptive step; gives the uid of a deleted pod."""
        match step:
            case actions.RestartPod():
                return await self._delete_pod(cluster, snapshot, step)
            case actions.SwitchPostgres():
                await self._postgres.switch_over(cluster, snapshot, step)
            case actions.RestartPostgres():
                await self._postgres.restart(cluster, snapshot, step)
            case actions.ShrinkPostgres(_, instances):
                await self._resize(cluster, snapshot, names.POSTGRES, instances)
            case actions.GrowRedis(_, replicas) | actions.ShrinkRedis(_, replicas):
                await self._resize(cluster, snapshot, names.REDIS, replicas)
            case actions.ReinitializePostgres(member, _):
                await self._postgres.reinitialize(cluster, snapshot, member)
        return None

    async def _delete_pod(
        self, cluster: RunnerHubCluster, snapshot: Snapshot, step: actions.RestartPod
    ) -> str | None:
        """Delete a pod; its uid, None when it is gone. SwitchoverPostponedError: clients could not be held back."""
        ref = ObjectRef("v1", "Pod", cluster.namespace, step.pod)
        # Nobody takes over: the agents open when the pod is back.
        held = (
            self._poolers.held_back(cluster, snapshot, step.pod, "restart", seconds=LONGEST_HELD_BACK_SECONDS)
            if step.pause
            else contextlib.nullcontext(())
        )
        async with held as poolers:
            try:
                await self._client.delete(ref, uid=step.uid)
            except (NotFoundError, ConflictError):
                if poolers:
                    await self._poolers.let_go(cluster, snapshot, poolers)
                return None
        return step.uid

    async def _resize(
        self, cluster: RunnerHubCluster, snapshot: Snapshot, component: str, replicas: int
    ) -> None:
        """Tell a StatefulSet how many pods there are to be."""
        name = names.child(cluster.name, component)
        live = snapshot.children.live("StatefulSet", name)
        if live is None:
            return
        patch = {"metadata": {"uid": live.uid}, "spec": {"replicas": replicas}}
        with contextlib.suppress(NotFoundError, ConflictError):
            await self._client.merge_patch(
                ObjectRef("apps/v1", "StatefulSet", cluster.namespace, name), patch
            )
