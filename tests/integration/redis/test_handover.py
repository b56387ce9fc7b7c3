"""A master that stops hands over, and takes along a replica that no Sentinel would tell."""

from __future__ import annotations

import threading

import pytest

from images.redis.runnerhub_redis import handover
from tests.integration.redis.conftest import ADDRESSES, Pods, wait_until


def test_a_replica_that_the_sentinels_take_for_dead_follows_the_successor_too(
    pods: Pods, monkeypatch: pytest.MonkeyPatch
) -> None:
    pods.start_all()
    # For the Sentinels, and for them alone, pod 2 is dead: their connections to it are ended again and again.
    client, over = pods.redis(2), threading.Event()

    def cut() -> None:
        while not over.wait(0.02):
            for found in client.client_list():
                if "sentinel" in found["name"]:
                    client.client_kill_filter(_id=found["id"])

    cutting = threading.Thread(target=cut)
    cutting.start()
    try:
        wait_until(lambda: "s_down" in flags_of(pods, 1) or "disconnected" in flags_of(pods, 1))
        monkeypatch.setattr(handover, "LOCAL", ADDRESSES[0])
        handover.hand_over(pods.settings(), ADDRESSES)
        successor = pods.redis(1).info("replication")
        assert successor["role"] == "master"
        followers = {successor[f"slave{number}"]["ip"] for number in range(successor["connected_slaves"])}
        assert followers == {ADDRESSES[0], ADDRESSES[2]}
    finally:
        over.set()
        cutting.join()


def flags_of(pods: Pods, sentinel: int) -> str:
    """How a Sentinel takes pod 2."""
    replicas = pods.sentinel(sentinel).execute_command("SENTINEL", "REPLICAS", "github-runnerhub-redis")
    return next(str(found["flags"]) for found in replicas if found["ip"] == ADDRESSES[2])
