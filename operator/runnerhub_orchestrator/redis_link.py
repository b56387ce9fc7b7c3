"""Connections to the Redis master, found by Sentinel each time one is opened."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

import redis.asyncio as redis
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import MasterNotFoundError, Sentinel
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from runnerhub_passwords.redis_login import redis_login

from .settings import RedisSettings

MAXIMUM_CONNECTIONS = 64


@dataclass(frozen=True, slots=True)
class SentinelView:
    """What one Sentinel says about the master. `error` is set when it did not answer."""

    sentinel: str
    master: tuple[str, int] | None = None
    epoch: int = -1
    healthy: bool = False
    replicas: int = 0
    error: str | None = None


def choose_master(views: list[SentinelView]) -> tuple[str, int] | None:
    """The master of the highest configuration epoch among the views that hold it for healthy.

    A Sentinel that was frozen still names the master of its past; the epoch tells which view is newer.
    """
    usable = [view for view in views if view.healthy and view.master]
    return max(usable, key=lambda view: view.epoch).master if usable else None


class EpochSentinel(Sentinel):
    """Asks all Sentinels at once and believes the newest, as soon as a majority has answered."""

    async def discover_master(self, service_name: str) -> tuple[str, int]:
        """Address of the master; raises MasterNotFoundError, which is a ConnectionError."""
        views = await self.views(service_name, enough=len(self.sentinels) // 2 + 1)
        master = choose_master(views)
        if master is None:
            told = "; ".join(f"{view.sentinel}: {view.error or 'sees no healthy master'}" for view in views)
            raise MasterNotFoundError(f"no master for {service_name!r} ({told})")
        return master

    async def views(self, service_name: str, *, enough: int) -> list[SentinelView]:
        """What the Sentinels say, until `enough` of them named a healthy master or all have answered."""
        waiting = {asyncio.create_task(_ask(sentinel, service_name)) for sentinel in self.sentinels}
        views: list[SentinelView] = []
        try:
            while waiting and sum(view.healthy for view in views) < enough:
                done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                views.extend(task.result() for task in done)
        finally:
            for task in waiting:
                task.cancel()
        return views


async def _ask(sentinel: redis.Redis, service_name: str) -> SentinelView:
    options = sentinel.connection_pool.connection_kwargs
    name = f"{options['host']}:{options['port']}"
    try:
        # The socket's timeouts bound the exchange, this one also the lookup of the name.
        async with asyncio.timeout(options["socket_timeout"] * 2):
            state = await sentinel.execute_command("SENTINEL MASTER", service_name)  # type: ignore[no-untyped-call]
            # While it fails over it names the promoted replica here, and the former master above until all follow.
            address: Any = await sentinel.sentinel_get_master_addr_by_name(service_name)
    except (RedisError, OSError, TimeoutError) as error:
        return SentinelView(sentinel=name, error=f"{type(error).__name__}: {error}")
    flags = set(str(state["flags"]).split(",")) if isinstance(state["flags"], str) else set(state["flags"])
    former = (str(state["ip"]), int(state["port"]))
    master = (str(address[0]), int(address[1])) if address else former
    return SentinelView(
        sentinel=name,
        master=master,
        epoch=int(state.get("config-epoch", 0)),
        healthy=master != former or ("master" in flags and not flags & {"s_down", "o_down", "disconnected"}),
        replicas=int(state.get("num-slaves", 0)),
    )


class RedisLink:
    """Clients of the current master. Every command has a deadline, nothing is retried inside.

    A failed command drops its connection and the next one asks the Sentinels again, so a failover costs
    one error per connection; who calls decides whether to try again.
    """

    def __init__(self, settings: RedisSettings) -> None:
        self._settings = settings
        self.sentinel: EpochSentinel | None = None
        if settings.use_sentinel:
            sentinel_timeout = min(settings.timeout_seconds, 1.0)
            self.sentinel = EpochSentinel(  # type: ignore[no-untyped-call]
                settings.sentinels,
                sentinel_kwargs={
                    "credential_provider": redis_login(
                        None, settings.sentinel_password, settings.sentinel_password_file
                    ),
                    "decode_responses": True,
                    **_deadlines(sentinel_timeout),
                },
            )

    def client(self) -> redis.Redis:
        """A new client with connections of its own."""
        options: dict[str, Any] = {
            "credential_provider": redis_login(
                self._settings.user, self._settings.password, self._settings.password_file
            ),
            "decode_responses": True,
            "max_connections": MAXIMUM_CONNECTIONS,
            **_deadlines(self._settings.timeout_seconds),
        }
        if self.sentinel:
            client: redis.Redis = self.sentinel.master_for(self._settings.master_name, **options)
            return client
        host, port = self._settings.address
        return redis.Redis(host=host, port=port, **options)

    async def sentinel_views(self) -> list[SentinelView]:
        """The opinion of every Sentinel; empty without Sentinel."""
        if self.sentinel is None:
            return []
        return await self.sentinel.views(self._settings.master_name, enough=len(self.sentinel.sentinels) + 1)

    async def master(self) -> tuple[str, int] | None:
        """The master's address as Sentinel tells it now; None when nobody knows one."""
        if self.sentinel is None:
            return self._settings.address
        try:
            return await self.sentinel.discover_master(self._settings.master_name)
        except MasterNotFoundError:
            return None

    async def close(self) -> None:
        """Close the connections to the Sentinels."""
        if self.sentinel:
            for sentinel in self.sentinel.sentinels:
                await sentinel.aclose()


def _deadlines(timeout_seconds: float) -> dict[str, Any]:
    return {
        "socket_timeout": timeout_seconds,
        "socket_connect_timeout": timeout_seconds,
        "socket_keepalive": True,
        "retry": Retry(NoBackoff(), 0),
        "retry_on_error": [],
        # RESP2: what BullMQ's scripts and redis-py's Sentinel commands are written for.
        "protocol": 2,
    }
