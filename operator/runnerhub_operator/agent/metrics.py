"""The agent's metrics, with the names of the high availability architecture document."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from .queues import QueueView

GAP_BUCKETS: Final = (1, 2, 3, 5, 8, 10, 12, 15, 20, 26, 30, 45, 60, 120, 300, 600)
LATENCY_BUCKETS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


@dataclass(frozen=True, slots=True)
class Readings:
    """What is read at the moment of a scrape. None: not known, the series is left out."""

    leads: bool
    lag_seconds: float | None
    sentinel_masters: int | None
    nodes_healthy: int | None
    up: dict[str, bool]
    queues: Mapping[str, QueueView] = field(default_factory=dict)
    deaf: frozenset[str] = frozenset()


class _Gauges(Collector):
    """Gauges that show the state at the moment of the scrape, not of the last change."""

    def __init__(self, node: str, read: Callable[[], Readings]) -> None:
        self._node = node
        self._read = read

    def collect(self) -> Iterator[Metric]:
        readings = self._read()
        leader = GaugeMetricFamily(
            "runnerhub_ha_leader_status", "1 where the leading orchestrator is.", labels=["instance"]
        )
        leader.add_metric([self._node], 1.0 if readings.leads else 0.0)
        yield leader
        up = GaugeMetricFamily(
            "runnerhub_ha_dependency_up", "1 when the dependency works.", labels=["dependency"]
        )
        for name, value in readings.up.items():
            up.add_metric([name], 1.0 if value else 0.0)
        yield up
        yield from _queue_gauges(readings)
        for name, text, number in (
            (
                "runnerhub_ha_database_replication_lag_seconds",
                "Age of the oldest acknowledged write that the read-only route does not show yet.",
                readings.lag_seconds,
            ),
            (
                "runnerhub_ha_redis_sentinel_masters",
                "Masters that the Sentinels know.",
                readings.sentinel_masters,
            ),
            (
                "runnerhub_ha_cluster_nodes_healthy",
                "Orchestrators that answer their health check.",
                readings.nodes_healthy,
            ),
        ):
            if number is not None:
                yield GaugeMetricFamily(name, text, value=float(number))


def _queue_gauges(readings: Readings) -> Iterator[Metric]:
    for name, text, values in (
        ("waiting", "Jobs of a BullMQ queue that wait.", {q: v.waiting for q, v in readings.queues.items()}),
        ("workers", "Connections of its workers.", {q: v.workers for q, v in readings.queues.items()}),
        (
            "deaf",
            "1 when its workers take no job although jobs wait and none is active.",
            {queue: int(queue in readings.deaf) for queue in readings.queues},
        ),
    ):
        gauge = GaugeMetricFamily(f"runnerhub_ha_queue_{name}", text, labels=["queue"])
        for queue, value in values.items():
            gauge.add_metric([queue], float(value))
        yield gauge


class AgentMetrics:
    """All metrics of one agent."""

    def __init__(self, node: str, read: Callable[[], Readings]) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry()
        self.registry.register(_Gauges(node, read))
        ProcessCollector(registry=self.registry)
        self._failovers = Counter(
            "runnerhub_ha_failover_events",
            "Changes of leader, Postgres primary and Redis master that this agent saw.",
            registry=self.registry,
        )
        self._component_failovers = Counter(
            "runnerhub_ha_component_failover_events",
            "The same by component.",
            ["component"],
            registry=self.registry,
        )
        for component in ("orchestrator", "postgres", "redis"):
            self._component_failovers.labels(component)
        self._gap = Histogram(
            "runnerhub_ha_write_gap_seconds",
            "Time between two acknowledged probe writes; the check interval when nothing is wrong.",
            ["dependency"],
            buckets=GAP_BUCKETS,
            registry=self.registry,
        )
        self._latency = Histogram(
            "runnerhub_ha_check_duration_seconds",
            "Duration of checks that succeeded.",
            ["dependency"],
            buckets=LATENCY_BUCKETS,
            registry=self.registry,
        )

    def moved(self, component: str) -> None:
        """Count a failover."""
        self._failovers.inc()
        self._component_failovers.labels(component).inc()

    def checked(self, dependency: str, gap_seconds: float | None, latency_seconds: float) -> None:
        """Take in a successful check."""
        self._latency.labels(dependency).observe(latency_seconds)
        if gap_seconds is not None:
            self._gap.labels(dependency).observe(gap_seconds)
