"""Hands mastership over before this pod's Redis stops, so that clients wait a moment instead of failing over.

Sentinel's own failover of a living master would lose what the master confirms after the promotion. Therefore
writes are paused first, the replicas catch up, and only then Sentinel is asked, one that promotes a replica that has
everything. Where that is not certain the Sentinels elect when the pod is gone.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from . import standing
from .access import Login
from .history import has_diverged, promotes_one_of
from .log import log
from .network import LOCAL, NO_ANSWER, ask_redis, replication_of, sentinel_answer
from .resp import Connection, RespError, pairs
from .settings import PORT_REDIS, PORT_SENTINEL, Settings

DEADLINE_SECONDS = 8.0
# The pause must end by itself should this program die, and soon enough that no client gives up for good; but not before
# Redis is told to stop after the deadline.
PAUSE_AFTER_SECONDS = 4.0
# For all replicas that stream, and for at least one of them.
CATCH_UP_SECONDS = 1.0
PATIENCE_SECONDS = 3.0
POLL_SECONDS = 0.02
# A replica confirms once a second.
FOLLOWS_SECONDS = 3
CALL_SECONDS = 1.0
REPLICAS_TO_WRITE = "min-replicas-to-write"
# How often a Sentinel asks replicas for role and offset, in milliseconds. Left alone it does so each ten seconds, and
# each second from the moment at which the master is gone: then it sees a promotion a whole second later, and not half
# a second on average (sentinelSendPeriodicCommands in sentinel.c of Redis 8.0).
INFO_PERIOD, INFO_PERIOD_NOW = 1000, 100
LOOK_AGAIN_SECONDS = 1.5
# A failover of a master that is dead; and what the end of a failover takes that is not to wait for its replicas.
FAILOVER_SECONDS = 3.0
CONCLUDE_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class OnlineReplica:
    """A replica as the master lists it; `silent_seconds`: since it last confirmed an offset."""

    address: str
    port: int
    offset: int
    silent_seconds: int


def online_replicas(info: Mapping[str, str]) -> list[OnlineReplica]:
    """The replicas that stream from this master now (INFO replication)."""
    found = []
    for number in range(int(info.get("connected_slaves", "0"))):
        fields = dict(part.split("=", 1) for part in info.get(f"slave{number}", "").split(",") if "=" in part)
        if fields.get("state") == "online":
            found.append(
                OnlineReplica(
                    fields["ip"], int(fields["port"]), int(fields["offset"]), int(fields.get("lag", "0"))
                )
            )
    return found


def followers(info: Mapping[str, str]) -> int:
    """How many replicas have confirmed something of late (INFO replication)."""
    return sum(replica.silent_seconds <= FOLLOWS_SECONDS for replica in online_replicas(info))


def replicas_to_write(server: Connection) -> int:
    """Replicas without which a master refuses writes now; the operator changes it with the number of pods."""
    return int(pairs(server.call("CONFIG", "GET", REPLICAS_TO_WRITE))[REPLICAS_TO_WRITE])


def request_failover(settings: Settings, addresses: Mapping[int, str]) -> None:
    """Have one Sentinel promote the furthest replica of this pod, whose Redis is down; the log says when none does."""
    others = {ordinal: host for ordinal, host in addresses.items() if ordinal != settings.ordinal}
    own = addresses[settings.ordinal]
    heirs = [found for found in ask_redis(settings, others) if found.role == "slave" and found.master == own]
    if not heirs:
        log("no replica of this pod answers; the Sentinels elect")
        return
    offset = max(heir.offset for heir in heirs)
    whole = frozenset(addresses[heir.ordinal] for heir in heirs if heir.offset == offset)
    for ordinal, host in _sentinels(settings, addresses):
        try:
            named = _start_failover(settings, host, own, whole, offset)
        except NO_ANSWER as error:
            log("a Sentinel did not start a failover", sentinel=ordinal, error=str(error))
            continue
        if named is None:
            log("failover requested", sentinel=ordinal)
            others = {*addresses.values()} - {own}
            _see_through(settings, addresses, host, others, time.monotonic() + FAILOVER_SECONDS)
            return
        log("a Sentinel names another master", sentinel=ordinal, master=named)


def hand_over(settings: Settings, addresses: Mapping[int, str]) -> None:
    """Make another pod master when this one is, within the deadline; say in the log how it went."""
    ends = time.monotonic() + DEADLINE_SECONDS
    with Connection(LOCAL, PORT_REDIS, settings.redis_login, deadline_seconds=DEADLINE_SECONDS + 1) as local:
        info = local.info("replication")
        if info["role"] != "master":
            log("stopping: not master, nothing to hand over")
            return
        if not online_replicas(info):
            log("stopping: master without a replica, nobody to hand over to")
            return
        started = time.monotonic()
        pause = DEADLINE_SECONDS + PAUSE_AFTER_SECONDS
        local.call("CLIENT", "PAUSE", str(int(pause * 1000)), "WRITE")
        begun, successor = False, None
        try:
            info = local.info("replication")
            whole = _caught_up(settings, info)
            if whole:
                begun, successor = _promote(settings, addresses, whole, int(info["master_repl_offset"]), ends)
        finally:
            if not begun:
                local.call("CLIENT", "UNPAUSE")
        if not begun:
            # Redis itself waits for its replicas when it is told to stop.
            log("stopping: no Sentinel could hand over; they will elect once this pod is gone")
            return
        # From here on a write that this pod took would be lost: the pause goes on until it is no master any more.
        if successor is None or has_diverged(info, replication_of(settings, successor)):
            # Somebody else had it promoted, or it is not known yet. The next life of this pod saves what it has not,
            # by the note of a moment ago where the volume is full.
            with contextlib.suppress(OSError):
                standing.note(settings.paths, info)
            if successor is None:
                log("stopping: a failover has begun, and its end was not seen")
            else:
                log("THE SUCCESSOR HAS NOT EVERYTHING", successor=successor)
            return
        _follow(settings, local, successor, ends)
        with contextlib.suppress(OSError):
            # The successor has it all: the next life need not look what this one had of its own.
            standing.note(settings.paths, {**info, "role": "slave"})
        log("mastership handed over", to=successor, seconds=round(time.monotonic() - started, 2))


def _caught_up(settings: Settings, info: Mapping[str, str]) -> frozenset[str]:
    """Addresses of the replicas that have all that was confirmed; each that streams is given some time for it."""
    target = int(info["master_repl_offset"])
    started = time.monotonic()
    behind = {replica.address: replica.port for replica in online_replicas(info)}
    found: set[str] = set()
    while True:
        for address, port in behind.items():
            with contextlib.suppress(*NO_ANSWER), _connect(address, port, settings.redis_login) as there:
                if int(there.info("replication").get("slave_repl_offset", "0")) >= target:
                    found.add(address)
        behind = {address: port for address, port in behind.items() if address not in found}
        waited = time.monotonic() - started
        if not behind or waited > (CATCH_UP_SECONDS if found else PATIENCE_SECONDS):
            break
        time.sleep(POLL_SECONDS)
    if behind:
        log("replicas that do not catch up", replicas=sorted(behind))
    return frozenset(found)


def _sentinels(settings: Settings, addresses: Mapping[int, str]) -> list[tuple[int, str]]:
    """Ordinals and hosts, the own one last, for it stops with this pod."""
    order = sorted(addresses, key=lambda ordinal: (ordinal == settings.ordinal, ordinal))
    return [(ordinal, LOCAL if ordinal == settings.ordinal else addresses[ordinal]) for ordinal in order]


def _promote(
    settings: Settings, addresses: Mapping[int, str], whole: frozenset[str], offset: int, ends: float
) -> tuple[bool, str | None]:
    """Ask the Sentinels one after the other; whether another is or may become master, and which, once it is seen."""
    own = addresses[settings.ordinal]
    # Pods that came after the start of this one are known by their replication alone.
    others = ({*addresses.values()} | whole) - {own}
    for ordinal, host in _sentinels(settings, addresses):
        if time.monotonic() > ends:
            break
        try:
            named = _start_failover(settings, host, own, whole, offset)
        except NO_ANSWER as error:
            log("a Sentinel did not hand over", sentinel=ordinal, error=str(error))
            continue
        if named is None:
            return True, _see_through(settings, addresses, host, others, ends)
        log("a Sentinel names another master", sentinel=ordinal, master=named)
        if named in others and replication_of(settings, named).get("role") == "master":
            # This pod was replaced and did not know it, as after a freeze.
            _bring_along(settings, addresses, named)
            return True, named
    return False, None


def _see_through(
    settings: Settings, addresses: Mapping[int, str], host: str, others: Collection[str], ends: float
) -> str | None:
    """Wait for the other member that a Sentinel names master instead of this pod, and return it; None: none by then.

    The other replicas follow it then, and the Sentinel names it in all its answers.
    """
    successor: list[str] = []

    def elected() -> bool:
        address = sentinel_answer(watch, settings.master_name).master
        if address in others:
            successor.append(address)
        return address in others

    seconds = max(CALL_SECONDS, ends - time.monotonic())
    try:
        with _connect(host, PORT_SENTINEL, settings.sentinel_login, seconds) as watch:
            if _poll(elected, ends):
                _bring_along(settings, addresses, successor[0])
                _conclude(settings, watch, successor[0])
    except NO_ANSWER as error:
        log("a Sentinel that began a failover does not answer", error=str(error))
    return successor[0] if successor else None


def _conclude(settings: Settings, sentinel: Connection, successor: str) -> None:
    """Have a Sentinel end its failover, now that another is master, without waiting until all replicas follow that one.

    SENTINEL MASTERS names the former master until then, a second or two, and clients like redis-py go by that. Sentinel
    may drop its connections to the replicas before it has told them whom to follow, so they must have been told.
    """

    def concluded() -> bool:
        return pairs(sentinel.call("SENTINEL", "MASTER", settings.master_name))["ip"] == successor

    def give_it(milliseconds: int) -> None:
        sentinel.call("SENTINEL", "SET", settings.master_name, "failover-timeout", str(milliseconds))

    if concluded():
        return
    give_it(1)
    try:
        _poll(concluded, time.monotonic() + CONCLUDE_SECONDS)
    finally:
        give_it(settings.failover_timeout_milliseconds)


def _start_failover(
    settings: Settings, host: str, own: str, whole: frozenset[str], offset: int
) -> str | None:
    """Have a Sentinel promote one of the replicas of `own` that are `whole`, which means up to `offset`.

    It is not asked when it names another master already, which is returned. Raises ValueError when it might promote
    a replica that is not whole, and any of NO_ANSWER, when it has not begun.
    """
    with _connect(
        host, PORT_SENTINEL, settings.sentinel_login, LOOK_AGAIN_SECONDS + CALL_SECONDS
    ) as sentinel:
        named = sentinel_answer(sentinel, settings.master_name).master
        if named != own:
            return named
        if not _chooses_well(settings, sentinel, whole, offset):
            raise ValueError("it might promote a replica that has not everything")
        try:
            sentinel.call("SENTINEL", "FAILOVER", settings.master_name)
        except RespError as error:
            # INPROG: somebody else had the same idea; its result serves as well.
            if error.code != "INPROG":
                raise
        except OSError as error:
            # It may have begun: another one that is asked too might promote another replica.
            log("a Sentinel does not tell whether it begins a failover", error=str(error))
    return None


def _chooses_well(settings: Settings, sentinel: Connection, whole: frozenset[str], offset: int) -> bool:
    """Whether it promotes one of these; it is made to ask the replicas anew when that depends on how far they are."""

    def does() -> bool:
        reply = sentinel.call("SENTINEL", "REPLICAS", settings.master_name)
        replicas = [pairs(item) for item in reply] if isinstance(reply, list) else []
        return promotes_one_of(whole, offset, replicas)

    if does():
        return True
    sentinel.call("SENTINEL", "DEBUG", "INFO-PERIOD", str(INFO_PERIOD_NOW))
    try:
        return _poll(does, time.monotonic() + LOOK_AGAIN_SECONDS)
    finally:
        sentinel.call("SENTINEL", "DEBUG", "INFO-PERIOD", str(INFO_PERIOD))


def _bring_along(settings: Settings, addresses: Mapping[int, str], successor: str) -> None:
    """Have the other replicas of this pod follow the successor now.

    Sentinel does it too, but not with one that it takes for dead, as one that has only just started: that one would
    follow this pod, which stops, and the successor would refuse writes until Sentinel notices after eight seconds.
    """
    own = addresses[settings.ordinal]
    for ordinal, host in addresses.items():
        if host in (own, successor):
            continue
        try:
            with _connect(host, PORT_REDIS, settings.redis_login) as there:
                info = there.info("replication")
                if info["role"] == "slave" and info["master_host"] == own:
                    there.call("REPLICAOF", successor, str(PORT_REDIS))
        except NO_ANSWER as error:
            log("a replica cannot be told of the successor", ordinal=ordinal, error=str(error))


def _follow(settings: Settings, local: Connection, successor: str, ends: float) -> None:
    """Become the successor's replica at once (Sentinel would take 8 s) and send the clients to it."""
    follow(local, successor)

    def writable() -> bool:
        # This pod goes away: the successor needs enough replicas other than this one, or it refuses writes.
        with _connect(successor, PORT_REDIS, settings.redis_login) as there:
            info = there.info("replication")
            return info["role"] == "master" and len(online_replicas(info)) > replicas_to_write(there)

    if not _poll(writable, ends):
        log("the successor has too few replicas yet", successor=successor)


def follow(local: Connection, successor: str) -> None:
    """Become the replica of another, and send the clients away to ask the Sentinels again."""
    local.call("MULTI")
    local.call("REPLICAOF", successor, str(PORT_REDIS))
    local.call("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    local.call("CLIENT", "KILL", "TYPE", "pubsub")
    local.call("EXEC")


def _connect(host: str, port: int, login: Login | None, seconds: float = CALL_SECONDS) -> Connection:
    return Connection(host, port, login, deadline_seconds=seconds)


def _poll(condition: Callable[[], bool], ends: float) -> bool:
    while time.monotonic() < ends:
        try:
            if condition():
                return True
        except NO_ANSWER:
            # Asked again until the deadline; the caller tells when it passed in vain.
            pass
        time.sleep(POLL_SECONDS)
    return False
