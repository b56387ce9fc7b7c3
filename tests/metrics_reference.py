"""The reference of the metrics as a page, from the metrics themselves."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from prometheus_client.metrics import MetricWrapperBase

from runnerhub_operator import metrics as operator_metrics
from runnerhub_operator.agent.metrics import AgentMetrics, Readings
from runnerhub_operator.agent.queues import QueueView
from runnerhub_orchestrator.metrics import Metrics as OrchestratorMetrics
from tests.markdown import table

_PREFIX = "runnerhub_"

_INTRODUCTION = """\
# Reference: metrics

Made by `make generate` from the programs that tell them. Each also tells the usual `process_...` of its own process.
"""

_OPERATOR = """\
## Of the operator

Port 8000 of the operator's pods, Service `runnerhub-operator-metrics`. `monitoring.kind` of
[the chart](values.md#runnerhub-operator) makes a PodMonitor or ServiceMonitor. On the replica that waits
`runnerhub_operator_leader` is 0; it tells of clusters when it has been elected.
"""

_AGENT = """\
## Of the ha-agents

Port 9808 of the orchestrators' pods, and `/metrics` of the load balancer, which asks one of them. A series is left out
while its value is not known.
"""

_ORCHESTRATOR = """\
## Of the orchestrators

Port 3001 of the orchestrators' pods, path `/metrics`. An orchestrator image of your own has its own.
"""

_OTHERS = """\
## Of HAProxy and Patroni

These programs tell metrics of their own: HAProxy at port 8404, path `/metrics`, of the load balancer's and of the
poolers' pods, Patroni at port 8008, path `/metrics`, of the database's pods.
"""


def _names(kind: str, name: str) -> str:
    if kind == "counter":
        return f"{name}_total"
    return f"{name}_bucket, _sum, _count" if kind == "histogram" else name


def _declared(owners: Iterable[Any]) -> Iterator[tuple[str, str, tuple[str, ...], str]]:
    """Name, type, labels and text of the metrics that are attributes of something."""
    for metric in owners:
        if isinstance(metric, MetricWrapperBase):
            for described in metric.describe():
                yield described.name, described.type, tuple(metric._labelnames), described.documentation


def _of_operator() -> Iterator[tuple[str, str, tuple[str, ...], str]]:
    yield from _declared(vars(operator_metrics).values())


def _of_agent() -> Iterator[tuple[str, str, tuple[str, ...], str]]:
    everything = Readings(
        leads=True,
        lag_seconds=0.0,
        sentinel_masters=1,
        nodes_healthy=1,
        up={"database": True},
        queues={"github-jobs": QueueView(waiting=0, active=0, workers=0)},
    )
    agent = AgentMetrics("hub-orchestrator-0", lambda: everything)
    yield from _declared(vars(agent).values())
    declared = {name for name, *_ in _declared(vars(agent).values())}
    for family in agent.registry.collect():
        if family.name.startswith(_PREFIX) and family.name not in declared:
            yield family.name, family.type, tuple(family.samples[0].labels), family.documentation


def _of_orchestrator() -> Iterator[tuple[str, str, tuple[str, ...], str]]:
    yield from _declared(vars(OrchestratorMetrics()).values())


def _table(found: Iterable[tuple[str, str, tuple[str, ...], str]]) -> str:
    return table(
        ("Metric", "Type", "Labels", "Meaning"),
        [
            (
                f"`{_names(kind, name)}`",
                kind,
                ", ".join(f"`{label}`" for label in labels),
                f"{text.rstrip('.')}.",
            )
            for name, kind, labels, text in sorted(found)
        ],
    )


def metrics_reference() -> str:
    """The page."""
    return "\n".join(
        [
            _INTRODUCTION,
            _OPERATOR,
            _table(_of_operator()),
            _AGENT,
            _table(_of_agent()),
            _ORCHESTRATOR,
            _table(_of_orchestrator()),
            _OTHERS,
        ]
    )
