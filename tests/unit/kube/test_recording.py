"""What the operator records beside its work: Events, and series of clusters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from prometheus_client import REGISTRY

from runnerhub_operator import metrics
from runnerhub_operator.act.resource import ClusterResource
from runnerhub_operator.errors import KubeError, LostLeadershipError, RefusedError, UnavailableError
from runnerhub_operator.kube.client import KubeClient
from runnerhub_operator.kube.events import EventNote
from tests.unit.plan.builders import NOW, cluster


class Refusing(KubeClient):
    """An API server that takes no Events, as when their own etcd is away."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    async def merge_patch(self, *_: Any, **__: Any) -> dict[str, Any]:
        raise self.error

    async def create(self, _manifest: Mapping[str, Any]) -> dict[str, Any]:
        raise self.error


async def emit(error: Exception) -> None:
    resource = ClusterResource(Refusing(error), "a test")
    await resource.emit(cluster(), EventNote("Normal", "Ready", "it is"), NOW)


@pytest.mark.parametrize("error", [UnavailableError("etcd is away", 500), RefusedError("not you", 403)])
async def test_an_event_that_cannot_be_recorded_is_logged_and_fails_nothing(
    error: KubeError, caplog: pytest.LogCaptureFixture
) -> None:
    await emit(error)
    assert str(error) in caplog.text


async def test_what_changes_in_a_status_is_logged_for_those_who_look(
    caplog: pytest.LogCaptureFixture,
) -> None:
    before = {"phase": "Ready", "redis": {"replicas": [{"name": "a"}, {"name": "b", "lagBytes": 0}]}}
    after = {
        "phase": "Ready",
        "redis": {"replicas": [{"name": "a"}, {"name": "b"}]},
        "orchestrator": {"ready": 1},
    }
    caplog.set_level("DEBUG")
    resource = ClusterResource(Refusing(UnavailableError("away")), "a test")
    with pytest.raises(UnavailableError):
        await resource.write_status(("d", "hub"), "1", before, after)
    assert "status of d/hub: redis.replicas[1].lagBytes, orchestrator" in caplog.text


async def test_who_leads_no_more_does_not_go_on() -> None:
    with pytest.raises(LostLeadershipError):
        await emit(LostLeadershipError("over"))


def test_a_cluster_that_is_gone_leaves_no_series() -> None:
    metrics.FAILOVERS.labels("d", "gone", "redis").inc()
    metrics.REINITIALIZATIONS.labels("d", "gone", "gone-postgres-1").inc()
    metrics.set_condition("d", "gone", "Ready", "True")
    metrics.forget_cluster("d", "gone", ("Ready",))
    left = [
        sample
        for metric in REGISTRY.collect()
        for sample in metric.samples
        if sample.labels.get("name") == "gone"
    ]
    assert not left
