"""Observing a cluster: cached Kubernetes objects plus probes of the programs themselves."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import aiohttp

from . import names
from .api import RunnerHubCluster
from .errors import ProbeError
from .probes import patroni, sentinel
from .snapshot import Children, Observed, Pod, Snapshot

logger = logging.getLogger(__name__)

PROBE_DEADLINE_SECONDS = 2.0


async def observe(cluster: RunnerHubCluster, objects: Observed, http: aiohttp.ClientSession) -> Snapshot:
    """Take a snapshot. Probes that fail leave their part empty; they never fail the visit."""
    running = [pod for pod in objects.pods if pod.ip]
    (members, config), sentinels = await asyncio.gather(
        _patroni(cluster, [pod for pod in running if pod.component == names.POSTGRES], http),
        _sentinels(cluster, [pod for pod in running if pod.component == names.REDIS], objects.children),
    )
    return Snapshot(
        now=datetime.now(UTC),
        children=objects.children,
        pods=objects.pods,
        volumes=objects.volumes,
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
    return members, config


async def _sentinels(
    cluster: RunnerHubCluster, pods: list[Pod], children: Children
) -> tuple[sentinel.SentinelView, ...]:
    password = children.secret_value(names.credentials(cluster.name, names.REDIS), "sentinel-password")
    if not pods or password is None:
        return ()
    hosts = {pod.name: pod.ip for pod in pods}
    return await sentinel.read_sentinels(hosts, password, deadline_seconds=PROBE_DEADLINE_SECONDS)
