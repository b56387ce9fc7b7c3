"""One operator process: wait for the Lease, then watch and reconcile until it is lost or the process ends."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

import aiohttp
import kopf
from aiohttp import web
from prometheus_client import start_http_server

from . import __version__, handlers, logs, metrics, names
from .cache import ObjectCache
from .errors import KubeError, OperatorError
from .kube.client import KubeClient
from .kube.election import ClientLeaseApi, LeaseElector
from .kube.lease import ElectionTiming
from .reconcile import Clusters, Key, Reconciler
from .settings import Settings, read_settings
from .watches import Watches
from .workqueue import WorkQueue

logger = logging.getLogger(__name__)

# A StatefulSet, its pods and their Services change together; one visit sees all of it.
CHILD_DEBOUNCE_SECONDS: Final = 0.5
# An edit is one event; a list, such as the first one, brings many.
EDIT_DEBOUNCE_SECONDS: Final = 0.02
# A watch that has worked for so long is worth another one when it fails.
KOPF_PROVEN_SECONDS: Final = 5.0


@dataclass(slots=True)
class Health:
    """What the probes of Kubernetes ask for."""

    started: bool = False
    stopping: bool = False


def run() -> int:
    """Run the operator; gives the exit code: 0 after a signal, 1 when the Lease was lost."""
    settings = read_settings()
    logs.configure(settings.log_format, settings.log_level)
    return asyncio.run(_run(settings))


async def _run(settings: Settings) -> int:
    logger.info("runnerhub-operator %s starts as %s", __version__, settings.identity)
    start_http_server(settings.metrics_port)
    stop = asyncio.Event()
    lost = asyncio.Event()
    _stop_at_signals(stop)
    health = Health()
    server = await _serve_health(settings.health_port, health)

    def end_leadership(_reason: str) -> None:
        metrics.LEADER.set(0)
        lost.set()

    client = await KubeClient.connect(observer=metrics.observe_api_call)
    elector = LeaseElector(
        ClientLeaseApi(client),
        settings.namespace,
        names.OPERATOR_LEASE,
        settings.identity,
        ElectionTiming(
            settings.lease_duration_seconds,
            settings.renew_deadline_seconds,
            settings.retry_period_seconds,
            # The very first start; nobody has led yet.
            absent_wait_seconds=0,
        ),
        on_started=lambda _: metrics.LEADER.set(1),
        on_stopped=end_leadership,
    )
    election = asyncio.create_task(elector.run(), name="election")
    health.started = True
    try:
        leading = asyncio.create_task(elector.wait_until_leading())
        await _first(leading, election, asyncio.create_task(stop.wait()))
        if election.done():
            election.result()
        if not stop.is_set():
            await _lead(settings, client, elector, stop, lost)
    finally:
        health.stopping = True
        await elector.release()
        await election
        await client.close()
        await server.cleanup()
    if stop.is_set():
        logger.info("stopped by a signal")
        return 0
    logger.error("the Lease %s/%s is lost; the process ends", settings.namespace, names.OPERATOR_LEASE)
    return 1


async def _lead(
    settings: Settings, client: KubeClient, elector: LeaseElector, stop: asyncio.Event, lost: asyncio.Event
) -> None:
    timeout = aiohttp.ClientTimeout(total=10)
    connector = aiohttp.TCPConnector(limit=200, force_close=True)
    async with aiohttp.ClientSession(timeout=timeout, connector=connector) as http:
        index = handlers.ClusterIndex()
        controller = Controller(
            index,
            # A write that is sent in the last moment of a term is over before anybody else may lead.
            client.guarded(
                elector.ensure_leader,
                deadline_seconds=settings.lease_duration_seconds - settings.renew_deadline_seconds,
            ),
            http,
            settings,
        )
        stop_flag = asyncio.Event()
        work = asyncio.create_task(controller.run(), name="controller")
        watch = asyncio.create_task(
            _watch_clusters(settings, index, controller, stop, stop_flag), name="kopf"
        )
        ends = [asyncio.create_task(stop.wait()), asyncio.create_task(lost.wait())]
        await _first(work, watch, *ends)
        work.cancel()
        stop_flag.set()
        # kopf takes seconds to end, and writes nothing: whoever leads next need not wait for it.
        await asyncio.wait([work])
        await elector.release()
        results = await asyncio.gather(work, watch, return_exceptions=True)
        for end in ends:
            end.cancel()
        for result in results:
            if isinstance(result, Exception):
                raise result


async def _watch_clusters(
    settings: Settings,
    index: handlers.ClusterIndex,
    controller: Controller,
    stop: asyncio.Event,
    stop_flag: asyncio.Event,
) -> None:
    loop = asyncio.get_running_loop()
    while True:
        started = loop.time()
        tasks = await kopf.spawn_tasks(
            registry=handlers.registry(index, controller.changed),
            settings=handlers.settings(),
            clusterwide=not settings.watch_namespaces,
            namespaces=settings.watch_namespaces,
            standalone=True,
            stop_flag=stop_flag,
        )
        # kopf has taken the signals over, and would end itself before anything else.
        _stop_at_signals(stop)
        try:
            return await _until_one_ends(tasks)
        except Exception as error:
            # kopf takes each error that the API server sends in a watch for fatal, but 410. A watch that fails from
            # the beginning, for want of rights or of the CRD, does end the process.
            if loop.time() - started < KOPF_PROVEN_SECONDS:
                raise
            logger.warning("the watch of the clusters failed, it starts anew: %s", error)
            metrics.count_watch_restart(names.KIND, "error")


async def _until_one_ends(tasks: Collection[asyncio.Task[None]]) -> None:
    """kopf.run_tasks for a loop that is not kopf's alone: that one ends whatever else was begun meanwhile."""
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for task in done:
        task.result()


class Controller:
    """The active operator: caches, queue and reconciler put together.

    `client` writes only while this process leads. Who fills `clusters` calls `changed` at each change.
    """

    def __init__(
        self, clusters: Clusters, client: KubeClient, http: aiohttp.ClientSession, settings: Settings
    ) -> None:
        objects = ObjectCache(self.changed)
        metrics.CACHED_OBJECTS.set_function(objects.count)
        self._watches = Watches(
            client,
            objects,
            settings.watch_namespaces,
            settings.look_again_seconds,
            metrics.count_watch_restart,
            objects.forget,
        )
        reconciler = Reconciler(
            clusters,
            objects,
            client,
            http,
            images=settings.images,
            reporter=settings.identity,
            steady_seconds=settings.probe_interval_seconds,
            want_http_routes=self._watches.want_http_routes,
        )
        self._queue: WorkQueue[Key] = WorkQueue(
            reconciler.visit, failed=_report_failure, workers=settings.workers, depth=metrics.QUEUE_DEPTH.set
        )

    async def run(self) -> None:
        """Work until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._watches.run())
            await self._watches.synced()
            group.create_task(self._queue.run())

    def changed(self, key: Key, edited: bool = False) -> None:
        """Something of a cluster is another; `edited`: its spec, or the cluster is new or gone."""
        self._queue.add(key, EDIT_DEBOUNCE_SECONDS if edited else CHILD_DEBOUNCE_SECONDS, urgent=edited)


def _report_failure(key: Key, error: Exception) -> None:
    reason = error.reason if isinstance(error, OperatorError) else "UnexpectedError"
    metrics.RECONCILE_ERRORS.labels(reason).inc()
    extra = {"cluster": f"{key[0]}/{key[1]}", "reason": reason}
    if isinstance(error, OperatorError):
        logger.log(
            logging.WARNING if isinstance(error, KubeError) else logging.ERROR, "%s", error, extra=extra
        )
    else:
        logger.error("a reconcile failed, this is a bug", exc_info=error, extra=extra)


def _stop_at_signals(stop: asyncio.Event) -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)


async def _first(*tasks: asyncio.Task[object]) -> None:
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)


async def _serve_health(port: int, health: Health) -> web.AppRunner:
    """`/livez`: the event loop turns. `/readyz`: started and not stopping; a waiting replica is ready too."""

    async def livez(_: web.Request) -> web.Response:
        return web.Response(text="ok")

    async def readyz(_: web.Request) -> web.Response:
        ready = health.started and not health.stopping
        return web.Response(text="ok" if ready else "not ready", status=200 if ready else 503)

    app = web.Application()
    app.add_routes([web.get("/livez", livez), web.get("/readyz", readyz)])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, port=port).start()
    return runner
