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
    known = {
        address: f"sentinel known-replica {NAME} {address} {pods.port}"
        for address in (ADDRESSES[1], ADDRESSES[2], "127.0.0.98")
    }
    remembered = SentinelState(
        master=STRANGER,
        port=pods.port,
        myid="a" * 40,
        config_epoch=1,
        known=tuple(known.values()),
    )
    found = sentinel_pod._of_today(pods.settings(), remembered, Resolver(None))  # type: ignore[arg-type]
    (other,) = {ADDRESSES[1], ADDRESSES[2]} - {master}
    assert found == replace(
        remembered, master=master, known=(known[other],), members=tuple(ADDRESSES.values())
    )


def test_a_master_that_is_a_known_replica_too_is_made_a_replica_of_itself(pods: Pods) -> None:
    """Why the memory must not say so."""
    pods.start_redis(0)
    pods.start_sentinel(0, ADDRESSES[0])
    pods.processes["sentinel", 0].kill()
    pods.processes["sentinel", 0].wait()
    path = pods.settings().paths.sentinel_state
    line = f"sentinel known-replica {NAME} {ADDRESSES[0]} {pods.port}\n"
    path.write_text(path.read_text() + line)
    pods.restart_sentinel(0)
    wait_until(lambda: pods.redis(0).info("replication").get("master_host") == ADDRESSES[0], 40)
