"""The load client in the cluster and the oracle that judges it afterwards."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from .hub import Hub
from .kubectl import wait_for

LOG_DIRECTORY = "/var/log/runnerhub-client"
CREDENTIALS_DIRECTORY = "/etc/runnerhub-client"
PROBES = ("jobs", "rows", "queue")
# How much longer the oracle waits than asked for while jobs are completed; `runnerhub_client.verify` has the number.
LATE_SECONDS = 600.0


def now() -> str:
    """The moment as RFC 3339 with microseconds, as the load client's log has it."""
    return datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def client_pod(
    hub: str,
    image: str,
    *arguments: str,
    name: str = "client",
    node: str = "",
    database: str = "",
    node_js_rate: float = 0,
) -> dict[str, Any]:
    """Manifest of a load client's pod for a cluster.

    `node`: where it runs, by default on the control plane. `database`: the host it writes to, by default the Service.
    `node_js_rate`: jobs per second of a BullMQ producer in Node, which brings its worker along; 0 for none.
    """

    def secret(variable: str, name: str, key: str) -> dict[str, Any]:
        return {
            "name": variable,
            "valueFrom": {"secretKeyRef": {"name": f"{hub}-{name}-credentials", "key": key}},
        }

    url = f"postgresql://app:$(DATABASE_PASSWORD)@{database or f'{hub}-postgres'}:{{port}}/github_runnerhub"
    redis = [
        {"name": "REDIS_USER", "value": "app"},
        {"name": "REDIS_PASSWORD_FILE", "value": f"{CREDENTIALS_DIRECTORY}/password"},
        {"name": "REDIS_SENTINEL_PASSWORD_FILE", "value": f"{CREDENTIALS_DIRECTORY}/sentinel-password"},
        {"name": "REDIS_SENTINEL_HOSTS", "value": ",".join(f"{hub}-redis-{i}:26379" for i in range(3))},
        {"name": "REDIS_MASTER_NAME", "value": "github-runnerhub-redis"},
        {"name": "REDIS_HOST", "value": f"{hub}-redis-master"},
    ]
    environment = [
        *redis,
        secret("DATABASE_PASSWORD", "postgres", "app-password"),
        secret("JWT_SECRET", "orchestrator", "jwt-secret"),
        {"name": "DATABASE_PASSWORD_FILE", "value": f"{CREDENTIALS_DIRECTORY}/app-password"},
        {"name": "DATABASE_URL", "value": url.format(port=5432)},
        {"name": "DATABASE_READ_ONLY_URL", "value": url.format(port=5433)},
        {"name": "LOAD_BALANCER_URL", "value": f"http://{hub}"},
        {"name": "WEBSOCKET_URL", "value": f"ws://{hub}:3002/ws"},
    ]
    in_node = {
        **_container("node-js", image, redis),
        "command": ["/usr/bin/tini", "--", "node", "/opt/node/main.js"],
        "args": ["--log", LOG_DIRECTORY, "--rate", f"{node_js_rate:g}"],
        "volumeMounts": [
            {"name": "log", "mountPath": LOG_DIRECTORY},
            {"name": "credentials", "mountPath": CREDENTIALS_DIRECTORY, "readOnly": True},
        ],
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": f"{hub}-{name}", "labels": {"app.kubernetes.io/name": "runnerhub-client"}},
        "spec": {
            "restartPolicy": "Never",
            "enableServiceLinks": False,
            "automountServiceAccountToken": False,
            "terminationGracePeriodSeconds": 30,
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": 1001,
                "fsGroup": 1001,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            # The client must outlive the faults, so it stays off the workers, whose nodes are broken on purpose.
            "tolerations": [{"key": "node-role.kubernetes.io/control-plane", "operator": "Exists"}],
            "nodeSelector": {"kubernetes.io/hostname": node}
            if node
            else {"node-role.kubernetes.io/control-plane": ""},
            "containers": [
                {
                    **_container("client", image, environment),
                    "args": ["run", "--log", LOG_DIRECTORY, *arguments],
                    "volumeMounts": [
                        {"name": "log", "mountPath": LOG_DIRECTORY},
                        {"name": "credentials", "mountPath": CREDENTIALS_DIRECTORY, "readOnly": True},
                        {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108
                    ],
                },
                *([in_node] if node_js_rate else []),
            ],
            "volumes": [
                {"name": "log", "emptyDir": {}},
                {"name": "tmp", "emptyDir": {}},
                {
                    "name": "credentials",
                    "projected": {
                        "sources": [
                            _files(f"{hub}-postgres-credentials", "app-password"),
                            _files(f"{hub}-redis-credentials", "password", "sentinel-password"),
                        ]
                    },
                },
            ],
        },
    }


def _files(secret: str, *keys: str) -> dict[str, Any]:
    return {"secret": {"name": secret, "items": [{"key": key, "path": key} for key in keys]}}


def _container(name: str, image: str, environment: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "name": name,
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "env": environment,
        "resources": {"requests": {"cpu": "50m", "memory": "64Mi"}},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
    }


@dataclass(frozen=True, slots=True)
class LoadClient:
    """A running load client of a cluster."""

    hub: Hub
    name: str = "client"

    @property
    def pod(self) -> str:
        """Name of its pod."""
        return f"{self.hub.name}-{self.name}"

    def start(
        self,
        image: str,
        *arguments: str,
        probes: Collection[str] = PROBES,
        node: str = "",
        database: str = "",
        node_js_rate: float = 0,
    ) -> None:
        """Start it anew and wait until these probes get through; an old one goes, with its log."""
        self.stop()
        pod = client_pod(
            self.hub.name,
            image,
            *arguments,
            name=self.name,
            node=node,
            database=database,
            node_js_rate=node_js_rate,
        )
        self.hub.kubectl.apply(pod)
        wait_for("the load client to write", lambda: self._gets_through(probes), 90)

    def stop(self) -> None:
        """Remove it."""
        self.hub.kubectl("delete", "pod", self.pod, "--ignore-not-found", "--wait=true", "--grace-period=5")

    def run(self, *arguments: str, timeout: float = 120.0) -> dict[str, Any]:
        """Run a command of the client beside the load; its JSON, also when it reports a loss."""
        # The exit code tells the verdict (1: lost); without JSON on standard output there was none.
        script = 'python3 -m runnerhub_client "$@"; code=$?; [ $code -le 1 ]'
        text = self.hub.kubectl(
            "exec", self.pod, "-c", "client", "--", "sh", "-c", script, "client", *arguments, timeout=timeout
        )
        found: dict[str, Any] = json.loads(text)
        return found

    def gaps(self, since: str, until: str) -> dict[str, Any]:
        """Longest time between acknowledged writes, by probe, in a window of wall-clock time."""
        found: dict[str, Any] = self.measure(since, until)["probes"]
        return found

    def measure(self, since: str, until: str) -> dict[str, Any]:
        """As `gaps`: `probes` by probe, and `stores` over all writers of a store."""
        return self.run("gaps", "--log", LOG_DIRECTORY, "--since", since, "--until", until)

    def verify(
        self, since: str | None = None, until: str | None = None, wait_seconds: float = 60.0
    ) -> dict[str, Any]:
        """Ask the oracle: what was acknowledged in a window (default: always), and what of it is missing."""
        window = [*(("--since", since) if since else ()), *(("--until", until) if until else ())]
        return self.run(
            "verify",
            "--log",
            LOG_DIRECTORY,
            "--wait",
            str(int(wait_seconds)),
            *window,
            timeout=wait_seconds + LATE_SECONDS + 120,
        )

    def acknowledged(self, probe: str, since: str) -> int:
        """How many writes of a probe were acknowledged since a moment."""
        return int(self.gaps(since, now()).get(probe, {}).get("acknowledged", 0))

    def _gets_through(self, probes: Collection[str]) -> bool:
        gaps = self.gaps("1970-01-01T00:00:00Z", now())
        return all(gaps.get(probe, {}).get("acknowledged", 0) > 0 for probe in probes)
