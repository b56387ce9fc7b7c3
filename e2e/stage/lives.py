"""Operator lives inside the test's own process: each works like the real one until it is killed at a given write."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import aiohttp

from runnerhub_operator import names
from runnerhub_operator.kube.client import KubeClient
from runnerhub_operator.kube.reflector import Reflector, Source
from runnerhub_operator.runtime import Controller
from runnerhub_operator.settings import read_settings

Key = tuple[str, str]
_READS: Final = ("get", "list", "watch")


class Killed(BaseException):
    """The life ends here, as by SIGKILL: no clean-up writes follow."""


class Clusters:
    """The RunnerHubClusters of a namespace, filled by a reflector."""

    def __init__(self, edited: Callable[[Key], None]) -> None:
        self._edited = edited
        self._bodies: dict[Key, Mapping[str, Any]] = {}

    def cluster(self, key: Key) -> Mapping[str, Any] | None:
        """A RunnerHubCluster, None when it is gone."""
        return self._bodies.get(key)

    def count(self) -> int:
        """Number of RunnerHubClusters."""
        return len(self._bodies)

    def put(self, _source: Source, body: Mapping[str, Any]) -> None:
        """One is there, new or changed."""
        key = body["metadata"]["namespace"], body["metadata"]["name"]
        self._bodies[key] = body
        self._edited(key)

    def drop(self, _source: Source, namespace: str, name: str) -> None:
        """One is gone."""
        self._bodies.pop((namespace, name), None)
        self._edited((namespace, name))

    def retain(self, source: Source, present: set[Key]) -> None:
        """Only these are there."""
        for key in [key for key in self._bodies if key not in present]:
            self.drop(source, *key)


class Life:
    """One life of the operator in one namespace.

    `kill_at`: number of the write at which it dies, counted from 1; 0: never. `after`: the write takes effect first,
    and only its response is lost. `at_write(number)` is told before each write.
    """

    def __init__(
        self,
        kubeconfig: Path,
        namespace: str,
        *,
        kill_at: int = 0,
        after: bool = False,
        at_write: Callable[[int], None] = lambda _: None,
    ) -> None:
        self._kubeconfig = kubeconfig
        self._namespace = namespace
        self._kill_at = kill_at
        self._after = after
        self._at_write = at_write
        self.writes: list[str] = []
        self._started = 0
        self._last_write = time.monotonic()

    @property
    def idle_seconds(self) -> float:
        """Time since the last write, or since the beginning."""
        return time.monotonic() - self._last_write

    async def run(self) -> bool:
        """Live until killed (True) or cancelled."""
        client = await KubeClient.connect(
            kubeconfig=str(self._kubeconfig), guard=self._before_write, observer=self._after_call
        )
        settings = read_settings(
            {
                "POD_NAME": "life",
                "RUNNERHUB_WATCH_NAMESPACES": self._namespace,
                "RUNNERHUB_PROBE_INTERVAL_SECONDS": "1",
            }
        )
        source = Source(f"{names.API_GROUP}/{names.API_VERSION}", names.KIND, self._namespace, "")
        try:
            async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10)) as http:
                clusters = Clusters(lambda key: controller.changed(key, edited=True))
                controller = Controller(clusters, client, http, settings)
                async with asyncio.TaskGroup() as group:
                    group.create_task(Reflector(client, source, clusters).run())
                    group.create_task(controller.run())
        except BaseExceptionGroup as ended:
            if ended.subgroup(Killed) is None:
                raise
            return True
        finally:
            await client.close()
        return False

    def _before_write(self) -> None:
        self._started += 1
        self._at_write(self._started)
        if self._started == self._kill_at and not self._after:
            raise Killed

    def _after_call(self, verb: str, kind: str, status: int) -> None:
        if verb in _READS:
            return
        self._last_write = time.monotonic()
        self.writes.append(f"{verb} {kind} {status}")
        if self._started == self._kill_at and self._after:
            raise Killed
