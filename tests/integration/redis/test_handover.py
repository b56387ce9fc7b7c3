"""A master that stops hands over, and takes along a replica that no Sentinel would tell."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from dataclasses import replace

import pytest
import redis

from images.redis.runnerhub_redis import handover, standing
from runnerhub_orchestrator.redis_link import EpochSentinel
from tests.integration.redis.conftest import ADDRESSES, AT_ONCE, NAME, QUICK_MILLISECONDS, Pods, wait_until


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
    pods.take_for_dead_after(QUICK_MILLISECONDS)
    try:
        wait_until(lambda: "s_down" in flags_of(pods, 1) or "disconnected" in flags_of(pods, 1))
        monkeypatch.setattr(handover, "LOCAL", ADDRESSES[0])
        # Before the Sentinels tell it after all, eight seconds later or more.
        monkeypatch.setattr(handover, "DEADLINE_SECONDS", 8.0)
        handover.hand_over(pods.settings(), ADDRESSES)
        successor = pods.redis(1).info("replication")
        assert successor["role"] == "master"
        followers = {successor[f"slave{number}"]["ip"] for number in range(successor["connected_slaves"])}
        assert followers == {ADDRESSES[0], ADDRESSES[2]}
    finally:
        over.set()
        cutting.join()


@pytest.mark.parametrize(("started_with", "known"), [(2, {0: ADDRESSES[0], 1: ADDRESSES[1]}), (5, ADDRESSES)])
def test_a_master_that_started_among_fewer_or_more_pods_hands_over(
    pods: Pods, monkeypatch: pytest.MonkeyPatch, started_with: int, known: dict[int, str]
) -> None:
    """It is renewed last, and the successor may be a pod that came after its start."""
    pods.start_all()
    for ordinal in ADDRESSES:
        pods.sentinel(ordinal).execute_command("SENTINEL", "DEBUG", "INFO-PERIOD", 100)
    pods.redis(2).config_set("replica-priority", 1)
    wait_until(lambda: all(priority_of(pods, ordinal) == 1 for ordinal in ADDRESSES))
    paths = pods.settings().paths
    standing.note(paths, pods.redis(0).info("replication"))
    monkeypatch.setattr(handover, "LOCAL", ADDRESSES[0])
    started = time.monotonic()
    handover.hand_over(replace(pods.settings(), replicas=started_with), known)
    assert time.monotonic() - started < handover.DEADLINE_SECONDS
    assert is_master(pods, 2)
    assert pods.redis(0).info("replication")["master_host"] == ADDRESSES[2]
    assert pods.redis(1).info("replication")["master_host"] == ADDRESSES[2]
    noted = standing.read(paths)
    assert noted is not None
    assert not noted.was_master, "the next life has nothing to save"


def test_the_sentinel_that_promoted_names_the_successor_in_all_its_answers_when_the_hand_over_is_done(
    pods: Pods, monkeypatch: pytest.MonkeyPatch
) -> None:
    """redis-py goes by SENTINEL MASTERS, which names the former master until all replicas were seen to follow."""
    pods.start_all()
    monkeypatch.setattr(handover, "LOCAL", ADDRESSES[0])
    handover.hand_over(pods.settings(), ADDRESSES)
    # It is asked first.
    told = pods.sentinel(1).sentinel_masters()[NAME]
    assert is_master(pods, [*ADDRESSES.values()].index(told["ip"]))
    assert told["ip"] != ADDRESSES[0]
    assert told["failover-timeout"] == pods.settings().failover_timeout_milliseconds


def test_whoever_asks_while_a_failover_waits_for_its_replicas_is_told_the_new_master(pods: Pods) -> None:
    """Orchestrators ask this way."""
    pods.start_all()
    # It cannot follow whoever is promoted, so that the failover waits for it.
    leave_behind(pods, 0)
    sentinel = pods.sentinel(1)
    sentinel.execute_command("SENTINEL", "SET", NAME, "failover-timeout", 60000)
    sentinel.execute_command("SENTINEL", "FAILOVER", NAME)
    wait_until(lambda: sentinel.sentinel_get_master_addr_by_name(NAME)[0] != ADDRESSES[0])
    assert sentinel.sentinel_masters()[NAME]["ip"] == ADDRESSES[0]

    async def found() -> tuple[str, int]:
        options = {"socket_timeout": 5, "decode_responses": True}
        asked = EpochSentinel([(ADDRESSES[1], pods.sentinel_port)], sentinel_kwargs=options)
        try:
            return await asked.discover_master(NAME)
        finally:
            for client in asked.sentinels:
                await client.aclose()

    address, _ = asyncio.run(found())
    assert address != ADDRESSES[0]
    assert is_master(pods, [*ADDRESSES.values()].index(address))


def test_nobody_but_members_is_asked_whoever_the_sentinels_name(
    pods: Pods, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever is asked is told the operator's password."""
    stranger = "127.0.0.9"
    pods.start_redis(0)
    pods.start_redis(1, "--replicaof", f"{ADDRESSES[0]} {pods.port}")
    wait_until(lambda: pods.redis(0).info("replication")["connected_slaves"] == 1)
    for ordinal in (1, 2):
        pods.start_sentinel(ordinal, stranger)
    monkeypatch.setattr(handover, "LOCAL", ADDRESSES[0])
    asked: list[str] = []
    monkeypatch.setattr(handover, "replication_of", lambda _settings, host: asked.append(host) or {})
    handover.hand_over(pods.settings(), ADDRESSES)
    assert not asked
    assert pods.redis(0).info("replication")["role"] == "master"
    assert pods.redis(0).sadd("written", "later")


def leave_behind(pods: Pods, priority: int) -> int:
    """Cut pod 2 off its master alone, write on, and let the Sentinels know; how many entries the master has."""
    behind, master = pods.redis(2), pods.redis(0)
    behind.config_set("masterauth", "wrong")
    behind.config_set("masteruser", "nobody")
    behind.config_set("replica-priority", priority)
    # The other one is back at once.
    master.client_kill_filter(_type="replica")
    wait_until(lambda: behind.info("replication")["master_link_status"] == "down")
    wait_until(lambda: pods.redis(1).info("replication")["master_link_status"] == "up")
    for number in range(50):
        master.sadd("written", number)
    for ordinal in ADDRESSES:
        pods.sentinel(ordinal).execute_command("SENTINEL", "DEBUG", "INFO-PERIOD", 100)
    wait_until(lambda: all(priority_of(pods, ordinal) == priority for ordinal in ADDRESSES))
    for ordinal in ADDRESSES:
        pods.sentinel(ordinal).execute_command("SENTINEL", "DEBUG", "INFO-PERIOD", 10000)
    return 50


def test_a_replica_that_lacks_something_is_not_made_master(
    pods: Pods, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What Sentinel knows of the offsets may be old."""
    monkeypatch.setattr(handover, "LOCAL", ADDRESSES[0])
    # The successor is waited for until the deadline: the other replica cannot follow it.
    monkeypatch.setattr(handover, "DEADLINE_SECONDS", 8.0)
    pods.start_all()
    written = leave_behind(pods, 100)
    # Neither has the Sentinel been told of these by the replica that has them.
    pods.redis(0).sadd("written", "last")
    handover.hand_over(pods.settings(), ADDRESSES)
    assert pods.redis(1).info("replication")["role"] == "master"
    assert pods.redis(1).scard("written") == written + 1


def test_where_sentinel_would_promote_a_replica_that_lacks_something_it_is_not_asked(
    pods: Pods, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handover, "LOCAL", ADDRESSES[0])
    pods.start_all()
    written = leave_behind(pods, 1)
    monkeypatch.setattr(handover, "LOOK_AGAIN_SECONDS", 0.5)
    handover.hand_over(pods.settings(), ADDRESSES)
    assert pods.redis(0).info("replication")["role"] == "master"
    assert pods.redis(0).scard("written") == written

    def takes_writes() -> bool:
        with contextlib.suppress(redis.ResponseError):
            return bool(pods.redis(0).sadd("written", "later"))
        return False

    wait_until(takes_writes)


def test_of_two_replicas_of_a_dead_master_the_furthest_is_promoted(
    pods: Pods, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handover, "LOCAL", ADDRESSES[0])
    pods.start_all()
    written = leave_behind(pods, 100)
    pods.redis(0).sadd("written", "last")
    wait_until(lambda: pods.redis(1).scard("written") == written + 1)
    pods.processes["redis", 0].kill()
    handover.request_failover(pods.settings(), ADDRESSES)
    assert is_master(pods, 1)
    # Sentinel tells it within a second, unless it ends its failover first.
    assert pods.redis(2).info("replication")["master_host"] == ADDRESSES[1]


def test_the_pause_outlasts_a_failover_that_began_and_was_not_seen_to_end(
    pods: Pods, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A write that the former master takes now may be confirmed by the third pod, and is lost."""
    monkeypatch.setattr(handover, "LOCAL", ADDRESSES[0])
    monkeypatch.setattr(handover, "PAUSE_AFTER_SECONDS", 30.0)
    monkeypatch.setattr(handover, "_start_failover", lambda *_: None)
    pods.start_redis(0)
    pods.start_redis(1, "--replicaof", ADDRESSES[0], str(pods.port))
    wait_until(lambda: pods.redis(0).info("replication").get("min_slaves_good_slaves") == 1)
    handover.hand_over(pods.settings(), ADDRESSES)
    hasty = redis.Redis(ADDRESSES[0], pods.port, socket_timeout=1, retry=AT_ONCE)
    with pytest.raises(redis.TimeoutError):
        hasty.set("late", "x")
    noted = standing.read(pods.settings().paths)
    assert noted is not None
    assert noted.was_master


def test_a_former_master_that_does_not_know_it_has_nobody_promoted(
    pods: Pods, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its own Sentinel was frozen with it, and a replica has not been told yet."""
    monkeypatch.setattr(handover, "LOCAL", ADDRESSES[0])
    for ordinal in (0, 1):
        pods.start_redis(ordinal)
    pods.start_redis(2, "--replicaof", ADDRESSES[0], str(pods.port))
    for ordinal, master in ((0, 0), (1, 1), (2, 1)):
        pods.start_sentinel(ordinal, ADDRESSES[master])
    wait_until(lambda: pods.redis(0).info("replication").get("min_slaves_good_slaves") == 1)
    wait_until(lambda: len(pods.sentinel(0).execute_command("SENTINEL", "REPLICAS", NAME)) == 1)
    handover.hand_over(pods.settings(), ADDRESSES)
    assert pods.master(0) == ADDRESSES[0], "no failover has begun"
    assert not is_master(pods, 2)
    noted = standing.read(pods.settings().paths)
    assert noted is not None
    assert noted.was_master


def is_master(pods: Pods, ordinal: int) -> bool:
    with contextlib.suppress(redis.ConnectionError):  # who is promoted ends its clients' connections
        return bool(pods.redis(ordinal).info("replication")["role"] == "master")
    return False


def priority_of(pods: Pods, sentinel: int) -> int:
    """That of pod 2, as a Sentinel knows it."""
    replicas = pods.sentinel(sentinel).execute_command("SENTINEL", "REPLICAS", NAME)
    return next(int(found["slave-priority"]) for found in replicas if found["ip"] == ADDRESSES[2])


def flags_of(pods: Pods, sentinel: int) -> str:
    """How a Sentinel takes pod 2."""
    replicas = pods.sentinel(sentinel).execute_command("SENTINEL", "REPLICAS", NAME)
    return next(str(found["flags"]) for found in replicas if found["ip"] == ADDRESSES[2])
