"""What is there now: the input of the planner, made by `observe`."""

from __future__ import annotations

import base64
import json
import sys
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, Self

from . import names
from .probes.haproxy import BalancerState
from .probes.patroni import PatroniCluster
from .probes.redis_pod import RedisPodState
from .probes.runners import Demand
from .probes.sentinel import SentinelView
from .quantities import parse_quantity

Manifest = Mapping[str, Any]

# A kubelet that works ends a pod within seconds after its time is over.
OVERDUE_SECONDS: Final = 30.0
# Reasons for which a pod waits before its containers have run for the first time.
NEVER_STARTS: Final = (
    "Unschedulable",
    "ErrImagePull",
    "ImagePullBackOff",
    "InvalidImageName",
    "CreateContainerConfigError",
)


@dataclass(frozen=True, slots=True)
class LiveObject:
    """An object as the API server sent it, packed: five hundred clusters have more than twenty thousand.

    `digest` changes with anything that matters, `spec_digest` with anything but the status. `scaled_by` is the
    manager that last set `spec.replicas` through the scale subresource, "" when nobody did. `terminating`: it is being
    deleted. `generation` and `passing`, the status as JSON, are looked at in every visit; `packed` is the rest.
    """

    uid: str
    resource_version: str
    digest: int
    spec_digest: int
    scaled_by: str
    terminating: bool
    generation: int
    passing: bytes
    packed: bytes

    @classmethod
    def of(cls, body: Manifest) -> LiveObject:
        """Pack an object."""
        metadata = body["metadata"]
        lasting = {
            **{key: value for key, value in body.items() if key not in ("metadata", "status")},
            "metadata": {key: value for key, value in metadata.items() if key not in _DROPPED},
        }
        generation = metadata.get("generation", 0)
        spec_text, status_text = json.dumps(lasting).encode(), json.dumps(body.get("status", {})).encode()
        return cls(
            uid=metadata.get("uid", ""),
            resource_version=metadata.get("resourceVersion", ""),
            digest=hash((generation, spec_text, status_text)),
            spec_digest=hash(spec_text),
            scaled_by=_scaled_by(metadata.get("managedFields", ())),
            terminating="deletionTimestamp" in metadata,
            generation=generation,
            passing=status_text,
            packed=zlib.compress(spec_text, 1),
        )

    def body(self) -> dict[str, Any]:
        """Unpack it."""
        lasting = json.loads(zlib.decompress(self.packed))
        metadata = {**lasting["metadata"], "generation": self.generation}
        return {**lasting, "metadata": metadata, "status": self.status()}

    def status(self) -> dict[str, Any]:
        """The status alone."""
        found: dict[str, Any] = json.loads(self.passing)
        return found

    def is_observed(self) -> bool:
        """Whether the controller of this kind has looked at what was written last."""
        return bool(self.status().get("observedGeneration") == self.generation)


# Of no use for decisions, and most of an object's size.
_DROPPED: Final = ("managedFields", "creationTimestamp", "resourceVersion", "generation")


def _is_on_a_silent_node(conditions: Mapping[str, Manifest]) -> bool:
    """Whether somebody else than its kubelet says that a pod is not ready.

    The node controller sets Ready to False when a kubelet has been silent for 40 seconds or so, and leaves the rest as
    the kubelet wrote it last. The kubelet says so while the containers are ready only for the sake of readiness gates.
    Source: https://github.com/kubernetes/kubernetes/blob/v1.35.4/pkg/controller/util/node/controller_utils.go
    """
    ready, containers = conditions.get("Ready", {}), conditions.get("ContainersReady", {})
    if ready.get("status") == "Unknown":
        return True
    of_gates = ready.get("reason") == "ReadinessGatesNotReady"
    return ready.get("status") == "False" and containers.get("status") == "True" and not of_gates


def _scaled_by(managed_fields: Iterable[Manifest]) -> str:
    return next(
        (
            str(entry.get("manager", "somebody"))
            for entry in managed_fields
            if entry.get("subresource") == "scale"
            and "f:replicas" in entry.get("fieldsV1", {}).get("f:spec", {})
        ),
        "",
    )


class Children:
    """The objects of a cluster by (kind, name); each is unpacked when it is asked for, and once only.

    `revision` grows with each change of an object beyond its status: as long as it stays, the objects differ from
    what is wanted just as they did before.
    """

    __slots__ = ("_bodies", "_objects", "revision")

    def __init__(self, objects: Mapping[tuple[str, str], LiveObject], revision: int = 0) -> None:
        self._objects = objects
        self._bodies: dict[tuple[str, str], Manifest] = {}
        self.revision = revision

    @classmethod
    def of(cls, bodies: Iterable[Manifest], revision: int = 0) -> Children:
        """From objects as the API server sends them."""
        packed = {(body["kind"], body["metadata"]["name"]): LiveObject.of(body) for body in bodies}
        return cls(packed, revision)

    def get(self, kind: str, name: str) -> Manifest | None:
        """An object, None when there is none."""
        key = kind, name
        if key not in self._objects:
            return None
        if key not in self._bodies:
            self._bodies[key] = self._objects[key].body()
        return self._bodies[key]

    def live(self, kind: str, name: str) -> LiveObject | None:
        """An object still packed."""
        return self._objects.get((kind, name))

    def __iter__(self) -> Iterator[tuple[str, str]]:
        """Kind and name of each object."""
        return iter(self._objects)

    def __contains__(self, key: object) -> bool:
        return key in self._objects

    def secret_value(self, secret: str, key: str) -> str | None:
        """A value of a Secret, None when it is not there or no text."""
        data: Mapping[str, str] = (self.get("Secret", secret) or {}).get("data") or {}
        try:
            return base64.b64decode(data[key]).decode() if key in data else None
        except ValueError:
            return None


@dataclass(frozen=True, slots=True)
class Pod:
    """The parts of a pod that decisions are made from; two that are equal give no reason to look again.

    `role` is what Patroni says of it; `leads` is the mark of the leading orchestrator. `node_silent`: its node is
    silent. `gone_by`: when it is to be gone at the latest, if it is being deleted. `ended`: the containers have ended
    for good, as after an eviction; `last_words` is what one of them left that ended badly. Of runners: `pool`,
    the `template` and `layout` that they were made from, `marked_busy`, the mark of those that have a job, `since`
    when they have been ready or not, from their first start on, and `rejected`, why the kubelet ended one before any
    container of it had run.
    """

    name: str
    uid: str
    component: str
    ip: str
    node: str
    ready: bool
    node_silent: bool
    terminating: bool
    revision: str
    role: str
    leads: bool
    waiting_reason: str
    message: str
    gone_by: str = ""
    ended: bool = False
    last_words: str = ""
    pool: str = ""
    template: str = ""
    layout: str = ""
    marked_busy: bool = False
    since: str = ""
    rejected: str = ""

    @classmethod
    def of(cls, body: Manifest) -> Pod:
        """Read a pod as the API server sent it."""
        metadata, status = body["metadata"], body.get("status", {})
        labels, annotations = metadata.get("labels", {}), metadata.get("annotations", {})
        pool = labels.get(names.LABEL_POOL, "")
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
            component=sys.intern(labels.get(names.LABEL_COMPONENT, "")),
            ip=status.get("podIP", ""),
            node=sys.intern(body.get("spec", {}).get("nodeName", "")),
            ready=ready.get("status") == "True" and "deletionTimestamp" not in metadata,
            node_silent=_is_on_a_silent_node(conditions),
            terminating="deletionTimestamp" in metadata,
            revision=sys.intern(labels.get("controller-revision-hash", "")),
            role=labels.get(names.LABEL_ROLE, ""),
            leads=labels.get(names.LABEL_LEADER) == "true",
            waiting_reason=waiting.get("reason", "") or unscheduled.get("reason", ""),
            message=waiting.get("message", "") or unscheduled.get("message", ""),
            gone_by=metadata.get("deletionTimestamp", ""),
            ended=status.get("phase") in ("Succeeded", "Failed"),
            last_words=next(
                (
                    ended.get("message", "")
                    for item in status.get("containerStatuses", ())
                    if (ended := item.get("state", {}).get("terminated", {})).get("exitCode", 0) != 0
                ),
                "",
            ),
            pool=sys.intern(pool),
            template=sys.intern(annotations.get(names.ANNOTATION_TEMPLATE, "")) if pool else "",
            layout=sys.intern(annotations.get(names.ANNOTATION_LAYOUT, "")) if pool else "",
            marked_busy=labels.get(names.LABEL_BUSY) == "true",
            since=_since(body, ready) if pool else "",
            rejected=_rejected(status) if pool else "",
        )

    def is_overdue(self, now: datetime) -> bool:
        """Whether nobody ends the pod although it should be gone long since, as on a node whose kubelet is dead."""
        if not self.gone_by:
            return False
        return (now - datetime.fromisoformat(self.gone_by)).total_seconds() > OVERDUE_SECONDS

    def on_dead_node(self, now: datetime) -> bool:
        """Whether its node is taken for dead: it is silent, or has not ended the pod long after its time."""
        return self.node_silent or self.is_overdue(now)

    @property
    def cannot_start(self) -> bool:
        """Whether the pod has never run and will not by itself: its template or what it names is wrong."""
        return not self.ready and self.waiting_reason in NEVER_STARTS


def _since(body: Manifest, ready: Manifest) -> str:
    """The time that it takes to fetch an image is none in which the program was not ready."""
    changed = str(ready.get("lastTransitionTime") or body["metadata"].get("creationTimestamp", ""))
    started = [
        str(item["state"]["running"].get("startedAt") or "")
        for item in body.get("status", {}).get("containerStatuses", ())
        if "running" in item.get("state", {}) and not item.get("restartCount")
    ]
    # All are written the same way, in UTC.
    return max(changed, *started) if started else changed


def _rejected(status: Manifest) -> str:
    """What the kubelet said of a pod that the scheduler gave to it, and that it does not take; "" when it took it.

    It is Failed then, and no container of it has run.
    Source: https://github.com/kubernetes/kubernetes/blob/v1.31.0/pkg/kubelet/kubelet.go, rejectPod
    """
    if status.get("phase") != "Failed" or any(map(_has_run, status.get("containerStatuses", ()))):
        return ""
    return ": ".join(str(status[key]) for key in ("reason", "message") if status.get(key)) or "Failed"


def _has_run(container: Manifest) -> bool:
    states = container.get("state", {}).values()
    return bool(container.get("restartCount")) or any(state.get("startedAt") for state in states)


# What a claim tells of its way to a new size, what went wrong first.
# Source: https://pkg.go.dev/k8s.io/api/core/v1#PersistentVolumeClaimConditionType
RESIZE_FAILURES: Final = ("ControllerResizeError", "NodeResizeError")
_RESIZE_STATES: Final = (*RESIZE_FAILURES, "FileSystemResizePending", "Resizing")


@dataclass(frozen=True, slots=True)
class Volume:
    """The parts of a PersistentVolumeClaim that decisions are made from.

    `requested` and `capacity` are bytes, None when they are not told. `resize` is the type of the condition that
    tells how far a change of size has come, "" without one; `message` says why it failed.
    """

    name: str
    uid: str
    component: str
    storage_class: str
    bound: bool
    requested: int | None
    capacity: int | None
    resize: str
    message: str

    @classmethod
    def of(cls, body: Manifest) -> Volume:
        """Read a claim as the API server sent it."""
        metadata, spec, status = body["metadata"], body.get("spec", {}), body.get("status", {})
        conditions = {
            item["type"]: item for item in status.get("conditions", ()) if item.get("status") == "True"
        }
        resize = next((state for state in _RESIZE_STATES if state in conditions), "")
        failed = resize in RESIZE_FAILURES
        return cls(
            name=metadata["name"],
            uid=metadata["uid"],
            component=sys.intern(metadata.get("labels", {}).get(names.LABEL_COMPONENT, "")),
            storage_class=sys.intern(spec.get("storageClassName") or ""),
            bound=status.get("phase") == "Bound" and "deletionTimestamp" not in metadata,
            requested=_bytes(spec.get("resources", {}).get("requests", {})),
            capacity=_bytes(status.get("capacity", {})),
            resize=resize,
            message=conditions[resize].get("message", "") if failed else "",
        )


def _bytes(amounts: Mapping[str, str]) -> int | None:
    amount = parse_quantity(amounts.get("storage", ""))
    return int(amount) if amount is not None else None


@dataclass(frozen=True, slots=True)
class Scaled:
    """The size of a Deployment that somebody sets through its scale subresource.

    `asked_for`: by the spec, which has an autoscaler. `left_alone`: it has been set so, and is not ours to write.
    """

    replicas: int
    by: str
    asked_for: bool = False
    left_alone: bool = True


@dataclass(frozen=True, slots=True)
class Gateway:
    """Where a Gateway of the Gateway API listens, and why it does not, "" when it does or does not say; `readable`:
    whether the operator may read it.
    """

    addresses: tuple[str, ...] = ()
    problem: str = ""
    readable: bool = True

    @classmethod
    def of(cls, body: Manifest) -> Gateway:
        """Read an object. Source of the condition: https://gateway-api.sigs.k8s.io/reference/spec/, GatewayStatus"""
        status = body.get("status") or {}
        addresses = tuple(str(item.get("value", "?")) for item in status.get("addresses") or ())
        programmed: Manifest = next(
            (item for item in status.get("conditions") or () if item.get("type") == "Programmed"), {}
        )
        if programmed.get("status") == "True" or (addresses and not programmed):
            return cls(addresses)
        why = programmed.get("message") or programmed.get("reason") or "no controller has given it an address"
        return cls(addresses, str(why)[:300])


@dataclass(frozen=True, slots=True)
class LeaderKey:
    """Patroni's record of its leader, and of when that leader renewed it last, by its own clock."""

    holder: str
    renewed_at: datetime

    @classmethod
    def of(cls, manifest: Manifest) -> Self | None:
        """As its ConfigMap tells it; None when that does not say."""
        told = manifest["metadata"].get("annotations") or {}
        try:
            renewed_at = datetime.fromisoformat(told["renewTime"]).astimezone(UTC)
        except (KeyError, TypeError, ValueError):
            return None
        return cls(told["leader"], renewed_at) if told.get("leader") else None


@dataclass(frozen=True, slots=True)
class Observed:
    """The objects of a cluster, as cached from the watches.

    `http_routes`: whether the API server has HTTPRoutes, and they have been listed.
    """

    children: Children = field(default_factory=lambda: Children({}))
    pods: tuple[Pod, ...] = ()
    volumes: tuple[Volume, ...] = ()
    http_routes: bool = False


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything that a plan is made from.

    `children` are the live objects as cached from the watches. A probe that did not succeed is None (Patroni) or empty
    (Sentinel, `redis_pods`). `alive`: Postgres members out of step whose pods are not ready, but whose own Patroni
    answers, and a primary in such a pod, or slower than others, that says that it is one. `http_routes`: whether the
    API server has HTTPRoutes. `gateways`: those of the route that could be read, by namespace and name. `balancers`:
    what the programs of the load balancer's pods tell. `unserved`: why no request through one of them is served, ""
    when it is. `writes_refused`: the Redis master's answer to a write that it refuses, "" when it takes them.
    `deaf_queues`: queues whose workers take no job, None while nobody tells. `failing_checks`: errors of checks without
    which requests are served, by name, None likewise. `demand` is None, with the reason in `demand_error`, while no
    orchestrator tells it. `leader_key`: None but for an operator's first look at a cluster whose primary is silent.
    """

    now: datetime
    children: Children = field(default_factory=lambda: Children({}))
    pods: tuple[Pod, ...] = ()
    volumes: tuple[Volume, ...] = ()
    patroni: PatroniCluster | None = None
    patroni_config: Manifest | None = None
    leader_key: LeaderKey | None = None
    sentinels: tuple[SentinelView, ...] = ()
    redis_pods: tuple[RedisPodState, ...] = ()
    alive: frozenset[str] = frozenset()
    http_routes: bool = False
    gateways: Mapping[tuple[str, str], Gateway] = field(default_factory=dict)
    balancers: tuple[BalancerState, ...] = ()
    unserved: str = ""
    writes_refused: str = ""
    deaf_queues: frozenset[str] | None = None
    failing_checks: Mapping[str, str] | None = None
    demand: Demand | None = None
    demand_error: str = ""

    def child(self, kind: str, name: str) -> Manifest | None:
        """A live object of the cluster, None when the cache has none."""
        return self.children.get(kind, name)

    def pods_of(self, component: str) -> tuple[Pod, ...]:
        """Pods of a component, by name."""
        return tuple(
            sorted((pod for pod in self.pods if pod.component == component), key=lambda pod: pod.name)
        )

    def pod(self, name: str | None) -> Pod | None:
        """A pod by name."""
        return next((pod for pod in self.pods if pod.name == name), None)

    def volume(self, name: str) -> Volume | None:
        """A volume by the name of its claim."""
        return next((volume for volume in self.volumes if volume.name == name), None)

    def redis_member(self, address: str | None) -> str | None:
        """Name of the Redis pod that announces an address: that of its own Service."""
        if not address:
            return None
        services = (name for kind, name in self.children if kind == "Service" and f"-{names.REDIS}-" in name)
        return next((name for name in services if self._cluster_ip(name) == address), None)

    def _cluster_ip(self, service: str) -> str | None:
        address: str | None = (self.child("Service", service) or {}).get("spec", {}).get("clusterIP")
        return address
