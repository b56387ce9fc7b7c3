"""One visit of one cluster: observe, plan, act."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Protocol

import aiohttp

from . import metrics, names
from .act import Actor
from .api import ConditionType, RunnerHubCluster, RunnerHubClusterStatus, parse_cluster, parse_status
from .errors import ForeignObjectError, InvalidSpecError, NotFoundError, ProbeError, RefusedError
from .kube.client import KubeClient, ObjectRef
from .kube.events import EventNote
from .observe import observe
from .plan import ClusterMemory, LastStep, Plan, make_plan, rejected_status
from .resources.common import Images
from .snapshot import Snapshot

logger = logging.getLogger(__name__)

Key = tuple[str, str]
_CONDITIONS = tuple(kind.value for kind in ConditionType)
# A rejected resource waits for an edit; the slow look catches what no event tells (a name that became free).
REJECTED_REQUEUE_SECONDS = 30.0


class Cache(Protocol):
    """What the watches know."""

    def cluster(self, key: Key) -> Mapping[str, Any] | None:
        """The RunnerHubCluster, None when it is gone."""

    def children(self, key: Key) -> list[Mapping[str, Any]]:
        """Our objects of a cluster."""


class Reconciler:
    """Visits clusters; keeps between two visits only what the planner asks to remember."""

    def __init__(
        self,
        cache: Cache,
        client: KubeClient,
        http: aiohttp.ClientSession,
        *,
        images: Images,
        reporter: str,
        steady_seconds: float,
    ) -> None:
        self._cache = cache
        self._http = http
        self._images = images
        self._steady_seconds = steady_seconds
        self._actor = Actor(client, http, reporter)
        # By uid too: a new cluster of the same name is another one.
        self._memories: dict[Key, tuple[str, ClusterMemory]] = {}
        # The status as last written: the cache may still hold the one before.
        self._written: dict[Key, tuple[str, RunnerHubClusterStatus]] = {}

    async def visit(self, key: Key) -> float | None:
        """Visit one cluster; gives the time in seconds until the next visit, None when it is gone."""
        body = self._cache.cluster(key)
        if body is None or "deletionTimestamp" in body["metadata"]:
            self._forget(key)
            return None
        started = time.monotonic()
        try:
            cluster = self._parse(key, body)
        except InvalidSpecError as error:
            try:
                await self._reject(key, body, error.reason, str(error))
            except NotFoundError:
                self._forget(key)
                return None
            return REJECTED_REQUEUE_SECONDS
        requeue = await self._reconcile(key, body, cluster)
        metrics.RECONCILE_SECONDS.observe(time.monotonic() - started)
        return requeue

    def _parse(self, key: Key, body: Mapping[str, Any]) -> RunnerHubCluster:
        cluster = parse_cluster(body)
        uid, status = self._written.get(key, ("", cluster.status))
        return replace(cluster, status=status) if uid == cluster.uid else cluster

    async def _reconcile(self, key: Key, body: Mapping[str, Any], cluster: RunnerHubCluster) -> float | None:
        snapshot = await observe(cluster, self._cache.children(key), self._http)
        uid, memory = self._memories.get(key, (cluster.uid, None))
        known = memory if uid == cluster.uid else None
        plan = make_plan(cluster, snapshot, self._images, known, self._steady_seconds)
        try:
            # First what people and the next visit need to know, then the work, which may fail half-way.
            await self._publish(key, body, cluster, plan)
        except NotFoundError:
            self._forget(key)
            return None
        try:
            await self._write_objects(cluster, snapshot, plan)
        except (ForeignObjectError, RefusedError) as error:
            logger.warning("%s", error, extra={"cluster": f"{key[0]}/{key[1]}", "reason": error.reason})
            metrics.RECONCILE_ERRORS.labels(error.reason).inc()
            rejection = (error.reason, str(error))
            self._remember(cluster, replace(plan.memory, rejection=rejection))
            # The next visit tells it; when it has been told already, there is time.
            return 0.0 if plan.memory.rejection != rejection else REJECTED_REQUEUE_SECONDS
        if plan.memory.rejection is not None:
            self._remember(cluster, replace(plan.memory, rejection=None))
            return 0.0
        await self._disrupt(cluster, snapshot, plan)
        return plan.requeue_seconds

    async def _write_objects(self, cluster: RunnerHubCluster, snapshot: Snapshot, plan: Plan) -> None:
        for secret in plan.secrets:
            await self._actor.ensure_secret(cluster, secret)
        for manifest in plan.objects:
            live = snapshot.child(manifest["kind"], manifest["metadata"]["name"])
            await self._actor.apply(cluster, manifest, live)
        for surplus in plan.prune:
            await self._actor.prune(surplus)

    async def _disrupt(self, cluster: RunnerHubCluster, snapshot: Snapshot, plan: Plan) -> None:
        """Patroni's configuration, then one step of a rolling change under the disruption Lease."""
        try:
            if plan.patroni_patch is not None:
                await self._actor.patch_patroni(cluster, snapshot, plan.patroni_patch)
            if plan.disruption_lease is not None:
                name = plan.disruption_lease["metadata"]["name"]
                await self._actor.apply(cluster, plan.disruption_lease, snapshot.child("Lease", name))
            if plan.rollout is not None and plan.rollout.step is not None:
                uid = await self._actor.disrupt(cluster, snapshot, plan.rollout.step)
                step = LastStep(at=datetime.now(UTC), deleted_uid=uid)
                self._remember(cluster, replace(plan.memory, last_step=step))
        except ProbeError as error:
            note = EventNote("Warning", "ChangeDelayed", str(error))
            await self._actor.emit(cluster, note, snapshot.now)

    def _remember(self, cluster: RunnerHubCluster, memory: ClusterMemory) -> None:
        self._memories[cluster.key] = (cluster.uid, memory)

    async def _publish(
        self, key: Key, body: Mapping[str, Any], cluster: RunnerHubCluster, plan: Plan
    ) -> None:
        await self._write_status(key, body, cluster.uid, cluster.status, plan.status)
        # From here on a repetition of the visit must not see the same elections again.
        self._remember(cluster, plan.memory)
        for failover in plan.failovers:
            metrics.FAILOVERS.labels(*key, failover.component).inc()
            logger.info(
                "%s role of %s/%s moved from %s to %s in %s s: %s",
                failover.component,
                *key,
                failover.from_,
                failover.to,
                failover.duration_seconds,
                failover.cause,
                extra={"cluster": f"{key[0]}/{key[1]}", "generation": cluster.generation},
            )
        now = datetime.now(UTC)
        for note in plan.events:
            await self._actor.emit(cluster, note, now)

    async def _write_status(
        self,
        key: Key,
        body: Mapping[str, Any],
        uid: str,
        before: RunnerHubClusterStatus,
        status: RunnerHubClusterStatus,
    ) -> None:
        for condition in status.conditions:
            metrics.set_condition(*key, condition.type, condition.status)
        if key in self._written and before == status:
            return
        previous = (
            before.model_dump(mode="json", by_alias=True, exclude_none=True)
            if key in self._written
            else body.get("status", {})
        )
        ref = ObjectRef(f"{names.API_GROUP}/{names.API_VERSION}", names.KIND, *key)
        await self._actor.write_status(ref, previous, status)
        self._written[key] = (uid, status)

    async def _reject(self, key: Key, body: Mapping[str, Any], reason: str, message: str) -> None:
        metadata = body["metadata"]
        uid, before = self._written.get(key, (metadata["uid"], parse_status(body)))
        if uid != metadata["uid"]:
            before = parse_status(body)
        status = rejected_status(
            before, reason, message, int(metadata.get("generation", 0)), datetime.now(UTC)
        )
        await self._write_status(key, body, metadata["uid"], before, status)

    def _forget(self, key: Key) -> None:
        self._memories.pop(key, None)
        self._written.pop(key, None)
        metrics.forget_cluster(*key, _CONDITIONS)
