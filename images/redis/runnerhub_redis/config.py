"""Writes the configuration of Redis and Sentinel, and keeps what Sentinel remembered. Pure.

Source of the directives: redis.conf and sentinel.conf of Redis 8.0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from . import access
from .settings import PORT_REDIS, PORT_SENTINEL, Settings

# Sentinel promotes the replica of the lowest priority, and never one of priority 0.
PRIORITY_IN_STEP = 100
PRIORITY_LAST_RESORT = 200
PRIORITY_NEVER = 0


def redis_configuration(settings: Settings, *, announce: str, master: str | None, static: Path) -> str:
    """Configuration of this pod's Redis; `master` is None for the master itself.

    The operator's part is included first, so that what only the pod knows wins. A replica starts as one that is
    never promoted: it has lost its offset with the restart, so Sentinel could not tell how old its data is.
    """
    lines = [
        f"include {static}",
        "daemonize no",
        'logfile ""',
        f"port {PORT_REDIS}",
        f"dir {settings.paths.redis_data}",
        *_redis_access(settings),
        f"replica-announce-ip {announce}",
        f"replica-announce-port {PORT_REDIS}",
        f"replica-priority {PRIORITY_IN_STEP if master is None else PRIORITY_NEVER}",
    ]
    if settings.max_memory_bytes:
        lines.append(f"maxmemory {settings.max_memory_bytes}")
    if master is not None:
        lines.append(f"replicaof {master} {PORT_REDIS}")
    return "\n".join(lines) + "\n"


def _redis_access(settings: Settings) -> list[str]:
    if settings.credentials is None:
        return []
    nameless = settings.today().nameless_clients
    password = settings.credentials.used(access.KEYS[access.REPLICATION])
    return [
        *access.lines(access.redis_users(settings.credentials, nameless_clients=nameless)),
        f"masteruser {access.REPLICATION}",
        f"masterauth {access.quoted(password)}",
    ]


@dataclass(frozen=True, slots=True)
class SentinelState:
    """What a Sentinel remembers over restarts. `known` are its lines about replicas and other Sentinels.

    `members`: addresses of the pods in the order of their ordinals, as they were when it was started.
    """

    master: str
    port: int = PORT_REDIS
    myid: str | None = None
    current_epoch: int = 0
    config_epoch: int = 0
    leader_epoch: int = 0
    known: Sequence[str] = field(default=())
    members: tuple[str, ...] = ()


def parse_sentinel_state(text: str, master_name: str) -> SentinelState | None:
    """Read what Sentinel wrote; None when it names no master of this name, as in a cut-off file."""
    master: tuple[str, int] | None = None
    myid: str | None = None
    epochs = {"current-epoch": 0, "config-epoch": 0, "leader-epoch": 0}
    known: list[str] = []
    members: tuple[str, ...] = ()
    for line in text.splitlines():
        match line.split():
            case ["sentinel", "monitor", name, address, port, _] if name == master_name:
                master = address, int(port)
            case ["sentinel", "myid", value]:
                myid = value
            case ["sentinel", "current-epoch", value]:
                epochs["current-epoch"] = int(value)
            case ["sentinel", ("config-epoch" | "leader-epoch") as kind, name, value] if name == master_name:
                epochs[kind] = int(value)
            case ["sentinel", "known-replica" | "known-sentinel", name, *_] if name == master_name:
                known.append(line.strip())
            case ["#", "members", *addresses]:
                members = tuple(addresses)
            case _:
                # Everything else is written anew from the settings.
                pass
    if master is None:
        return None
    return SentinelState(
        master=master[0],
        port=master[1],
        myid=myid,
        current_epoch=epochs["current-epoch"],
        config_epoch=epochs["config-epoch"],
        leader_epoch=epochs["leader-epoch"],
        known=tuple(known),
        members=members,
    )


def translated(state: SentinelState, addresses: Mapping[int, str]) -> SentinelState:
    """The memory with the addresses that the pods have today.

    They change when Services are made anew and cannot have theirs again, as where a backup is restored.
    """
    today = {old: addresses[ordinal] for ordinal, old in enumerate(state.members) if ordinal in addresses}

    def line_of_today(line: str) -> str:
        # sentinel known-replica <name> <address> <port>, sentinel known-sentinel <name> <address> <port> <id>
        words = line.split()
        words[3] = today.get(words[3], words[3])
        return " ".join(words)

    return replace(
        state,
        master=today.get(state.master, state.master),
        known=tuple(line_of_today(line) for line in state.known),
        members=tuple(addresses[ordinal] for ordinal in sorted(addresses)),
    )


def forget_strangers(state: SentinelState, members: frozenset[str]) -> SentinelState:
    """The memory without replicas and Sentinels whose address is no member's.

    Sentinel never forgets one by itself: it counts them when it looks for a majority, and may promote one.
    """
    # sentinel known-replica <name> <address> <port>, sentinel known-sentinel <name> <address> <port> <id>
    return replace(state, known=tuple(line for line in state.known if line.split()[3] in members))


def with_master(state: SentinelState, master: str) -> SentinelState:
    """The memory with another master, which is no replica then: Sentinel would make it a replica of itself."""
    replica = ["sentinel", "known-replica"]
    known = (line for line in state.known if line.split()[:2] != replica or line.split()[3] != master)
    return replace(state, master=master, known=tuple(known))


def sentinel_configuration(settings: Settings, state: SentinelState, *, announce: str) -> str:
    """Configuration of this pod's Sentinel: the settings of today, the memory of before."""
    name = settings.master_name
    lines = [
        # Sentinel keeps comments when it writes its file anew.
        f"# members {' '.join(state.members)}",
        f"port {PORT_SENTINEL}",
        "bind * -::*",
        # Passwords protect it; protected mode would refuse every pod but this one.
        "protected-mode no",
        "daemonize no",
        'logfile ""',
        "dir /tmp",
        f"sentinel announce-ip {announce}",
        f"sentinel announce-port {PORT_SENTINEL}",
        # With names, an answer of DNS that is late puts Sentinel into TILT, and failovers fail.
        "sentinel resolve-hostnames no",
        "sentinel announce-hostnames no",
        "sentinel deny-scripts-reconfig yes",
    ]
    if state.myid is not None:
        lines.append(f"sentinel myid {state.myid}")
    lines += [
        f"sentinel monitor {name} {state.master} {state.port} {settings.quorum}",
        f"sentinel down-after-milliseconds {name} {settings.down_after_milliseconds}",
        f"sentinel failover-timeout {name} {settings.failover_timeout_milliseconds}",
        f"sentinel parallel-syncs {name} {settings.parallel_syncs}",
        # A restarted master that loads for long answers LOADING, which alone counts as alive for ever.
        f"sentinel master-reboot-down-after-period {name} {settings.down_after_milliseconds}",
        f"sentinel config-epoch {name} {state.config_epoch}",
        f"sentinel leader-epoch {name} {state.leader_epoch}",
        f"sentinel current-epoch {state.current_epoch}",
        *state.known,
        *_sentinel_access(settings),
    ]
    return "\n".join(lines) + "\n"


def _sentinel_access(settings: Settings) -> list[str]:
    if settings.credentials is None:
        return []
    others = settings.credentials.used(access.KEYS[access.OPERATOR])
    redis = settings.credentials.used(access.KEYS[access.SENTINEL])
    name = settings.master_name
    return [
        *access.lines(access.sentinel_users(settings.credentials)),
        f"sentinel sentinel-user {access.OPERATOR}",
        f"sentinel sentinel-pass {access.quoted(others)}",
        f"sentinel auth-user {name} {access.SENTINEL}",
        f"sentinel auth-pass {name} {access.quoted(redis)}",
    ]
