"""Which pod a proxy leads clients to that cannot ask Sentinel."""

from __future__ import annotations

import pytest

from images.redis.runnerhub_redis import state_server
from tests.integration.redis.conftest import ADDRESSES, Pods, wait_until


def test_only_a_master_that_is_followed_is_named(pods: Pods, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state_server, "PORT_REDIS", pods.port)

    def answer(ordinal: int, *, started: bool = True) -> int:
        monkeypatch.setattr(state_server, "LOCAL", ADDRESSES[ordinal])
        return state_server._master(pods.settings(ordinal), started=started)[0]

    assert answer(0) == 503
    pods.start_redis(0)
    assert answer(0) == 503
    pods.start_redis(1, "--replicaof", f"{ADDRESSES[0]} {pods.port}")
    wait_until(lambda: answer(0) == 200)
    assert answer(1) == 503
    assert answer(0, started=False) == 503
    # As many as it needs today, whatever that was when the pod started.
    pods.redis(0).config_set("min-replicas-to-write", 2)
    assert answer(0) == 503
    pods.redis(0).config_set("min-replicas-to-write", 1)
    assert answer(0) == 200
    # A master that was replaced while it was frozen: its replicas have gone over to another.
    pods.redis(1).replicaof("NO", "ONE")
    wait_until(lambda: answer(0) == 503)
    assert answer(1) == 503
