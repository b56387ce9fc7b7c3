"""Which replica may be promoted when all pods were restarted and the master does not come back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from images.redis.runnerhub_redis import standing
from images.redis.runnerhub_redis.decision import (
    ANYBODY_SECONDS,
    LAST_RESORT_SECONDS,
    PeerState,
    Volume,
    is_last_resort,
)
from images.redis.runnerhub_redis.history import furthest
from images.redis.runnerhub_redis.settings import Paths
from images.redis.runnerhub_redis.standing import Standing

NOBODY = "0" * 40


def at(
    offset: int, history: str = "a", *, before: str = NOBODY, until: int = -1, when: float = 0.0
) -> Standing:
    """A replica's; `before` and `until`: the history that it goes on with, up to which offset."""
    info = {
        "role": "slave",
        "master_replid": history,
        "master_replid2": before,
        "master_repl_offset": str(offset),
        "second_repl_offset": str(until),
    }
    return Standing(info, when)


def peer(
    ordinal: int, told: Standing | None, *, running: bool = True, held: Volume = Volume.COMPLETE
) -> PeerState:
    return PeerState(ordinal, held, running, told)


def promotable(
    *peers: PeerState, replicas: int = 3, waited_seconds: float = LAST_RESORT_SECONDS
) -> list[int]:
    return [
        item.ordinal
        for item in peers
        if is_last_resort(item.ordinal, replicas, peers, waited_seconds=waited_seconds)
    ]


def test_the_furthest_alone_and_only_after_a_while() -> None:
    both = peer(0, at(900)), peer(1, at(901, when=-5.0))
    assert promotable(*both) == [1]
    assert promotable(*both, waited_seconds=LAST_RESORT_SECONDS - 1) == []
    assert promotable(peer(0, at(900)), peer(1, at(900))) == [0]


def test_nobody_while_a_majority_has_not_told_how_far_it_is() -> None:
    """What replicas have confirmed may be with those that are missing."""
    assert promotable(peer(0, at(900))) == []
    assert promotable(peer(0, at(900)), peer(1, None)) == []
    assert promotable(peer(0, at(900)), peer(1, at(901), held=Volume.DAMAGED)) == []
    assert promotable(peer(0, at(900)), peer(1, at(901)), replicas=5) == []


def test_who_is_further_and_does_not_run_yet_is_waited_for() -> None:
    """As the master itself, whose volume has only just been attached."""
    pods = peer(0, at(900)), peer(1, at(800)), peer(2, at(1000), running=False)
    assert promotable(*pods) == [2]
    assert promotable(*pods, waited_seconds=ANYBODY_SECONDS) == [0]


def test_at_last_one_of_those_that_run_is_better_than_none() -> None:
    assert promotable(peer(0, at(900)), waited_seconds=ANYBODY_SECONDS) == [0]
    assert promotable(peer(0, None), peer(1, at(5)), waited_seconds=ANYBODY_SECONDS) == [1]
    assert promotable(peer(1, None), peer(2, None), waited_seconds=ANYBODY_SECONDS) == [1]


@pytest.mark.parametrize(
    ("told", "first"),
    [
        # A failover that one did not take part in: the other's offset is of the same history, up to where it branched.
        ({0: at(950, "a"), 1: at(951, "b", before="a", until=951)}, 1),
        ({0: at(100, "a", when=9.0), 1: at(951, "b", before="a", until=951, when=1.0)}, 1),
        # Two of them: the clock tells.
        ({0: at(5000, "a", when=1.0), 1: at(951, "c", before="b", until=900, when=2.0)}, 1),
        # A master that was restarted begins to count anew, and its replicas with it.
        ({0: at(5000, "a", when=1.0), 1: at(20, "b", when=2.0), 2: at(30, "b", when=1.5)}, 2),
    ],
)
def test_of_several_histories_the_one_that_goes_on(told: dict[int, Standing], first: int) -> None:
    infos = {ordinal: item.info for ordinal, item in told.items()}
    assert furthest(infos, {ordinal: item.at for ordinal, item in told.items()}) == first


def test_what_is_written_down_is_read_again(tmp_path: Path) -> None:
    paths = Paths(data=tmp_path)
    assert standing.read(paths) is None
    standing.note(paths, {**at(7).info, "role": "master", "connected_slaves": "0"})
    found = standing.read(paths)
    assert found is not None
    assert found.was_master
    assert standing.parse(json.loads(json.dumps(found.told()))) == found
    standing.note_saved(paths)
    saved = standing.read(paths)
    assert saved is not None
    assert not saved.was_master
    assert saved.info["master_repl_offset"] == "7"
    assert saved.at == found.at, "the data is no newer for that"


def test_what_an_older_version_wrote_down_of_a_master_counts(tmp_path: Path) -> None:
    paths = Paths(data=tmp_path)
    standing.note(paths, at(7).info)
    paths.alone.write_text(json.dumps({"master_replid": "b", "master_repl_offset": "9"}))
    found = standing.read(paths)
    assert found is not None
    assert found.was_master
    assert found.info["master_repl_offset"] == "9"
    standing.note(paths, at(10).info)
    assert not paths.alone.exists()


@pytest.mark.parametrize("told", [None, 7, [], {}, {"master_replid": "a", "master_repl_offset": "x"}])
def test_nonsense_tells_nothing(told: object) -> None:
    assert standing.parse(told) is None


class Replica:
    """A Redis that tells this of its append-only file."""

    def __init__(self, **changes: str) -> None:
        self._told = {
            "aof_enabled": "1",
            "aof_rewrite_in_progress": "0",
            "aof_rewrite_scheduled": "0",
            "aof_last_bgrewrite_status": "ok",
            "aof_last_write_status": "ok",
            **changes,
        }

    def info(self, section: str) -> dict[str, str]:
        assert section == "persistence"
        return self._told


@pytest.mark.parametrize(
    ("changes", "after_a_copy", "otherwise"),
    [
        ({}, True, True),
        ({"aof_rewrite_in_progress": "1"}, False, True),
        ({"aof_rewrite_scheduled": "1"}, False, True),
        ({"aof_last_bgrewrite_status": "err"}, False, True),
        ({"aof_last_write_status": "err"}, False, False),
    ],
)
def test_what_a_replica_would_find_after_a_restart(
    changes: dict[str, str], after_a_copy: bool, otherwise: bool
) -> None:
    replica: Any = Replica(**changes)
    assert standing.is_on_disk(replica) is after_a_copy
    assert standing.is_on_disk(replica, copied=False) is otherwise
