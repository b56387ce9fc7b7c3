"""Keeping a local copy of a kind of objects: list in pages, then watch, and list again when the watch has lost track.

Modelled on client-go's reflector: a new list replaces what was known, so that objects which vanished while nobody
watched are noticed. kopf's own watches do not tell those, and keep every object whole in memory.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

from ..errors import ExpiredError, KubeError, NotFoundError, RefusedError
from .client import KubeClient

logger = logging.getLogger(__name__)

PAGE_SIZE: Final = 100
# Objects that are taken in before others of this process have their turn, such as who renews the Lease.
TAKEN_AT_ONCE: Final = 10
FIRST_RETRY_SECONDS: Final = 0.5
MAX_RETRY_SECONDS: Final = 30.0
# A try that took longer paces itself, and a watch that told anything worked: no failures in a row.
SHORT_SECONDS: Final = 1.0


@dataclass(frozen=True, slots=True)
class Source:
    """What one reflector follows: a kind, in one namespace or in all (""), narrowed by labels on the server.

    `optional`: the API server may not have the kind.
    """

    api_version: str
    kind: str
    namespace: str
    label_selector: str
    optional: bool = False


class Store(Protocol):
    """Where the objects go; each call names its source."""

    def put(self, source: Source, body: Mapping[str, Any]) -> None:
        """An object is there, new or changed."""

    def drop(self, source: Source, namespace: str, name: str) -> None:
        """An object is gone, or its labels do not match any more."""

    def retain(self, source: Source, present: set[tuple[str, str]]) -> None:
        """Only these objects, by namespace and name, are there: forget all others of the source."""


class Reflector:
    """Follows one source until cancelled; `synced` is set when the first list is complete.

    `restarted(kind, reason)` is told each time the watch could not simply go on. `listing` is shared by reflectors
    that read their pages one after the other, which bounds the memory that pages take.
    """

    def __init__(
        self,
        client: KubeClient,
        source: Source,
        store: Store,
        restarted: Callable[[str, str], None] = lambda _kind, _reason: None,
        listing: asyncio.Lock | None = None,
    ) -> None:
        self._listing = listing or asyncio.Lock()
        self._client = client
        self._source = source
        self._store = store
        self._restarted = restarted
        self._version = ""
        self._told = False
        self.synced = asyncio.Event()

    async def run(self) -> None:
        """List and watch for ever; errors of the API server are waited out with backoff and jitter.

        Of an optional kind, NotFoundError or RefusedError: the API server does not have it, or not for us.
        """
        failures = 0
        while True:
            started = time.monotonic()
            self._told = False
            try:
                if not self._version:
                    await self._list()
                    self.synced.set()
                await self._watch()
                failures = 0
                # A watch that ends at once, as one through a proxy may, must not be opened in a tight loop.
                await asyncio.sleep(max(0.0, FIRST_RETRY_SECONDS - (time.monotonic() - started)))
            except ExpiredError as error:
                self._restarted(self._source.kind, error.reason)
                logger.info("listing %s anew: %s", self._source.kind, error)
                self._version = ""
                # A server whose every version has expired must not be listed in a tight loop.
                await asyncio.sleep(_jittered(FIRST_RETRY_SECONDS))
            except KubeError as error:
                if self._source.optional and isinstance(error, NotFoundError | RefusedError):
                    self._version = ""
                    raise
                paced = self._told or time.monotonic() - started > SHORT_SECONDS
                failures = 1 if paced else failures + 1
                self._restarted(self._source.kind, error.reason)
                wait = min(FIRST_RETRY_SECONDS * 2.0 ** min(failures - 1, 16), MAX_RETRY_SECONDS)
                wait = max(_jittered(wait), getattr(error, "retry_after_seconds", 0.0))
                logger.warning("watching %s: %s; again in %.1f s", self._source.kind, error, wait)
                await asyncio.sleep(wait)

    async def _list(self) -> None:
        """Read everything in pages, and the version at which to start watching."""
        present: set[tuple[str, str]] = set()
        token = ""
        while True:
            async with self._listing:
                token, version = await self._take_page(token, present)
            if not token:
                break
        self._store.retain(self._source, present)
        self._version = version

    async def _take_page(self, token: str, present: set[tuple[str, str]]) -> tuple[str, str]:
        """Read the page at a token; the token of the next one, "" after the last, and the version of the list."""
        source = self._source
        page = await self._client.list_page(
            source.api_version,
            source.kind,
            source.namespace,
            label_selector=source.label_selector,
            limit=PAGE_SIZE,
            continue_token=token,
        )
        for number, item in enumerate(page.get("items", ())):
            if number % TAKEN_AT_ONCE == 0:
                await asyncio.sleep(0)
            # Items of a list do not say what they are.
            body = {"apiVersion": source.api_version, "kind": source.kind, **item}
            present.add((item["metadata"].get("namespace", ""), item["metadata"]["name"]))
            self._store.put(source, body)
        return page["metadata"].get("continue", ""), page["metadata"]["resourceVersion"]

    async def _watch(self) -> None:
        """Follow changes, and after each the version from which the next watch can go on."""
        source = self._source
        stream = self._client.watch(
            source.api_version,
            source.kind,
            source.namespace,
            label_selector=source.label_selector,
            resource_version=self._version,
        )
        async for event in stream:
            self._told = True
            body = event["object"]
            metadata = body["metadata"]
            if event["type"] in ("ADDED", "MODIFIED"):
                self._store.put(source, body)
            elif event["type"] == "DELETED":
                self._store.drop(source, metadata.get("namespace", ""), metadata["name"])
            self._version = metadata["resourceVersion"]


def _jittered(seconds: float) -> float:
    return seconds * random.uniform(0.75, 1.25)  # noqa: S311 -- spreads load, protects nothing
