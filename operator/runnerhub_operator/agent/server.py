"""The agent's HTTP answers: from what is known already, never waiting for a dependency."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Protocol

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from .. import names
from .leadership import Leadership
from .queues import QueuesProbe


class Dependency(Protocol):
    """Something that orchestrators use, as last seen."""

    @property
    def healthy(self) -> bool:
        """Whether it works as far as is known."""
        ...

    def render(self) -> dict[str, Any]:
        """Details for people."""
        ...


class HttpServer:
    """Routes of the agent; `dependencies` are what `/health` tells, by name; `cluster` is namespace/name.

    `alone_without`: stores that this pod has lost and others have.
    """

    def __init__(
        self,
        node: str,
        leadership: Leadership,
        dependencies: Mapping[str, Dependency],
        registry: CollectorRegistry,
        *,
        cluster: str = "",
        queues: QueuesProbe | None = None,
        alone_without: Callable[[], Sequence[str]] = tuple,
    ) -> None:
        self._node = node
        self._leadership = leadership
        self._dependencies = dependencies
        self._registry = registry
        self._cluster = cluster
        self._queues = queues
        self._alone_without = alone_without
        self.ready = False

    def application(self) -> web.Application:
        """The aiohttp application."""
        application = web.Application(middlewares=[self._own_requests])
        application.add_routes(
            [
                web.get("/leader", self._leader),
                web.get("/health", self._health),
                web.get("/health/leadership", self._health_leadership),
                web.get("/health/{dependency:database|redis|storage|canary}", self._health_dependency),
                web.get("/health/queues", self._health_queues),
                web.get("/metrics", self._metrics),
                web.get("/livez", self._livez),
                web.get("/readyz", self._readyz),
            ]
        )
        return application

    @web.middleware
    async def _own_requests(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        """Refuse what the load balancer of another cluster sends here, which had a pod at this address."""
        meant = request.headers.get(names.HEADER_CLUSTER)
        if meant and self._cluster and meant != self._cluster:
            return web.json_response({"error": f"this is {self._cluster}"}, status=421)
        return await handler(request)

    async def _leader(self, _: web.Request) -> web.Response:
        answer = self._leadership.answer()
        # Not in the leader file: an agent that is gone cannot take it back.
        return _json(answer | {"aloneWithout": list(self._alone_without())}, healthy=bool(answer["leader"]))

    async def _health(self, _: web.Request) -> web.Response:
        """503 when something is broken that requests need.

        Without a leader, the shared storage or the canary, or with a deaf worker, they are served: a balancer outside
        that asks here must not take the whole site away.
        """
        led, leadership = self._leadership.health()
        bad = {name for name, check in self._dependencies.items() if not check.healthy}
        healthy = bad.isdisjoint(names.HEALTH_NEEDED)
        body = {
            "status": ("ok" if led and not bad and not self._deaf() else "degraded") if healthy else "down",
            "node": self._node,
            "leader": leadership["isLeader"],
            "dependencies": {
                **{name: check.render() for name, check in self._dependencies.items()},
                "leadership": leadership,
            },
            "queues": self._queues.render() if self._queues else {},
        }
        return _json(body, healthy=healthy)

    async def _health_leadership(self, _: web.Request) -> web.Response:
        healthy, body = self._leadership.health()
        return _json(body, healthy=healthy)

    def _deaf(self) -> set[str]:
        return self._queues.deaf if self._queues else set()

    async def _health_queues(self, _: web.Request) -> web.Response:
        return _json(self._queues.render() if self._queues else {}, healthy=not self._deaf())

    async def _health_dependency(self, request: web.Request) -> web.Response:
        check = self._dependencies.get(request.match_info["dependency"])
        if check is None:
            # Not a failure: nothing that depends on it is broken.
            return _json({"status": "not-configured"}, healthy=True)
        return _json(check.render(), healthy=check.healthy)

    async def _metrics(self, _: web.Request) -> web.Response:
        return web.Response(
            body=generate_latest(self._registry), headers={"Content-Type": CONTENT_TYPE_LATEST}
        )

    async def _livez(self, _: web.Request) -> web.Response:
        return web.Response(text="ok")

    async def _readyz(self, _: web.Request) -> web.Response:
        return web.Response(text="ok" if self.ready else "not ready", status=200 if self.ready else 503)


def _json(body: Mapping[str, Any], *, healthy: bool) -> web.Response:
    return web.json_response(body, status=200 if healthy else 503, headers={"Cache-Control": "no-store"})
