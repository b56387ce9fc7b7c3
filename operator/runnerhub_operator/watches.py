"""What the operator follows beside the RunnerHubClusters: their children, narrowed on the server to our own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from . import names
from .kube.client import KubeClient
from .kube.reflector import Reflector, Source, Store

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


class Watches:
    """One reflector per kind and watched namespace; no namespaces: all of them."""

    def __init__(
        self,
        client: KubeClient,
        store: Store,
        namespaces: tuple[str, ...],
        restarted: Callable[[str, str], None] = lambda _kind, _reason: None,
    ) -> None:
        listing = asyncio.Lock()
        self._reflectors = [
            Reflector(client, source, store, restarted, listing) for source in sources(namespaces)
        ]

    async def run(self) -> None:
        """Follow until cancelled."""
        async with asyncio.TaskGroup() as group:
            for reflector in self._reflectors:
                group.create_task(reflector.run())

    async def synced(self) -> None:
        """Wait until everything has been listed once: before that, what is missing may only be unread."""
        for reflector in self._reflectors:
            await reflector.synced.wait()
