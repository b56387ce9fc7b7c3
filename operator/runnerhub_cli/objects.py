"""What is read of Kubernetes' own objects: pods, Leases."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Self

from runnerhub_operator import names

# Words with which Kubernetes says that a container is on its way and nothing is wrong.
_ON_ITS_WAY: Final = ("ContainerCreating", "PodInitializing")


@dataclass(frozen=True, slots=True)
class Pod:
    """A pod as people ask for it.

    `trouble` is the reason why it cannot start, in Kubernetes' word, "" when there is none; `message` says more.
    `containers` are those with logs, `restarts` the sum over them; `last_end` tells how the latest restart came about.
    """

    name: str
    component: str
    role: str
    node: str
    ip: str
    phase: str
    created: str | None
    ready: bool
    ready_since: str | None
    terminating: bool
    trouble: str
    message: str
    containers: tuple[str, ...]
    restarts: int
    last_end: str
    last_end_at: str | None

    @classmethod
    def of(cls, body: Mapping[str, Any]) -> Self:
        """Read a pod as the API server sends it."""
        metadata, spec, status = body["metadata"], body.get("spec", {}), body.get("status", {})
        labels = metadata.get("labels", {})
        conditions = {item["type"]: item for item in status.get("conditions", ())}
        ready = conditions.get("Ready", {})
        trouble, message = _trouble(status, conditions)
        ended, ended_at = _last_end(status)
        leads = labels.get(names.LABEL_LEADER) == "true"
        return cls(
            name=metadata["name"],
            component=labels.get(names.LABEL_COMPONENT, ""),
            role=labels.get(names.LABEL_ROLE, "") or ("leader" if leads else ""),
            node=spec.get("nodeName", ""),
            ip=status.get("podIP", ""),
            phase=status.get("phase", "Unknown"),
            created=metadata.get("creationTimestamp"),
            ready=ready.get("status") == "True" and "deletionTimestamp" not in metadata,
            ready_since=ready.get("lastTransitionTime"),
            terminating="deletionTimestamp" in metadata,
            trouble=trouble,
            message=message,
            containers=tuple(
                item["name"] for key in ("containers", "initContainers") for item in spec.get(key, ())
            ),
            restarts=sum(int(item.get("restartCount", 0)) for item in _container_statuses(status)),
            last_end=ended,
            last_end_at=ended_at,
        )

    @property
    def state(self) -> str:
        """One word or two for a table."""
        if self.terminating:
            return "Terminating"
        if self.trouble:
            return self.trouble
        if self.phase == "Running":
            return "ready" if self.ready else "not ready"
        return self.phase


def _container_statuses(status: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    for key in ("initContainerStatuses", "containerStatuses"):
        yield from status.get(key) or ()


def _trouble(status: Mapping[str, Any], conditions: Mapping[str, Mapping[str, Any]]) -> tuple[str, str]:
    scheduled = conditions.get("PodScheduled", {})
    if scheduled.get("status") == "False":
        return scheduled.get("reason") or "Unschedulable", scheduled.get("message", "")
    for item in _container_statuses(status):
        waiting = item.get("state", {}).get("waiting")
        if waiting and waiting.get("reason", "ContainerCreating") not in _ON_ITS_WAY:
            return waiting["reason"], f"container {item['name']}: {waiting.get('message', 'no message')}"
    if status.get("phase") == "Failed":
        return status.get("reason") or "Failed", status.get("message", "")
    return "", ""


def _last_end(status: Mapping[str, Any]) -> tuple[str, str | None]:
    """How and when a container last ended, over all of them."""
    ends = [
        (ended.get("finishedAt") or "", item["name"], ended)
        for item in _container_statuses(status)
        if (ended := item.get("lastState", {}).get("terminated"))
    ]
    if not ends:
        return "", None
    at, container, ended = max(ends, key=lambda entry: entry[0])
    reason, code = ended.get("reason") or "ended", int(ended.get("exitCode", 0))
    if reason == "Unknown":
        # The container runtime started anew and found it gone.
        reason = "was lost, as when its node restarts"
    # What a shell makes of a signal, and so does the container runtime.
    killed = f", {signal.Signals(code - 128).name}" if code - 128 in set(signal.Signals) else ""
    return f"{container} {reason} (exit code {code}{killed})", at or None


@dataclass(frozen=True, slots=True)
class Lease:
    """A Lease. `holder` is "" when nobody has it; without a `duration_seconds` it is only told, not renewed."""

    namespace: str
    name: str
    holder: str
    acquired: str | None
    renewed: str | None
    duration_seconds: int | None
    transitions: int

    @classmethod
    def of(cls, body: Mapping[str, Any]) -> Self:
        """Read a Lease as the API server sends it."""
        metadata, spec = body["metadata"], body.get("spec", {})
        return cls(
            namespace=metadata.get("namespace", ""),
            name=metadata["name"],
            holder=spec.get("holderIdentity") or "",
            acquired=spec.get("acquireTime"),
            renewed=spec.get("renewTime"),
            duration_seconds=spec.get("leaseDurationSeconds"),
            transitions=int(spec.get("leaseTransitions") or 0),
        )
