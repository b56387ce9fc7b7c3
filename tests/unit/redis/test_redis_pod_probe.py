"""What the start programs of the Redis pods tell the operator."""

from __future__ import annotations

import pytest

from runnerhub_operator.probes.redis_pod import QueueDepth, RedisPodState, ReplicaLag, parse_state

MASTER = {
    "ordinal": 0,
    "volume": "complete",
    "running": True,
    "volumeUsedPercent": 45,
    "snapshots": ["20261126T060505Z-offset-7.rdb"],
    "configuration": "0123456789abcdef",
    "redis": {
        "role": "master",
        "offset": 1000,
        "memoryUsedPercent": 12,
        "replicas": {
            "10.96.0.2": {"offset": 990, "silentSeconds": 0},
            "10.96.0.3": {"offset": 1200, "silentSeconds": 4},
        },
        "queue": {"waiting": 7, "active": 2, "delayed": 0, "failed": 1},
    },
}


def test_a_master_tells_how_far_behind_its_replicas_are() -> None:
    assert parse_state("hub-redis-0", MASTER) == RedisPodState(
        "hub-redis-0",
        volume_used_percent=45,
        memory_used_percent=12,
        snapshots=("20261126T060505Z-offset-7.rdb",),
        lags={"10.96.0.2": ReplicaLag(10, 0), "10.96.0.3": ReplicaLag(0, 4)},
        configuration="0123456789abcdef",
        depth=QueueDepth(7, 2, 0, 1),
    )


def test_a_replica_tells_of_no_lag() -> None:
    body = {**MASTER, "redis": {**MASTER["redis"], "role": "slave"}}  # type: ignore[dict-item]
    state = parse_state("hub-redis-1", body)
    assert (state.lags, state.depth) == ({}, None)


@pytest.mark.parametrize("queue", [None, [], {}, {"waiting": 1, "active": -1, "delayed": 0, "failed": 0}])
def test_a_depth_that_is_none_is_not_told(queue: object) -> None:
    body = {**MASTER, "redis": {**MASTER["redis"], "queue": queue}}  # type: ignore[dict-item]
    assert parse_state("hub-redis-0", body).depth is None


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"volumeUsedPercent": "full", "snapshots": "x", "redis": None},
        {"volumeUsedPercent": True, "snapshots": None, "redis": {"role": "master", "replicas": []}},
        {
            "volumeUsedPercent": -1,
            "redis": {"role": "master", "offset": 1, "replicas": {"a": 1, "b": {"offset": None}}},
        },
    ],
)
def test_what_is_missing_or_strange_is_not_told(body: object) -> None:
    assert parse_state("hub-redis-0", body) == RedisPodState("hub-redis-0")


def test_an_answer_that_is_no_object_is_refused() -> None:
    with pytest.raises(ValueError, match="no object"):
        parse_state("hub-redis-0", [])


def test_a_pod_cannot_fill_the_status() -> None:
    state = parse_state("hub-redis-0", {"snapshots": [f"{number:0200}" for number in range(100)]})
    assert len(state.snapshots) == 8
    assert {len(name) for name in state.snapshots} == {100}
