"""The life of one orchestrator process: start, serve, drain, stop."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor

from aiohttp import web

from .auth import Authenticator
from .background import Background
from .database import Database
from .dispatch import Dispatcher
from .events import EventBus
from .health import HealthMonitor
from .http_api import Api
from .job_queue import JobQueue
from .jobs import JobRepository
from .leadership import LeadershipWatch
from .metrics import Metrics
from .migrate import migrate_until_done
from .redis_link import RedisLink
from .settings import Settings
from .singleton import SingletonWork
from .websocket import WebSocketHub

log = logging.getLogger(__name__)

# Names are looked up in threads, and a DNS server that does not answer keeps one for 10 s and more.
THREADS = 32
KEEP_ALIVE_SECONDS = 75.0
EXIT_STOP_OVERDUE = 3


class Service:
    """Everything of one process, wired together."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        jobs = settings.jobs
        self._metrics = Metrics()
        self._database = Database(settings.database)
        self._repository = JobRepository(self._database, jobs.lease_seconds)
        self._redis_link = RedisLink(settings.redis)
        self._probe_client = self._redis_link.client()
        self._queue = JobQueue(
            self._redis_link, timeout_seconds=jobs.enqueue_timeout_seconds, lock_seconds=jobs.lease_seconds
        )
        self._events = EventBus(self._redis_link, settings.node_id)
        self._dispatcher = Dispatcher(self._queue)
        self._leadership = LeadershipWatch(settings.leader)
        self._singleton = SingletonWork(
            self._database,
            self._queue,
            self._events,
            self._leadership,
            self._metrics,
            jobs,
            settings.node_id,
        )
        self._starting = Background("start")
        self._health = HealthMonitor(
            database=self._database,
            redis_client=self._probe_client,
            repository=self._repository,
            queue=self._queue,
            metrics=self._metrics,
            interval_seconds=settings.health_interval_seconds,
            timeout_seconds=settings.health_timeout_seconds,
            retries=settings.health_retries,
            backgrounds=(
                self._starting,
                self._leadership.background,
                self._dispatcher.background,
                self._singleton.background,
                *self._events.backgrounds,
            ),
            alone_without=lambda: self._leadership.alone_without,
        )
        authenticator = Authenticator(settings.jwt_secret, settings.token_keys_file)
        self._hub = WebSocketHub(authenticator, self._health, self._metrics, settings.node_id)
        self._api = Api(
            settings=settings,
            repository=self._repository,
            queue=self._queue,
            dispatcher=self._dispatcher,
            events=self._events,
            leadership=self._leadership,
            health=self._health,
            metrics=self._metrics,
            redis_link=self._redis_link,
            authenticator=authenticator,
        )
        self._runners: list[web.AppRunner] = []

    async def run(self) -> None:
        """Serve until SIGTERM or SIGINT, then drain and return."""
        loop = asyncio.get_running_loop()
        loop.set_default_executor(ThreadPoolExecutor(THREADS))
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        # The ports open before anything else works: /health says what the process waits for.
        await self._listen(self._api.application(), self._settings.port, stops_abandoned=True)
        await self._listen(self._hub.application(), self._settings.websocket_port)
        log.info("listening", extra={"port": self._settings.port, "websocket": self._settings.websocket_port})
        self._leadership.start()
        self._health.start()
        self._starting.start(self._start_working)
        await stop.wait()
        await self._stop()

    async def _start_working(self) -> None:
        await migrate_until_done(self._settings.database)
        self._events.listen(self._hub.broadcast)
        self._events.listen(lambda event: self._dispatcher.wake() if event.get("type") == "queued" else None)
        self._events.start()
        self._dispatcher.start()
        self._singleton.start()
        self._health.schema_ready = True
        log.info("serving")

    async def _listen(
        self, application: web.Application, port: int, *, stops_abandoned: bool = False
    ) -> None:
        runner = web.AppRunner(
            application,
            access_log=None,
            handler_cancellation=stops_abandoned,
            keepalive_timeout=KEEP_ALIVE_SECONDS,
            shutdown_timeout=max(self._settings.stop_seconds - self._settings.drain_seconds - 2, 1),
        )
        await runner.setup()
        # SO_REUSEADDR: a restarted container finds its port free.
        await web.TCPSite(runner, port=port, reuse_address=True).start()
        self._runners.append(runner)

    async def _stop(self) -> None:
        started = time.monotonic()
        loop = asyncio.get_running_loop()
        overdue = loop.call_later(self._settings.stop_seconds, _exit_overdue)
        self._health.draining = True
        log.info("draining", extra={"seconds": self._settings.drain_seconds})
        await self._starting.close()
        # Singleton work ends first: another pod may lead from now on.
        await self._singleton.close()
        await self._leadership.close()
        await asyncio.sleep(self._settings.drain_seconds)
        await self._dispatcher.close()
        await self._hub.close()
        await asyncio.gather(*(runner.cleanup() for runner in self._runners))
        await self._health.close()
        await self._events.close()
        await self._queue.close()
        with contextlib.suppress(OSError):
            await self._probe_client.aclose()
        await self._redis_link.close()
        await self._database.close()
        overdue.cancel()
        log.info("stopped", extra={"seconds": round(time.monotonic() - started, 1)})


def _exit_overdue() -> None:
    """Something hangs: end anyway, everything that was acknowledged is in the database."""
    log.error("stop is overdue")
    logging.shutdown()
    os._exit(EXIT_STOP_OVERDUE)
