"""Prometheus metrics of this process."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

LATENCY_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 15, 30)


class Metrics:
    """All metrics, in a registry of their own so that tests can have several."""

    def __init__(self) -> None:
        registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        self.registry = registry
        self.requests = Histogram(
            "runnerhub_orchestrator_request_seconds",
            "Duration of requests",
            ("route", "method", "status"),
            buckets=LATENCY_BUCKETS,
            registry=registry,
        )
        self.accepted = Counter(
            "runnerhub_orchestrator_jobs_accepted_total", "Jobs stored for the first time", registry=registry
        )
        self.claimed = Counter(
            "runnerhub_orchestrator_jobs_claimed_total", "Jobs handed to a runner", registry=registry
        )
        self.completed = Counter(
            "runnerhub_orchestrator_jobs_completed_total", "Jobs completed", registry=registry
        )
        self.unqueued = Counter(
            "runnerhub_orchestrator_jobs_accepted_unqueued_total",
            "Jobs accepted while the queue did not answer, left to the leader",
            registry=registry,
        )
        self.requeued = Counter(
            "runnerhub_orchestrator_leases_expired_total",
            "Jobs taken from silent runners by this leader",
            registry=registry,
        )
        self.reenqueued = Counter(
            "runnerhub_orchestrator_jobs_reenqueued_total",
            "Rows put back into the queue by this leader",
            registry=registry,
        )
        self.removed = Counter(
            "runnerhub_orchestrator_jobs_removed_total",
            "Old finished rows removed by this leader",
            registry=registry,
        )
        self.queue_jobs = Gauge(
            "runnerhub_orchestrator_queue_jobs", "Entries in the queue", ("state",), registry=registry
        )
        self.row_jobs = Gauge("runnerhub_orchestrator_jobs", "Rows by status", ("status",), registry=registry)
        self.up = Gauge(
            "runnerhub_orchestrator_dependency_up",
            "Whether a dependency answers (1) or not (0)",
            ("dependency",),
            registry=registry,
        )
        self.leader = Gauge(
            "runnerhub_orchestrator_leader", "Whether this pod does the singleton work", registry=registry
        )
        self.runners_waiting = Gauge(
            "runnerhub_orchestrator_runners_waiting", "Runners in a long poll of this pod", registry=registry
        )
        self.websockets = Gauge(
            "runnerhub_orchestrator_websockets", "Open WebSockets of this pod", registry=registry
        )

    def render(self) -> bytes:
        """The exposition format."""
        return generate_latest(self.registry)
