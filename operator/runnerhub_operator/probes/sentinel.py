"""Reads Sentinel: who is master, since which epoch, whether another could be elected, how well the replicas follow.

Connections are made for one reading and closed: a probe every few seconds needs no pool, and a connection
that outlives a failover could answer from a server that is no longer asked.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from redis.asyncio.connection import Connection
from redis.exceptions import RedisError, ResponseError

from .. import names
from ..errors import ProbeError

_log = logging.getLogger(__name__)

_QUESTIONS: Final = (
    *(
        ("SENTINEL", question, names.REDIS_MASTER_NAME)
        for question in ("GET-MASTER-ADDR-BY-NAME", "MASTER", "REPLICAS", "CKQUORUM")
    ),
    ("INFO", "sentinel"),
)
_DOWN_FLAGS: Final = frozenset({"s_down", "o_down", "disconnected"})


@dataclass(frozen=True, slots=True)
class ReplicaView:
    """One replica as a Sentinel sees it. `link_ok`: its link to the master is up; `offset` in bytes."""

    ip: str
    link_ok: bool
    offset: int
    flags: frozenset[str]

    @property
    def down(self) -> bool:
        """Whether the Sentinel cannot reach the replica."""
        return bool(self.flags & _DOWN_FLAGS)


@dataclass(frozen=True, slots=True)
class SentinelView:
    """What one Sentinel (`sentinel` is the caller's name of it) says.

    `epoch` is the configuration epoch of the master, which grows with each failover; `quorum_ok`: enough
    Sentinels are reachable to start and to authorise a failover; `tilt`: it stood still or its clock leaped, so it
    does nothing for half a minute; `sentinels_count` includes this one. `heard_at`: when the master last answered its
    ping in good order, by the caller's clock; None when it tells that of another server than the master that it names.
    """

    sentinel: str
    master_ip: str
    epoch: int
    quorum_ok: bool
    replicas: tuple[ReplicaView, ...]
    sentinels_count: int
    flags: frozenset[str]
    tilt: bool = False
    heard_at: datetime | None = None

    @property
    def master_down(self) -> bool:
        """Whether this Sentinel takes the master for dead."""
        return bool(self.flags & _DOWN_FLAGS)


@dataclass(frozen=True, slots=True)
class AgreedMaster:
    """The master after several Sentinels: `votes` of them name it, `majority` when that is most of all."""

    ip: str
    epoch: int
    votes: int
    majority: bool


def agreed_master(views: Sequence[SentinelView], sentinels: int | None = None) -> AgreedMaster | None:
    """The master that the Sentinels agree on; None when none answered.

    The highest epoch wins, as among the Sentinels themselves, then the number of votes. `sentinels`: how many
    there should be; without it, how many the Sentinels know of.
    """
    if not views:
        return None
    named = Counter(view.master_ip for view in views)
    best = max(views, key=lambda view: (view.epoch, named[view.master_ip], view.master_ip))
    votes = named[best.master_ip]
    total = sentinels if sentinels is not None else max(view.sentinels_count for view in views)
    return AgreedMaster(ip=best.master_ip, epoch=best.epoch, votes=votes, majority=votes >= total // 2 + 1)


def can_fail_over(views: Sequence[SentinelView], sentinels: int) -> bool:
    """Whether those that could be part of a failover, and those that did not answer, are a majority of all.

    One that still counts Sentinels which were taken away misses a quorum of theirs, and forgets them when it starts.
    """
    powerless = [
        view for view in views if view.tilt or (not view.quorum_ok and view.sentinels_count <= sentinels)
    ]
    return sentinels - len(powerless) >= sentinels // 2 + 1


async def read_sentinels(
    hosts: Mapping[str, str], password: str, deadline_seconds: float
) -> tuple[SentinelView, ...]:
    """Ask all Sentinels at once; `hosts` maps the caller's names to addresses.

    Those that do not answer within the deadline are left out.
    """

    async def ask(name: str, host: str) -> SentinelView | None:
        try:
            return await read_sentinel(name, host, password, deadline_seconds)
        except ProbeError as error:
            _log.debug("%s", error)
            return None

    views = await asyncio.gather(*(ask(name, host) for name, host in hosts.items()))
    return tuple(view for view in views if view is not None)


async def read_sentinel(name: str, host: str, password: str, deadline_seconds: float) -> SentinelView:
    """Ask one Sentinel. Raises ProbeError."""
    async with _connected(host, names.PORT_SENTINEL, password, deadline_seconds) as connection:
        # All questions in one packet: with hundreds of clusters each turn of the network counts.
        await connection.send_packed_command(connection.pack_commands(_QUESTIONS))
        address, master, replicas = [await connection.read_response() for _ in range(3)]
        try:
            await connection.read_response()
        except ResponseError:
            quorum_ok = False
        else:
            quorum_ok = True
        tilt = "sentinel_tilt:1" in str(await connection.read_response()).split()
        now = datetime.now(UTC)
        return parse_sentinel(name, address, master, replicas, quorum_ok=quorum_ok, tilt=tilt, now=now)


def parse_sentinel(
    sentinel: str,
    address: Any,
    master: Any,
    replicas: Any,
    *,
    quorum_ok: bool,
    tilt: bool = False,
    now: datetime | None = None,
) -> SentinelView:
    """One Sentinel's answers to GET-MASTER-ADDR-BY-NAME, MASTER and REPLICAS as a view.

    The address comes from the first, which names a promoted replica while the failover is still running.
    Raises ValueError when an answer has another form.
    """
    if not isinstance(address, list) or not address:
        raise ValueError("the Sentinel does not know the master's address")
    fields = _pairs(master)
    return SentinelView(
        sentinel=sentinel,
        master_ip=str(address[0]),
        epoch=int(fields["config-epoch"]),
        quorum_ok=quorum_ok,
        replicas=tuple(sorted((_replica(_pairs(item)) for item in replicas), key=lambda item: item.ip)),
        sentinels_count=int(fields["num-other-sentinels"]) + 1,
        flags=_flags(fields["flags"]),
        tilt=tilt,
        heard_at=_heard_at(fields, now) if fields["ip"] == str(address[0]) else None,
    )


def _heard_at(fields: Mapping[str, str], now: datetime | None) -> datetime | None:
    silent = fields.get("last-ok-ping-reply")
    return now - timedelta(milliseconds=int(silent)) if now is not None and silent is not None else None


def _replica(fields: Mapping[str, str]) -> ReplicaView:
    return ReplicaView(
        ip=fields["ip"],
        link_ok=fields["master-link-status"] == "ok",
        offset=int(fields["slave-repl-offset"]),
        flags=_flags(fields["flags"]),
    )


def _flags(text: str) -> frozenset[str]:
    return frozenset(text.split(",")) - {"master", "slave", "sentinel"}


def _pairs(answer: Any) -> dict[str, str]:
    if not isinstance(answer, list):
        raise ValueError(f"expected names and values, got {type(answer).__name__}")  # noqa: TRY004
    return dict(zip(answer[::2], answer[1::2], strict=True))


@asynccontextmanager
async def _connected(
    host: str, port: int, password: str, deadline_seconds: float
) -> AsyncIterator[Connection]:
    """A connection whose whole use ends at the deadline; every failure inside becomes a ProbeError."""
    # Version 2 of the protocol: its answers are plain lists, whatever a library's release makes of version 3.
    connection = Connection(
        host=host,
        port=port,
        password=password,
        protocol=2,
        decode_responses=True,
        # Finding out the library's own version for CLIENT SETINFO takes longer than all questions together.
        driver_info=None,
        socket_connect_timeout=deadline_seconds,
        socket_timeout=deadline_seconds,
    )
    try:
        async with asyncio.timeout(deadline_seconds):
            await connection.connect()  # type: ignore[no-untyped-call]
            yield connection
    except (RedisError, OSError, ValueError, KeyError) as error:
        raise ProbeError(f"{host}:{port}: {error or type(error).__name__}") from error
    finally:
        await connection.disconnect(nowait=True)
