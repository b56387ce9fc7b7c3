"""Asks the start programs of the Redis pods: how full volume and memory are, how far behind the replicas."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import aiohttp

from .. import names
from ..errors import ProbeError
from .http import Program

_log = logging.getLogger(__name__)

_PROGRAM: Final = Program("the Redis pod's program", names.PORT_REDIS_STATE)
# More than the image ever keeps; what a pod says is not to be trusted with the size of the status.
_MOST_SNAPSHOTS: Final = 8
_LONGEST_NAME: Final = 100


@dataclass(frozen=True, slots=True)
class ReplicaLag:
    """A replica as its master sees it: bytes it has not confirmed, seconds since it confirmed anything."""

    lag_bytes: int
    silent_seconds: int


@dataclass(frozen=True, slots=True)
class QueueDepth:
    """Jobs in the queue by BullMQ's states; `waiting` has those with a priority and those of a paused queue too."""

    waiting: int
    active: int
    delayed: int
    failed: int


@dataclass(frozen=True, slots=True)
class RedisPodState:
    """What one pod tells. `lags` by the address that the replica announces, from the master alone.

    `configuration`: hash of the operator's part of redis.conf that is in effect; "" when it is not told.
    `depth`: from the master alone. `on_disk`: whether it would find its data after a restart, as far as it tells.
    """

    pod: str
    volume_used_percent: int | None = None
    memory_used_percent: int | None = None
    snapshots: tuple[str, ...] = ()
    lags: Mapping[str, ReplicaLag] = field(default_factory=dict)
    configuration: str = ""
    depth: QueueDepth | None = None
    on_disk: bool = True


async def read_states(
    http: aiohttp.ClientSession, hosts: Mapping[str, str], *, deadline_seconds: float
) -> tuple[RedisPodState, ...]:
    """Ask all at once; `hosts` maps pods to addresses. Those that do not answer in time are left out."""

    async def ask(pod: str, host: str) -> RedisPodState | None:
        try:
            text = await _PROGRAM.call(http, "GET", host, "/state", deadline_seconds=deadline_seconds)
            return parse_state(pod, json.loads(text))
        except (ProbeError, ValueError) as error:
            _log.debug("%s: %s", pod, error)
            return None

    found = await asyncio.gather(*(ask(pod, host) for pod, host in hosts.items()))
    return tuple(state for state in found if state is not None)


def parse_state(pod: str, body: object) -> RedisPodState:
    """Read an answer of GET /state; what is missing in it, as from an older image, is None or empty.

    Raises ValueError when it is no object.
    """
    if not isinstance(body, Mapping):
        raise ValueError("the answer is no object")  # noqa: TRY004 - it comes from a program in a pod
    redis = body.get("redis")
    redis = redis if isinstance(redis, Mapping) else {}
    snapshots = body.get("snapshots")
    return RedisPodState(
        pod=pod,
        volume_used_percent=_whole(body.get("volumeUsedPercent")),
        memory_used_percent=_whole(redis.get("memoryUsedPercent")),
        snapshots=_names(snapshots),
        lags=_lags(redis) if redis.get("role") == "master" else {},
        configuration=str(body.get("configuration") or "")[:_LONGEST_NAME],
        depth=_depth(redis),
        on_disk=body.get("onDisk") is not False,
    )


def _lags(redis: Mapping[str, Any]) -> dict[str, ReplicaLag]:
    offset, replicas = _whole(redis.get("offset")), redis.get("replicas")
    if offset is None or not isinstance(replicas, Mapping):
        return {}
    found = {}
    for address, told in replicas.items():
        if not isinstance(told, Mapping):
            continue
        confirmed, silent = _whole(told.get("offset")), _whole(told.get("silentSeconds"))
        if confirmed is not None and silent is not None:
            found[str(address)] = ReplicaLag(max(0, offset - confirmed), silent)
    return found


def _depth(redis: Mapping[str, Any]) -> QueueDepth | None:
    told = redis.get("queue")
    if redis.get("role") != "master" or not isinstance(told, Mapping):
        return None
    waiting, active, delayed, failed = (
        _whole(told.get(state)) for state in ("waiting", "active", "delayed", "failed")
    )
    if waiting is None or active is None or delayed is None or failed is None:
        return None
    return QueueDepth(waiting, active, delayed, failed)


def _names(value: object) -> tuple[str, ...]:
    if not isinstance(value, list):
        return ()
    return tuple(str(item)[:_LONGEST_NAME] for item in value[-_MOST_SNAPSHOTS:])


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None
