"""The reading of Sentinel's answers, on answers that Redis 8.0 gave on kind."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from runnerhub_operator import names
from runnerhub_operator.errors import ProbeError
from runnerhub_operator.probes.sentinel import (
    AgreedMaster,
    SentinelView,
    agreed_master,
    parse_sentinel,
    read_sentinel,
    read_sentinels,
)

ADDRESS = ["10.96.120.250", "6379"]
MASTER = [
    "name", "github-runnerhub-redis", "ip", "10.96.120.250", "port", "6379",
    "runid", "4fe738d48d403d3cab2d814722cbee1c4c58fd7e", "flags", "master", "link-pending-commands", "0",
    "link-refcount", "1", "last-ping-sent", "0", "last-ok-ping-reply", "651", "last-ping-reply", "651",
    "down-after-milliseconds", "5000", "info-refresh", "7869", "role-reported", "master", "role-reported-time",
    "78375", "config-epoch", "10", "num-slaves", "2", "num-other-sentinels", "2", "quorum", "2",
    "failover-timeout", "3000", "parallel-syncs", "1",
]  # fmt: skip
REPLICA = [
    "name", "10.96.156.221:6379", "ip", "10.96.156.221", "port", "6379",
    "runid", "1722024f8be232f17c21e61c7657bd26220cfaf6", "flags", "slave", "link-pending-commands", "0",
    "link-refcount", "1", "last-ping-sent", "0", "last-ok-ping-reply", "349", "last-ping-reply", "349",
    "down-after-milliseconds", "5000", "info-refresh", "7187", "role-reported", "slave", "role-reported-time",
    "47431", "master-link-down-time", "0", "master-link-status", "ok", "master-host", "10.96.120.250",
    "master-port", "6379", "slave-priority", "100", "slave-repl-offset", "2307852", "replica-announced", "1",
]  # fmt: skip
LOST_REPLICA = [
    {"10.96.156.221": "10.96.114.252", "slave": "s_down,slave,disconnected", "ok": "err"}.get(word, word)
    for word in REPLICA
]


def view(sentinel: str = "hub-redis-0") -> SentinelView:
    return parse_sentinel(sentinel, ADDRESS, MASTER, [REPLICA, LOST_REPLICA], quorum_ok=True)


def test_a_healthy_sentinel() -> None:
    seen = view()
    assert (seen.master_ip, seen.epoch, seen.sentinels_count, seen.flags) == (
        "10.96.120.250",
        10,
        3,
        frozenset(),
    )
    assert not seen.master_down
    assert (seen.quorum_ok, seen.tilt) == (True, False)


def test_replicas_with_their_links() -> None:
    lost, good = view().replicas
    assert (good.ip, good.link_ok, good.offset, good.down) == ("10.96.156.221", True, 2307852, False)
    assert (lost.ip, lost.link_ok, lost.down) == ("10.96.114.252", False, True)


def test_a_dead_master_and_a_failover() -> None:
    flags = ["s_down,o_down,master,failover_in_progress" if word == "master" else word for word in MASTER]
    # Two words are "master": the flags, and the role that it reported last.
    seen = parse_sentinel("a", ADDRESS, flags, [], quorum_ok=False)
    assert seen.master_down
    assert not seen.quorum_ok


def test_when_the_master_was_last_heard_from() -> None:
    now = datetime(2026, 1, 1, 12, tzinfo=UTC)
    seen = parse_sentinel("a", ADDRESS, MASTER, [], quorum_ok=True, now=now)
    assert seen.heard_at == now - timedelta(milliseconds=651)
    promoted = parse_sentinel("a", ["10.96.114.252", "6379"], MASTER, [], quorum_ok=True, now=now)
    assert promoted.heard_at is None, "it still tells of the one before"


@pytest.mark.parametrize("address", [None, []])
def test_a_sentinel_that_knows_no_address_is_an_error(address: object) -> None:
    with pytest.raises(ValueError, match="address"):
        parse_sentinel("a", address, MASTER, [], quorum_ok=True)


def test_all_agree() -> None:
    views = (view("a"), view("b"), view("c"))
    assert agreed_master(views) == AgreedMaster("10.96.120.250", 10, 3, majority=True)


def test_the_higher_epoch_wins_over_the_number() -> None:
    newer = replace(view("c"), master_ip="10.96.114.252", epoch=11)
    assert agreed_master((view("a"), view("b"), newer)) == AgreedMaster(
        "10.96.114.252", 11, 1, majority=False
    )


def test_one_answer_of_three_is_no_majority() -> None:
    assert agreed_master((view("a"),)) == AgreedMaster("10.96.120.250", 10, 1, majority=False)
    assert agreed_master((view("a"), view("b")), sentinels=5) == AgreedMaster(
        "10.96.120.250", 10, 2, majority=False
    )


def test_nobody_answers() -> None:
    assert agreed_master(()) is None


async def test_a_silent_server_is_a_probe_error_within_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(say_nothing, "127.0.0.1", 0)
    monkeypatch.setattr(names, "PORT_SENTINEL", server.sockets[0].getsockname()[1])
    async with server:
        loop = asyncio.get_running_loop()
        started = loop.time()
        with pytest.raises(ProbeError):
            await read_sentinel("a", "127.0.0.1", "secretpassword", 0.2)
        assert loop.time() - started < 10


async def test_a_dead_sentinel_is_left_out_and_the_error_names_no_password(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server = await asyncio.start_server(lambda _reader, _writer: None, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    server.close()
    await server.wait_closed()
    monkeypatch.setattr(names, "PORT_SENTINEL", port)
    assert await read_sentinels({"a": "127.0.0.1"}, "secretpassword", 0.5) == ()
    with pytest.raises(ProbeError) as error:
        await read_sentinel("a", "127.0.0.1", "secretpassword", 0.5)
    assert "secretpassword" not in str(error.value)
