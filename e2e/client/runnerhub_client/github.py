"""A stand-in for the part of GitHub's REST API that runners use.

Source: https://docs.github.com/en/rest/actions/self-hosted-runners
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

OWNER = "example"


class Github:
    """Knows the runners of one organisation; `down` makes it answer 503, `calls` has what was asked.

    `mad` makes it answer what its interface does not promise, `mute` a registration only when it is over.
    """

    def __init__(self, port: int, token: str) -> None:
        self.port = port
        self.runners: dict[int, dict[str, Any]] = {}
        self.calls: list[str] = []
        self.down = False
        self.mad = False
        self.mute = False
        self._token = token
        self._number = 0
        self._runner: web.AppRunner | None = None

    async def start(self, host: str = "127.0.0.1") -> None:
        """Begin to answer."""
        base = f"/api/v3/orgs/{OWNER}/actions/runners"
        application = web.Application(middlewares=[self._gate])
        application.add_routes(
            [
                web.post(f"{base}/generate-jitconfig", self._register),
                web.get(base, self._list),
                web.get(base + "/{id}", self._get),
                web.delete(base + "/{id}", self._delete),
            ]
        )
        self._runner = web.AppRunner(application, access_log=None)
        await self._runner.setup()
        await web.TCPSite(self._runner, host, self.port).start()

    async def stop(self) -> None:
        """Answer no more."""
        if self._runner is not None:
            await self._runner.cleanup()

    @web.middleware
    async def _gate(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        self.calls.append(f"{request.method} {request.path_qs.rpartition('/')[2]}")
        if self.down:
            return web.json_response({"message": "Service Unavailable"}, status=503)
        if request.headers.get("Authorization") != f"Bearer {self._token}":
            return web.json_response({"message": "Bad credentials"}, status=401)
        return await handler(request)

    async def _register(self, request: web.Request) -> web.Response:
        body = await request.json()
        if any(known["name"] == body["name"] for known in self.runners.values()):
            return web.json_response({"message": "Already exists"}, status=409)
        self._number += 1
        labels = [{"name": label} for label in body["labels"]]
        self.runners[self._number] = {"id": self._number, "name": body["name"], "labels": labels}
        answer = {"runner": self.runners[self._number], "encoded_jit_config": f"config-{self._number}"}
        while self.mute:  # noqa: ASYNC110 - for tests, which set it as they like
            await asyncio.sleep(0.05)
        return web.json_response(answer, status=201)

    async def _list(self, request: web.Request) -> web.Response:
        if self.mad:
            return web.json_response({"runners": ["none"]})
        found = [known for known in self.runners.values() if known["name"] == request.query.get("name")]
        return web.json_response({"total_count": len(found), "runners": found})

    async def _get(self, request: web.Request) -> web.Response:
        known = self.runners.get(int(request.match_info["id"]))
        return web.json_response(known or {"message": "Not Found"}, status=200 if known else 404)

    async def _delete(self, request: web.Request) -> web.Response:
        known = self.runners.pop(int(request.match_info["id"]), None)
        return web.Response(status=204 if known else 404)


async def serve(port: int, token: str) -> None:
    """Answer on all interfaces until the process is ended."""
    github = Github(port, token)
    await github.start("0.0.0.0")
    await asyncio.Event().wait()
