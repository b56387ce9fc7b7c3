"""A full volume: the master refuses writes, nobody ends, and all goes on when there is room again."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from images.redis.runnerhub_redis import aof, live
from runnerhub_operator.resources import redis as builders
from tests.integration.redis.conftest import ADDRESSES, Pods, wait_until
from tests.unit.redis.test_redis_manifests import context


@pytest.fixture
def small_volumes(pods: Pods) -> Iterator[list[Path]]:
    """Pods 0 and 1 with 6 MB each; the files take 2 MB of that until they are removed."""
    ballast = []
    with contextlib.ExitStack() as stack:
        for ordinal in (0, 1):
            folder = pods.settings(ordinal).paths.redis_data
            folder.mkdir(parents=True)
            mount = ["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", str(folder)]
            if subprocess.run(mount, capture_output=True, check=False).returncode:
                pytest.skip("mounting a small file system takes root")
            stack.callback(subprocess.run, ["umount", "--lazy", str(folder)], check=True)
            path = folder / "ballast"
            path.write_bytes(b"x" * 2 * 1024 * 1024)
            ballast.append(path)
        yield ballast


def test_what_was_acknowledged_outlives_a_full_volume(pods: Pods, small_volumes: list[Path]) -> None:
    master = pods.start_redis(0, "--appendonly", "yes")
    replica = pods.start_redis(1, "--appendonly", "yes", "--replicaof", ADDRESSES[0], str(pods.port))
    wait_until(lambda: replica.info("replication")["master_link_status"] == "up")
    wait_until(lambda: replica.info("persistence")["aof_rewrite_in_progress"] == 0)
    settings = live.directives(builders.redis_configuration(context()))
    for client in (master, replica):
        for name, value in settings.items():
            if name != "bind":
                client.config_set(name, value)
    wait_until(lambda: master.info("replication")["min_slaves_good_slaves"] == 1)
    acknowledged: list[str] = []

    def write_on() -> None:
        for number in range(1000):
            master.set(f"key-{number}", os.urandom(20000).hex())
            acknowledged.append(f"key-{number}")

    with pytest.raises(redis.ResponseError, match="MISCONF"):
        write_on()
    assert acknowledged

    def is_there(client: redis.Redis) -> bool:
        return client.exists(*acknowledged) == len(acknowledged)

    wait_until(lambda: is_there(replica))
    assert all(pods.processes["redis", ordinal].poll() is None for ordinal in (0, 1))
    for path in small_volumes:
        path.unlink()

    def takes_writes() -> bool:
        with contextlib.suppress(redis.ResponseError):
            return bool(master.set("later", "x"))
        return False

    wait_until(takes_writes)
    for ordinal, client in enumerate((master, replica)):
        wait_until(lambda client=client: client.info("persistence")["aof_last_write_status"] == "ok")
        wait_until(lambda client=client: client.info("persistence")["aof_buffer_length"] == 0)
        pods.processes["redis", ordinal].kill()
        pods.processes["redis", ordinal].wait()
        # Redis leaves holes in its file where it took back what it could not write.
        aof.mend(pods.settings(ordinal).paths)
        again = pods.start_redis(ordinal, "--appendonly", "yes")
        wait_until(lambda again=again: again.info("persistence")["loading"] == 0)
        assert is_there(again)
