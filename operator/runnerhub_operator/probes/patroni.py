"""Patroni's REST API: what the members of a database are, and the few things that can be asked of them.

Source of the paths and fields: https://patroni.readthedocs.io/en/latest/rest_api.html
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Collection, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final, TypeVar

import aiohttp

from .. import names
from ..errors import ProbeError
from .http import Login, Program

PRIMARY: Final = "primary"
SYNCHRONOUS: Final = ("sync_standby", "quorum_standby")

_PATRONI: Final = Program("Patroni", names.PORT_PATRONI)

# Members watch one store and differ for moments only; the primary's own view is worth this much waiting.
_SETTLE_SECONDS: Final = 0.5

# Patroni calls the primary `leader`; in a standby cluster nobody is writable, and we make none.
_ROLES: Final = {"leader": PRIMARY}

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class PatroniMember:
    """One member as Patroni's /cluster tells it.

    `role`: primary, sync_standby, quorum_standby, replica or standby_leader. `state`: Postgres' state for the
    primary (running, stopped, ...), that of the replication for others (streaming, in archive recovery) or,
    when there is none, Postgres' state. `lag_bytes`: behind the primary's last published position, received
    or replayed, whichever is further; None for the primary and when it is unknown. `host`: the address that
    the member announces. `pending_parameters`: those that wait for a restart. `restart_primary_first`: one of them
    shrinks that a standby must have at least as large as its primary. `lag_seconds`: how long ago the last
    transaction was committed that the member has replayed; None when it was not asked. `volume_used_percent`: how
    full its volume is, and `refused_parameters`: what its server read and did not take, and so would not start with, as
    the image's Patroni tells them. `replayed`: how far a replica has replayed the log, as a position in bytes; None for
    the primary, when it is unknown, and before Patroni 4.1.
    """

    name: str
    role: str
    state: str
    timeline: int | None = None
    lag_bytes: int | None = None
    pending_restart: bool = False
    pending_parameters: tuple[str, ...] = ()
    restart_primary_first: bool = False
    host: str | None = None
    lag_seconds: int | None = None
    volume_used_percent: int | None = None
    refused_parameters: tuple[str, ...] = ()
    replayed: int | None = None


@dataclass(frozen=True, slots=True)
class PatroniCluster:
    """All members as one of them sees them.

    `leader`: holder of the leader key, None when nobody holds it. `timeline`: the leader's. `version`: the
    leader's Postgres, such as 17.6; None when it was not asked. `by_leader`: whether the leader's own Patroni told it;
    what others know of the leader may be its last words from before it hung.
    """

    members: tuple[PatroniMember, ...]
    leader: str | None
    timeline: int | None
    paused: bool = False
    version: str | None = None
    by_leader: bool = False

    def member(self, name: str | None) -> PatroniMember | None:
        """A member by name."""
        return next((member for member in self.members if member.name == name), None)

    def in_step(self, name: str) -> bool:
        """Whether a member is the running primary, or streams on the primary's timeline.

        Streaming alone does not say that: a replica may stream from an old primary past the point where the
        histories parted.
        """
        member = self.member(name)
        if member is None:
            return False
        if name == self.leader:
            return member.state == "running"
        return self.leader is not None and member.state == "streaming" and member.timeline == self.timeline

    @property
    def refused_parameters(self) -> tuple[str, ...]:
        """What servers that run would not start with."""
        return tuple(
            sorted({name for m in self.members if self.in_step(m.name) for name in m.refused_parameters})
        )

    @property
    def synchronous(self) -> tuple[str, ...]:
        """Members that confirm commits, and so may take over without losing any."""
        return tuple(m.name for m in self.members if m.role in SYNCHRONOUS)


# --- Parsing ---


def parse_cluster(body: object) -> PatroniCluster:
    """Read an answer of GET /cluster. Raises ProbeError when it is none."""
    if not isinstance(body, Mapping) or not isinstance(body.get("members"), list):
        raise ProbeError("Patroni's /cluster has no list of members")
    members = tuple(_parse_member(item) for item in body["members"])
    leader = next((member for member in members if member.role == PRIMARY), None)
    return PatroniCluster(
        members=members,
        leader=leader.name if leader is not None else None,
        timeline=leader.timeline if leader is not None else None,
        paused=body.get("pause") is True,
    )


def _parse_member(item: object) -> PatroniMember:
    if not isinstance(item, Mapping) or not isinstance(item.get("name"), str):
        raise ProbeError("Patroni's /cluster has a member without a name")
    role = str(item.get("role", ""))
    host, told, reason = item.get("host"), item.get("tags"), item.get("pending_restart_reason")
    tags: Mapping[str, Any] = told if isinstance(told, Mapping) else {}
    refused = str(tags.get("refused_parameters") or "")
    return PatroniMember(
        name=item["name"],
        role=_ROLES.get(role, role),
        state=str(item.get("state", "")),
        timeline=_whole(item.get("timeline")),
        lag_bytes=_lag(item),
        pending_restart=item.get("pending_restart") is True,
        pending_parameters=tuple(sorted(map(str, reason))) if isinstance(reason, Mapping) else (),
        restart_primary_first=_shrinks(reason),
        host=host if isinstance(host, str) else None,
        volume_used_percent=_whole(tags.get("volume_used_percent")),
        refused_parameters=tuple(refused.split(", ")) if refused else (),
        replayed=_lsn(item.get("replay_lsn")),
    )


# Source: https://www.postgresql.org/docs/17/hot-standby.html#HOT-STANDBY-ADMIN
_STANDBY_SENSITIVE: Final = (
    "max_connections",
    "max_locks_per_transaction",
    "max_prepared_transactions",
    "max_wal_senders",
    "max_worker_processes",
)


def _shrinks(reason: object) -> bool:
    """Whether a pending restart makes a parameter smaller that a standby may not have smaller than its primary.

    `reason` maps names to {"old_value", "new_value"}, as text.
    """
    if not isinstance(reason, Mapping):
        return False
    for name in _STANDBY_SENSITIVE:
        change = reason.get(name)
        if isinstance(change, Mapping):
            old, new = str(change.get("old_value", "")), str(change.get("new_value", ""))
            if old.isdigit() and new.isdigit() and int(new) < int(old):
                return True
    return False


def _lag(item: Mapping[str, Any]) -> int | None:
    """A lag that is not known is the word `unknown`; before Patroni 4.1 there was only one, `lag`."""
    known = [
        value for key in ("lag", "receive_lag", "replay_lag") if (value := _whole(item.get(key))) is not None
    ]
    return max(known, default=None)


def _lsn(value: object) -> int | None:
    """A position in the log such as 16/B374D848 in bytes; one that is not known is the word `unknown`."""
    high, slash, low = value.partition("/") if isinstance(value, str) else ("", "", "")
    try:
        return (int(high, 16) << 32) + int(low, 16) if slash else None
    except ValueError:
        return None


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def preferred_view(views: Iterable[tuple[str, PatroniCluster]]) -> PatroniCluster | None:
    """The view to trust among those of several hosts: of the highest timeline, the primary's own."""

    def rank(view: tuple[str, PatroniCluster]) -> tuple[int, int]:
        host, cluster = view
        return cluster.timeline or 0, int(_is_own_view(host, cluster))

    # The timeline comes first: a frozen primary that wakes up is, for a moment, sure that it still is one.
    best = max(views, key=rank, default=None)
    return best[1] if best is not None else None


def _is_own_view(host: str, cluster: PatroniCluster) -> bool:
    leader = cluster.member(cluster.leader)
    return leader is not None and leader.host is not None and leader.host.strip("[]") == host.strip("[]")


# --- Reading ---

# In the ordinary case the first host answers within milliseconds and spares the others the question.
HEAD_START_SECONDS: Final = 0.1


async def read_cluster(
    session: aiohttp.ClientSession, hosts: Sequence[str], *, deadline_seconds: float
) -> PatroniCluster:
    """Ask the first host, then all at once; the primary's view when it comes, else the best of what came first.

    Hosts are addresses or names, without a port, best the supposed primary first. Raises ProbeError when none answers
    in time.
    """

    async def ask(host: str) -> tuple[str, PatroniCluster]:
        answer = await _PATRONI.call(session, "GET", host, "/cluster", deadline_seconds=deadline_seconds)
        cluster = parse_cluster(_json(answer))
        return host, replace(cluster, by_leader=_is_own_view(host, cluster))

    def decisive(view: tuple[str, PatroniCluster]) -> bool:
        return view[1].by_leader

    view = preferred_view(await _gather([ask(host) for host in hosts], decisive))
    if view is None:
        raise ProbeError(f"no member of Patroni answered: {', '.join(hosts) or 'none is known'}")
    return view


async def is_alive(
    session: aiohttp.ClientSession, host: str, *, deadline_seconds: float, primary: bool = False
) -> bool:
    """Whether the Patroni of one member answers, and says that it is at work, or that it is the running primary.

    What others know of a member may be its last words from before it hung.
    """
    try:
        path = "/primary" if primary else "/liveness"
        await _PATRONI.call(session, "GET", host, path, deadline_seconds=deadline_seconds)
    except ProbeError:
        return False
    return True


async def read_config(
    session: aiohttp.ClientSession, hosts: Sequence[str], *, deadline_seconds: float
) -> Mapping[str, Any]:
    """The dynamic configuration, from whoever answers first. Raises ProbeError when none answers in time."""

    async def ask(host: str) -> Mapping[str, Any]:
        answer = _json(
            await _PATRONI.call(session, "GET", host, "/config", deadline_seconds=deadline_seconds)
        )
        if not isinstance(answer, Mapping):
            raise ProbeError("Patroni's /config is no object")
        return answer

    answers = await _gather([ask(host) for host in hosts], lambda _: True)
    if not answers:
        raise ProbeError(
            f"no member of Patroni tells its configuration: {', '.join(hosts) or 'none is known'}"
        )
    return answers[0]


async def with_own_words(
    session: aiohttp.ClientSession,
    cluster: PatroniCluster,
    asked: Collection[str],
    *,
    now: datetime,
    deadline_seconds: float,
) -> PatroniCluster:
    """The same with what the members `asked` tell of themselves: the leader its version, the others their lag.

    A member without an answer in time is left as it is.
    """
    members = [member for member in cluster.members if member.name in asked and member.host]
    answers = await asyncio.gather(*(_own_words(session, m.host or "", deadline_seconds) for m in members))
    own = {member.name: answer for member, answer in zip(members, answers, strict=True)}
    return replace(
        cluster,
        version=parse_version(own.get(cluster.leader or "", {})) or cluster.version,
        members=tuple(
            replace(member, lag_seconds=parse_lag_seconds(own[member.name], now))
            if member.name in own and member.name != cluster.leader
            else member
            for member in cluster.members
        ),
    )


async def _own_words(session: aiohttp.ClientSession, host: str, deadline_seconds: float) -> Mapping[str, Any]:
    try:
        # The status code tells whether the member has the role that the path names; this path names none.
        answer = _json(
            await _PATRONI.call(session, "GET", host, "/patroni", deadline_seconds=deadline_seconds)
        )
    except ProbeError:
        return {}
    return answer if isinstance(answer, Mapping) else {}


async def read_lags(
    session: aiohttp.ClientSession, primary: str, replicas: Mapping[str, str], *, deadline_seconds: float
) -> Mapping[str, int]:
    """How far behind the primary those replicas are that say themselves that they stream from it, in bytes by name.

    `primary` is an address, `replicas` are addresses by name; all are asked at once. What others know of a member may
    be its last words from before it hung. Raises ProbeError when the primary does not tell where it is.
    """
    leader, *others = await asyncio.gather(
        *(_own_words(session, host, deadline_seconds) for host in (primary, *replicas.values()))
    )
    position = _position(leader, "location")
    if leader.get("role") != PRIMARY or position is None:
        raise ProbeError(f"the Patroni at {primary} does not tell its position as the primary")
    found = {}
    for name, answer in zip(replicas, others, strict=True):
        replayed = _position(answer, "replayed_location")
        streams = answer.get("replication_state") == "streaming"
        if streams and replayed is not None and answer.get("timeline") == leader.get("timeline"):
            found[name] = max(0, position - replayed)
    return found


def _position(answer: Mapping[str, Any], which: str) -> int | None:
    xlog = answer.get("xlog")
    return _whole(xlog.get(which)) if isinstance(xlog, Mapping) else None


def parse_version(answer: Mapping[str, Any]) -> str | None:
    """Postgres' version such as 17.6 from an answer of GET /patroni, which has it as 170006."""
    number = _whole(answer.get("server_version"))
    return f"{number // 10000}.{number % 10000}" if number is not None and number >= 100000 else None


def parse_lag_seconds(answer: Mapping[str, Any], now: datetime) -> int | None:
    """Age of the last replayed transaction from a replica's answer of GET /patroni, never negative."""
    xlog = answer.get("xlog")
    told = xlog.get("replayed_timestamp") if isinstance(xlog, Mapping) else None
    try:
        replayed = datetime.fromisoformat(told) if isinstance(told, str) else None
        return max(0, int((now - replayed).total_seconds())) if replayed is not None else None
    except (ValueError, TypeError):  # no time, or one without a zone
        return None


async def _gather(questions: Sequence[Coroutine[Any, Any, T]], decisive: Callable[[T], bool]) -> list[T]:
    """Answers in order of arrival: up to a decisive one, or those that come soon after the first one.

    The first question has a head start: when its answer is decisive, the others are never asked.
    """
    tasks: list[asyncio.Task[T]] = []
    answers: list[T] = []
    loop = asyncio.get_running_loop()
    until: float | None = None
    left = list(questions)
    try:
        waiting: set[asyncio.Task[T]] = set()
        while left or waiting:
            started = [loop.create_task(question) for question in (left[:1] if not tasks else left)]
            left = left[len(started) :]
            tasks += started
            waiting |= set(started)
            timeout = HEAD_START_SECONDS if left else None if until is None else max(0.0, until - loop.time())
            done, waiting = await asyncio.wait(waiting, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
            if not done and not left:
                break
            for task in done:
                error = task.exception()
                if error is not None and not isinstance(error, ProbeError):
                    raise error
                if error is None:
                    answers.append(task.result())
                    if decisive(answers[-1]):
                        return [answers[-1], *answers[:-1]]
            if answers and until is None:
                until = loop.time() + _SETTLE_SECONDS
    finally:
        for question in left:
            question.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return answers


# --- Asking for something ---


async def patch_config(
    session: aiohttp.ClientSession,
    host: str,
    patch: Mapping[str, Any],
    *,
    login: Login,
    deadline_seconds: float,
) -> None:
    """Merge into the dynamic configuration; null removes. Raises ProbeError."""
    await _PATRONI.call(
        session, "PATCH", host, "/config", body=patch, login=login, deadline_seconds=deadline_seconds
    )


async def switchover(
    session: aiohttp.ClientSession,
    host: str,
    leader: str,
    candidate: str,
    *,
    login: Login,
    deadline_seconds: float,
) -> str:
    """Hand the primary role over to the candidate; Patroni's answer, a sentence.

    Returns when the new primary holds the leader key, about two seconds before it accepts writes. Raises
    ProbeError when Patroni refuses, fails, or takes longer; in the last case the switchover may still happen.
    """
    body = {"leader": leader, "candidate": candidate}
    return await _PATRONI.call(
        session, "POST", host, "/switchover", body=body, login=login, deadline_seconds=deadline_seconds
    )


async def restart_member(
    session: aiohttp.ClientSession,
    host: str,
    *,
    login: Login,
    deadline_seconds: float,
    only_pending: bool = False,
) -> str:
    """Restart Postgres inside a member and wait until it runs; `only_pending`: only if a parameter needs it.

    A primary that takes longer than the deadline to start hands over to a replica. Raises ProbeError.
    """
    # Without a timeout of its own the cluster's primary_start_timeout counts, which is zero.
    body: dict[str, Any] = {"timeout": max(1, int(deadline_seconds))}
    if only_pending:
        body["restart_pending"] = True
    return await _PATRONI.call(
        session, "POST", host, "/restart", body=body, login=login, deadline_seconds=deadline_seconds
    )


async def reinitialize(
    session: aiohttp.ClientSession,
    host: str,
    *,
    login: Login,
    deadline_seconds: float,
) -> str:
    """Make a replica throw its data away and copy the primary's; returns when Patroni has begun.

    Patroni refuses this to the primary, when there is no primary to copy from, and while it is at work on the member
    itself. Raises ProbeError.
    """
    # `force` would end what Patroni is doing, which may be the rewind that makes this needless.
    return await _PATRONI.call(
        session,
        "POST",
        host,
        "/reinitialize",
        body={"force": False, "from_leader": True},
        login=login,
        deadline_seconds=deadline_seconds,
    )


def _json(text: str) -> object:
    try:
        return json.loads(text)
    except ValueError as error:
        raise ProbeError(f"Patroni's answer is no JSON: {text[:100]!r}") from error
