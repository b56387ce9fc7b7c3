"""The HTTP interface on PORT: health, metrics, jobs, runners."""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from .api_models import (
    ClaimRequest,
    CompleteRequest,
    DelegateRequest,
    HeartbeatRequest,
    parse,
    render,
    render_claim,
    render_demand,
)
from .auth import Authenticator
from .dispatch import Dispatcher
from .errors import (
    DatabaseUnavailableError,
    EntryGoneError,
    MisdirectedError,
    OrchestratorError,
    OverloadedError,
    QueueUnavailableError,
)
from .events import EventBus
from .health import HealthMonitor
from .job_queue import Entry, JobQueue
from .jobs import Job, JobRepository
from .leadership import LeadershipWatch
from .metrics import Metrics
from .redis_link import RedisLink, choose_master
from .settings import Settings

log = logging.getLogger(__name__)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

CLUSTER_HEADER = "X-RunnerHub-Cluster"
BODY_LIMIT_BYTES = 1024 * 1024
PROTECTED_PREFIXES = ("/api/jobs", "/api/runners")
METRICS_DEADLINE_SECONDS = 3.0
MARK_DEADLINE_SECONDS = 1.0
REDIS_HEALTH_DEADLINE_SECONDS = 3.0
# Whoever sizes the pools asks again soon, and waits for no longer.
DEMAND_DEADLINE_SECONDS = 1.5
# More than all pools together may have runners.
DEMAND_ROWS = 25_000
# Jobs whose labels nobody has wait for ever; Postgres counts so many in a tenth of a second.
WAITING_ROWS = 250_000


@dataclass(frozen=True, slots=True)
class Api:
    """The handlers and what they work with."""

    settings: Settings
    repository: JobRepository
    queue: JobQueue
    dispatcher: Dispatcher
    events: EventBus
    leadership: LeadershipWatch
    health: HealthMonitor
    metrics: Metrics
    redis_link: RedisLink
    authenticator: Authenticator

    def application(self) -> web.Application:
        """The aiohttp application with all routes."""
        application = web.Application(
            client_max_size=BODY_LIMIT_BYTES,
            middlewares=[
                self._to_the_end(),
                self._observe,
                self._errors,
                self._own_requests,
                self._guard(),
            ],
        )
        application.add_routes(
            [
                web.get("/health", self.get_health),
                web.get("/metrics", self.get_metrics),
                web.get("/api/system/redis-health-ha", self.get_redis_health),
                web.post("/api/jobs/delegate", self.delegate),
                web.get("/api/jobs/metrics", self.get_job_metrics),
                web.get("/api/jobs/{id}", self.get_job),
                web.post("/api/jobs/{id}/heartbeat", self.heartbeat),
                web.post("/api/jobs/{id}/complete", self.complete),
                web.post("/api/runners/claim", self.claim),
                web.get("/api/runners/demand", self.get_demand),
            ]
        )
        application.on_response_prepare.append(self._close_when_draining)
        return application

    # -- middlewares ---------------------------------------------------------------------------------

    def _to_the_end(self) -> Any:
        """Of what clients hang up on, only that stops which the load balancer gives up soon and asks another pod.

        During a failover each would else hold its place among those in flight until its own patience ends. To stop it
        anywhere is safe, as a crash is; but a claim must give back what it took.
        """
        kept: set[asyncio.Future[web.StreamResponse]] = set()

        @web.middleware
        async def to_the_end(request: web.Request, handler: Handler) -> web.StreamResponse:
            if request.match_info.handler in (self.delegate, self.get_job):
                return await handler(request)
            task = asyncio.ensure_future(handler(request))
            kept.add(task)
            task.add_done_callback(kept.discard)
            return await asyncio.shield(task)

        return to_the_end

    @web.middleware
    async def _observe(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        started = time.monotonic()
        response = await handler(request)
        resource = request.match_info.route.resource
        route = resource.canonical if resource else "unknown"
        self.metrics.requests.labels(route, request.method, str(response.status)).observe(
            time.monotonic() - started
        )
        return response

    @web.middleware
    async def _errors(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            return await handler(request)
        except OrchestratorError as error:
            # That a dependency is away is told once, where it is noticed; the metrics count the answers.
            log.debug("request failed", extra={"path": request.path, "reason": error.reason})
            return _error(error.http_status, error.reason, str(error))
        except web.HTTPException as error:
            return _error(error.status, "Http", error.reason)
        except Exception:
            # The one place where anything may arrive: it is told with its trace and becomes a 500.
            log.exception("request crashed", extra={"path": request.path})
            return _error(500, "InternalError", "the request could not be handled")

    @web.middleware
    async def _own_requests(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Refuse what the load balancer of another cluster sends here: it knows this address from former times."""
        meant = request.headers.get(CLUSTER_HEADER)
        if meant and self.settings.cluster and meant != self.settings.cluster:
            raise MisdirectedError(f"this is {self.settings.cluster}, and not {meant}")
        return await handler(request)

    def _guard(self) -> Any:
        """Only authorised requests reach the database, and never more than the process can hold."""
        in_flight = 0

        @web.middleware
        async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
            nonlocal in_flight
            if not request.path.startswith(PROTECTED_PREFIXES):
                return await handler(request)
            self.authenticator.check_request(request)
            if not self.health.schema_ready:
                raise DatabaseUnavailableError("the process is starting")
            if in_flight >= self.settings.max_requests_in_flight:
                raise OverloadedError(f"{in_flight} requests are in flight")
            in_flight += 1
            try:
                return await handler(request)
            finally:
                in_flight -= 1

        return guard

    async def _close_when_draining(self, _request: web.Request, response: web.StreamResponse) -> None:
        """Make the balancer drop its idle connection before we do: no request meets a closing socket."""
        if self.health.draining:
            response.force_close()
            # aiohttp has written its own header by now, so the peer must be told here.
            response.headers["Connection"] = "close"

    # -- health and metrics --------------------------------------------------------------------------

    async def get_health(self, _request: web.Request) -> web.Response:
        """200 while this process can serve as well as others; the body tells what does not work."""
        leadership = self.leadership.current()
        body = {
            "status": self.health.phase,
            "node": self.settings.node_id,
            "schema": "ready" if self.health.schema_ready else "waiting",
            "leader": leadership is not None,
            "fencingToken": leadership.fencing_token if leadership else None,
            "degraded": self.health.degraded,
            **{name: state.render() for name, state in self.health.states.items()},
        }
        return web.json_response(body, status=200 if self.health.serving else 503)

    async def get_metrics(self, _request: web.Request) -> web.Response:
        """Prometheus."""
        self.metrics.leader.set(self.leadership.current() is not None)
        self.metrics.runners_waiting.set(self.dispatcher.waiting)
        return web.Response(
            body=self.metrics.render(), headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"}
        )

    async def get_redis_health(self, _request: web.Request) -> web.Response:
        """What every Sentinel says, and whether the master they agree on answers."""
        async with asyncio.timeout(REDIS_HEALTH_DEADLINE_SECONDS):
            views = await self.redis_link.sentinel_views()
        master = choose_master(views) if views else self.settings.redis.address
        state = self.health.states["redis"]
        agreeing = sum(view.master == master for view in views if view.healthy)
        healthy = state.status == "up" and agreeing * 2 >= len(views)
        body = {
            "healthy": healthy,
            "mode": "sentinel" if views else "single",
            "masterName": self.settings.redis.master_name,
            "master": f"{master[0]}:{master[1]}" if master else None,
            "ping": state.render(),
            "sentinels": [
                {
                    "sentinel": view.sentinel,
                    "reachable": view.error is None,
                    "master": f"{view.master[0]}:{view.master[1]}" if view.master else None,
                    "epoch": view.epoch if view.epoch >= 0 else None,
                    "healthy": view.healthy,
                    "replicas": view.replicas,
                    "error": view.error,
                }
                for view in sorted(views, key=lambda view: view.sentinel)
            ],
        }
        return web.json_response(body, status=200 if healthy else 503)

    async def get_job_metrics(self, _request: web.Request) -> web.Response:
        """Counts of the queue and of the rows; a side that does not answer is null with its reason."""
        queue, rows = await asyncio.gather(
            self.queue.counts(),
            self.repository.count_by_status(deadline_seconds=METRICS_DEADLINE_SECONDS),
            return_exceptions=True,
        )
        for side in (queue, rows):
            if isinstance(side, BaseException) and not isinstance(side, OrchestratorError):
                raise side
        return web.json_response(
            {
                "queue": queue if isinstance(queue, dict) else None,
                "jobs": rows if isinstance(rows, dict) else None,
                "errors": [side.reason for side in (queue, rows) if isinstance(side, OrchestratorError)],
            }
        )

    # -- jobs ----------------------------------------------------------------------------------------

    async def delegate(self, request: web.Request) -> web.Response:
        """Accept a job: 201 when it is new, 200 when this jobId was accepted before."""
        body = await parse(request, DelegateRequest)
        job, created = await self.repository.accept(body.new_job())
        status = job.status
        if status == "pending" and await self._enqueue(job):
            status = "queued"
        if created:
            self.metrics.accepted.inc()
            self.events.publish("queued", job)
        return web.json_response(
            {"delegationId": str(job.delegation_id), "jobId": job.job_id, "status": status},
            status=201 if created else 200,
        )

    async def _enqueue(self, job: Job) -> bool:
        """Best effort: the row is committed, so what fails here is made up for by the leader."""
        try:
            await self.queue.add(job)
        except QueueUnavailableError:
            self.metrics.unqueued.inc()
            return False
        self.dispatcher.wake()
        try:
            await self.repository.mark_enqueued([job.job_id], deadline_seconds=MARK_DEADLINE_SECONDS)
        except DatabaseUnavailableError:
            log.debug("mark not written", extra={"jobId": job.job_id})
        return True

    async def get_job(self, request: web.Request) -> web.Response:
        """A job by jobId or delegationId."""
        return web.json_response(render(await self.repository.find(request.match_info["id"])))

    async def heartbeat(self, request: web.Request) -> web.Response:
        """Extend the lease; 409 when somebody else has the job."""
        body = await parse(request, HeartbeatRequest)
        job = await self.repository.heartbeat(request.match_info["id"], body.token)
        await self._quietly(self.queue.extend(job.job_id, str(body.token)))
        return web.json_response({"status": job.status, "leaseSeconds": self.settings.jobs.lease_seconds})

    async def complete(self, request: web.Request) -> web.Response:
        """Finish a job; the same token may say so again, a superseded one gets 409."""
        body = await parse(request, CompleteRequest)
        job, first = await self.repository.complete(request.match_info["id"], body.token, body.result)
        if first:
            self.metrics.completed.inc()
            self.events.publish("completed", job)
        await self._quietly(self.queue.finish(job.job_id, str(body.token), body.result))
        return web.json_response({"status": job.status, "repeated": not first})

    # -- runners -------------------------------------------------------------------------------------

    async def claim(self, request: web.Request) -> web.Response:
        """Long poll for a job: 200 with a lease, or 204 when none came in time."""
        body = await parse(request, ClaimRequest)
        if body.claim_id and (job := await self.repository.claimed_before(body.claim_id)):
            return self._claimed(job)
        wait = min(body.wait_seconds, self.settings.jobs.claim_wait_max_seconds)
        deadline = time.monotonic() + wait
        while not _gone(request):
            remaining = max(deadline - time.monotonic(), 0.0)
            entry = await self.dispatcher.next_entry(frozenset(body.labels), remaining)
            if entry is None:
                break
            job = await self._claim_entry(entry, body)
            if job is None:
                continue
            if body.claim_id is None and _gone(request):
                await self._undo(entry)
                break
            self.metrics.claimed.inc()
            self.events.publish("started", job)
            return self._claimed(job)
        return web.Response(status=204)

    async def get_demand(self, _request: web.Request) -> web.Response:
        """How many jobs wait for which labels, and which runners have a job: what pools of runners are sized by."""
        demand = await self.repository.demand(
            limit=DEMAND_ROWS, waiting_limit=WAITING_ROWS, deadline_seconds=DEMAND_DEADLINE_SECONDS
        )
        return web.json_response(render_demand(demand))

    async def _claim_entry(self, entry: Entry, body: ClaimRequest) -> Job | None:
        """Make the entry's row ours; None when the row does not wait any more."""
        try:
            job = await self.repository.claim(
                entry.job_id, body.runner_id, uuid.UUID(entry.token), body.claim_id
            )
        except OrchestratorError:
            await self._quietly(self.queue.put_back(entry))
            raise
        if job is None:
            # Finished, given to somebody else, or removed: the queue was behind the rows.
            await self._quietly(self.queue.discard(entry))
        return job

    async def _undo(self, entry: Entry) -> None:
        """The runner hung up while we claimed for it: the job is given back at once."""
        await self.repository.release(entry.job_id, uuid.UUID(entry.token))
        await self._quietly(self.queue.put_back(entry))

    def _claimed(self, job: Job) -> web.Response:
        return web.json_response(render_claim(job, self.settings.jobs.lease_seconds))

    async def _quietly(self, operation: Awaitable[None]) -> None:
        """The queue follows the rows when it can; when not, the next claim or the leader tidies up."""
        try:
            await operation
        except (QueueUnavailableError, EntryGoneError) as error:
            log.debug("queue does not follow", extra={"reason": error.reason, "why": str(error)})


def _gone(request: web.Request) -> bool:
    return request.transport is None or request.transport.is_closing()


def _error(status: int, reason: str, message: str) -> web.Response:
    headers = {"Retry-After": "1"} if status == 503 else {}
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return web.json_response({"error": reason, "message": message}, status=status, headers=headers)
