"""Observing a cluster: cached Kubernetes objects plus probes of the programs themselves."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import aiohttp

from . import names
from .api import PostgresStatus, RunnerHubCluster
from .errors import ProbeError
from .probes import patroni, sentinel
from .resources.patroni import MAX_REPLICA_LAG_BYTES
from .snapshot import Children, Pod, Snapshot

logger = logging.getLogger(__name__)

PROBE_DEADLINE_SECONDS = 2.0
# Of what is only told to people: a member that hangs must not hold up the visit that acts on it.
DETAILS_DEADLINE_SECONDS = 0.5


async def observe(
    cluster: RunnerHubCluster, children: Children, pods: tuple[Pod, ...], http: aiohttp.ClientSession
) -> Snapshot:
    """Take a snapshot. Probes that fail leave their part empty; they never fail the visit."""
    running = [pod for pod in pods if pod.ip]
    (members, config), sentinels = await asyncio.gather(
        _patroni(cluster, [pod for pod in running if pod.component == names.POSTGRES], http),
        _sentinels(cluster, [pod for pod in running if pod.component == names.REDIS], children),
    )
    return Snapshot(
        now=datetime.now(UTC),
        children=children,
        pods=pods,
        patroni=members,
        patroni_config=config,
        sentinels=sentinels,
    )


async def _patroni(
    cluster: RunnerHubCluster, pods: list[Pod], http: aiohttp.ClientSession
) -> tuple[patroni.PatroniCluster | None, Mapping[str, Any] | None]:
    if not pods:
        return None, None
    hosts = [pod.ip for pod in sorted(pods, key=lambda pod: pod.role != patroni.PRIMARY)]
    try:
        members = await patroni.read_cluster(http, hosts, deadline_seconds=PROBE_DEADLINE_SECONDS)
        config = await patroni.read_config(http, hosts, deadline_seconds=PROBE_DEADLINE_SECONDS)
    except ProbeError as error:
        logger.debug("patroni of %s/%s: %s", cluster.namespace, cluster.name, error)
        return None, None
    members = await patroni.with_own_words(
        http,
        members,
        _worth_asking(cluster.status.postgres, members),
        now=datetime.now(UTC),
        deadline_seconds=DETAILS_DEADLINE_SECONDS,
    )
    return members, config


def _worth_asking(known: PostgresStatus, members: patroni.PatroniCluster) -> set[str]:
    """A primary whose version is not known yet, and replicas that lag: one visit of many asks anybody."""
    lagging = {m.name for m in members.members if (m.lag_bytes or 0) >= MAX_REPLICA_LAG_BYTES}
    unknown = members.leader is not None and (known.version is None or known.primary != members.leader)
    return lagging | ({members.leader} if unknown and members.leader else set())


async def _sentinels(
    cluster: RunnerHubCluster, pods: list[Pod], children: Children
) -> tuple[sentinel.SentinelView, ...]:
    password = children.secret_value(names.credentials(cluster.name, names.REDIS), "sentinel-password")
    if not pods or password is None:
        return ()
    hosts = {pod.name: pod.ip for pod in pods}
    return await sentinel.read_sentinels(hosts, password, deadline_seconds=PROBE_DEADLINE_SECONDS)
