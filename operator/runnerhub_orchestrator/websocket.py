"""Job events to clients, on WEBSOCKET_PORT."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import Any

from aiohttp import WSCloseCode, web

from .auth import WEBSOCKET_PROTOCOL, Authenticator
from .errors import OrchestratorError
from .health import HealthMonitor
from .metrics import Metrics

PING_SECONDS = 15.0
# A client that is this many events behind is cut off instead of being kept in memory.
BACKLOG = 500
CLOSE_SECONDS = 2.0


class WebSocketHub:
    """All open WebSockets of this pod."""

    def __init__(
        self, authenticator: Authenticator, health: HealthMonitor, metrics: Metrics, node_id: str
    ) -> None:
        self._authenticator = authenticator
        self._health = health
        self._metrics = metrics
        self._node_id = node_id
        self._clients: dict[web.WebSocketResponse, asyncio.Queue[str]] = {}

    def application(self) -> web.Application:
        """The aiohttp application: the socket under / and /ws, and /health for balancers."""
        application = web.Application()
        application.add_routes(
            [
                web.get("/health", self._get_health),
                web.get("/", self._connect),
                web.get("/ws", self._connect),
            ]
        )
        return application

    def broadcast(self, event: dict[str, Any]) -> None:
        """Queue an event for every client."""
        text = json.dumps(event)
        for backlog in self._clients.values():
            # A full backlog tells its sender that this client is too slow (see _send).
            with contextlib.suppress(asyncio.QueueFull):
                backlog.put_nowait(text)

    async def close(self) -> None:
        """Tell all clients to reconnect elsewhere (1001, going away)."""
        closing = [
            asyncio.ensure_future(client.close(code=WSCloseCode.GOING_AWAY, message=b"draining"))
            for client in list(self._clients)
        ]
        if closing:
            _, late = await asyncio.wait(closing, timeout=CLOSE_SECONDS)
            for task in late:
                task.cancel()

    async def _get_health(self, _request: web.Request) -> web.Response:
        return web.json_response(
            {"status": self._health.phase, "node": self._node_id}, status=200 if self._health.serving else 503
        )

    async def _connect(self, request: web.Request) -> web.StreamResponse:
        try:
            self._authenticator.check_websocket(request)
        except OrchestratorError as error:
            return web.json_response({"error": error.reason, "message": str(error)}, status=error.http_status)
        if not self._health.takes_websockets:
            return web.json_response({"error": "Draining"}, status=503)
        client = web.WebSocketResponse(
            heartbeat=PING_SECONDS, protocols=(WEBSOCKET_PROTOCOL,), timeout=CLOSE_SECONDS
        )
        await client.prepare(request)
        backlog: asyncio.Queue[str] = asyncio.Queue(BACKLOG)
        backlog.put_nowait(json.dumps({"type": "hello", "node": self._node_id}))
        self._clients[client] = backlog
        self._metrics.websockets.set(len(self._clients))
        sender = asyncio.create_task(self._send(client, backlog))
        try:
            # Clients have nothing to say; reading is what notices that they are gone.
            async for _ in client:
                pass
        finally:
            del self._clients[client]
            self._metrics.websockets.set(len(self._clients))
            sender.cancel()
            await asyncio.gather(sender, return_exceptions=True)
        return client

    async def _send(self, client: web.WebSocketResponse, backlog: asyncio.Queue[str]) -> None:
        with contextlib.suppress(ConnectionError):
            while not backlog.full():
                await client.send_str(await backlog.get())
            await client.close(code=WSCloseCode.TRY_AGAIN_LATER, message=b"too slow")
