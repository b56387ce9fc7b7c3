"""The pods' Services have other addresses than before: those of Redis follow, and Sentinel knows who was who."""

from __future__ import annotations

import json

from images.redis.runnerhub_redis import network, readdress
from images.redis.runnerhub_redis.config import parse_sentinel_state
from tests.integration.redis.conftest import ADDRESSES, NAME, Pods, wait_until

MOVED = {ordinal: f"127.0.1.{ordinal + 1}" for ordinal in ADDRESSES}


def test_a_replica_goes_on_at_its_masters_new_address_without_a_full_copy(pods: Pods, monkeypatch) -> None:
    monkeypatch.setattr(readdress, "PORT_REDIS", pods.port)
    both = {ordinal: ("--bind", ADDRESSES[ordinal], MOVED[ordinal]) for ordinal in (0, 1)}
    master = pods.start_redis(0, *both[0])
    replica = pods.start_redis(1, *both[1], "--replicaof", ADDRESSES[0], str(pods.port))
    wait_until(lambda: replica.info("replication")["master_link_status"] == "up")
    copies = master.info("stats")["sync_full"]
    for ordinal in (0, 1):
        watch = readdress.Watch(pods.settings(ordinal), ADDRESSES, lambda: MOVED, local=ADDRESSES[ordinal])
        watch.look()
        watch.look()

    def follows_anew() -> bool:
        info = master.info("replication")
        return info["connected_slaves"] == 1 and info["slave0"]["ip"] == MOVED[1]

    wait_until(follows_anew)
    assert replica.info("replication")["master_host"] == MOVED[0]
    assert master.info("stats")["sync_full"] == copies
    # Its own address alone is told by connecting again.
    back = {**MOVED, 1: ADDRESSES[1]}
    readdress.Watch(pods.settings(1), MOVED, lambda: back, local=ADDRESSES[1]).look()
    wait_until(lambda: master.info("replication").get("slave0", {}).get("ip") == ADDRESSES[1])


def test_addresses_of_pods_that_have_gone_are_no_obstacle(pods: Pods, monkeypatch) -> None:
    """A pod that started from remembered addresses, of five, is one of three by now, and its own has changed."""
    monkeypatch.setattr(readdress, "PORT_REDIS", pods.port)
    redis = pods.start_redis(0)
    used = {**ADDRESSES, 3: "127.0.0.14", 4: "127.0.0.15"}
    readdress.Watch(pods.settings(0), used, lambda: MOVED, local=ADDRESSES[0]).look()
    assert redis.config_get("replica-announce-ip")["replica-announce-ip"] == MOVED[0]


def test_only_addresses_of_today_s_pods_are_remembered(pods: Pods, monkeypatch) -> None:
    paths = pods.settings().paths
    paths.addresses.parent.mkdir(parents=True, exist_ok=True)
    paths.addresses.write_text(json.dumps({ordinal: f"127.0.0.{ordinal}" for ordinal in range(5)}))
    monkeypatch.setattr(network, "DNS_PATIENCE_SECONDS", 0.0)
    assert network.Resolver(pods.settings()).addresses() == {n: f"127.0.0.{n}" for n in range(3)}


def test_sentinel_keeps_in_its_file_which_pod_had_which_address(pods: Pods) -> None:
    pods.start_redis(0)
    pods.start_sentinel(0, ADDRESSES[0])
    file = pods.settings().paths.sentinel_state
    wait_until(lambda: "myid" in file.read_text())
    state = parse_sentinel_state(file.read_text(), NAME)
    assert state is not None
    assert state.members == tuple(ADDRESSES.values())
