"""What the Sentinels say of the master, and the master of its replicas; for whoever breaks something and looks on."""

from __future__ import annotations

import asyncio
from typing import Any

import redis.asyncio as redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from runnerhub_passwords.redis_login import RedisLogin

from .settings import Targets

ANSWER_SECONDS = 1.0


async def tell_master(targets: Targets) -> dict[str, Any]:
    """The newest view of all Sentinels.

    `master`: its address by the newest epoch, None when nobody knows one; `epoch`; `agree`: how many Sentinels name it,
    hold it for well and are not in TILT; `sentinels` and `replicas`: how many others one of those knows; `online`:
    replicas that the master itself sees in step.
    """
    answers = await asyncio.gather(*(_ask(host, port, targets) for host, port in targets.sentinels))
    found = [answer for answer in answers if answer]
    if not found:
        return {"master": None, "epoch": -1, "agree": 0, "sentinels": 0, "replicas": 0, "online": 0}
    best = max(found, key=lambda answer: int(answer["config-epoch"]))
    same = [one for one in found if (one["ip"], one["config-epoch"]) == (best["ip"], best["config-epoch"])]
    well = [one for one in same if not (one["is_sdown"] or one["is_odown"] or one["tilt"])]
    return {
        "master": best["ip"],
        "epoch": int(best["config-epoch"]),
        "agree": len(well),
        "sentinels": max(int(one["num-other-sentinels"]) for one in same),
        "replicas": max(int(one["num-slaves"]) for one in same),
        "online": await _online(best["ip"], int(best["port"]), targets),
    }


def _client(host: str, port: int, login: RedisLogin | None) -> redis.Redis:
    return redis.Redis(
        host=host,
        port=port,
        credential_provider=login,
        decode_responses=True,
        socket_timeout=ANSWER_SECONDS,
        socket_connect_timeout=ANSWER_SECONDS,
        retry=Retry(NoBackoff(), 0),
        protocol=2,
    )


async def _ask(host: str, port: int, targets: Targets) -> dict[str, Any] | None:
    client = _client(host, port, targets.sentinel_login())
    try:
        async with asyncio.timeout(2 * ANSWER_SECONDS):
            found = await client.sentinel_master(targets.master_name)
            info = await client.info("sentinel")
    except (RedisError, OSError, TimeoutError):
        return None
    finally:
        await client.aclose()
    return {**found, "tilt": info["sentinel_tilt"]} if isinstance(found, dict) else None


async def _online(host: str, port: int, targets: Targets) -> int:
    client = _client(host, port, targets.redis_login())
    try:
        async with asyncio.timeout(2 * ANSWER_SECONDS):
            info = await client.info("replication")
    except (RedisError, OSError, TimeoutError):
        return 0
    finally:
        await client.aclose()
    if info["role"] != "master":
        return 0
    replicas = (info.get(f"slave{number}", {}) for number in range(int(info["connected_slaves"])))
    return sum(replica.get("state") == "online" for replica in replicas)
