"""What the operator follows beside the RunnerHubClusters: their children, narrowed on the server to our own."""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Callable
from typing import Final

from . import names
from .errors import NotFoundError, RefusedError
from .kube.client import KubeClient
from .kube.reflector import Reflector, Source, Store

logger = logging.getLogger(__name__)

_OURS: Final = f"{names.LABEL_MANAGED_BY}={names.FIELD_MANAGER},{names.LABEL_CLUSTER}"
# The Lease that the orchestrators' agents renew every two seconds carries another component label.
_QUIET_LEASES: Final = f"{_OURS},{names.LABEL_COMPONENT}!={names.ORCHESTRATOR}"

# Claims of the StatefulSets' templates carry the labels of their pods' selector, and those of Redis no others.
_CLAIMS: Final = (
    f"{names.LABEL_CLUSTER},{names.LABEL_COMPONENT} in ({names.POSTGRES},{names.REDIS},{names.SHARED})"
)

_KINDS: Final = (
    ("v1", "ConfigMap", _OURS),
    ("v1", "PersistentVolumeClaim", _CLAIMS),
    ("v1", "Pod", _OURS),
    ("v1", "Secret", _OURS),
    ("v1", "Service", _OURS),
    ("v1", "ServiceAccount", _OURS),
    ("apps/v1", "Deployment", _OURS),
    ("apps/v1", "StatefulSet", _OURS),
    ("autoscaling/v2", "HorizontalPodAutoscaler", _OURS),
    ("batch/v1", "Job", _OURS),
    ("coordination.k8s.io/v1", "Lease", _QUIET_LEASES),
    ("networking.k8s.io/v1", "Ingress", _OURS),
    ("policy/v1", "PodDisruptionBudget", _OURS),
    ("rbac.authorization.k8s.io/v1", "Role", _OURS),
    ("rbac.authorization.k8s.io/v1", "RoleBinding", _OURS),
)


def sources(namespaces: tuple[str, ...]) -> list[Source]:
    """Each kind in each of the namespaces; no namespaces: in all of them."""
    return [
        Source(api_version, kind, namespace, selector)
        for api_version, kind, selector in _KINDS
        for namespace in namespaces or ("",)
    ]


def optional_sources(namespaces: tuple[str, ...]) -> list[Source]:
    """The kinds that are no part of Kubernetes itself, likewise."""
    return [
        Source(names.GATEWAY_API, names.HTTP_ROUTE, namespace, _OURS, optional=True)
        for namespace in namespaces or ("",)
    ]


class OptionalWatch:
    """Follows a kind as long as the API server has it; `absent` is told when it has not.

    `decided` is set when that is known. Absence is not asked about again unless somebody wants the kind, and not
    within `look_again_seconds`.
    """

    def __init__(self, reflector: Reflector, absent: Callable[[], None], look_again_seconds: float) -> None:
        self._reflector = reflector
        self._absent = absent
        self._look_again_seconds = look_again_seconds
        self._wanted = asyncio.Event()
        self._known_absent = asyncio.Event()

    def want(self) -> None:
        """Somebody has a use for the kind."""
        self._wanted.set()

    async def decided(self) -> None:
        """Wait until the kind has been listed, or is known not to be there."""
        waits = [asyncio.create_task(event.wait()) for event in (self._reflector.synced, self._known_absent)]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()

    async def run(self) -> None:
        """Follow until cancelled."""
        while True:
            try:
                await self._reflector.run()
            except (NotFoundError, RefusedError) as error:
                if not self._known_absent.is_set():
                    logger.info("goes on without: %s", error)
            self._absent()
            self._known_absent.set()
            self._wanted.clear()
            await asyncio.sleep(self._look_again_seconds)
            await self._wanted.wait()


class Watches:
    """One reflector per kind and watched namespace; no namespaces: all of them.

    `absent(source)` is told of an optional source that the API server does not have.
    """

    def __init__(
        self,
        client: KubeClient,
        store: Store,
        namespaces: tuple[str, ...],
        look_again_seconds: float,
        restarted: Callable[[str, str], None] = lambda _kind, _reason: None,
        absent: Callable[[Source], None] = lambda _source: None,
    ) -> None:
        listing = asyncio.Lock()
        self._reflectors = [
            Reflector(client, source, store, restarted, listing) for source in sources(namespaces)
        ]
        self._optional = [
            OptionalWatch(
                Reflector(client, source, store, restarted, listing),
                functools.partial(absent, source),
                look_again_seconds,
            )
            for source in optional_sources(namespaces)
        ]

    async def run(self) -> None:
        """Follow until cancelled."""
        async with asyncio.TaskGroup() as group:
            for reflector in self._reflectors:
                group.create_task(reflector.run())
            for watch in self._optional:
                group.create_task(watch.run())

    async def synced(self) -> None:
        """Wait until everything has been listed once: before that, what is missing may only be unread."""
        for reflector in self._reflectors:
            await reflector.synced.wait()
        for watch in self._optional:
            await watch.decided()

    def want_http_routes(self) -> None:
        """A cluster asks for an HTTPRoute: if there was none of that kind before, look again soon."""
        for watch in self._optional:
            watch.want()
