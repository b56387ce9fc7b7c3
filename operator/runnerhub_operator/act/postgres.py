"""What is asked of Patroni: to switch over, restart, copy, take settings; and of members, whether they are in step."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from math import inf
from typing import Any

import aiohttp

from .. import names
from ..actions import PatchPatroniConfig, RestartPostgres, SwitchPostgres
from ..api import RunnerHubCluster
from ..errors import ProbeError
from ..probes import patroni
from ..probes.http import Login
from ..probes.pgbouncer import HELD_BACK_SECONDS, LONGEST_HELD_BACK_SECONDS
from ..resources.patroni import MAX_REPLICA_LAG_BYTES, REST_USER
from ..snapshot import Snapshot
from .poolers import Poolers, login_of
from .resource import ClusterResource

logger = logging.getLogger(__name__)

ACTION_DEADLINE_SECONDS = 20.0
# Patroni only begins, and answers when it has read its store.
REINITIALIZE_DEADLINE_SECONDS = 5.0
# A member that works answers in milliseconds.
MEMBER_DEADLINE_SECONDS = 1.0
# HAProxy looks once a second whether a member that was away is back; clients that go on before that see errors.
ROUTED_SECONDS = 1.5


class Postgres:
    """The database, steered by Patroni while the poolers spare its clients."""

    def __init__(self, http: aiohttp.ClientSession, resource: ClusterResource, poolers: Poolers) -> None:
        self._http = http
        self._resource = resource
        self._poolers = poolers

    async def check_members(self, snapshot: Snapshot, members: Sequence[str]) -> None:
        """Ask members of the database themselves whether they can be counted on. ProbeError: one cannot.

        What others know of one on a node that stands still are its last words, for most of a minute in Kubernetes too.
        """
        replicas = [name for name in members if name != _leader(snapshot)]
        # Without replicas to ask, a primary that is restarted itself need not answer.
        lags = await self._lags(snapshot, replicas) if members else {}
        if silent := [name for name in replicas if name not in lags]:
            raise ProbeError(f"{', '.join(silent)} does not answer as a replica that streams")

    async def switch_over(self, cluster: RunnerHubCluster, snapshot: Snapshot, step: SwitchPostgres) -> None:
        """Have the poolers hold their clients back, hand the role over; they go on when the new primary takes writes.

        SwitchoverPostponedError: not every pooler could. ProbeError: nobody who may take over is near enough, or
        Patroni refuses. In all cases clients go on.
        """
        host = _primary_host(snapshot)
        candidate = await self._choose_candidate(snapshot, step)
        # Without another replica its readers would go to the primary, and be there when that stops.
        if _has_other_replica(snapshot, step.primary, candidate):
            await self._poolers.leave(cluster, snapshot, candidate)
        async with (
            self._poolers.held_back(cluster, snapshot, step.primary, "switchover", seconds=HELD_BACK_SECONDS)
            if step.pause
            else nullcontext()
        ):
            await patroni.switchover(
                self._http,
                host,
                step.primary,
                candidate,
                login=_patroni_login(cluster, snapshot),
                deadline_seconds=ACTION_DEADLINE_SECONDS,
            )

    async def restart(self, cluster: RunnerHubCluster, snapshot: Snapshot, step: RestartPostgres) -> None:
        """Restart Postgres inside a member; clients of the primary wait meanwhile, within bounds.

        SwitchoverPostponedError: they could not be held back. ProbeError: Patroni refuses, or Postgres does not start.
        """
        pod = snapshot.pod(step.member)
        if pod is None:
            return
        held = (
            self._poolers.held_back(
                cluster, snapshot, step.member, "restart", seconds=LONGEST_HELD_BACK_SECONDS
            )
            if step.pause
            else nullcontext(())
        )
        if not step.pause:
            await self._poolers.leave(cluster, snapshot, step.member)
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
                await self._poolers.let_go(cluster, snapshot, poolers)

    async def reinitialize(self, cluster: RunnerHubCluster, snapshot: Snapshot, member: str) -> None:
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

    async def patch_config(
        self, cluster: RunnerHubCluster, snapshot: Snapshot, action: PatchPatroniConfig
    ) -> None:
        """Change Patroni's dynamic configuration, by the primary or, without one, by any member. Raises ProbeError.

        max_connections is made smaller when the poolers have smaller pools, at a later visit if need be; until then the
        API server is not asked for anything.
        """
        patch = action.patch
        room = _smaller_room(patch, snapshot)
        if room and not await self._poolers.fit(snapshot, room, renews_poolers=action.renews_poolers):
            patch = _without_room(patch)
        if not patch or not await self._resource.is_current(cluster):
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

    async def _choose_candidate(self, snapshot: Snapshot, step: SwitchPostgres) -> str:
        """The candidate, or who may take over instead, who is near enough for it. ProbeError: nobody is."""
        candidates = (step.candidate, *step.instead)
        lags = await self._lags(snapshot, candidates)
        near = [name for name in candidates if lags.get(name, inf) <= MAX_REPLICA_LAG_BYTES]
        if near:
            return near[0]
        why = "does not answer as a replica that streams"
        if lags:
            why = f"is more than {MAX_REPLICA_LAG_BYTES // 1024**2} MiB behind {step.primary}"
        raise ProbeError(f"the Postgres switchover is refused: {next(iter(lags), step.candidate)} {why}")

    async def _lags(self, snapshot: Snapshot, members: Sequence[str]) -> Mapping[str, int]:
        hosts = {name: pod.ip for name in members if (pod := snapshot.pod(name)) is not None and pod.ip}
        return await patroni.read_lags(
            self._http, _primary_host(snapshot), hosts, deadline_seconds=MEMBER_DEADLINE_SECONDS
        )


def _leader(snapshot: Snapshot) -> str | None:
    return snapshot.patroni.leader if snapshot.patroni is not None else None


def _primary_host(snapshot: Snapshot) -> str:
    pod = snapshot.pod(_leader(snapshot))
    if pod is None or not pod.ip:
        raise ProbeError("Patroni has no leader that could be asked")
    return pod.ip


def _has_other_replica(snapshot: Snapshot, *members: str) -> bool:
    """Whether readers find a member of the database besides these."""
    return any(pod.ready and pod.name not in members for pod in snapshot.pods_of(names.POSTGRES))


def _patroni_login(cluster: RunnerHubCluster, snapshot: Snapshot) -> Login:
    return login_of(cluster, snapshot, REST_USER)


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
