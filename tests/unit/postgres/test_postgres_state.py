"""Whose claims own Patroni's ConfigMaps, and when a member takes them for those of a cluster that is gone."""

from __future__ import annotations

import runpy
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from kindbed.paths import REPOSITORY

IMAGE = REPOSITORY / "images" / "postgres"
OWNER = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "name": "data-hub-postgres-2", "uid": "own"}


class Api:
    """The API server with one ConfigMap, whose owner is a claim that is gone."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str]] = []

    def find(self, path: str) -> dict[str, Any] | None:
        if not path.startswith("/configmaps"):
            return None
        owner = {"kind": "PersistentVolumeClaim", "name": "data-hub-postgres-0", "uid": "gone"}
        return {"metadata": {"uid": "map", "ownerReferences": [owner]}}

    def call(self, method: str, path: str, *_: object) -> None:
        self.calls.append((method, path))


@pytest.fixture
def tie(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    monkeypatch.syspath_prepend(str(IMAGE))
    yield runpy.run_path(str(IMAGE / "bin" / "postgres-state"))["tie"]
    for name in [name for name in sys.modules if name.startswith("runnerhub_postgres")]:
        del sys.modules[name]


def test_what_was_left_by_a_cluster_that_is_gone_is_made_anew(tie: Callable[..., None]) -> None:
    api = Api()
    tie(api, "hub-postgres-leader", {}, OWNER)
    assert api.calls == [("DELETE", "/configmaps/hub-postgres-leader"), ("POST", "/configmaps")]


def test_a_member_that_runs_already_takes_over_what_lost_its_owners(tie: Callable[..., None]) -> None:
    api = Api()
    tie(api, "hub-postgres-leader", {}, OWNER, running=True)
    assert api.calls == [("PATCH", "/configmaps/hub-postgres-leader")]
