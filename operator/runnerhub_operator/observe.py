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
from .probes import haproxy, patroni, redis_pod, runners, sentinel
from .resources.patroni import MAX_REPLICA_LAG_BYTES
from .resources.token_keys import known_keys
from .snapshot import Children, Observed, Pod, Snapshot
from .tokens import REQUEST_TOKEN_LIFETIME, mint

logger = logging.getLogger(__name__)

PROBE_DEADLINE_SECONDS = 2.0
# Of what no decision waits for: a member that hangs must not hold up the visit.
DETAILS_DEADLINE_SECONDS = 0.5
# Asked of a member that may hang, in each visit, and nothing is late when its answer is.
ALIVE_DEADLINE_SECONDS = 1.0


async def observe(cluster: RunnerHubCluster, objects: Observed, http: aiohttp.ClientSession) -> Snapshot:
    """Take a snapshot. Probes that fail leave their part empty; they never fail the visit."""
    running = [pod for pod in objects.pods if pod.ip]
    databases = [pod for pod in running if pod.component == names.POSTGRES]
    queues = {pod.name: pod.ip for pod in running if pod.component == names.REDIS}
    balancers = {pod.name: pod.ip for pod in running if pod.component == names.LOAD_BALANCER}
    entrances = [pod.ip for pod in running if pod.component == names.LOAD_BALANCER and pod.ready]
    (
        (members, config, alive),
        sentinels,
        redis_pods,
        balancer_states,
        health,
        demanded,
    ) = await asyncio.gather(
        _patroni(cluster, databases, http),
        _sentinels(cluster, queues, objects.children),
        redis_pod.read_states(http, queues, deadline_seconds=DETAILS_DEADLINE_SECONDS),
        haproxy.read_states(http, balancers, deadline_seconds=DETAILS_DEADLINE_SECONDS),
        haproxy.read_health(
            http, entrances, token=_token(cluster, objects), deadline_seconds=PROBE_DEADLINE_SECONDS
        ),
        _demand(cluster, objects, http),
    )
    return Snapshot(
        now=datetime.now(UTC),
        children=objects.children,
        pods=objects.pods,
        volumes=objects.volumes,
        patroni=members,
        patroni_config=config,
        sentinels=sentinels,
        redis_pods=redis_pods,
        alive=alive,
        http_routes=objects.http_routes,
        balancers=balancer_states,
        unserved=health.unserved,
        writes_refused=health.refusal,
        deaf_queues=health.deaf,
        failing_checks=health.weak,
        demand=demanded[0],
        demand_error=demanded[1],
    )


async def _demand(
    cluster: RunnerHubCluster, objects: Observed, http: aiohttp.ClientSession
) -> tuple[runners.Demand | None, str]:
    """What the pools are sized by, asked of an orchestrator only where there are pools; or why nobody tells it."""
    if not cluster.spec.runner_pools and not any(pod.component == names.RUNNER for pod in objects.pods):
        return None, ""
    hosts = [pod.ip for pod in objects.pods if pod.component == names.ORCHESTRATOR and pod.ip and pod.ready]
    token = _token(cluster, objects)
    if not hosts or not token:
        return None, "no orchestrator is ready"
    try:
        return await runners.read_demand(http, hosts, token, deadline_seconds=PROBE_DEADLINE_SECONDS), ""
    except ProbeError as error:
        logger.debug("demand of %s/%s: %s", cluster.namespace, cluster.name, error)
        return None, str(error)


def _token(cluster: RunnerHubCluster, objects: Observed) -> str:
    """For requests to the orchestrators; "" as long as there are no keys."""
    keys, now = known_keys(objects.children.secret_value, cluster.name), datetime.now(UTC)
    return mint(keys.for_signing(now), names.FIELD_MANAGER, now, REQUEST_TOKEN_LIFETIME) if keys else ""


async def _patroni(
    cluster: RunnerHubCluster, pods: list[Pod], http: aiohttp.ClientSession
) -> tuple[patroni.PatroniCluster | None, Mapping[str, Any] | None, frozenset[str]]:
    if not pods:
        return None, None, frozenset()
    hosts = [pod.ip for pod in sorted(pods, key=lambda pod: pod.role != patroni.PRIMARY)]
    try:
        members = await patroni.read_cluster(http, hosts, deadline_seconds=PROBE_DEADLINE_SECONDS)
        config = await patroni.read_config(http, hosts, deadline_seconds=PROBE_DEADLINE_SECONDS)
    except ProbeError as error:
        logger.debug("patroni of %s/%s: %s", cluster.namespace, cluster.name, error)
        return None, None, frozenset()
    detailed, alive = await asyncio.gather(
        patroni.with_own_words(
            http,
            members,
            _worth_asking(cluster.status.postgres, members),
            now=datetime.now(UTC),
            deadline_seconds=DETAILS_DEADLINE_SECONDS,
        ),
        _alive(members, pods, http),
    )
    return detailed, config, alive


async def _alive(
    members: patroni.PatroniCluster, pods: list[Pod], http: aiohttp.ClientSession
) -> frozenset[str]:
    """Members whose own Patroni answers, of the primary and those out of step that Kubernetes does not call ready.

    The primary, whose kubelet may be dead, must say that it is one. It is asked as well when it was slower than others.
    """
    if members.leader is None:
        return frozenset()
    leader = members.leader
    asked = [
        pod
        for pod in pods
        if (pod.name == leader and not members.by_leader)
        or (not (pod.ready or pod.terminating) and (pod.name == leader or not members.in_step(pod.name)))
    ]
    answers = await asyncio.gather(
        *(
            patroni.is_alive(
                http, pod.ip, primary=pod.name == leader, deadline_seconds=ALIVE_DEADLINE_SECONDS
            )
            for pod in asked
        )
    )
    return frozenset(pod.name for pod, answer in zip(asked, answers, strict=True) if answer)


def _worth_asking(known: PostgresStatus, members: patroni.PatroniCluster) -> set[str]:
    """A primary whose version is not known yet, and replicas that lag: one visit of many asks anybody."""
    asked = {m.name for m in members.members if (m.lag_bytes or 0) >= MAX_REPLICA_LAG_BYTES}
    if members.leader is not None and (known.version is None or known.primary != members.leader):
        asked.add(members.leader)
    return asked


async def _sentinels(
    cluster: RunnerHubCluster, hosts: Mapping[str, str], children: Children
) -> tuple[sentinel.SentinelView, ...]:
    password = children.secret_value(names.credentials(cluster.name, names.REDIS), "sentinel-password")
    if not hosts or password is None:
        return ()
    # A line break at the end is no part of it, as for the pods.
    password = password.rstrip("\r\n")
    return await sentinel.read_sentinels(hosts, password, deadline_seconds=PROBE_DEADLINE_SECONDS)
