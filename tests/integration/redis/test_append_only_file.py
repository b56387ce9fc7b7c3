"""A damaged end of the append-only file is cut off and kept, and Redis starts with all that is whole."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from images.redis.runnerhub_redis import aof
from tests.integration.redis.conftest import Pods, wait_until


def written(pods: Pods) -> Path:
    """The last append-only file of a server that was written to and has ended."""
    client = pods.start_redis(0, "--appendonly", "yes", "--min-replicas-to-write", "0")
    for number in range(20):
        client.set(f"key-{number}", "x")
    client.shutdown(nosave=True)
    process = pods.processes["redis", 0]
    wait_until(lambda: process.poll() is not None)
    path = aof.last_increment(pods.settings().paths)
    assert path is not None
    return path


HALF_A_COMMAND = b"*3\r\n$3\r\nSET\r\n$4\r\nlos"


@pytest.mark.parametrize(
    "damage",
    [
        HALF_A_COMMAND,
        b"*3\r\n$3\r\nSET\r\n$999\r\nx",
        b"*1\r\n$5\r\nMULTI\r\n*3\r\n$3\r\nSET\r\n$1\r\na\r\n$1\r\nb\r\n",
    ],
)
def test_a_torn_end_is_cut_off_and_kept(pods: Pods, damage: bytes) -> None:
    path = written(pods)
    whole = path.read_bytes()
    path.write_bytes(whole + damage)
    paths = pods.settings().paths
    aof.mend(paths)
    assert path.read_bytes() == whole
    (kept,) = paths.tails.iterdir()
    assert kept.read_bytes() == damage
    assert kept.name.endswith(f"{path.name}-from-{len(whole)}")
    client = pods.start_redis(0, "--appendonly", "yes")
    assert len(client.keys()) == 20


def test_redis_itself_does_not_start_with_blocks_that_were_never_written(pods: Pods) -> None:
    """What this is for."""
    path = written(pods)
    with path.open("ab") as file:
        file.write(b"\0" * 4096)
    done = subprocess.run(
        ["redis-server", "--port", str(pods.port), "--dir", str(path.parents[1]), "--appendonly", "yes"],
        capture_output=True, text=True, check=False, timeout=20,
    )  # fmt: skip
    assert done.returncode == 1
    assert "Bad file format reading the append only file" in done.stdout


def test_blocks_that_were_never_written_are_cut_off(pods: Pods) -> None:
    path = written(pods)
    whole = path.read_bytes()
    path.write_bytes(whole + b"\0" * 4096)
    paths = pods.settings().paths
    aof.mend(paths)
    assert path.read_bytes() == whole
    assert not paths.tails.exists(), "there is nothing in them"
    assert len(pods.start_redis(0, "--appendonly", "yes").keys()) == 20


def test_damage_with_whole_commands_behind_it_is_left_to_redis(pods: Pods) -> None:
    path = written(pods)
    whole = path.read_bytes()
    middle = len(whole) // 2
    damaged = whole[:middle] + b"\0" * 64 + whole[middle + 64 :]
    path.write_bytes(damaged)
    aof.mend(pods.settings().paths)
    assert path.read_bytes() == damaged


def test_where_there_is_no_room_for_a_copy_a_torn_end_is_cut_off_all_the_same(
    pods: Pods, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = written(pods)
    whole = path.read_bytes()
    path.write_bytes(whole + HALF_A_COMMAND)
    paths = pods.settings().paths

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shutil, "copyfileobj", full)
    aof.mend(paths)
    assert path.read_bytes() == whole
    assert list(paths.tails.iterdir()) == []


def test_a_whole_file_and_none_are_left_alone(pods: Pods) -> None:
    paths = pods.settings().paths
    aof.mend(paths)
    path = written(pods)
    before = path.read_bytes()
    aof.mend(paths)
    assert path.read_bytes() == before
    assert not paths.tails.exists()


def test_only_the_newest_tails_are_kept(pods: Pods) -> None:
    path = written(pods)
    paths = pods.settings().paths
    paths.tails.mkdir()
    for number in range(5):
        (paths.tails / f"2020010{number}T000000Z-x").touch()
    with path.open("ab") as file:
        file.write(HALF_A_COMMAND)
    aof.mend(paths)
    kept = sorted(item.name for item in paths.tails.iterdir())
    assert kept[:2] == ["20200103T000000Z-x", "20200104T000000Z-x"]
    assert len(kept) == aof.KEPT_TAILS
