"""One agent: everything that runs in it, and how it ends."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final

import aiohttp
from aiohttp import web

from .. import __version__, names
from .canary import CanaryProbe
from .candidacy import Orchestrator, Outcome
from .checks import Check, Details
from .database import DatabaseProbe
from .isolation import STORES, Isolation
from .kube import AgentKube
from .leadership import Leadership
from .metrics import AgentMetrics, Readings
from .nodes import NodesProbe
from .queue_probe import RedisProbe
from .queues import QueuesProbe
from .server import Dependency, HttpServer
from .settings import AgentSettings
from .storage import StorageProbe

log = logging.getLogger(__name__)

# After the signal the orchestrator beside it may still be finishing requests; the agent answers for as long.
LINGER_SECONDS: Final = 40.0
LINGER_ASK_SECONDS: Final = 0.5


class Agent:
    """Builds the parts and connects them."""

    def __init__(self, settings: AgentSettings, kube: AgentKube, session: aiohttp.ClientSession) -> None:
        self._settings = settings
        self._metrics = AgentMetrics(settings.node, self._read)
        self._orchestrator = Orchestrator(
            session,
            settings.app_health_url,
            retries=settings.checks.retries,
            on_change=self._fitness_changed,
            others_better=lambda: self._isolation.others_better,
        )
        self._leadership = Leadership(
            settings,
            kube,
            kube,
            candidate=lambda: self._orchestrator.fit and not self._isolation.alone_without,
            on_moved=partial(self._moved, names.ORCHESTRATOR),
        )
        self._database = (
            DatabaseProbe(
                settings.node,
                settings.database_url,
                settings.replica_url,
                settings.timing_of("database").timeout_seconds,
                password_file=settings.database_password_file,
                on_moved=partial(self._moved, names.POSTGRES),
            )
            if settings.database_url
            else None
        )
        self._redis = (
            RedisProbe(
                settings.node,
                settings.redis,
                settings.timing_of("redis").timeout_seconds,
                on_moved=partial(self._moved, names.REDIS),
            )
            if settings.redis
            else None
        )
        storage = _storage_probe(settings)
        canary = (
            CanaryProbe(
                settings.node, self._database, self._redis, settings.timing_of("canary").timeout_seconds
            )
            if self._database and self._redis
            else None
        )
        self._queues = QueuesProbe(self._redis) if self._redis else None
        timing = settings.timing_of("redis")
        self._queues_check = (
            # Whether workers are deaf shows over half a minute, so a failed look is no reason to hurry.
            Check("queues", self._queues, timing, recheck_seconds=timing.interval_seconds)
            if self._queues
            else None
        )
        self._nodes = NodesProbe(settings.nodes, settings.app_health_url, session)
        self._nodes_check = Check("nodes", self._nodes, settings.checks)
        self._checks = {
            name: self._check(name, probe)
            for name, probe in (
                ("database", self._database),
                ("redis", self._redis),
                ("storage", storage),
                ("canary", canary),
            )
            if probe is not None
        }
        cluster = f"{settings.namespace}/{settings.cluster}"
        self._isolation = Isolation(
            settings.node,
            cluster,
            {name: check for name, check in self._checks.items() if name in STORES},
            session,
            addresses=lambda: self._nodes.addresses,
            port=settings.port,
            failing=lambda: self._orchestrator.failing,
            on_change=self._fitness_changed,
        )
        dependencies: dict[str, Dependency] = {names.ORCHESTRATOR: self._orchestrator, **self._checks}
        self._server = HttpServer(
            settings.node,
            self._leadership,
            dependencies,
            self._metrics.registry,
            cluster=cluster,
            queues=self._queues,
            alone_without=lambda: self._isolation.alone_without,
        )

    async def run(self) -> None:
        """Run until a signal; then give leadership back at once and end with the orchestrator."""
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        runner = web.AppRunner(self._server.application(), access_log=None)
        await runner.setup()
        await web.TCPSite(runner, port=self._settings.port).start()
        log.info("ha-agent %s starts", __version__, extra={"node": self._settings.node})
        try:
            async with asyncio.TaskGroup() as group:
                background = [
                    group.create_task(work)
                    for work in (
                        self._leadership.run(),
                        self._leadership.keep_labels(),
                        self._orchestrator.run(),
                        self._nodes_check.run(),
                        self._isolation.run(),
                        *(check.run() for check in self._checks.values()),
                        *([self._queues_check.run()] if self._queues_check else []),
                    )
                ]
                self._server.ready = True
                await stop.wait()
                await self._leadership.release()
                await self._linger()
                for task in background:
                    task.cancel()
        finally:
            if self._redis is not None:
                await self._redis.close()
            await runner.cleanup()
        log.info("ha-agent ends", extra={"node": self._settings.node})

    async def _linger(self) -> None:
        """Answer until nobody listens at the orchestrator's port any more."""
        try:
            async with asyncio.timeout(LINGER_SECONDS):
                # The orchestrator tells its end in no other way than by being gone.
                while await self._orchestrator.once() is not Outcome.REFUSED:  # noqa: ASYNC110
                    await asyncio.sleep(LINGER_ASK_SECONDS)
        except TimeoutError:
            log.warning("the orchestrator still answers %g s after the signal", LINGER_SECONDS)

    def _fitness_changed(self) -> None:
        self._leadership.elector.poke()

    def _check(self, name: str, probe: Callable[[], Awaitable[Details]]) -> Check:
        return Check(
            name, probe, self._settings.timing_of(name), on_success=partial(self._metrics.checked, name)
        )

    def _moved(self, component: str, old: str, new: str) -> None:
        log.info("%s moved from %s to %s", component, old, new, extra={"component": component})
        self._metrics.moved(component)

    def _read(self) -> Readings:
        return Readings(
            leads=self._leadership.elector.is_leader,
            lag_seconds=self._database.lag_seconds if self._database else None,
            sentinel_masters=self._redis.masters_known if self._redis else None,
            nodes_healthy=self._nodes.healthy,
            up={
                names.ORCHESTRATOR: self._orchestrator.healthy,
                **{name: check.healthy for name, check in self._checks.items()},
            },
            queues=self._queues.views if self._queues else {},
            deaf=frozenset(self._queues.deaf) if self._queues else frozenset(),
        )


def _storage_probe(settings: AgentSettings) -> Callable[[], Awaitable[Details]] | None:
    if settings.bucket is not None:
        # Only those who have a bucket pay for its library.
        from .bucket import BucketProbe

        return BucketProbe(settings.node, settings.bucket, settings.timing_of("storage").timeout_seconds)
    return StorageProbe(settings.node, settings.storage_path) if settings.storage_path else None


async def run(settings: AgentSettings) -> None:
    """Run one agent."""
    kube = AgentKube.connect()
    try:
        # Nobody is to follow redirects of an orchestrator image, and connections to it must not outlive it.
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(force_close=True)) as session:
            await Agent(settings, kube, session).run()
    finally:
        await kube.close()
