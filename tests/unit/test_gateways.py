"""Gateways are read when their route has changed or they have no address yet, and otherwise cost no request."""

from __future__ import annotations

from typing import Any, cast

import pytest

from runnerhub_operator import gateways
from runnerhub_operator.errors import KubeError, NotFoundError, RefusedError, UnavailableError
from runnerhub_operator.gateways import Gateways
from runnerhub_operator.kube.client import KubeClient, ObjectRef
from runnerhub_operator.snapshot import Children, Gateway
from tests.unit.plan.builders import cluster

SPEC = {
    "ingress": {"host": "hub.example.com", "gateway": {"parentRefs": [{"name": "public", "namespace": "g"}]}}
}
PUBLIC = ("g", "public")
LISTENS = {"conditions": [{"type": "Programmed", "status": "True"}], "addresses": [{"value": "192.0.2.1"}]}


class Api:
    """Answers with the status of the moment, or an error."""

    def __init__(self, answer: dict[str, Any] | KubeError) -> None:
        self.answer = answer
        self.asked: list[str] = []

    async def get(self, ref: ObjectRef) -> dict[str, Any]:
        self.asked.append(str(ref))
        if isinstance(self.answer, KubeError):
            raise self.answer
        return {"status": self.answer}


def route(said: str = "yes") -> Children:
    status = {"parents": [{"message": said}]}
    return Children.of([{"kind": "HTTPRoute", "metadata": {"name": "hub-ingress"}, "status": status}])


def reading(api: Api) -> Gateways:
    return Gateways(cast("KubeClient", api))


async def test_a_gateway_that_listens_is_read_once_until_the_route_changes() -> None:
    api = Api(LISTENS)
    found = reading(api)
    for _ in range(3):
        assert await found.of(cluster(SPEC), route()) == {PUBLIC: Gateway(("192.0.2.1",))}
    assert api.asked == ["Gateway g/public"]
    await found.of(cluster(SPEC), route("other words"))
    assert len(api.asked) == 2


async def test_a_gateway_without_an_address_is_looked_at_again(monkeypatch: pytest.MonkeyPatch) -> None:
    api = Api({})
    found = reading(api)
    assert (await found.of(cluster(SPEC), route()))[PUBLIC].problem
    await found.of(cluster(SPEC), route())
    assert len(api.asked) == 1, "not at each visit"
    api.answer = LISTENS
    monkeypatch.setattr(gateways, "AGAIN_SECONDS", 0.0)
    assert (await found.of(cluster(SPEC), route()))[PUBLIC].addresses == ("192.0.2.1",)


@pytest.mark.parametrize(
    ("error", "known", "again"),
    [
        (RefusedError("no", 403), {PUBLIC: Gateway(readable=False)}, False),
        (NotFoundError("no", 404), {PUBLIC: Gateway(problem="it does not exist")}, True),
        (UnavailableError("no", 0), {}, True),
    ],
)
async def test_a_gateway_that_cannot_be_read_is_told_as_what_it_is(
    monkeypatch: pytest.MonkeyPatch, error: KubeError, known: dict[Any, Gateway], again: bool
) -> None:
    monkeypatch.setattr(gateways, "AGAIN_SECONDS", 0.0)
    api = Api(error)
    found = reading(api)
    for _ in range(2):
        assert await found.of(cluster(SPEC), route()) == known
    assert len(api.asked) == (2 if again else 1)


async def test_a_gateway_that_does_not_come_is_as_it_was_known_last(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gateways, "AGAIN_SECONDS", 0.0)
    api = Api(LISTENS)
    found = reading(api)
    before = await found.of(cluster(SPEC), route())
    api.answer = UnavailableError("no", 0)
    for words in ("other", "other", "words"):
        assert await found.of(cluster(SPEC), route(words)) == before


async def test_a_new_address_that_no_route_tells_of_is_found_later(monkeypatch: pytest.MonkeyPatch) -> None:
    api = Api(LISTENS)
    found = reading(api)
    await found.of(cluster(SPEC), route())
    api.answer = {**LISTENS, "addresses": [{"value": "192.0.2.2"}]}
    assert (await found.of(cluster(SPEC), route()))[PUBLIC].addresses == ("192.0.2.1",)
    monkeypatch.setattr(gateways, "LATER_SECONDS", 0.0)
    assert (await found.of(cluster(SPEC), route()))[PUBLIC].addresses == ("192.0.2.2",)


async def test_nothing_is_read_without_a_route_that_somebody_has_answered() -> None:
    api = Api(LISTENS)
    assert await reading(api).of(cluster(SPEC), Children({})) == {}
    assert await reading(api).of(cluster({}), route()) == {}
    assert api.asked == []
