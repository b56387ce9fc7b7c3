"""Two masters: the one that was replaced refuses writes, keeps what it alone had, and follows the other."""

from __future__ import annotations

import signal
import threading
import time

import pytest
import redis

from images.redis.runnerhub_redis import deposed
from tests.integration.redis.conftest import ADDRESSES, Pods, wait_until


def replace_master(pods: Pods, *, alone: tuple[str, ...] = ()) -> str:
    """Freeze the master until another was elected; `alone` is written to it when it wakes. Address of the new one."""
    old = pods.processes["redis", 0]
    old.send_signal(signal.SIGSTOP)
    wait_until(lambda: all(pods.master(ordinal) != ADDRESSES[0] for ordinal in (1, 2)))
    old.send_signal(signal.SIGCONT)
    client = pods.redis(0)
    client.config_set("min-replicas-to-write", "0")
    for key in alone:
        client.set(key, "x")
    client.config_set("min-replicas-to-write", "1")
    return pods.master(1)


def test_a_master_that_nobody_replaced_is_left_alone(pods: Pods, monkeypatch: pytest.MonkeyPatch) -> None:
    pods.start_all()
    assert deposed.find_successor(pods.settings(), ADDRESSES) is None
    monkeypatch.setattr(deposed, "LOCAL", ADDRESSES[1])
    assert deposed.find_successor(pods.settings(1), ADDRESSES) is None, "a replica gives nothing up"


def test_a_replaced_master_saves_what_it_alone_had_and_follows(pods: Pods) -> None:
    pods.start_all()
    pods.redis(0).set("before", "x")
    successor = replace_master(pods, alone=("alone",))
    settings = pods.settings()
    assert deposed.find_successor(settings, ADDRESSES) == successor
    deposed.give_way(settings, successor)
    client = pods.redis(0)
    wait_until(lambda: client.info("replication")["master_link_status"] == "up")
    assert client.info("replication")["master_host"] == successor
    assert client.get("before") == "x"
    assert client.get("alone") is None, "the new master's history is the one that counts"
    assert client.config_get("min-replicas-to-write") == {"min-replicas-to-write": "1"}
    assert client.config_get("replica-priority") == {"replica-priority": "0"}
    (saved,) = settings.paths.diverged.glob("*.rdb")
    assert "-offset-" in saved.name
    assert pods.keys_of(saved) == {"before", "alone"}


def test_a_replaced_master_with_nothing_of_its_own_saves_nothing(pods: Pods) -> None:
    pods.start_all()
    own = pods.redis(0).info("replication")
    # The replica has all there is and goes on with it.
    wait_until(lambda: pods.redis(1).info("replication")["slave_repl_offset"] >= own["master_repl_offset"])
    pods.redis(1).replicaof("NO", "ONE")
    theirs = {name: str(value) for name, value in pods.redis(1).info("replication").items()}
    mine = {**own, "master_repl_offset": str(int(theirs["second_repl_offset"]) - 1)}
    assert not deposed.has_diverged({name: str(value) for name, value in mine.items()}, theirs)
    mine["master_repl_offset"] = theirs["second_repl_offset"]
    assert deposed.has_diverged({name: str(value) for name, value in mine.items()}, theirs)


def test_writes_are_refused_while_the_data_is_saved(pods: Pods, monkeypatch: pytest.MonkeyPatch) -> None:
    pods.start_all()
    successor = replace_master(pods, alone=("alone",))
    refused: list[str] = []
    save = deposed.save

    def write_and_save(*arguments: object) -> object:
        with pytest.raises(redis.ResponseError, match="NOREPLICAS") as caught:
            pods.redis(0).set("late", "x")
        refused.append(str(caught.value))
        return save(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(deposed, "save", write_and_save)
    deposed.give_way(pods.settings(), successor)
    assert len(refused) == 1


def test_the_watch_notices_by_itself_and_the_former_master_is_a_replica_soon(
    pods: Pods, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deposed, "LOOK_SECONDS", 0.1)
    pods.start_all()
    goes_on, told = threading.Event(), threading.Event()
    goes_on.set()
    watching = threading.Thread(
        target=deposed.watch, args=(pods.settings(), lambda: ADDRESSES, goes_on.is_set, told.set), daemon=True
    )
    watching.start()
    replace_master(pods)
    woken = time.monotonic()
    assert told.wait(20)
    assert time.monotonic() - woken < 5
    assert pods.redis(0).info("replication")["role"] == "slave"
    goes_on.clear()
    watching.join(5)


def test_only_the_newest_snapshots_are_kept(pods: Pods) -> None:
    paths = pods.settings().paths
    pods.start_redis(0)
    pods.redis(0).save()
    for number in range(6):
        deposed.keep(paths, f"2026010{number}T000000Z-offset-1.rdb")
    kept = sorted(path.name for path in paths.diverged.iterdir())
    assert kept == [f"2026010{number}T000000Z-offset-1.rdb" for number in (3, 4, 5)]
    # The next snapshot leaves what was kept alone.
    pods.redis(0).config_set("min-replicas-to-write", "0")
    pods.redis(0).set("later", "x")
    pods.redis(0).save()
    assert pods.keys_of(paths.diverged / kept[-1]) == set()
