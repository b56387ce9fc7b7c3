"""Patroni's leader key: read once, by an operator that comes when the primary is silent already."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any
from unittest.mock import AsyncMock

import pytest

from runnerhub_operator.api import PostgresStatus, RunnerHubClusterStatus
from runnerhub_operator.errors import NotFoundError, UnavailableError
from runnerhub_operator.kube.client import ObjectRef
from runnerhub_operator.probes.patroni import PatroniCluster
from runnerhub_operator.reconcile import Reconciler
from runnerhub_operator.snapshot import LeaderKey
from tests.unit.plan.builders import cluster, patroni, snapshot

OLD = "hub-postgres-0"
# As Patroni 4 writes it.
KEY = {
    "acquireTime": "2026-03-01T11:40:00.938067+00:00",
    "leader": OLD,
    "optime": "135300928",
    "renewTime": "2026-03-01T11:59:58.500000+00:00",
    "transitions": "23",
    "ttl": "20",
}
SILENT = replace(patroni(), by_leader=False)


def manifest(annotations: Any) -> dict[str, Any]:
    return {"metadata": {"name": "hub-postgres-leader", "annotations": annotations}}


def test_it_tells_when_the_leader_was_heard_last() -> None:
    expected = LeaderKey(OLD, datetime(2026, 3, 1, 11, 59, 58, 500000, tzinfo=UTC))
    assert LeaderKey.of(manifest(KEY)) == expected


@pytest.mark.parametrize(
    "annotations",
    [None, {}, {"leader": OLD}, KEY | {"renewTime": "soon"}, KEY | {"leader": ""}],
    ids=["bare", "empty", "never renewed", "no time", "given away"],
)
def test_one_that_does_not_say_is_none(annotations: Any) -> None:
    assert LeaderKey.of(manifest(annotations)) is None


async def read(
    view: PatroniCluster | None, answer: Any, primary: str | None = OLD
) -> tuple[LeaderKey | None, AsyncMock]:
    get = AsyncMock(side_effect=[answer])
    this: Any = SimpleNamespace(_client=SimpleNamespace(get=get))
    known = replace(cluster(), status=RunnerHubClusterStatus(postgres=PostgresStatus(primary=primary)))
    return await Reconciler._leader_key(this, known, snapshot(patroni=view)), get


@pytest.mark.parametrize("view", [SILENT, None], ids=["others answer", "nobody answers"])
async def test_it_is_read_when_the_primary_says_nothing_itself(view: PatroniCluster | None) -> None:
    found, get = await read(view, manifest(KEY))
    assert found == LeaderKey.of(manifest(KEY))
    get.assert_awaited_once_with(
        ObjectRef("v1", "ConfigMap", cluster().namespace, "hub-postgres-leader"),
    )


async def test_it_costs_nothing_otherwise() -> None:
    for view, primary in ((patroni(), OLD), (SILENT, None)):
        found, get = await read(view, manifest(KEY), primary)
        assert found is None
        get.assert_not_awaited()


@pytest.mark.parametrize("error", [NotFoundError("none"), UnavailableError("later"), TimeoutError()])
async def test_without_an_answer_nothing_is_known(error: Exception) -> None:
    assert (await read(SILENT, error))[0] is None
