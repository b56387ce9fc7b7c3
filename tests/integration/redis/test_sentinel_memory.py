"""A Sentinel that starts with a memory in which the master is no pod of today."""

from __future__ import annotations

from dataclasses import replace

import pytest

from images.redis.runnerhub_redis import sentinel_pod
from images.redis.runnerhub_redis.config import SentinelState
from tests.integration.redis.conftest import ADDRESSES, NAME, Pods, wait_until
from tests.integration.redis.test_pod_start import Resolver

STRANGER = "127.0.0.99"


@pytest.mark.parametrize("own_runs", [True, False])
def test_it_asks_the_others_for_the_master_and_keeps_its_identity(pods: Pods, own_runs: bool) -> None:
    pods.start_all()
    pods.sentinel(1).execute_command("SENTINEL", "FAILOVER", NAME)
    wait_until(lambda: pods.master(1) == pods.master(2) != ADDRESSES[0])
    master = pods.master(1)
    if not own_runs:
        pods.processes["sentinel", 0].kill()
    replica, gone = f"sentinel known-replica {NAME}", f"{STRANGER} {pods.port}"
    remembered = SentinelState(
        master=STRANGER,
        port=pods.port,
        myid="a" * 40,
        config_epoch=1,
        known=(f"{replica} {ADDRESSES[1]} {pods.port}", f"{replica} {gone}"),
    )
    found = sentinel_pod._of_today(pods.settings(), remembered, Resolver(None))  # type: ignore[arg-type]
    assert found == replace(
        remembered, master=master, known=remembered.known[:1], members=tuple(ADDRESSES.values())
    )
