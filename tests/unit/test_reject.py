"""A spec that the operator does not understand: an older definition, or a newer one, let it through."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any
from unittest.mock import AsyncMock

from runnerhub_operator.reconcile import BUSY_SECONDS, Reconciler

BODY: dict[str, Any] = {
    "apiVersion": "runnerhub.io/v1alpha1",
    "kind": "RunnerHubCluster",
    "metadata": {"name": "hub", "namespace": "ns", "uid": "u1", "resourceVersion": "5", "generation": 2},
    "spec": {},
}


def operator(*, told: bool = True) -> Any:
    return SimpleNamespace(
        _written={},
        _write_status=AsyncMock(return_value=told),
        _actor=SimpleNamespace(resource=SimpleNamespace(emit=AsyncMock())),
    )


async def reject(operator: Any, body: dict[str, Any], message: str = "spec.redis: no") -> float:
    return await Reconciler._reject(operator, ("ns", "hub"), body, message)


async def test_it_is_told_by_an_event_of_the_cluster_once() -> None:
    this = operator()
    await reject(this, BODY)
    [(involved, note, _)] = [call.args for call in this._actor.resource.emit.await_args_list]
    assert (involved.namespace, involved.name, involved.uid) == ("ns", "hub", "u1")
    assert (note.type, note.reason, note.message) == ("Warning", "InvalidSpec", "spec.redis: no")

    status = this._write_status.await_args.args[2].model_dump(mode="json", by_alias=True, exclude_none=True)
    await reject(this, {**BODY, "status": status})
    assert this._actor.resource.emit.await_count == 1
    await reject(this, {**BODY, "status": status}, "spec.redis: no either")
    assert this._actor.resource.emit.await_count == 2


async def test_a_status_that_could_not_be_written_is_told_at_the_next_visit() -> None:
    this = operator(told=False)
    assert await reject(this, BODY) == BUSY_SECONDS
    this._actor.resource.emit.assert_not_awaited()
