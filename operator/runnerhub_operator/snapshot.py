"""What is there now: the input of the planner, made by `observe`."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from . import names
from .probes.patroni import PatroniCluster
from .probes.sentinel import SentinelView

Manifest = Mapping[str, Any]

# Reasons for which a pod waits before its containers have run for the first time.
NEVER_STARTS: Final = (
    "Unschedulable",
    "ErrImagePull",
    "ImagePullBackOff",
    "InvalidImageName",
    "CreateContainerConfigError",
)


def secret_value(children: Mapping[tuple[str, str], Manifest], secret: str, key: str) -> str | None:
    """A value of a cached Secret, None when it is not there."""
    data = (children.get(("Secret", secret)) or {}).get("data", {})
    return base64.b64decode(data[key]).decode() if key in data else None


@dataclass(frozen=True, slots=True)
class Pod:
    """The parts of a pod that decisions are made from."""

    name: str
    uid: str
    component: str
    ip: str
    node: str
    ready: bool
    ready_unknown: bool
    terminating: bool
    revision: str
    labels: Mapping[str, str]
    waiting_reason: str
    message: str

    @classmethod
    def of(cls, body: Manifest) -> Pod:
        """Read a pod as the API server sent it."""
        metadata, status = body["metadata"], body.get("status", {})
        labels = metadata.get("labels", {})
        conditions = {item["type"]: item for item in status.get("conditions", ())}
        ready = conditions.get("Ready", {})
        scheduled = conditions.get("PodScheduled", {})
        waiting: Manifest = next(
            (
                item["state"]["waiting"]
                for key in ("initContainerStatuses", "containerStatuses")
                for item in status.get(key, ())
                if "waiting" in item.get("state", {})
            ),
            {},
        )
        unscheduled = scheduled if scheduled.get("status") == "False" else {}
        return cls(
            name=metadata["name"],
            uid=metadata["uid"],
            component=labels.get(names.LABEL_COMPONENT, ""),
            ip=status.get("podIP", ""),
            node=body.get("spec", {}).get("nodeName", ""),
            ready=ready.get("status") == "True" and "deletionTimestamp" not in metadata,
            # The node controller sets Unknown or NodeLost when the kubelet is silent.
            ready_unknown=ready.get("status") == "Unknown" or status.get("reason") == "NodeLost",
            terminating="deletionTimestamp" in metadata,
            revision=labels.get("controller-revision-hash", ""),
            labels=labels,
            waiting_reason=waiting.get("reason", "") or unscheduled.get("reason", ""),
            message=waiting.get("message", "") or unscheduled.get("message", ""),
        )

    @property
    def cannot_start(self) -> bool:
        """Whether the pod has never run and will not by itself: its template or what it names is wrong."""
        return not self.ready and self.waiting_reason in NEVER_STARTS


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything that a plan is made from.

    `children` are the live objects by (kind, name) as cached from the watches. A probe that did not succeed is None
    (Patroni) or empty (Sentinel); `service_ips` are the addresses that Redis pods announce, by address.
    """

    now: datetime
    children: Mapping[tuple[str, str], Manifest] = field(default_factory=dict)
    pods: tuple[Pod, ...] = ()
    patroni: PatroniCluster | None = None
    patroni_config: Manifest | None = None
    sentinels: tuple[SentinelView, ...] = ()

    def child(self, kind: str, name: str) -> Manifest | None:
        """A live object of the cluster, None when the cache has none."""
        return self.children.get((kind, name))

    def pods_of(self, component: str) -> tuple[Pod, ...]:
        """Pods of a component, by name."""
        return tuple(
            sorted((pod for pod in self.pods if pod.component == component), key=lambda pod: pod.name)
        )

    def pod(self, name: str | None) -> Pod | None:
        """A pod by name."""
        return next((pod for pod in self.pods if pod.name == name), None)

    def redis_member(self, address: str | None) -> str | None:
        """Name of the Redis pod that announces an address: that of its own Service."""
        if not address:
            return None
        return next(
            (
                name
                for (kind, name), body in self.children.items()
                if kind == "Service" and body.get("spec", {}).get("clusterIP") == address
            ),
            None,
        )
