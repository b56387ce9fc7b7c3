"""Settings of the queue that change while its pods run.

The pods follow the mounted file by themselves, each as soon as Kubernetes has renewed it. That takes up to a minute and
a half, and a moment when the pod's own object changes: so the operator marks the pods.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from .. import names
from ..actions import MarkPods
from ..api import RunnerHubCluster
from ..snapshot import Snapshot


@dataclass(frozen=True, slots=True)
class InUse:
    """`behind`: pods that run with other settings than they should. `marked`: settings that pods were marked for."""

    behind: tuple[str, ...] = ()
    mark: MarkPods | None = None
    marked: str = ""


def look(cluster: RunnerHubCluster, snapshot: Snapshot, marked: str) -> InUse:
    """Compare what the pods tell with the ConfigMap that they read."""
    now = wanted(cluster, snapshot)
    behind = tuple(pod.pod for pod in snapshot.redis_pods if pod.configuration and pod.configuration != now)
    if not behind or marked == now:
        return InUse(behind, None, marked)
    return InUse(behind, MarkPods(behind, f"settings-{now}"), now)


def wanted(cluster: RunnerHubCluster, snapshot: Snapshot) -> str:
    """Hash of the settings in the ConfigMap that the pods read."""
    found = (snapshot.child("ConfigMap", names.child(cluster.name, names.REDIS)) or {}).get("data", {})
    return digest(found.get("redis.conf", ""), found.get("settings.json", ""))


def digest(configuration: str, settings: str) -> str:
    """Hash of the two files, as the pods make it of theirs (`images/redis/runnerhub_redis/live.py`)."""
    return hashlib.sha256("\0".join((configuration, settings)).encode()).hexdigest()[:16]
