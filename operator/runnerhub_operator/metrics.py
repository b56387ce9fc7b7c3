"""Prometheus metrics of the operator itself."""

from __future__ import annotations

import contextlib

from prometheus_client import Counter, Gauge, Histogram

from . import names
from .api import RunnersStatus
from .snapshot import Snapshot

RECONCILE_SECONDS = Histogram(
    "runnerhub_operator_reconcile_seconds",
    "Duration of one reconcile of one cluster.",
    buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)
PHASE_SECONDS = Histogram(
    "runnerhub_operator_phase_seconds",
    "Duration of the phases of a reconcile: observe (probes), plan, act (writes).",
    ["phase"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)
RECONCILE_ERRORS = Counter(
    "runnerhub_operator_reconcile_errors_total", "Reconciles that failed, by reason.", ["reason"]
)
QUEUE_DEPTH = Gauge("runnerhub_operator_queue_depth", "Clusters that wait for a worker.")
API_CALLS = Counter(
    "runnerhub_operator_api_calls_total",
    "Calls to the API server, by verb, kind and HTTP status (0: no answer).",
    ["verb", "kind", "status"],
)
CLUSTERS = Gauge(
    "runnerhub_operator_clusters",
    "RunnerHubClusters: known from the watch, and visited at least once since this process leads.",
    ["state"],
)
CACHED_OBJECTS = Gauge("runnerhub_operator_cached_objects", "Objects of all clusters in the cache.")
WATCH_RESTARTS = Counter(
    "runnerhub_operator_watch_restarts_total",
    "Watches that could not simply go on, by kind and reason.",
    ["kind", "reason"],
)
LEADER = Gauge("runnerhub_operator_leader", "1 while this replica is the active operator.")
CONDITION = Gauge(
    "runnerhub_cluster_condition",
    "Conditions of each cluster: 1 True, 0 False, -1 Unknown.",
    ["namespace", "name", "type"],
)
FAILOVERS = Counter(
    "runnerhub_cluster_failovers_total",
    "Elections that the operator saw.",
    ["namespace", "name", "component"],
)
REINITIALIZATIONS = Counter(
    "runnerhub_cluster_reinitializations_total",
    "Broken members of the database that the operator had copied anew.",
    ["namespace", "name", "member"],
)
VOLUME_USED = Gauge(
    "runnerhub_cluster_volume_used_ratio",
    "How full the volume of each pod of Postgres and Redis is, 0 to 1, in steps of 0.05 below 0.8; as last told while "
    "the pod does not answer.",
    ["namespace", "name", "component", "pod"],
)
MEMORY_USED = Gauge(
    "runnerhub_cluster_memory_used_ratio",
    "How much of its maxmemory each Redis pod has used: from 1 on the master refuses new jobs; as last told while the "
    "pod does not answer.",
    ["namespace", "name", "component", "pod"],
)
RUNNERS = Gauge(
    "runnerhub_cluster_runners",
    "Runners of each pool: desired, ready, busy; and queued, the jobs that it could take.",
    ["namespace", "name", "pool", "state"],
)
RUNNERS_STARTED = Counter(
    "runnerhub_cluster_runners_started_total",
    "Runners that the operator started.",
    ["namespace", "name", "pool"],
)
RUNNERS_STOPPED = Counter(
    "runnerhub_cluster_runners_stopped_total",
    "Runners that the operator stopped.",
    ["namespace", "name", "pool"],
)

_CONDITION_VALUES = {"True": 1.0, "False": 0.0}
_ROLES = (names.POSTGRES, names.REDIS, names.ORCHESTRATOR)
_MOST_MEMBERS = 16
_POOL_STATES = ("desired", "ready", "busy", "queued")
# The pools whose series there are, by cluster.
_POOLS: dict[tuple[str, str], set[str]] = {}
# Gauge, component and pod.
_Series = tuple[Gauge, str, str]
# The series of volumes and memory that there are, by cluster.
_FULLNESS: dict[tuple[str, str], set[_Series]] = {}


def observe_api_call(verb: str, kind: str, status: int) -> None:
    """Count one call to the API server."""
    API_CALLS.labels(verb, kind, str(status)).inc()


def count_watch_restart(kind: str, reason: str) -> None:
    """Count one watch that could not simply go on."""
    WATCH_RESTARTS.labels(kind, reason).inc()


def set_condition(namespace: str, name: str, condition_type: str, status: str) -> None:
    """Set the gauge of a cluster's condition."""
    CONDITION.labels(namespace, name, condition_type).set(_CONDITION_VALUES.get(status, -1.0))


def set_runners(namespace: str, name: str, status: RunnersStatus) -> None:
    """Set the gauges of a cluster's pools, and remove those of pools that are gone."""
    pools = {pool.name: pool for pool in status.pools}
    for gone in _POOLS.get((namespace, name), set()) - set(pools):
        _forget_pool(namespace, name, gone)
    if pools:
        _POOLS[namespace, name] = set(pools)
    else:
        _POOLS.pop((namespace, name), None)
    for pool in pools.values():
        for state in _POOL_STATES:
            RUNNERS.labels(namespace, name, pool.name, state).set(getattr(pool, state))


def _forget_pool(namespace: str, name: str, pool: str) -> None:
    for state in _POOL_STATES:
        with contextlib.suppress(KeyError):
            RUNNERS.remove(namespace, name, pool, state)
    for counter in (RUNNERS_STARTED, RUNNERS_STOPPED):
        with contextlib.suppress(KeyError):
            counter.remove(namespace, name, pool)


def set_fullness(namespace: str, name: str, snapshot: Snapshot) -> None:
    """Set the gauges of a cluster's volumes and memory, and remove those of pods that are gone or cannot tell."""
    told: dict[_Series, int | None] = {}
    for member in snapshot.patroni.members if snapshot.patroni is not None else ():
        told[VOLUME_USED, names.POSTGRES, member.name] = member.volume_used_percent
    for state in snapshot.redis_pods:
        told[VOLUME_USED, names.REDIS, state.pod] = state.volume_used_percent
        told[MEMORY_USED, names.REDIS, state.pod] = state.memory_used_percent
    there = {pod.name for pod in snapshot.pods}
    known = {
        series: percent for series, percent in told.items() if percent is not None and series[2] in there
    }
    before = _FULLNESS.get((namespace, name), set())
    # A pod that does not answer this time keeps its own.
    silent = {series for series in before if series[2] in there and series not in told}
    _FULLNESS[namespace, name] = silent | set(known)
    for gauge, component, pod in before - _FULLNESS[namespace, name]:
        gauge.remove(namespace, name, component, pod)
    for (gauge, component, pod), percent in known.items():
        gauge.labels(namespace, name, component, pod).set(percent / 100)


def forget_fullness(namespace: str, name: str) -> None:
    """Remove the series of a cluster's volumes and memory."""
    for gauge, component, pod in _FULLNESS.pop((namespace, name), set()):
        gauge.remove(namespace, name, component, pod)


def forget_cluster(namespace: str, name: str, condition_types: tuple[str, ...]) -> None:
    """Remove the series of a cluster that is gone."""
    for pool in _POOLS.pop((namespace, name), set()):
        _forget_pool(namespace, name, pool)
    forget_fullness(namespace, name)
    for component in _ROLES:
        with contextlib.suppress(KeyError):
            FAILOVERS.remove(namespace, name, component)
    for ordinal in range(_MOST_MEMBERS):
        with contextlib.suppress(KeyError):
            REINITIALIZATIONS.remove(namespace, name, names.member(name, names.POSTGRES, ordinal))
    for condition_type in condition_types:
        try:
            CONDITION.remove(namespace, name, condition_type)
        except KeyError:
            continue
