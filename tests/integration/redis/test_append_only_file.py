"""A damaged end of the append-only file is cut off and kept, and Redis starts with all that is whole."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
import redis

from images.redis.runnerhub_redis import access, aof, snapshots, volume
from images.redis.runnerhub_redis.decision import Volume
from tests.integration.redis.conftest import ADDRESSES, AT_ONCE, Pods, wait_until
from tests.unit.redis.test_redis_pod_configuration import write_passwords


def written(pods: Pods) -> Path:
    """The last append-only file of a server that was written to and has ended."""
    client = pods.start_redis(0, "--appendonly", "yes", "--min-replicas-to-write", "0")
    for number in range(20):
        client.set(f"key-{number}", "x")
    client.shutdown(nosave=True)
    process = pods.processes["redis", 0]
    wait_until(lambda: process.poll() is not None)
    _, increments = aof.listed(pods.settings().paths)
    return increments[-1]


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


@pytest.mark.parametrize("size", [2, 64, 65, 5000])
def test_a_hole_is_filled_and_nothing_is_missing(pods: Pods, size: int) -> None:
    path = written(pods)
    whole = path.read_bytes()
    between = whole.index(b"*3", len(whole) // 2)
    path.write_bytes(whole[:between] + b"\0" * size + whole[between:] + b"\0" * 100)
    aof.mend(pods.settings().paths)
    mended = path.read_bytes()
    assert len(mended) == len(whole) + size
    assert mended[:between] + mended[between + size :] == whole
    assert len(pods.start_redis(0, "--appendonly", "yes").keys()) == 20


def test_damage_in_the_middle_leaves_what_is_before_it_and_keeps_the_rest(pods: Pods) -> None:
    path = written(pods)
    paths = pods.settings().paths
    volume.mark_complete(paths)
    whole = path.read_bytes()
    middle = whole.index(b"key-10")
    damaged = whole[:middle] + b"\xff" * 64 + whole[middle + 64 :]
    path.write_bytes(damaged)
    aof.mend(paths)
    assert volume.inspect(paths) is Volume.DAMAGED
    (kept,) = paths.diverged.iterdir()
    assert (kept / path.name).read_bytes() == damaged
    assert snapshots.told(paths) == [kept.name]
    client = pods.start_redis(0, "--appendonly", "yes")
    assert set(client.keys()) == {f"key-{number}" for number in range(10)}
    volume.mark_complete(paths)
    assert volume.inspect(paths) is Volume.COMPLETE


def test_a_damaged_beginning_leaves_nothing_and_is_looked_for_after_a_start_that_failed(pods: Pods) -> None:
    written(pods)
    paths = pods.settings().paths
    client = pods.start_redis(0, "--appendonly", "yes")
    client.bgrewriteaof()
    wait_until(lambda: client.info("persistence")["aof_rewrites"] == 1)
    wait_until(lambda: client.info("persistence")["aof_rewrite_in_progress"] == 0)
    client.shutdown(nosave=True)
    pods.processes["redis", 0].wait()
    volume.mark_complete(paths)
    base, _ = aof.listed(paths)
    assert base is not None
    raw = base.read_bytes()
    base.write_bytes(raw[: len(raw) // 2] + b"\xff" * 16 + raw[len(raw) // 2 + 16 :])
    aof.mend(paths)
    assert not paths.diverged.exists()
    aof.mend(paths, all_of_it=True)
    assert volume.inspect(paths) is Volume.DAMAGED
    (kept,) = paths.diverged.iterdir()
    assert (kept / base.name).exists()
    assert pods.start_redis(0, "--appendonly", "yes").keys() == []


def test_files_without_a_manifest_are_no_empty_data_set(pods: Pods) -> None:
    path = written(pods)
    paths = pods.settings().paths
    volume.mark_complete(paths)
    (path.parent / aof.MANIFEST).unlink()
    aof.mend(paths)
    assert volume.inspect(paths) is Volume.DAMAGED


def test_a_damaged_copy_that_was_never_whole_is_removed(pods: Pods) -> None:
    path = written(pods)
    paths = pods.settings().paths
    path.write_bytes(b"\xff" * 1000)
    aof.mend(paths)
    assert volume.inspect(paths) is Volume.BLANK
    assert pods.start_redis(0, "--appendonly", "yes").keys() == []


def test_a_start_that_was_cut_off_while_it_put_files_aside_is_finished(pods: Pods) -> None:
    path = written(pods)
    paths = pods.settings().paths
    whole = path.read_bytes()
    paths.append_only.rename(paths.append_only_fresh)
    aof.mend(paths)
    assert path.read_bytes() == whole


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


@pytest.mark.parametrize("nameless_clients", [False, True])
def test_transactions_and_scripts_are_there_after_a_crash(
    pods: Pods, tmp_path: Path, nameless_clients: bool
) -> None:
    credentials = access.Credentials(write_passwords(tmp_path / "secret"), tmp_path / "memory")
    users = tmp_path / "users.acl"
    users.write_text(
        "\n".join(access.lines(access.redis_users(credentials, nameless_clients=nameless_clients))) + "\n"
    )
    options = ("--appendonly", "yes", "--appendfsync", "always", "--min-replicas-to-write", "0")

    def start() -> redis.Redis:
        pods.start_redis(0, *options, "--aclfile", str(users))
        client = redis.Redis(
            ADDRESSES[0],
            pods.port,
            username="app",
            password="the-password",
            decode_responses=True,
            retry=AT_ONCE,
        )
        wait_until(client.ping)
        return client

    client = start()
    with client.pipeline(transaction=True) as transaction:
        transaction.set("by-transaction", "1").lpush("list", "1", "2").execute()
    # As BullMQ adds a job: several commands, which go to the file as one transaction.
    client.eval(
        "redis.call('HSET', KEYS[1], 'data', '{}'); redis.call('RPUSH', KEYS[2], '1')", 2, "job", "wait"
    )
    process = pods.processes["redis", 0]
    process.kill()
    process.wait()
    client = start()
    assert set(client.scan_iter()) == {"by-transaction", "list", "job", "wait"}
    if not nameless_clients:
        for name in ({}, {"username": "default"}):
            with pytest.raises(redis.AuthenticationError):
                redis.Redis(ADDRESSES[0], pods.port, password="the-password", retry=AT_ONCE, **name).ping()
        with pytest.raises(redis.AuthenticationError):
            redis.Redis(ADDRESSES[0], pods.port, retry=AT_ONCE).ping()
