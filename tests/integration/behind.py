"""An operator behind a proxy as a kubelet runs it, and eyes on the real server past the proxy."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from e2e.lab.kubectl import Kubectl, wait_for
from e2e.stage import SYSTEM, OperatorProcess, Stage
from e2e.stage.api import Api, ApiError
from kindbed.paths import REPOSITORY
from runnerhub_operator import names
from tests.integration.chaos import ChaosProxy, LoopThread
from tests.share import free_port

_LOOKED_AT: Final = {
    "deployment": ("apis/apps/v1", "deployments"),
    "ingress": ("apis/networking.k8s.io/v1", "ingresses"),
    "runnerhubcluster": (f"apis/{names.API_GROUP}/{names.API_VERSION}", names.PLURAL),
    "service": ("api/v1", "services"),
}
_WITNESSED: Final = {
    "ConfigMap": ("api/v1", "configmaps"),
    "Deployment": ("apis/apps/v1", "deployments"),
    "Ingress": ("apis/networking.k8s.io/v1", "ingresses"),
    "Pod": ("api/v1", "pods"),
    "Secret": ("api/v1", "secrets"),
    "Service": ("api/v1", "services"),
    "StatefulSet": ("apis/apps/v1", "statefulsets"),
}


class Pod:
    """One operator behind a proxy, started again when it ends, as a kubelet does."""

    def __init__(self, stage: Stage, proxy: ChaosProxy, name: str, **environment: str) -> None:
        self._stage = stage
        self._proxy = proxy
        self._environment = {"POD_NAME": name, "POD_NAMESPACE": SYSTEM, **environment}
        self._kubeconfig = proxy.kubeconfig(
            stage.folder / "kubeconfig-operator", stage.folder / f"kubeconfig-{name}"
        )
        self._log = stage.folder / f"{name}.log"
        self.restarts = 0
        self.exit_codes: list[int] = []
        self._start()

    def _start(self) -> None:
        self.process = OperatorProcess(
            REPOSITORY / "operator",
            self._kubeconfig,
            self._log,
            {**self._environment, "RUNNERHUB_HEALTH_PORT": str(free_port())},
            metrics_port=free_port(),
        )

    def stop(self) -> int:
        """End it for good; its exit code."""
        return self.process.stop()

    def kubelet(self) -> None:
        """Start it again if it has ended."""
        if not self.process.running:
            self.exit_codes.append(self.process.stop())
            self.restarts += 1
            self._start()

    def wait_leading(self, seconds: float) -> None:
        """Wait until it leads."""

        def leading() -> bool:
            self.kubelet()
            return self.process.leads()

        wait_for("the operator to lead", leading, seconds, every=0.2)

    def log(self) -> str:
        """What it has logged so far."""
        return self._log.read_text()

    def metric(self, name: str, **labels: str) -> float:
        """Sum of the samples of a metric that have these labels."""
        return sum(
            value
            for found, having, value in self.process.metrics()
            if found == name and labels.items() <= having.items()
        )


@dataclass(frozen=True, slots=True)
class Change:
    """Something that was seen to happen to an object: ADDED, GOING (the deletion began) or DELETED."""

    at: float
    what: str
    kind: str
    name: str
    uid: str


class Witness:
    """Follows what the operator makes in a namespace, on the real server; use it as a context manager."""

    def __init__(self, kubeconfig: Path, namespace: str) -> None:
        self._kubeconfig = kubeconfig
        self._paths = {
            kind: f"/{group}/namespaces/{namespace}/{plural}" for kind, (group, plural) in _WITNESSED.items()
        }
        self._loop = LoopThread("witness")
        self._tasks: set[asyncio.Task[None]] = set()
        self._known: dict[str, str] = {}
        self._ready: dict[str, dict[str, bool]] = {}
        self.changes: list[Change] = []
        self.fewest_ready: dict[str, int] = {}

    def __enter__(self) -> Self:
        self._loop.do(self._start())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.close()

    def seen(self, what: str, *kinds: str) -> list[Change]:
        """Changes of one sort, of these kinds."""
        return [change for change in self.changes if change.what == what and change.kind in kinds]

    async def _start(self) -> None:
        listed = [asyncio.Event() for _ in self._paths]
        for (kind, path), event in zip(self._paths.items(), listed, strict=True):
            self._tasks.add(asyncio.create_task(self._follow(kind, path, event)))
        await asyncio.gather(*(event.wait() for event in listed))
        self.changes.clear()
        self.fewest_ready.clear()

    async def _follow(self, kind: str, path: str, listed: asyncio.Event) -> None:
        async with Api(self._kubeconfig) as api:
            present, _ = await api.items(path)
            left = {item["metadata"]["uid"] for item in present}
            if not left:
                listed.set()
            async for what, item in api.follow(path):
                self._take(what, kind, item)
                left.discard(item["metadata"]["uid"])
                if not left:
                    listed.set()

    def _take(self, what: str, kind: str, item: dict[str, Any]) -> None:
        metadata = item["metadata"]
        state = "GOING" if what == "MODIFIED" and "deletionTimestamp" in metadata else what
        if self._known.get(metadata["uid"]) != state and state != "MODIFIED":
            self._known[metadata["uid"]] = state
            self.changes.append(Change(time.monotonic(), state, kind, metadata["name"], metadata["uid"]))
        if kind == "Pod":
            component = metadata.get("labels", {}).get(names.LABEL_COMPONENT, "")
            conditions = item.get("status", {}).get("conditions", ())
            is_ready = any(found["type"] == "Ready" and found["status"] == "True" for found in conditions)
            pods = self._ready.setdefault(component, {})
            pods[metadata["uid"]] = is_ready and what != "DELETED" and "deletionTimestamp" not in metadata
            count = sum(pods.values())
            self.fewest_ready[component] = min(count, self.fewest_ready.get(component, count))


class Server:
    """A connection to the real server, for looks that are too many for a process each."""

    def __init__(self, kubeconfig: Path) -> None:
        self._loop = LoopThread("server")
        self._api = Api(kubeconfig)

    def __enter__(self) -> Self:
        self._loop.do(self._api.__aenter__())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.do(self._api.__aexit__(kind, error, trace))
        self._loop.close()

    def get(self, path: str) -> dict[str, Any] | None:
        """The object at a path, None when there is none."""
        try:
            return self._loop.do(self._api.call("GET", path))
        except ApiError as error:
            if error.status != 404:
                raise
            return None


@dataclass(frozen=True, slots=True)
class QuickKubectl(Kubectl):
    """kubectl that asks the server itself when single objects of some kinds are looked at."""

    server: Server = field(kw_only=True)

    @classmethod
    def of(cls, kubectl: Kubectl, server: Server, namespace: str) -> QuickKubectl:
        """The same user in a namespace."""
        return cls(kubectl.binary, kubectl.kubeconfig, namespace, server=server)

    def get(self, kind: str, name: str) -> dict[str, Any] | None:
        """An object, None when there is none."""
        group, plural = _LOOKED_AT[kind]
        return self.server.get(f"/{group}/namespaces/{self.namespace}/{plural}/{name}")
