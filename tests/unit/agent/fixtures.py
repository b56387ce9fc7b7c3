"""What the agent's tests share: an API server in memory, settings with short times."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from runnerhub_operator.agent.settings import AgentSettings, CheckTiming, read_settings
from runnerhub_operator.errors import NotFoundError, UnavailableError
from runnerhub_operator.kube.lease import ElectionTiming
from tests.unit.lease.simulation import LeaseStore

ENVIRONMENT = {
    "HA_NODE_ID": "hub-orchestrator-a",
    "HA_CLUSTER_NODES": "hub-orchestrator-pods",
    "RUNNERHUB_NAMESPACE": "team",
    "RUNNERHUB_CLUSTER": "hub",
    "RUNNERHUB_CLUSTER_UID": "1234",
    "DATABASE_PRIMARY_URL": "postgresql://app:sesame@hub-postgres:5432/github_runnerhub",
    "DATABASE_REPLICA_URL": "postgresql://app:sesame@hub-postgres:5433/github_runnerhub",
    "REDIS_SENTINEL_HOSTS": "hub-redis-0:26379,hub-redis-1:26380,hub-redis-2",
    "REDIS_PASSWORD": "sesame",
    "REDIS_SENTINEL_PASSWORD": "sesame",
}

# A term that a busy machine does not let run out by the way.
SHORT = ElectionTiming(3.0, 2.0, 0.1, absent_wait_seconds=0)


def settings(folder: Path, node: str = "hub-orchestrator-a", **changes: Any) -> AgentSettings:
    """Settings of one agent with an election that takes moments, and a term of seconds."""
    return dataclasses.replace(
        read_settings({**ENVIRONMENT, "HA_NODE_ID": node}),
        **{
            "timing": SHORT,
            "checks": CheckTiming(0.1, 0.1, 2),
            "leader_file": folder / node / "leader.json",
            **changes,
        },
    )


class ApiServer:
    """Leases and pod labels in memory; `away` makes it answer nothing."""

    def __init__(self, *pods: str) -> None:
        self.store = LeaseStore()
        self.labels: dict[str, dict[str, str]] = {pod: {} for pod in pods}
        self.away = False
        self.patches = 0
        self.most_labelled = 0

    async def read_lease(self, namespace: str, name: str) -> dict[str, Any]:
        self._check(namespace)
        assert name == "hub-leader"
        return self.store.read()

    async def create(self, manifest: dict[str, Any]) -> dict[str, Any]:
        self._check(manifest["metadata"]["namespace"])
        return self.store.create(manifest)

    async def replace(self, manifest: dict[str, Any]) -> dict[str, Any]:
        self._check(manifest["metadata"]["namespace"])
        return self.store.replace(manifest)

    async def list_pods(self, namespace: str, label_selector: str) -> list[str]:
        self._check(namespace)
        wanted = dict(part.split("=") for part in label_selector.split(","))
        assert wanted.pop("runnerhub.io/cluster") == "hub"
        assert wanted.pop("runnerhub.io/component") == "orchestrator"
        return [pod for pod, labels in self.labels.items() if wanted.items() <= labels.items()]

    async def label_pod(self, namespace: str, name: str, label: str, value: str | None) -> None:
        self._check(namespace)
        self.patches += 1
        if name not in self.labels:
            raise NotFoundError("no such pod", 404)
        self.labels[name].pop(label, None)
        if value is not None:
            self.labels[name][label] = value
        self.most_labelled = max(self.most_labelled, len(self.labelled))

    @property
    def labelled(self) -> list[str]:
        """Pods with the leader label."""
        return [pod for pod, labels in self.labels.items() if labels.get("runnerhub.io/leader") == "true"]

    def _check(self, namespace: str) -> None:
        assert namespace == "team"
        if self.away:
            raise UnavailableError("away")
