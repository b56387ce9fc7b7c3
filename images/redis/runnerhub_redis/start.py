"""Gathers what a starting pod can know, and repeats it until the decision is clear."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from . import handover, network, volume
from .decision import HandOver, Situation, StartMaster, StartReplica, Wait, decide, sentinel_target
from .log import log
from .network import LOCAL, Resolver
from .settings import Settings

RETRY_SECONDS = 0.3
REPORT_SECONDS = 10.0
# A failover takes one to two seconds; a second request meanwhile would only be refused.
HANDOVER_RETRY_SECONDS = 3.0

Result = TypeVar("Result")


def gather(settings: Settings, addresses: Mapping[int, str], *, own_redis: bool, waited: float) -> Situation:
    """Ask everybody at once; with `own_redis` the own pod's Redis and start program too."""
    others = {ordinal: host for ordinal, host in addresses.items() if ordinal != settings.ordinal}
    everybody = {**others, settings.ordinal: LOCAL}
    redis_hosts = everybody if own_redis else others
    with ThreadPoolExecutor(max_workers=3) as pool:
        # A Sentinel that starts has no business asking itself, but its port is closed then, which is cheap.
        sentinels = pool.submit(network.ask_sentinels, settings, everybody)
        redis = pool.submit(network.ask_redis, settings, redis_hosts)
        peers = pool.submit(network.ask_states, redis_hosts)
    answers = list(sentinels.result().values())
    if settings.ordinal not in sentinels.result() and (own := network.own_sentinel_file(settings, addresses)):
        answers.append(own)
    return Situation(
        ordinal=settings.ordinal,
        replicas=settings.replicas,
        majority=settings.quorum,
        addresses=addresses,
        volume=volume.inspect(settings.paths),
        bootstrapped=settings.bootstrapped(),
        sentinels=answers,
        redis=redis.result(),
        peers=peers.result(),
        waited_seconds=waited,
    )


def redis_role(settings: Settings, resolver: Resolver) -> tuple[StartMaster | StartReplica, str]:
    """Wait until the role of this pod's Redis is clear; return it and the address to announce."""
    requested = -HANDOVER_RETRY_SECONDS

    def attempt(addresses: Mapping[int, str], waited: float) -> tuple[StartMaster | StartReplica | None, str]:
        nonlocal requested
        situation = gather(settings, addresses, own_redis=False, waited=waited)
        decision = decide(situation)
        if isinstance(decision, HandOver) and waited - requested >= HANDOVER_RETRY_SECONDS:
            requested = waited
            handover.request_failover(settings, addresses)
        if isinstance(decision, Wait | HandOver):
            return None, decision.reason
        log(
            "role decided",
            role=type(decision).__name__,
            reason=decision.reason,
            master=getattr(decision, "master", None),
            volume=situation.volume,
            bootstrapped=situation.bootstrapped,
            sentinels=len(situation.sentinels),
            waited_seconds=round(waited, 1),
        )
        return decision, decision.reason

    return _until_clear(settings, resolver, attempt)


def sentinel_master(settings: Settings, resolver: Resolver) -> tuple[str, str]:
    """Wait until it is clear which master a new Sentinel watches; return it and the own address."""

    def attempt(addresses: Mapping[int, str], waited: float) -> tuple[str | None, str]:
        target = sentinel_target(gather(settings, addresses, own_redis=True, waited=waited))
        return target, "nobody knows the master yet"

    return _until_clear(settings, resolver, attempt)


def own_address(settings: Settings, resolver: Resolver) -> str:
    """Wait until the address of the own Service is known."""

    def attempt(addresses: Mapping[int, str], _waited: float) -> tuple[str | None, str]:
        return addresses[settings.ordinal], ""

    return _until_clear(settings, resolver, attempt)[0]


def _until_clear(
    settings: Settings,
    resolver: Resolver,
    attempt: Callable[[Mapping[int, str], float], tuple[Result | None, str]],
) -> tuple[Result, str]:
    started = reported = time.monotonic()
    last_reason = ""
    while not settings.is_outgrown():
        addresses = resolver.addresses()
        waited = time.monotonic() - started
        if settings.ordinal in addresses:
            result, reason = attempt(addresses, waited)
            if result is not None:
                return result, addresses[settings.ordinal]
        else:
            reason = f"DNS does not know {settings.host(settings.ordinal)} yet"
        if reason != last_reason or time.monotonic() - reported > REPORT_SECONDS:
            last_reason, reported = reason, time.monotonic()
            log("waiting", reason=reason, waited_seconds=round(waited, 1))
        time.sleep(RETRY_SECONDS)
    # It may have waited for pods that are not to be any more.
    raise OSError("the number of pods has changed; this program starts anew")
