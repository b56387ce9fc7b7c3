"""A small asynchronous client of the API server by path; stage and bench must not depend on the operator's own."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import aiohttp

Object = dict[str, Any]

CALL_SECONDS = 60.0
WATCH_SECONDS = 3600
PAGE_SIZE = 500
# An event is one line; the largest objects have some 100 kB.
_LINE_BYTES = 4 * 1024 * 1024
MERGE_PATCH = "application/merge-patch+json"
GONE = 410


class ApiError(RuntimeError):
    """The API server refused; `status` is the HTTP status."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"{status}: {message}")
        self.status = status


class Api:
    """A session as the user of a kubeconfig that ApiServer wrote; use it as an asynchronous context manager."""

    def __init__(self, kubeconfig: Path) -> None:
        config = json.loads(kubeconfig.read_text())
        cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
        self._url: str = cluster["server"]
        self._token: str = user["token"]
        self._authority: str = cluster["certificate-authority"]
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            self._url,
            headers={"Authorization": f"Bearer {self._token}"},
            connector=aiohttp.TCPConnector(ssl=ssl.create_default_context(cafile=self._authority), limit=64),
            read_bufsize=_LINE_BYTES,
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._session is not None
        await self._session.close()

    async def call(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        content: str = "application/json",
        query: Mapping[str, str] | None = None,
    ) -> Object:
        """One request; the decoded answer. Raises ApiError."""
        assert self._session is not None
        async with self._session.request(
            method,
            path,
            params=query,
            data=None if body is None else json.dumps(body),
            headers={"Content-Type": content},
            timeout=aiohttp.ClientTimeout(total=CALL_SECONDS),
        ) as response:
            answer: Object = await response.json(content_type=None)
            if response.status >= 400:
                raise ApiError(response.status, str(answer.get("message")))
            return answer

    async def items(self, path: str, selector: str = "") -> tuple[list[Object], str]:
        """All objects of a collection, and the version of that list."""
        found: list[Object] = []
        token = ""
        while True:
            query = {"labelSelector": selector, "limit": str(PAGE_SIZE), "continue": token}
            page = await self.call("GET", path, query=query)
            found += page["items"]
            token = page["metadata"].get("continue", "")
            if not token:
                return found, page["metadata"]["resourceVersion"]

    async def follow(self, path: str, selector: str = "") -> AsyncIterator[tuple[str, Object]]:
        """What is there as ADDED, then every change, for ever; after a lost watch all that is there again."""
        while True:
            items, version = await self.items(path, selector)
            for item in items:
                yield "ADDED", item
            try:
                async for kind, item in self._watch(path, selector, version):
                    yield kind, item
            except (aiohttp.ClientPayloadError, ApiError) as error:
                if isinstance(error, ApiError) and error.status != GONE:
                    raise

    async def _watch(self, path: str, selector: str, version: str) -> AsyncIterator[tuple[str, Object]]:
        assert self._session is not None
        query = {
            "watch": "1",
            "labelSelector": selector,
            "resourceVersion": version,
            "timeoutSeconds": str(WATCH_SECONDS),
        }
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CALL_SECONDS)
        async with self._session.get(path, params=query, timeout=timeout) as response:
            if response.status >= 400:
                raise ApiError(response.status, await response.text())
            async for line in response.content:
                event = json.loads(line)
                if event["type"] == "ERROR":
                    raise ApiError(event["object"].get("code", 0), event["object"].get("message", ""))
                yield event["type"], event["object"]


async def in_parallel(jobs: list[Any], limit: int) -> list[Any]:
    """Await coroutines, so many at a time; their results in order."""
    gate = asyncio.Semaphore(limit)

    async def one(job: Any) -> Any:
        async with gate:
            return await job

    return list(await asyncio.gather(*(one(job) for job in jobs)))
