"""A pod comes back to a master that others elected: what its volume has that nobody else has is not lost."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import redis

from images.redis.runnerhub_redis import aof, config, live, redis_pod, standing, volume
from images.redis.runnerhub_redis.decision import Volume
from tests.integration.redis.conftest import ADDRESSES, Pods, wait_until
from tests.integration.redis.test_deposed_master import Looker, own_of
from tests.unit.redis.test_redis_pod_configuration import write_settings


class Resolver:
    """DNS that knows all pods."""

    def __init__(self, _settings: object) -> None: ...

    def addresses(self) -> dict[int, str]:
        return ADDRESSES

    looked_up = addresses


@pytest.fixture
def volume_of_a_master(pods: Pods, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Pod 0 was a master that nobody followed and has ended; pod 1 is master now, of other data."""
    monkeypatch.setattr(redis_pod, "Resolver", Resolver)
    for module in (config, live, redis_pod):
        monkeypatch.setattr(module, "PORT_REDIS", pods.port)
    paths = pods.settings().paths
    paths.runtime.mkdir(parents=True)
    write_settings(paths.configuration)
    (paths.configuration / "redis.conf").write_text(
        f"bind {ADDRESSES[0]}\nappendonly yes\nprotected-mode no\n"
    )
    # With less than "always" a slow disk keeps the last two seconds out of the file of a server that is killed.
    options = ("--appendonly", "yes", "--appendfsync", "always", "--min-replicas-to-write", "0")
    client = pods.start_redis(0, *options)
    for number in range(10):
        client.set(f"alone-{number}", "x")
    standing.note(paths, {name: str(value) for name, value in client.info("replication").items()})
    volume.mark_complete(paths)
    pods.processes["redis", 0].kill()
    pods.processes["redis", 0].wait()
    pods.start_redis(1, "--min-replicas-to-write", "0").set("theirs", "x")
    for ordinal in (1, 2):
        pods.start_sentinel(ordinal, ADDRESSES[1])
    _, increments = aof.listed(paths)
    yield increments[-1]
    with suppress(redis.RedisError):
        pods.redis(0).shutdown(nosave=True)


def start(pods: Pods) -> None:
    """Run the start program of pod 0 until it follows the master."""
    pod = redis_pod.RedisPod(pods.settings())
    threading.Thread(target=pod._start, daemon=True).start()
    client = pods.redis(0)

    def follows() -> bool:
        try:
            return bool(client.info("replication").get("master_link_status") == "up")
        except redis.RedisError:
            return False

    wait_until(follows, 30)
    assert client.keys() == ["theirs"]
    wait_until(lambda: not pods.settings().paths.starting.exists())


def test_what_it_alone_had_is_saved_before_it_follows(pods: Pods, volume_of_a_master: Path) -> None:
    paths = pods.settings().paths
    start(pods)
    (saved,) = paths.diverged.iterdir()
    assert pods.keys_of(saved) == {f"alone-{number}" for number in range(10)}
    noted = standing.read(paths)
    assert noted is not None
    assert not noted.was_master


def test_damaged_files_do_not_keep_it_from_following(pods: Pods, volume_of_a_master: Path) -> None:
    paths = pods.settings().paths
    paths.standing.unlink()
    raw = volume_of_a_master.read_bytes()
    volume_of_a_master.write_bytes(raw[:100] + b"\xff" * 50 + raw[150:])
    start(pods)
    wait_until(lambda: volume.inspect(paths) is Volume.COMPLETE)
    (kept,) = paths.diverged.glob("*.damaged")
    assert (kept / volume_of_a_master.name).stat().st_size == len(raw)


@pytest.mark.parametrize("promoted", [False, True])
def test_a_copy_that_is_in_memory_only_does_not_count_as_a_whole_data_set(
    pods: Pods, volume_of_a_master: Path, promoted: bool
) -> None:
    """After a full copy Redis begins to write its append-only files anew; a start until then loads the old ones."""
    paths = pods.settings().paths
    paths.standing.unlink()
    paths.complete_marker.unlink()
    with (paths.configuration / "redis.conf").open("a") as file:
        file.write("rdb-key-save-delay 8000000\n")
    start(pods)
    client = pods.redis(0)
    wait_until(lambda: client.config_get("replica-priority") == {"replica-priority": "100"})
    assert client.info("persistence")["aof_rewrite_in_progress"] == 1
    if promoted:
        client.replicaof("NO", "ONE")
        time.sleep(1)
    assert volume.inspect(paths) is Volume.UNSYNCED
    wait_until(lambda: volume.inspect(paths) is Volume.COMPLETE, 60)
    assert client.info("persistence")["aof_rewrite_in_progress"] == 0


def test_without_append_only_files_nothing_is_waited_for(pods: Pods, volume_of_a_master: Path) -> None:
    paths = pods.settings().paths
    paths.standing.unlink()
    paths.complete_marker.unlink()
    with (paths.configuration / "redis.conf").open("a") as file:
        file.write("appendonly no\n")
    start(pods)
    wait_until(lambda: volume.inspect(paths) is Volume.COMPLETE)


def test_a_former_master_that_replicas_followed_saves_what_another_history_has_not(
    pods: Pods, volume_of_a_master: Path
) -> None:
    """After a power cut a replica that was restarted, and maybe behind, became master before this pod was back."""
    paths = pods.settings().paths
    paths.standing.unlink()
    pods.start_redis(0, "--appendonly", "yes", "--min-replicas-to-write", "0")
    pods.start_redis(2, "--replicaof", ADDRESSES[0], str(pods.port))
    client = pods.redis(0)
    wait_until(lambda: client.info("replication")["connected_slaves"] == 1)
    wait_until(lambda: client.info("replication")["slave0"]["state"] == "online")
    Looker(pods).watch.look()
    pods.processes["redis", 2].kill()
    pods.processes["redis", 0].kill()
    pods.processes["redis", 0].wait()
    start(pods)
    (saved,) = paths.diverged.iterdir()
    assert pods.keys_of(saved) == {f"alone-{number}" for number in range(10)}
    assert not own_of(paths)


def test_a_former_master_whose_successor_has_everything_saves_nothing(
    pods: Pods, volume_of_a_master: Path
) -> None:
    """As after each failover: a snapshot would only delay its return."""
    paths = pods.settings().paths
    own = standing.read(paths)
    assert own is not None
    pods.redis(1).replicaof("NO", "ONE")
    theirs = pods.redis(1).info("replication")
    continued = {**own.info, "master_replid": theirs["master_replid"], "master_repl_offset": "0"}
    standing.note(paths, continued)
    start(pods)
    assert not paths.diverged.exists()
