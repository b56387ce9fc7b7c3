"""How long an edit of a spec takes until the operator has written a child, one by one and in bursts."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from e2e.stage.api import MERGE_PATCH, Api
from runnerhub_operator import names

CLUSTERS: Final = f"/apis/{names.API_GROUP}/{names.API_VERSION}/{names.PLURAL}"
_DEPLOYMENTS: Final = "/apis/apps/v1/deployments"
_ORCHESTRATORS: Final = f"{names.LABEL_COMPONENT}={names.ORCHESTRATOR}"
# Back and forth between two sizes: every edit is a change.
_SIZES: Final = (3, 4)
WRITE_SECONDS: Final = 120.0
SETTLE_SECONDS: Final = 180.0

Key = tuple[str, str]


def path_of(key: Key) -> str:
    """Path of a cluster by namespace and name."""
    namespace, name = key
    return f"/apis/{names.API_GROUP}/{names.API_VERSION}/namespaces/{namespace}/{names.PLURAL}/{name}"


def settled(body: Mapping[str, Any]) -> bool:
    """Whether a cluster is Ready with the spec that it has, as `kubectl wait` would see it."""
    status = body.get("status", {})
    ready = {item["type"]: item["status"] for item in status.get("conditions", ())}.get("Ready")
    return (
        status.get("observedGeneration") == body["metadata"]["generation"]
        and ready == "True"
        and status.get("orchestrator", {}).get("ready") == body["spec"]["orchestrator"]["replicas"]
    )


@dataclass(slots=True)
class _Edit:
    replicas: int
    written: asyncio.Future[float]


@dataclass(slots=True)
class EditBench:
    """Edits `spec.orchestrator.replicas`; the child is the orchestrators' Deployment, seen by one watch.

    The clock starts when the PATCH is sent, so a time holds the API server's share of the edit too, and that of
    telling this process.
    """

    api: Api
    clusters: dict[Key, dict[str, Any]] = field(default_factory=dict)
    _edits: dict[Key, _Edit] = field(default_factory=dict)
    _seen: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self, bursts: Iterable[tuple[int, int]]) -> dict[int, list[float]]:
        """Seconds of each edit by size of burst; `bursts` are pairs of a size and how often."""
        watches = [asyncio.create_task(self._watch_clusters()), asyncio.create_task(self._watch_children())]
        try:
            await self._settle(None)
            result = {}
            for size, rounds in bursts:
                result[size] = [seconds for _ in range(rounds) for seconds in await self._burst(size)]
            return result
        finally:
            for watch in watches:
                watch.cancel()
            await asyncio.gather(*watches, return_exceptions=True)

    async def _burst(self, size: int) -> list[float]:
        chosen = random.sample(sorted(self.clusters), min(size, len(self.clusters)))
        times = await asyncio.gather(*(self._edit(key) for key in chosen))
        await self._settle(chosen)
        return list(times)

    async def _edit(self, key: Key) -> float:
        before = self.clusters[key]["spec"]["orchestrator"]["replicas"]
        replicas = next(number for number in _SIZES if number != before)
        edit = _Edit(replicas, asyncio.get_running_loop().create_future())
        self._edits[key] = edit
        sent = time.monotonic()
        patch = {"spec": {"orchestrator": {"replicas": replicas}}}
        body = await self.api.call("PATCH", path_of(key), patch, content=MERGE_PATCH)
        self.clusters[key] = body
        async with asyncio.timeout(WRITE_SECONDS):
            return await edit.written - sent

    async def _settle(self, keys: list[Key] | None) -> None:
        """Wait until clusters are Ready with their specs; None means all that there are."""
        async with asyncio.timeout(SETTLE_SECONDS):
            while not self.clusters or not all(settled(self.clusters[key]) for key in keys or self.clusters):
                self._seen.clear()
                await self._seen.wait()

    async def _watch_clusters(self) -> None:
        async for _kind, body in self.api.follow(CLUSTERS):
            key = body["metadata"]["namespace"], body["metadata"]["name"]
            known = self.clusters.get(key)
            # The answer of a PATCH may be newer than what the watch tells after it.
            if known is None or body["metadata"]["generation"] >= known["metadata"]["generation"]:
                self.clusters[key] = body
            self._seen.set()

    async def _watch_children(self) -> None:
        async for _kind, body in self.api.follow(_DEPLOYMENTS, _ORCHESTRATORS):
            now = time.monotonic()
            metadata = body["metadata"]
            edit = self._edits.get((metadata["namespace"], metadata["labels"][names.LABEL_CLUSTER]))
            if edit is not None and body["spec"]["replicas"] == edit.replicas and not edit.written.done():
                edit.written.set_result(now)
