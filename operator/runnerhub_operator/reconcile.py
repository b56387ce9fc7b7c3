"""One visit of one cluster: observe, plan, act."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any, Final, Protocol

import aiohttp

from . import metrics, names
from .act import Actor
from .actions import Disruption, MarkRunner, ReinitializePostgres, RenewDeployment, Rollout, StopRunner
from .api import (
    ConditionReason,
    ConditionType,
    EventReason,
    RunnerHubCluster,
    RunnerHubClusterStatus,
    parse_cluster,
    parse_status,
)
from .errors import (
    ConflictError,
    ForeignObjectError,
    InvalidSpecError,
    KubeError,
    NotFoundError,
    ProbeError,
    RefusedError,
    SwitchoverPostponedError,
    UnavailableError,
)
from .gateways import Gateways
from .kube.client import KubeClient, ObjectRef
from .kube.compare import differences
from .kube.events import EventNote, Involved
from .observe import observe
from .plan import (
    ClusterMemory,
    LastStep,
    Plan,
    make_plan,
    refusal_of,
    refusal_text,
    rejected_status,
)
from .resources.common import Images, Manifest
from .resources.patroni import leader_key_name
from .snapshot import LeaderKey, Observed, Snapshot

logger = logging.getLogger(__name__)

Key = tuple[str, str]
_CONDITIONS = tuple(kind.value for kind in ConditionType)
# A rejected resource waits for an edit; the slow look catches what no event tells (a name that became free).
REJECTED_REQUEUE_SECONDS: Final = 30.0
# With runners to start and stop: one that is asked whether it may go draws nothing new for twenty seconds.
REJECTED_CREW_SECONDS: Final = 10.0
# An internal error (a webhook that does not answer, no address left for a Service) that lasts longer is told.
FAILING_SECONDS: Final = 10.0
# While something moves, look again soon: elections are timed by what is seen.
BUSY_SECONDS: Final = 1.0
# With many clusters the probes are spread: this many steady ones, and busy ones, are visited per second at most.
STEADY_VISITS_PER_SECOND: Final = 25
BUSY_VISITS_PER_SECOND: Final = 100
# How late the watch may tell of the own write before it is made again.
ECHO_SECONDS: Final = 5.0
# Of what is only told.
LEADER_KEY_DEADLINE_SECONDS: Final = 2.0


class Clusters(Protocol):
    """The RunnerHubClusters, from the watch."""

    def cluster(self, key: Key) -> Mapping[str, Any] | None:
        """A RunnerHubCluster, None when it is gone."""

    def count(self) -> int:
        """Number of RunnerHubClusters."""


class Objects(Protocol):
    """Their children, from the watches."""

    def observed(self, key: Key) -> Observed:
        """The objects of a cluster."""


@dataclass(frozen=True, slots=True)
class _Written:
    """The status as last written: the watch may still tell the one before.

    `based_on` is the version of the cluster that was read then, `version` the one that the write made.
    """

    uid: str
    status: RunnerHubClusterStatus
    based_on: str
    version: str


@dataclass(frozen=True, slots=True)
class _Echo:
    """What the watch has still to tell of an own write.

    `wanted`: hash of what was applied; `over`: the version that the object had, "" for none; `at`: the monotonic clock.
    """

    wanted: str
    over: str
    at: float


class Reconciler:
    """Visits clusters; keeps between two visits only what the planner asks to remember."""

    def __init__(
        self,
        clusters: Clusters,
        objects: Objects,
        client: KubeClient,
        http: aiohttp.ClientSession,
        *,
        images: Images,
        reporter: str,
        steady_seconds: float,
        want_http_routes: Callable[[], None],
    ) -> None:
        self._clusters = clusters
        self._objects = objects
        self._http = http
        self._images = images
        self._steady_seconds = steady_seconds
        self._want_http_routes = want_http_routes
        self._actor = Actor(client, http, reporter)
        self._client = client
        self._gateways = Gateways(client)
        # By uid too: a new cluster of the same name is another one.
        self._memories: dict[Key, tuple[str, ClusterMemory]] = {}
        self._written: dict[Key, _Written] = {}
        self._echoes: dict[Key, dict[tuple[str, str], _Echo]] = {}
        # What stays as it is although it was written otherwise, until the next visit takes it for a match.
        self._overruled: dict[Key, dict[tuple[str, str], tuple[str, int]]] = {}
        self._visited: set[Key] = set()
        # Since when writes fail, by the monotonic clock.
        self._failing: dict[Key, float] = {}
        metrics.CLUSTERS.labels("known").set_function(clusters.count)
        metrics.CLUSTERS.labels("visited").set_function(lambda: len(self._visited))

    async def visit(self, key: Key) -> float | None:
        """Visit one cluster; gives the time in seconds until the next visit, None when it is gone."""
        body = self._clusters.cluster(key)
        if body is None or "deletionTimestamp" in body["metadata"]:
            self._forget(key)
            return None
        started = time.monotonic()
        try:
            requeue = await self._visit(key, body)
        except NotFoundError as error:
            # The cluster itself is gone: the watch has not told yet, or, after an interruption, never will.
            logger.info("%s", error, extra={"cluster": f"{key[0]}/{key[1]}"})
            self._forget(key)
            return REJECTED_REQUEUE_SECONDS
        self._visited.add(key)
        metrics.RECONCILE_SECONDS.observe(time.monotonic() - started)
        return requeue

    async def _visit(self, key: Key, body: Mapping[str, Any]) -> float:
        try:
            cluster = parse_cluster(body)
        except InvalidSpecError as error:
            return await self._reject(key, body, str(error))
        written = self._written.get(key)
        if written is not None and written.uid == cluster.uid:
            cluster = replace(cluster, status=written.status)
        objects = self._objects.observed(key)
        ingress = cluster.spec.ingress
        if ingress is not None and ingress.gateway is not None and not objects.http_routes:
            self._want_http_routes()
        with metrics.PHASE_SECONDS.labels("observe").time():
            gateways, snapshot = await asyncio.gather(
                self._gateways.of(cluster, objects.children), observe(cluster, objects, self._http)
            )
            snapshot = replace(snapshot, gateways=gateways)
        metrics.set_fullness(*key, snapshot)
        uid, memory = self._memories.get(key, (cluster.uid, None))
        if memory is None:
            snapshot = replace(snapshot, leader_key=await self._leader_key(cluster, snapshot))
        else:
            overruled = self._overruled.pop(key, {})
            memory = replace(memory, matches={**memory.matches, **overruled}) if overruled else memory
        with metrics.PHASE_SECONDS.labels("plan").time():
            plan = make_plan(cluster, snapshot, self._images, memory if uid == cluster.uid else None)
        with metrics.PHASE_SECONDS.labels("act").time():
            return await self._act(key, body, cluster, snapshot, plan)

    async def _leader_key(self, cluster: RunnerHubCluster, snapshot: Snapshot) -> LeaderKey | None:
        """When Patroni last heard from a primary that was silent before this operator's first look, if that is told."""
        patroni = snapshot.patroni
        if cluster.status.postgres.primary is None or (patroni is not None and patroni.by_leader):
            return None
        ref = ObjectRef("v1", "ConfigMap", cluster.namespace, leader_key_name(cluster.name))
        try:
            async with asyncio.timeout(LEADER_KEY_DEADLINE_SECONDS):
                return LeaderKey.of(await self._client.get(ref))
        except (KubeError, TimeoutError) as error:
            logger.debug("%s: %s", ref, error)
            return None

    async def _act(
        self, key: Key, body: Mapping[str, Any], cluster: RunnerHubCluster, snapshot: Snapshot, plan: Plan
    ) -> float:
        # The objects come first, because whoever edits waits for them; people are told whatever becomes of that.
        current, rejection, marked = True, None, False
        try:
            current = not plan.writes or await self._actor.resource.is_current(cluster)
            if current:
                await self._write_secrets(cluster, plan)
                marked = True
                await self._write_objects(cluster, snapshot, plan)
        except (ForeignObjectError, RefusedError, UnavailableError) as error:
            rejection = self._rejection(key, error)
        finally:
            told = await self._write_status(key, body, plan.status)
        if not told:
            return self._pace(settled=False)
        if not marked:
            uid, before = self._memories.get(key, (cluster.uid, None))
            plan = replace(plan, memory=plan.memory.unmarked(before if uid == cluster.uid else None))
        self._remember(cluster, plan.memory)
        await self._tell(cluster, plan)
        if not current:
            return self._pace(settled=False)
        if plan.growth:
            plan = await self._grow(cluster, plan)
        if rejection is None and plan.memory.rejection is None:
            try:
                plan = await self._disrupt(cluster, snapshot, plan)
            except (ForeignObjectError, RefusedError, UnavailableError) as error:
                rejection = self._rejection(key, error)
        if rejection is None:
            self._failing.pop(key, None)
        # Last: a webhook for pods that fails, or a runner that hangs, holds no rolling change up.
        if plan.runners:
            plan = await self._crew(cluster, snapshot, plan)
        if rejection is None and plan.memory.rejection is None:
            return self._pace(settled=plan.settled)
        self._remember(cluster, replace(plan.memory, rejection=rejection))
        # The next visit tells it; when it has been told already, there is time.
        if plan.memory.rejection != rejection:
            return 0.0
        return REJECTED_CREW_SECONDS if cluster.spec.runner_pools else REJECTED_REQUEUE_SECONDS

    def _pace(self, *, settled: bool) -> float:
        """Time until the next visit in seconds, spread so that visits do not come in waves."""
        clusters = self._clusters.count()
        busy = max(BUSY_SECONDS, clusters / BUSY_VISITS_PER_SECOND)
        steady = max(self._steady_seconds, clusters / STEADY_VISITS_PER_SECOND)
        return (steady if settled else min(busy, steady)) * random.uniform(0.9, 1.0)  # noqa: S311 -- spreads load

    async def _write_secrets(self, cluster: RunnerHubCluster, plan: Plan) -> None:
        """Passwords, and the marks of the pods that are to see them at once."""
        for secret in plan.secrets:
            await self._actor.credentials.ensure(cluster, secret)
        for asked in plan.passwords:
            await self._actor.credentials.generate(cluster, asked)
        for mark in plan.marks:
            await self._actor.objects.mark_pods(cluster, mark)

    async def _write_objects(self, cluster: RunnerHubCluster, snapshot: Snapshot, plan: Plan) -> None:
        if cluster.key in self._echoes:
            waiting = self._echoes.pop(cluster.key)
            kept = {at: echo for at, echo in waiting.items() if _version(snapshot, at) == echo.over}
            if kept:
                self._echoes[cluster.key] = kept
        for manifest in plan.objects:
            await self._apply(cluster, snapshot, manifest)
        for surplus in plan.prune:
            await self._actor.objects.prune(surplus)
        # Last: what keeps the layout of the pods in the meantime has been written by now.
        for action in plan.orphan:
            await self._actor.objects.orphan(cluster, snapshot, action)

    async def _apply(self, cluster: RunnerHubCluster, snapshot: Snapshot, manifest: Manifest) -> None:
        """Write an object, unless it was just written and the watch has not told of that yet."""
        at = manifest["kind"], manifest["metadata"]["name"]
        wanted: str = manifest["metadata"].get("annotations", {}).get(names.ANNOTATION_APPLIED, "")
        echoes = self._echoes.setdefault(cluster.key, {})
        last, now = echoes.get(at), time.monotonic()
        if wanted and last is not None and last.wanted == wanted and now - last.at < ECHO_SECONDS:
            return
        written = await self._actor.objects.apply(cluster, manifest, snapshot.child(*at))
        echoes[at] = _Echo(wanted, _version(snapshot, at), now)
        live = snapshot.children.live(*at)
        if written is None or live is None or written["metadata"]["resourceVersion"] != live.resource_version:
            return
        # A webhook has its way: to write the same again and again would hold up everything that comes after.
        paths = ", ".join(differences(manifest, written))
        logger.warning("%s %s stays other than written, an admission webhook may be why: %s", *at, paths)
        self._overruled.setdefault(cluster.key, {})[at] = (wanted, live.spec_digest)

    async def _grow(self, cluster: RunnerHubCluster, plan: Plan) -> Plan:
        """Ask for larger volumes; a refusal is remembered for the next visit to tell, and holds nothing else up."""
        refusals = dict(plan.memory.refusals)
        for step in plan.growth:
            now = datetime.now(UTC)
            note = EventNote("Normal", "VolumeGrows", f"asked for {step.size} for the volume of {step.pod}")
            try:
                news = await self._actor.objects.grow_volume(cluster, step)
            except RefusedError as error:
                before = refusals.get(step.claim)
                refusals[step.claim] = refusal_of(step, str(error), now)
                text = refusal_text(step.pod, refusals[step.claim])
                note = EventNote("Warning", ConditionReason.VOLUME_GROWTH_REFUSED, text)
                news = before is None or refusal_text(step.pod, before) != text
            if news:
                await self._actor.resource.emit(cluster, note, now)
        grown = replace(plan, memory=replace(plan.memory, refusals=refusals))
        self._remember(cluster, grown.memory)
        return grown

    async def _crew(self, cluster: RunnerHubCluster, snapshot: Snapshot, plan: Plan) -> Plan:
        """Mark, stop and start runners. What is refused for one pool is remembered, told, and stops no other pool."""
        steps, memory = plan.runners, plan.memory.runners
        refused = dict(memory.refused)
        started, stopped = Counter[str](), Counter[tuple[str, str]]()
        await asyncio.gather(*(self._mark_runner(cluster, mark) for mark in steps.mark))
        gone = await asyncio.gather(*(self._stop_runner(cluster, snapshot, step) for step in steps.stop))
        now = datetime.now(UTC)
        silent: list[str] = []
        for step, done in zip(steps.stop, gone, strict=True):
            if step.ask:
                silent += [step.pod] if done is None and step.uid not in memory.silent else []
                memory = memory.asked(step.uid, now, answered=done is not None)
            if done:
                stopped[step.pool, step.reason] += 1
        for pool, manifest in steps.create:
            if pool in refused:
                continue
            try:
                started[pool] += await self._actor.runners.create(cluster, manifest)
            except (ForeignObjectError, RefusedError) as error:
                logger.warning("%s", error, extra={"cluster": f"{cluster.namespace}/{cluster.name}"})
                refused[pool] = (str(error), datetime.now(UTC))
        plan = replace(plan, memory=replace(plan.memory, runners=replace(memory, refused=refused)))
        self._remember(cluster, plan.memory)
        if silent:
            # One for all: where a policy closes the port, no runner answers.
            which = silent[0] + (f" and {len(silent) - 1} others" if silent[1:] else "")
            text = f"{which} cannot be asked whether there is a job, so it stays; asked again every minute"
            await self._actor.resource.emit(cluster, EventNote("Warning", "RunnerSilent", text), now)
        for pool, count in started.items():
            if count:
                metrics.RUNNERS_STARTED.labels(*cluster.key, pool).inc(count)
                note = EventNote("Normal", "RunnersStarted", f"pool {pool}: {count} started")
                await self._actor.resource.emit(cluster, note, now)
        for (pool, reason), count in stopped.items():
            metrics.RUNNERS_STOPPED.labels(*cluster.key, pool).inc(count)
            note = EventNote("Normal", "RunnersStopped", f"pool {pool}: {count} stopped, {reason}")
            await self._actor.resource.emit(cluster, note, now)
        return plan

    async def _mark_runner(self, cluster: RunnerHubCluster, mark: MarkRunner) -> None:
        try:
            await self._actor.runners.mark(cluster, mark)
        except RefusedError as error:
            logger.warning("%s", error, extra={"cluster": f"{cluster.namespace}/{cluster.name}"})

    async def _stop_runner(
        self, cluster: RunnerHubCluster, snapshot: Snapshot, step: StopRunner
    ) -> bool | None:
        """Whether it was stopped; None: it could not be asked."""
        told = {"cluster": f"{cluster.namespace}/{cluster.name}"}
        try:
            return await self._actor.runners.stop(cluster, snapshot, step)
        except RefusedError as error:
            logger.warning("%s", error, extra=told)
            return False
        except ProbeError as error:
            logger.info("%s stays: %s", step.pod, error, extra=told)
            return None

    async def _disrupt(self, cluster: RunnerHubCluster, snapshot: Snapshot, plan: Plan) -> Plan:
        """Patroni's configuration, then one step of a rolling change under the disruption Lease."""
        try:
            if plan.patroni_patch is not None:
                await self._actor.postgres.patch_config(cluster, snapshot, plan.patroni_patch)
            if plan.disruption_lease is not None:
                name = plan.disruption_lease["metadata"]["name"]
                live = snapshot.children.live("Lease", name)
                await self._actor.objects.take_lease(cluster, plan.disruption_lease, live)
            if plan.rollout is not None and plan.rollout.step is not None:
                memory = await self._step(cluster, snapshot, plan.rollout, plan.rollout.step, plan.memory)
                self._remember(cluster, memory)
                return replace(plan, memory=memory)
        except ProbeError as error:
            note = EventNote("Warning", "ChangeDelayed", str(error))
            await self._actor.resource.emit(cluster, note, snapshot.now)
        return plan

    async def _step(
        self,
        cluster: RunnerHubCluster,
        snapshot: Snapshot,
        rollout: Rollout,
        step: Disruption,
        memory: ClusterMemory,
    ) -> ClusterMemory:
        """One step, and what to remember of it; one that did not take place is remembered too."""
        if isinstance(step, ReinitializePostgres):
            return await self._reinitialize(cluster, snapshot, step, memory)
        try:
            await self._actor.postgres.check_members(snapshot, rollout.rests_on)
            logger.info("disruption: %s", step)
            if isinstance(step, RenewDeployment):
                await self._apply(cluster, snapshot, dict(step.manifest))
                return replace(memory, last_step=LastStep.done(step, datetime.now(UTC), None))
            uid = await self._actor.disruptions.carry_out(cluster, snapshot, step)
        except ProbeError as error:
            logger.info("%s", error, extra={"cluster": f"{cluster.namespace}/{cluster.name}"})
            postponed = isinstance(error, SwitchoverPostponedError)
            reason: EventReason = "SwitchoverPostponed" if postponed else "ChangeDelayed"
            await self._actor.resource.emit(cluster, EventNote("Warning", reason, str(error)), snapshot.now)
            now, last = datetime.now(UTC), memory.last_step
            put_off = last.postponed(now) if postponed else last.refused(now, str(error))
            return replace(memory, last_step=put_off)
        return replace(memory, last_step=LastStep.done(step, datetime.now(UTC), uid))

    async def _reinitialize(
        self,
        cluster: RunnerHubCluster,
        snapshot: Snapshot,
        step: ReinitializePostgres,
        memory: ClusterMemory,
    ) -> ClusterMemory:
        """Have a member made anew; a refusal is no failure, because Patroni may be at work on it."""
        logger.info("disruption: %s", step)
        try:
            await self._actor.disruptions.carry_out(cluster, snapshot, step)
        except ProbeError as error:
            logger.info("%s", error, extra={"cluster": f"{cluster.namespace}/{cluster.name}"})
            refused = memory.repair.refused(step.member, str(error), datetime.now(UTC))
            return replace(memory, repair=refused)
        now = datetime.now(UTC)
        metrics.REINITIALIZATIONS.labels(*cluster.key, step.member).inc()
        message = f"{step.member} throws its data away and copies the primary's: {step.reason}"
        await self._actor.resource.emit(cluster, EventNote("Warning", "MemberReinitialized", message), now)
        return replace(memory, last_step=LastStep(at=now), repair=memory.repair.tried(step.member, now))

    def _remember(self, cluster: RunnerHubCluster, memory: ClusterMemory) -> None:
        self._memories[cluster.key] = (cluster.uid, memory)

    async def _tell(self, cluster: RunnerHubCluster, plan: Plan) -> None:
        """Log lines, metrics and Events of what happened."""
        key = cluster.key
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
            await self._actor.resource.emit(cluster, note, now)

    async def _write_status(self, key: Key, body: Mapping[str, Any], status: RunnerHubClusterStatus) -> bool:
        """Write the status when it differs; False: somebody changed the cluster meanwhile, look again."""
        for condition in status.conditions:
            metrics.set_condition(*key, condition.type, condition.status)
        metrics.set_runners(*key, status.runners)
        metadata = body["metadata"]
        read: str = metadata["resourceVersion"]
        written = self._written.get(key)
        wanted = _dump(status)
        if (
            written is not None
            and written.uid == metadata["uid"]
            and read in (written.based_on, written.version)
        ):
            # The watch has told nothing newer than what was written here.
            if status == written.status:
                return True
            version, previous = written.version, _dump(written.status)
        else:
            version, previous = read, body.get("status") or {}
            if previous == wanted:
                self._written[key] = _Written(metadata["uid"], status, read, read)
                return True
        try:
            version = await self._actor.resource.write_status(key, version, previous, wanted)
        except ConflictError:
            return False
        self._written[key] = _Written(metadata["uid"], status, read, version)
        return True

    async def _reject(self, key: Key, body: Mapping[str, Any], message: str) -> float:
        # Nothing is observed any more.
        metrics.forget_fullness(*key)
        metadata = body["metadata"]
        written = self._written.get(key)
        known = written is not None and written.uid == metadata["uid"]
        before = written.status if known and written is not None else parse_status(body)
        generation = int(metadata.get("generation", 0))
        status = rejected_status(before, ConditionReason.INVALID_SPEC, message, generation, datetime.now(UTC))
        if not await self._write_status(key, body, status):
            return BUSY_SECONDS
        if not any(
            item.type == ConditionType.ACCEPTED and item.message == message for item in before.conditions
        ):
            logger.warning("%s", message, extra={"cluster": f"{key[0]}/{key[1]}", "generation": generation})
            note = EventNote("Warning", ConditionReason.INVALID_SPEC, message)
            await self._actor.resource.emit(Involved(*key, metadata["uid"]), note, datetime.now(UTC))
        return REJECTED_REQUEUE_SECONDS

    def _rejection(
        self, key: Key, error: ForeignObjectError | RefusedError | UnavailableError
    ) -> tuple[ConditionReason, str]:
        """What an object that cannot be written becomes in the status; raises what may pass by itself."""
        reason = ConditionReason.REFUSED_BY_API_SERVER
        if isinstance(error, UnavailableError):
            lasts = time.monotonic() - self._failing.setdefault(key, time.monotonic())
            if error.status != HTTPStatus.INTERNAL_SERVER_ERROR or lasts < FAILING_SECONDS:
                raise error
        else:
            reason = ConditionReason(error.reason)
        logger.warning("%s", error, extra={"cluster": f"{key[0]}/{key[1]}", "reason": error.reason})
        metrics.RECONCILE_ERRORS.labels(error.reason).inc()
        return reason, str(error)

    def _forget(self, key: Key) -> None:
        self._memories.pop(key, None)
        self._written.pop(key, None)
        self._echoes.pop(key, None)
        self._overruled.pop(key, None)
        self._visited.discard(key)
        self._failing.pop(key, None)
        self._gateways.forget(key)
        metrics.forget_cluster(*key, _CONDITIONS)


def _version(snapshot: Snapshot, at: tuple[str, str]) -> str:
    """The version of an object in the cache, "" when it is not there."""
    live = snapshot.children.live(*at)
    return live.resource_version if live is not None else ""


def _dump(status: RunnerHubClusterStatus) -> dict[str, Any]:
    return status.model_dump(mode="json", by_alias=True, exclude_none=True)
