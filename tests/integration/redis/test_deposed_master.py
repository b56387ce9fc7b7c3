"""Two masters: the one that was replaced refuses writes, keeps what it alone had, and follows the other."""

from __future__ import annotations

import signal
import threading
import time
from typing import Any

import pytest
import redis

from images.redis.runnerhub_redis import deposed, snapshots, standing
from images.redis.runnerhub_redis.history import has_diverged
from images.redis.runnerhub_redis.resp import Connection
from images.redis.runnerhub_redis.settings import Paths
from tests.integration.redis.conftest import (
    ADDRESSES,
    DOWN_AFTER_MILLISECONDS,
    NAME,
    QUICK_MILLISECONDS,
    Pods,
    wait_until,
)


def replace_master(pods: Pods, *, alone: tuple[str, ...] = ()) -> str:
    """Freeze the master until another was elected; `alone` is written to it when it wakes. Address of the new one."""
    old = pods.processes["redis", 0]
    old.send_signal(signal.SIGSTOP)
    pods.take_for_dead_after(QUICK_MILLISECONDS)
    wait_until(lambda: all(pods.master(ordinal) != ADDRESSES[0] for ordinal in ADDRESSES))
    pods.take_for_dead_after(DOWN_AFTER_MILLISECONDS)
    old.send_signal(signal.SIGCONT)
    client = pods.redis(0)
    client.config_set("min-replicas-to-write", "0")
    for key in alone:
        client.set(key, "x")
    client.config_set("min-replicas-to-write", "1")
    return pods.master(1)


def own_of(paths: Paths) -> bool:
    """Whether the next life of a pod takes what its volume holds for its own."""
    noted = standing.read(paths)
    return noted is not None and noted.was_master


class Looker:
    """The watch of a pod, and whether it has called its master deposed."""

    def __init__(self, pods: Pods, ordinal: int = 0) -> None:
        self.deposed = threading.Event()
        self.watch = deposed.Watch(
            pods.settings(ordinal), lambda: ADDRESSES, self.deposed.set, local=ADDRESSES[ordinal]
        )


def test_a_replaced_master_saves_what_it_alone_had_and_follows(pods: Pods) -> None:
    pods.start_all()
    pods.redis(0).set("before", "x")
    looker = Looker(pods)
    looker.watch.look()
    successor = replace_master(pods, alone=("alone",))
    looker.watch.look()
    client = pods.redis(0)
    wait_until(lambda: client.info("replication")["master_link_status"] == "up")
    assert client.info("replication")["master_host"] == successor
    assert client.get("before") == "x"
    assert client.get("alone") is None, "the new master's history is the one that counts"
    assert client.config_get("replica-priority") == {"replica-priority": "0"}
    looker.watch.look()
    assert looker.deposed.is_set()
    assert client.config_get("min-replicas-to-write") == {"min-replicas-to-write": "1"}
    (saved,) = pods.settings().paths.diverged.glob("*.rdb")
    assert "-offset-" in saved.name
    assert pods.keys_of(saved) == {"before", "alone"}


def test_a_pod_that_the_sentinels_have_not_named_gives_nothing_up(pods: Pods) -> None:
    """A promoted replica is master for a second before they name it; this one is master beside theirs for longer."""
    pods.start_all()
    looker = Looker(pods, 1)
    looker.watch.look()
    pods.redis(1).replicaof("NO", "ONE")
    for _ in range(3):
        looker.watch.look()
    assert pods.redis(1).info("replication")["role"] == "master"
    assert not looker.deposed.is_set()


@pytest.mark.parametrize("deliberate", [True, False])
def test_who_has_just_been_promoted_stays_master(
    pods: Pods, monkeypatch: pytest.MonkeyPatch, deliberate: bool
) -> None:
    monkeypatch.setattr(deposed, "LOOK_SECONDS", 0.02)
    pods.start_all()
    lookers = [Looker(pods, ordinal) for ordinal in (1, 2)]
    goes_on = threading.Event()
    goes_on.set()
    threads = [
        threading.Thread(target=looker.watch.run, args=(goes_on.is_set,), daemon=True) for looker in lookers
    ]
    for thread in threads:
        thread.start()
    if deliberate:
        pods.sentinel(2).execute_command("SENTINEL", "FAILOVER", NAME)
    else:
        pods.processes["redis", 0].kill()
        pods.take_for_dead_after(QUICK_MILLISECONDS)
    wait_until(lambda: len({pods.master(ordinal) for ordinal in ADDRESSES} - {ADDRESSES[0]}) == 1)
    time.sleep(2)
    goes_on.clear()
    for thread in threads:
        thread.join(5)
    roles = {ADDRESSES[ordinal]: pods.redis(ordinal).info("replication")["role"] for ordinal in (1, 2)}
    assert roles[pods.master(2)] == "master"
    assert not any(looker.deposed.is_set() for looker in lookers)


def test_what_was_decided_otherwise_during_the_save_is_seen(
    pods: Pods, monkeypatch: pytest.MonkeyPatch
) -> None:
    pods.start_all()
    looker = Looker(pods)
    looker.watch.look()
    successor = replace_master(pods, alone=("alone",))
    save = snapshots.save

    def save_slowly(*arguments: Any, **options: Any) -> Any:
        saved = save(*arguments, **options)
        ordinal = next(number for number, address in ADDRESSES.items() if address == successor)
        pods.processes["redis", ordinal].kill()
        pods.take_for_dead_after(QUICK_MILLISECONDS)
        wait_until(lambda: all(pods.master(number) != successor for number in ADDRESSES))
        return saved

    monkeypatch.setattr(snapshots, "save", save_slowly)
    looker.watch.look()
    assert pods.redis(0).info("replication").get("master_host") != successor


def test_a_replaced_master_with_nothing_of_its_own_saves_nothing(pods: Pods) -> None:
    pods.start_all()
    own = pods.redis(0).info("replication")
    # The replica has all there is and goes on with it.
    wait_until(lambda: pods.redis(1).info("replication")["slave_repl_offset"] >= own["master_repl_offset"])
    pods.redis(1).replicaof("NO", "ONE")
    theirs = {name: str(value) for name, value in pods.redis(1).info("replication").items()}
    mine = {name: str(value) for name, value in own.items()}
    mine["master_repl_offset"] = str(int(theirs["second_repl_offset"]) - 1)
    assert not has_diverged(mine, theirs)
    mine["master_repl_offset"] = theirs["second_repl_offset"]
    assert has_diverged(mine, theirs)


def test_writes_are_refused_while_the_data_is_saved(pods: Pods, monkeypatch: pytest.MonkeyPatch) -> None:
    pods.start_all()
    looker = Looker(pods)
    looker.watch.look()
    replace_master(pods, alone=("alone",))
    refused: list[str] = []
    save = snapshots.save

    def write_and_save(*arguments: Any, **options: Any) -> Any:
        with pytest.raises(redis.ResponseError, match="NOREPLICAS") as caught:
            pods.redis(0).set("late", "x")
        refused.append(str(caught.value))
        return save(*arguments, **options)

    monkeypatch.setattr(snapshots, "save", write_and_save)
    looker.watch.look()
    assert len(refused) == 1


def test_a_save_that_redis_has_begun_itself_is_waited_for(pods: Pods) -> None:
    client = pods.start_redis(0)
    client.config_set("min-replicas-to-write", "0")
    for number in range(2000):
        client.set(f"key-{number}", "x")
    client.config_set("rdb-key-save-delay", "500")
    client.bgsave()
    client.config_set("rdb-key-save-delay", "0")
    client.set("late", "x")
    settings = pods.settings()
    with Connection("127.0.0.1", pods.port, None, deadline_seconds=60) as connection:
        saved = snapshots.save(connection, settings.paths, 7)
    assert "late" in pods.keys_of(saved)


def test_the_watch_notices_by_itself_and_the_former_master_is_a_replica_soon(
    pods: Pods, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deposed, "LOOK_SECONDS", 0.1)
    pods.start_all()
    looker = Looker(pods)
    looker.watch.look()
    goes_on = threading.Event()
    goes_on.set()
    watching = threading.Thread(target=looker.watch.run, args=(goes_on.is_set,), daemon=True)
    watching.start()
    replace_master(pods)
    # Sentinel itself does so eight seconds after it has seen the old master again; nobody would be called then.
    assert looker.deposed.wait(40)
    assert pods.redis(0).info("replication")["role"] == "slave"
    goes_on.clear()
    watching.join(5)


def test_only_the_newest_snapshots_are_kept(pods: Pods) -> None:
    paths = pods.settings().paths
    pods.start_redis(0)
    pods.redis(0).save()
    for number in range(6):
        snapshots.keep(paths, f"2026010{number}T000000Z-offset-1.rdb")
    kept = sorted(path.name for path in paths.diverged.iterdir())
    assert kept == [f"2026010{number}T000000Z-offset-1.rdb" for number in (3, 4, 5)]
    # The next snapshot leaves what was kept alone.
    pods.redis(0).config_set("min-replicas-to-write", "0")
    pods.redis(0).set("later", "x")
    pods.redis(0).save()
    assert pods.keys_of(paths.diverged / kept[-1]) == set()


def test_a_save_that_fails_is_tried_again_before_the_data_goes(
    pods: Pods, monkeypatch: pytest.MonkeyPatch
) -> None:
    pods.start_all()
    looker = Looker(pods)
    looker.watch.look()
    replace_master(pods, alone=("alone",))
    paths = pods.settings().paths
    # Nothing can be made in there.
    paths.diverged.touch()
    for _ in range(2):
        looker.watch.look()
        assert pods.redis(0).info("replication")["role"] == "master"
        with pytest.raises(redis.ResponseError, match="NOREPLICAS"):
            pods.redis(0).set("late", "x")
    assert own_of(paths), "the next life knows"
    paths.diverged.unlink()
    looker.watch.look()
    assert pods.redis(0).info("replication")["role"] == "slave"
    (saved,) = paths.diverged.iterdir()
    assert "alone" in pods.keys_of(saved)
    assert not own_of(paths)


def test_data_that_cannot_be_saved_goes_after_a_while_and_is_told(
    pods: Pods, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshots, "SAVE_SECONDS", 0.0)
    pods.start_all()
    looker = Looker(pods)
    looker.watch.look()
    replace_master(pods, alone=("alone",))
    monkeypatch.setattr(snapshots, "save", refuse)
    looker.watch.look()
    assert pods.redis(0).info("replication")["role"] == "slave"
    (told,) = snapshots.told(pods.settings().paths)
    assert told.endswith(snapshots.NOT_SAVED)


def refuse(*_: Any, **__: Any) -> Any:
    raise snapshots.NotSavedError("no")


def test_what_a_master_alone_had_is_saved_by_its_next_life(pods: Pods) -> None:
    pods.start_all()
    looker = Looker(pods)
    looker.watch.look()
    paths = pods.settings().paths
    client = pods.redis(0)
    client.config_set("appendonly", "yes")
    client.config_set("min-replicas-to-write", "0")
    wait_until(lambda: client.info("persistence")["aof_rewrite_in_progress"] == 0)
    for ordinal in (1, 2):
        pods.processes["redis", ordinal].kill()
    wait_until(lambda: client.info("replication")["connected_slaves"] == 0)
    client.set("alone", "x")
    looker.watch.look()
    own = standing.read(paths)
    assert own is not None
    assert own.was_master
    offset = client.info("replication")["master_repl_offset"]
    assert own.info["master_repl_offset"] == str(offset)
    pods.processes["redis", 0].kill()
    pods.processes["redis", 0].wait()
    paths.runtime.mkdir()
    with (paths.redis_data / "lock").open("w") as lock:
        saved = snapshots.save_at_rest(paths, offset, lock.fileno())
    assert f"offset-{offset}" in saved.name
    assert "alone" in pods.keys_of(saved)
