"""Acting: the only place of the operator that changes anything."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import logging
import secrets
import string
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from datetime import datetime
from typing import Any

import aiohttp

from . import actions, names
from .api import RunnerHubCluster
from .errors import (
    ConflictError,
    ForeignObjectError,
    KubeError,
    NotFoundError,
    ProbeError,
    RefusedError,
    SwitchoverPostponedError,
    UnauthorizedProbeError,
)
from .kube.client import KubeClient, ObjectRef
from .kube.compare import needs_apply
from .kube.events import EventNote, Involved, event_manifest
from .probes import patroni, pgbouncer, runners
from .probes.http import Login
from .resources.common import Manifest
from .resources.credentials import CredentialSecret
from .resources.patroni import MAX_REPLICA_LAG_BYTES, POOLER_ADMIN_USER, REST_USER
from .resources.runners import CONTROL_KEY
from .resources.token_keys import known_keys
from .snapshot import LiveObject, Snapshot
from .tokens import control_key

logger = logging.getLogger(__name__)

_ALPHABET = string.ascii_letters + string.digits
PASSWORD_LENGTH = 32
ACTION_DEADLINE_SECONDS = 20.0
# Patroni only begins, and answers when it has read its store.
REINITIALIZE_DEADLINE_SECONDS = 5.0
# A member that works answers in milliseconds.
MEMBER_DEADLINE_SECONDS = 1.0
# HAProxy looks once a second whether a member that was away is back; clients that go on before that see errors.
ROUTED_SECONDS = 1.5
# Shorter by far than a runner heeds it.
DRAIN_DEADLINE_SECONDS = 2.0


class Actor:
    """Carries out the parts of a plan, each idempotent, so that a visit can be cut off anywhere.

    `reporter` names this operator in Events.
    """

    def __init__(self, client: KubeClient, http: aiohttp.ClientSession, reporter: str) -> None:
        self._client = client
        self._http = http
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

    async def ensure_secret(self, cluster: RunnerHubCluster, wanted: CredentialSecret) -> None:
        """Generate the missing keys of a Secret; keys that exist are never changed."""
        ref = ObjectRef.of(wanted.manifest)
        generated = _passwords(wanted.keys)
        try:
            await self._client.create({**wanted.manifest, "data": generated})
        except ConflictError:
            live = await self._client.get(ref)
            _check_label(cluster, ref, live)
            missing = {key: value for key, value in generated.items() if key not in live.get("data", {})}
            if not missing:
                return
            version = live["metadata"]["resourceVersion"]
            await self._client.merge_patch(ref, {"metadata": {"resourceVersion": version}, "data": missing})
        logger.info("generated credentials in %s", ref)

    async def generate_passwords(self, cluster: RunnerHubCluster, asked: actions.GeneratePasswords) -> None:
        """Make new passwords, once: the annotation that asked for them goes in the same write."""
        ref = ObjectRef("v1", "Secret", cluster.namespace, asked.secret)
        try:
            live = await self._client.get(ref)
            _check_label(cluster, ref, live)
            metadata = live["metadata"]
            if names.ANNOTATION_ROTATE not in metadata.get("annotations", {}):
                return
            gone = {names.ANNOTATION_ROTATE: None}
            patch = {"metadata": {"resourceVersion": metadata["resourceVersion"], "annotations": gone}}
            await self._client.merge_patch(ref, {**patch, "data": _passwords(asked.keys)})
        except (NotFoundError, ConflictError):
            return
        logger.info("made a new %s in %s", ", ".join(asked.keys) or "nothing", ref)

    async def mark_pods(self, cluster: RunnerHubCluster, mark: actions.MarkPods) -> None:
        """Annotate pods, those that are there."""
        patch = {"metadata": {"annotations": {names.ANNOTATION_MOUNTED: mark.version}}}
        for pod in mark.pods:
            with contextlib.suppress(NotFoundError, ConflictError):
                await self._client.merge_patch(ObjectRef("v1", "Pod", cluster.namespace, pod), patch)

    async def apply(
        self, cluster: RunnerHubCluster, manifest: Manifest, live: Mapping[str, Any] | None
    ) -> None:
        """Write one object that differs from the cached live one; what the cache does not have is looked up first.

        Raises ForeignObjectError when an object of that name belongs to somebody else.
        """
        ref = ObjectRef.of(manifest)
        cached = live is not None
        if live is None:
            try:
                live = await self._client.get(ref)
            except NotFoundError:
                live = None
        if live is not None:
            check = _check_owner if manifest["metadata"].get("ownerReferences") else _check_label
            check(cluster, ref, live)
            if live["kind"] == "PersistentVolume" and live.get("status", {}).get("phase") == "Released":
                await self._offer_again(ref, live)
        # Late watches, and kinds that are not watched at all, must not have the same written again and again.
        if cached or needs_apply(manifest, live):
            await self._write(ref, manifest, live)
            logger.info("%s %s", "created" if live is None else "changed", ref)

    async def _write(self, ref: ObjectRef, manifest: Manifest, live: Mapping[str, Any] | None) -> None:
        """Apply an object. A Service that cannot have its former address again gets another one."""
        try:
            await self._client.apply(manifest)
        except RefusedError as error:
            asked = manifest["spec"].get("clusterIP", "None") if ref.kind == "Service" else "None"
            if live is not None or asked == "None":
                raise
            logger.warning("%s cannot have the address %s: %s", ref, asked, error)
            spec = {name: value for name, value in manifest["spec"].items() if name != "clusterIP"}
            await self._client.apply({**manifest, "spec": spec})

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

    async def orphan(self, cluster: RunnerHubCluster, snapshot: Snapshot, action: actions.OrphanPods) -> None:
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

    async def grow_volume(self, cluster: RunnerHubCluster, step: actions.GrowVolume) -> bool:
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

    async def create_runner(self, cluster: RunnerHubCluster, manifest: Mapping[str, Any]) -> bool:
        """Create a runner's pod; False: its slot is taken, which the watch has not told yet.

        Raises RefusedError, and ForeignObjectError when the name is somebody else's.
        """
        ref = ObjectRef.of(manifest)
        try:
            await self._client.create(dict(manifest))
        except ConflictError:
            with contextlib.suppress(NotFoundError):
                _check_owner(cluster, ref, await self._client.get(ref))
            return False
        logger.info("started runner %s", ref)
        return True

    async def stop_runner(
        self, cluster: RunnerHubCluster, snapshot: Snapshot, step: actions.StopRunner
    ) -> bool:
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

    async def _is_drained(
        self, cluster: RunnerHubCluster, snapshot: Snapshot, step: actions.StopRunner
    ) -> bool:
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

    async def mark_runner(self, cluster: RunnerHubCluster, mark: actions.MarkRunner) -> None:
        """Protect a runner that has a job from evictions, or one that has none no longer."""
        labels = {names.LABEL_BUSY: "true" if mark.busy else None}
        annotations = {names.ANNOTATION_SAFE_TO_EVICT: "false" if mark.busy else "true"}
        patch = {"metadata": {"uid": mark.uid, "labels": labels, "annotations": annotations}}
        with contextlib.suppress(NotFoundError, ConflictError):
            await self._client.merge_patch(ObjectRef("v1", "Pod", cluster.namespace, mark.pod), patch)

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
                _check_owner(cluster, ref, await self._client.get(ref))
                raise
            return
        metadata = {**manifest["metadata"], "resourceVersion": live.resource_version}
        await self._client.apply({**manifest, "metadata": metadata})

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

    async def patch_patroni(
        self, cluster: RunnerHubCluster, snapshot: Snapshot, action: actions.PatchPatroniConfig
    ) -> None:
        """Change Patroni's dynamic configuration, by the primary or, without one, by any member. Raises ProbeError.

        max_connections is made smaller when the poolers have smaller pools, at a later visit if need be; until then the
        API server is not asked for anything.
        """
        patch = action.patch
        room = _smaller_room(patch, snapshot)
        if room and not await self._poolers_fit(snapshot, room, renews_poolers=action.renews_poolers):
            patch = _without_room(patch)
        if not patch or not await self.is_current(cluster):
            return
        login, leader = _patroni_login(cluster, snapshot), _leader(snapshot)
        pods = [pod for pod in snapshot.pods_of(names.POSTGRES) if pod.ip and leader in (pod.name, None)]
        error = ProbeError("Patroni has no member that could be asked")
        for pod in pods:
            try:
                await patroni.patch_config(self._http, pod.ip, patch, login=login, deadline_seconds=5.0)
                break
            except ProbeError as failed:
                error = failed
        else:
            raise error
        logger.info("changed Patroni's configuration: %s", ", ".join(sorted(patch)))

    async def _poolers_fit(self, snapshot: Snapshot, room: int, *, renews_poolers: bool) -> bool:
        """Whether so many connections are enough for all poolers, by the settings that they have in effect."""
        try:
            needed = await pgbouncer.needed_connections(self._http, _reachable_poolers(snapshot))
        except ProbeError as error:
            logger.info("max_connections stays larger for now: %s", error)
            return False
        # Those that do not know have the settings of their pods.
        return all(need <= room if need is not None else not renews_poolers for need in needed.values())

    async def disrupt(
        self, cluster: RunnerHubCluster, snapshot: Snapshot, step: actions.Disruption
    ) -> str | None:
        """Carry out one disruptive step; gives the uid of a deleted pod."""
        logger.info("disruption: %s", step)
        match step:
            case actions.RenewDeployment(manifest, _):
                live = snapshot.child("Deployment", manifest["metadata"]["name"])
                await self.apply(cluster, dict(manifest), live)
            case actions.RestartPod():
                return await self._delete_pod(cluster, snapshot, step)
            case actions.SwitchPostgres():
                await self._switch_postgres(cluster, snapshot, step)
            case actions.RestartPostgres():
                await self._restart_postgres(cluster, snapshot, step)
            case actions.ShrinkPostgres(_, instances):
                await self._resize(cluster, snapshot, names.POSTGRES, instances)
            case actions.GrowRedis(_, replicas) | actions.ShrinkRedis(_, replicas):
                await self._resize(cluster, snapshot, names.REDIS, replicas)
            case actions.ReinitializePostgres(member, _):
                await self._reinitialize(cluster, snapshot, member)
        return None

    async def check_members(self, snapshot: Snapshot, members: Sequence[str]) -> None:
        """Ask members of the database themselves whether they can be counted on. ProbeError: one cannot.

        What others know of one on a node that stands still are its last words, for most of a minute in Kubernetes too.
        """
        replicas = [name for name in members if name != _leader(snapshot)]
        # Without replicas to ask, a primary that is restarted itself need not answer.
        lags = await self._lags(snapshot, replicas) if members else {}
        if silent := [name for name in replicas if name not in lags]:
            raise ProbeError(f"{', '.join(silent)} does not answer as a replica that streams")

    async def _check_candidate(self, snapshot: Snapshot, step: actions.SwitchPostgres) -> None:
        """Whether somebody is near enough to the primary to take over at once. ProbeError: nobody is."""
        others = [pod.name for pod in snapshot.pods_of(names.POSTGRES) if pod.name != step.primary and pod.ip]
        candidates = [step.candidate] if step.candidate is not None else others
        lags = await self._lags(snapshot, candidates)
        if any(lag <= MAX_REPLICA_LAG_BYTES for lag in lags.values()):
            return
        who = step.candidate or "no replica"
        why = "streams and answers" if step.candidate is None else "does not answer as a replica that streams"
        if lags:
            mib = MAX_REPLICA_LAG_BYTES // 1024**2
            near = "is more than" if step.candidate is not None else "is less than"
            why = f"{near} {mib} MiB behind {step.primary}"
        raise ProbeError(f"the Postgres switchover is refused: {who} {why}")

    async def _lags(self, snapshot: Snapshot, members: Sequence[str]) -> Mapping[str, int]:
        hosts = {name: pod.ip for name in members if (pod := snapshot.pod(name)) is not None and pod.ip}
        return await patroni.read_lags(
            self._http, _primary_host(snapshot), hosts, deadline_seconds=MEMBER_DEADLINE_SECONDS
        )

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

    async def _delete_pod(
        self, cluster: RunnerHubCluster, snapshot: Snapshot, step: actions.RestartPod
    ) -> str | None:
        """Delete a pod; its uid, None when it is gone. SwitchoverPostponedError: clients could not be held back."""
        ref = ObjectRef("v1", "Pod", cluster.namespace, step.pod)
        # Nobody takes over: the agents open when the pod is back.
        held = self._held_back(cluster, snapshot, step.pod, "restart") if step.pause else nullcontext(())
        async with held as poolers:
            try:
                await self._client.delete(ref, uid=step.uid)
            except (NotFoundError, ConflictError):
                if poolers:
                    await self._let_go(cluster, snapshot, poolers)
                return None
        return step.uid

    async def _restart_postgres(
        self, cluster: RunnerHubCluster, snapshot: Snapshot, step: actions.RestartPostgres
    ) -> None:
        """Restart Postgres inside a member; clients of the primary wait meanwhile, within bounds.

        SwitchoverPostponedError: they could not be held back. ProbeError: Patroni refuses, or Postgres does not start.
        """
        pod = snapshot.pod(step.member)
        if pod is None:
            return
        held = self._held_back(cluster, snapshot, step.member, "restart") if step.pause else nullcontext(())
        if not step.pause:
            await self._leave(cluster, snapshot, step.member)
        async with held as poolers:
            await patroni.restart_member(
                self._http,
                pod.ip,
                login=_patroni_login(cluster, snapshot),
                deadline_seconds=ACTION_DEADLINE_SECONDS,
                only_pending=True,
            )
            if poolers:
                await asyncio.sleep(ROUTED_SECONDS)
                await self._let_go(cluster, snapshot, poolers)

    async def _reinitialize(self, cluster: RunnerHubCluster, snapshot: Snapshot, member: str) -> None:
        """Have a replica begin to copy the primary. ProbeError: its pod is gone, or its Patroni refuses."""
        pod = snapshot.pod(member)
        if pod is None:
            raise ProbeError(f"{member} has no pod that could be asked")
        await patroni.reinitialize(
            self._http,
            pod.ip,
            login=_patroni_login(cluster, snapshot),
            deadline_seconds=REINITIALIZE_DEADLINE_SECONDS,
        )

    async def _switch_postgres(
        self, cluster: RunnerHubCluster, snapshot: Snapshot, step: actions.SwitchPostgres
    ) -> None:
        """Have the poolers hold their clients back, hand the role over; they go on when the new primary takes writes.

        SwitchoverPostponedError: not every pooler could. ProbeError: nobody is near enough to take over, or Patroni
        refuses. In all cases clients go on.
        """
        host = _primary_host(snapshot)
        await self._check_candidate(snapshot, step)
        # Without another replica its readers would go to the primary, and be there when that stops.
        if step.candidate is not None and _has_other_replica(snapshot, step.primary, step.candidate):
            await self._leave(cluster, snapshot, step.candidate)
        async with (
            self._held_back(cluster, snapshot, step.primary, "switchover") if step.pause else nullcontext()
        ):
            await patroni.switchover(
                self._http,
                host,
                step.primary,
                step.candidate,
                login=_patroni_login(cluster, snapshot),
                deadline_seconds=ACTION_DEADLINE_SECONDS,
            )

    @contextlib.asynccontextmanager
    async def _held_back(
        self, cluster: RunnerHubCluster, snapshot: Snapshot, primary: str, what: str
    ) -> AsyncIterator[Sequence[str]]:
        """Have the poolers hold their clients back, for a bounded time; gives their addresses.

        SwitchoverPostponedError: not every pooler could. When that or anything within fails, clients go on at once.
        """
        login = _login(cluster, snapshot, POOLER_ADMIN_USER)
        poolers = [pod.ip for pod in snapshot.pods_of(names.POOLER) if pod.ip]
        serving = {pod.ip for pod in snapshot.pods_of(names.POOLER) if pod.ready}
        switches = what == "switchover"
        seconds = pgbouncer.HELD_BACK_SECONDS if switches else pgbouncer.LONGEST_HELD_BACK_SECONDS
        try:
            # A shorter stop of the old primary: what it has in memory is written while clients still work.
            for pooler in sorted(serving.intersection(poolers))[:1]:
                await self._checkpoint(pooler, login)
            held_up = await pgbouncer.pause(self._http, poolers, primary, seconds=seconds, login=login)
            for pooler, why in held_up.items():
                # One that starts or drains has few clients, or none, and may not be able to answer.
                if pooler in serving:
                    raise SwitchoverPostponedError(f"the Postgres {what} waits: {why}")
                logger.info("goes on without a pooler that does not serve: %s", why)
            yield poolers
        except BaseException:
            # Also when this task is cancelled; an agent that is not reached opens when its time is over.
            await self._let_go(cluster, snapshot, poolers)
            raise

    async def _let_go(self, cluster: RunnerHubCluster, snapshot: Snapshot, poolers: Sequence[str]) -> None:
        login = _login(cluster, snapshot, POOLER_ADMIN_USER)
        for pooler, why in (await pgbouncer.resume(self._http, poolers, login=login)).items():
            logger.info("pooler %s was not resumed: %s", pooler, why)

    async def _leave(self, cluster: RunnerHubCluster, snapshot: Snapshot, replica: str) -> None:
        """Have readers go on at other members, as far as the poolers can be reached."""
        login = _login(cluster, snapshot, POOLER_ADMIN_USER)
        poolers = _reachable_poolers(snapshot)
        for pooler, why in (await pgbouncer.leave(self._http, poolers, replica, login=login)).items():
            logger.info("readers at pooler %s may see an error: %s", pooler, why)

    async def _checkpoint(self, pooler: str, login: Login) -> None:
        try:
            await pgbouncer.checkpoint(self._http, pooler, login=login)
        except ProbeError as error:
            logger.info("no checkpoint before the switchover: %s", error)


def _passwords(keys: Iterable[str]) -> dict[str, str]:
    """New passwords by key, as the data of a Secret."""
    return {
        key: base64.b64encode(
            "".join(secrets.choice(_ALPHABET) for _ in range(PASSWORD_LENGTH)).encode()
        ).decode()
        for key in keys
    }


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


def _leader(snapshot: Snapshot) -> str | None:
    return snapshot.patroni.leader if snapshot.patroni is not None else None


def _reachable_poolers(snapshot: Snapshot) -> list[str]:
    """Addresses of those that may have connections: not of one that has ended, nor on a node that is dead."""
    return [
        pod.ip
        for pod in snapshot.pods_of(names.POOLER)
        if pod.ip and not pod.ended and not pod.is_lost(snapshot.now)
    ]


def _has_other_replica(snapshot: Snapshot, *members: str) -> bool:
    """Whether readers find a member of the database besides these."""
    return any(pod.ready and pod.name not in members for pod in snapshot.pods_of(names.POSTGRES))


def _primary_host(snapshot: Snapshot) -> str:
    pod = snapshot.pod(_leader(snapshot))
    if pod is None or not pod.ip:
        raise ProbeError("Patroni has no leader that could be asked")
    return pod.ip


def _patroni_login(cluster: RunnerHubCluster, snapshot: Snapshot) -> Login:
    return _login(cluster, snapshot, REST_USER)


def _login(cluster: RunnerHubCluster, snapshot: Snapshot, user: str) -> Login:
    """A user with the password for all that steers the database."""
    password = snapshot.children.secret_value(
        names.credentials(cluster.name, names.POSTGRES), "restapi-password"
    )
    if password is None:
        raise ProbeError("the password of Patroni's REST API is not known yet")
    # A line break at the end is no part of it, as everywhere.
    return Login(user, password.rstrip("\r\n"))


def _check_owner(cluster: RunnerHubCluster, ref: ObjectRef, live: Mapping[str, Any]) -> None:
    owners = live["metadata"].get("ownerReferences", ())
    if any(owner.get("uid") == cluster.uid for owner in owners):
        return
    going = " and is being deleted" if "deletionTimestamp" in live["metadata"] else ""
    owner = f"{owners[0]['kind']} {owners[0]['name']}" if owners else "somebody else"
    raise ForeignObjectError(
        f"{ref} exists, belongs to {owner}{going}; rename the cluster or remove that object"
    )


def _check_label(cluster: RunnerHubCluster, ref: ObjectRef, live: Mapping[str, Any]) -> None:
    if live["metadata"].get("labels", {}).get(names.LABEL_CLUSTER) != cluster.name:
        raise ForeignObjectError(
            f"{ref} exists and is not this cluster's; rename the cluster or remove that object"
        )


def _smaller_room(patch: Mapping[str, Any], snapshot: Snapshot) -> int | None:
    """The max_connections of a patch of Patroni's configuration that makes it smaller, else None."""
    wanted, now = (
        str(((config or {}).get("postgresql") or {}).get("parameters", {}).get("max_connections", ""))
        for config in (patch, snapshot.patroni_config)
    )
    return int(wanted) if wanted.isdigit() and now.isdigit() and int(wanted) < int(now) else None


def _without_room(patch: Mapping[str, Any]) -> Mapping[str, Any]:
    """The same patch without max_connections."""
    parameters = {
        name: value for name, value in patch["postgresql"]["parameters"].items() if name != "max_connections"
    }
    postgresql = {key: value for key, value in patch["postgresql"].items() if key != "parameters"}
    if parameters:
        postgresql["parameters"] = parameters
    others = {key: value for key, value in patch.items() if key != "postgresql"}
    return {**others, "postgresql": postgresql} if postgresql else others
