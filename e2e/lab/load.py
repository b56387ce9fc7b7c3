"""The load client in the cluster and the oracle that judges it afterwards."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from .hub import Hub
from .kubectl import wait_for

LOG_DIRECTORY = "/var/log/runnerhub-client"


def now() -> str:
    """The moment as RFC 3339 with microseconds, as the load client's log has it."""
    return datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def client_pod(hub: str, image: str, *arguments: str) -> dict[str, Any]:
    """Manifest of the load client's pod for a cluster."""

    def secret(variable: str, name: str, key: str) -> dict[str, Any]:
        return {
            "name": variable,
            "valueFrom": {"secretKeyRef": {"name": f"{hub}-{name}-credentials", "key": key}},
        }

    sentinels = ",".join(f"{hub}-redis-{i}:26379" for i in range(3))
    database = f"postgresql://app:$(DATABASE_PASSWORD)@{hub}-postgres:5432/github_runnerhub"
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": f"{hub}-client", "labels": {"app.kubernetes.io/name": "runnerhub-client"}},
        "spec": {
            "restartPolicy": "Never",
            "enableServiceLinks": False,
            "automountServiceAccountToken": False,
            "terminationGracePeriodSeconds": 10,
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": 1001,
                "fsGroup": 1001,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            # The client must outlive the faults, so it stays off the workers, whose nodes are broken on purpose.
            "tolerations": [{"key": "node-role.kubernetes.io/control-plane", "operator": "Exists"}],
            "nodeSelector": {"node-role.kubernetes.io/control-plane": ""},
            "containers": [
                {
                    "name": "client",
                    "image": image,
                    "imagePullPolicy": "IfNotPresent",
                    "args": ["run", "--log", LOG_DIRECTORY, *arguments],
                    "env": [
                        secret("DATABASE_PASSWORD", "postgres", "app-password"),
                        secret("REDIS_PASSWORD", "redis", "password"),
                        secret("REDIS_SENTINEL_PASSWORD", "redis", "sentinel-password"),
                        secret("JWT_SECRET", "orchestrator", "jwt-secret"),
                        {"name": "DATABASE_URL", "value": database},
                        {"name": "REDIS_SENTINEL_HOSTS", "value": sentinels},
                        {"name": "REDIS_MASTER_NAME", "value": "github-runnerhub-redis"},
                        {"name": "RUNNERHUB_URL", "value": f"http://{hub}"},
                        {"name": "RUNNERHUB_WEBSOCKET_URL", "value": f"ws://{hub}:3002"},
                    ],
                    "resources": {"requests": {"cpu": "50m", "memory": "64Mi"}},
                    "securityContext": {
                        "allowPrivilegeEscalation": False,
                        "readOnlyRootFilesystem": True,
                        "capabilities": {"drop": ["ALL"]},
                    },
                    "volumeMounts": [
                        {"name": "log", "mountPath": LOG_DIRECTORY},
                        {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108
                    ],
                }
            ],
            "volumes": [{"name": "log", "emptyDir": {}}, {"name": "tmp", "emptyDir": {}}],
        },
    }


@dataclass(frozen=True, slots=True)
class LoadClient:
    """The running load client of a cluster."""

    hub: Hub

    @property
    def pod(self) -> str:
        """Name of its pod."""
        return f"{self.hub.name}-client"

    def start(self, image: str, *arguments: str) -> None:
        """Start it anew; an old one goes, with its log."""
        self.stop()
        self.hub.kubectl.apply(client_pod(self.hub.name, image, *arguments))
        wait_for("the load client to write", self._writes, 90)

    def stop(self) -> None:
        """Remove it."""
        self.hub.kubectl("delete", "pod", self.pod, "--ignore-not-found", "--wait=true", "--grace-period=5")

    def run(self, *arguments: str, timeout: float = 120.0) -> Any:
        """Run a command of the client beside the load; its JSON."""
        text = self.hub.kubectl(
            "exec", self.pod, "--", "python3", "-m", "runnerhub_client", *arguments, timeout=timeout
        )
        return json.loads(text)

    def gaps(self, since: str, until: str) -> dict[str, Any]:
        """Longest time between acknowledged writes of each probe in a window of wall-clock time."""
        found: dict[str, Any] = self.run("gaps", "--log", LOG_DIRECTORY, "--since", since, "--until", until)
        return found

    def verify(self, wait_seconds: float = 60.0) -> dict[str, Any]:
        """Ask the oracle: what was acknowledged since the start, and what of it is missing."""
        found: dict[str, Any] = self.run(
            "verify", "--log", LOG_DIRECTORY, "--wait", str(int(wait_seconds)), timeout=wait_seconds + 120
        )
        return found

    def _writes(self) -> bool:
        until = now()
        gaps = self.gaps("1970-01-01T00:00:00Z", until)
        return all(gaps.get(probe, {}).get("acknowledged", 0) > 0 for probe in ("rows", "queue", "jobs"))
