"""What the operator records beside its work: Events, and series of clusters."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from types import SimpleNamespace
from typing import Any
from unittest.mock import AsyncMock

import pytest
from prometheus_client import REGISTRY

from runnerhub_operator import metrics, reconcile
from runnerhub_operator.act.resource import ClusterResource
from runnerhub_operator.errors import KubeError, LostLeadershipError, RefusedError, UnavailableError
from runnerhub_operator.kube.client import KubeClient
from runnerhub_operator.kube.events import EventNote
from runnerhub_operator.probes.patroni import PatroniCluster
from runnerhub_operator.probes.redis_pod import RedisPodState
from runnerhub_operator.reconcile import Reconciler
from tests.unit.plan.builders import IMAGES, NOW, cluster, patroni, pods, snapshot


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


def series(name: str) -> dict[str, float]:
    """All that is told of a cluster; what has a pod by `METRIC POD`."""
    return {
        " ".join((sample.name, *([sample.labels["pod"]] if "pod" in sample.labels else ()))): sample.value
        for metric in REGISTRY.collect()
        for sample in metric.samples
        if sample.labels.get("name") == name
    }


def test_a_cluster_that_is_gone_leaves_no_series() -> None:
    metrics.FAILOVERS.labels("d", "gone", "redis").inc()
    metrics.REINITIALIZATIONS.labels("d", "gone", "gone-postgres-1").inc()
    metrics.set_condition("d", "gone", "Ready", "True")
    metrics.set_fullness("d", "gone", snapshot(patroni=database(), redis_pods=(redis_pod(0),)))
    assert len(series("gone")) > 4
    metrics.forget_cluster("d", "gone", ("Ready",))
    assert not series("gone")


# --- How full volumes and memory are ---

VOLUME, MEMORY = "runnerhub_cluster_volume_used_ratio", "runnerhub_cluster_memory_used_ratio"


@pytest.fixture(autouse=True)
def _forgotten() -> Iterator[None]:
    yield
    metrics.forget_cluster("d", "hub", ())


def database(volume: int | None = 40) -> PatroniCluster:
    view = patroni()
    return replace(view, members=tuple(replace(m, volume_used_percent=volume) for m in view.members))


def redis_pod(ordinal: int, volume: int | None = 60, memory: int | None = 7) -> RedisPodState:
    return RedisPodState(f"hub-redis-{ordinal}", volume_used_percent=volume, memory_used_percent=memory)


def test_how_full_each_pod_is_is_told() -> None:
    queue = (redis_pod(0), redis_pod(1, volume=85, memory=None))
    metrics.set_fullness("d", "hub", snapshot(patroni=database(91), redis_pods=queue))
    assert series("hub") == {
        **{f"{VOLUME} hub-postgres-{i}": 0.91 for i in range(3)},
        f"{VOLUME} hub-redis-0": 0.6,
        f"{MEMORY} hub-redis-0": 0.07,
        f"{VOLUME} hub-redis-1": 0.85,
    }
    labels = {"namespace": "d", "name": "hub", "component": "redis", "pod": "hub-redis-1"}
    assert REGISTRY.get_sample_value(VOLUME, labels) == 0.85


def test_a_pod_that_is_gone_leaves_no_series_of_its_fullness() -> None:
    queue = tuple(redis_pod(i) for i in range(3))
    metrics.set_fullness("d", "hub", snapshot(patroni=database(), redis_pods=queue))
    assert len(series("hub")) == 9
    # Patroni may name a member for some seconds yet.
    left = tuple(pod for pod in pods() if pod.name not in ("hub-postgres-2", "hub-redis-2"))
    metrics.set_fullness("d", "hub", snapshot(patroni=database(), redis_pods=queue[:2], pods=left))
    assert not [name for name in series("hub") if name.endswith("-2")]
    assert len(series("hub")) == 6


def test_a_pod_that_does_not_answer_is_told_as_it_was_and_one_that_cannot_tell_is_not() -> None:
    metrics.set_fullness("d", "hub", snapshot(patroni=database(), redis_pods=(redis_pod(0), redis_pod(1))))
    before = series("hub")
    metrics.set_fullness("d", "hub", snapshot(patroni=None))
    assert series("hub") == before
    mute = snapshot(patroni=database(None), redis_pods=(redis_pod(0, volume=70, memory=None),))
    metrics.set_fullness("d", "hub", mute)
    assert series("hub") == {
        f"{VOLUME} hub-redis-0": 0.7,
        f"{VOLUME} hub-redis-1": 0.6,
        f"{MEMORY} hub-redis-1": 0.07,
    }


async def test_each_visit_tells_it_until_the_spec_is_not_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = snapshot(patroni=database(), redis_pods=(redis_pod(0),))
    monkeypatch.setattr(reconcile, "observe", AsyncMock(return_value=seen))
    this: Any = SimpleNamespace(
        _written={},
        _memories={},
        _images=IMAGES,
        _http=None,
        _objects=SimpleNamespace(observed=lambda _: SimpleNamespace(children={})),
        _gateways=SimpleNamespace(of=AsyncMock(return_value={})),
        _leader_key=AsyncMock(return_value=None),
        _act=AsyncMock(return_value=1.0),
        _write_status=AsyncMock(return_value=False),
    )
    this._reject = lambda *args: Reconciler._reject(this, *args)
    body: dict[str, Any] = {"metadata": {"name": "hub", "namespace": "d", "uid": "u"}, "spec": {}}
    await Reconciler._visit(this, ("d", "hub"), body)
    assert len(series("hub")) == 5
    await Reconciler._visit(this, ("d", "hub"), {**body, "spec": {"redis": 7}})
    assert not series("hub")
