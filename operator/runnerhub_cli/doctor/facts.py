"""What `doctor` knows: each fact, or why it could not be found out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any, Final, Self

from runnerhub_operator import names
from runnerhub_operator.quantities import parse_quantity

from ..kubectl import Unknown
from ..objects import Lease, Pod
from ..operators import Installation
from ..picture import View
from ..times import parse_time


@dataclass(frozen=True, slots=True)
class Amounts:
    """CPU in cores, memory in bytes."""

    cpu: Decimal = Decimal(0)
    memory: Decimal = Decimal(0)

    def __add__(self, other: Amounts) -> Amounts:
        return Amounts(self.cpu + other.cpu, self.memory + other.memory)

    def __sub__(self, other: Amounts) -> Amounts:
        return Amounts(self.cpu - other.cpu, self.memory - other.memory)

    def larger(self, other: Amounts) -> Amounts:
        """The larger of each."""
        return Amounts(max(self.cpu, other.cpu), max(self.memory, other.memory))

    def has_room_for(self, other: Amounts) -> bool:
        """Whether the other fits in."""
        return self.cpu >= other.cpu and self.memory >= other.memory

    def __str__(self) -> str:
        return f"{float(self.cpu):g} CPU and {int(self.memory / 2**20)} MiB"

    @classmethod
    def of(cls, given: Mapping[str, str] | None) -> Self:
        """Read requests or allocatable amounts."""
        found = given or {}
        return cls(
            *(parse_quantity(str(found.get(key, "0"))) or Decimal(0) for key in ("cpu", "memory")),
        )


def requests_of(pod_spec: Mapping[str, Any]) -> Amounts:
    """What the scheduler reserves for a pod: containers and sidecars together, or the largest init container.

    Source: https://kubernetes.io/docs/concepts/workloads/pods/sidecar-containers/#resource-sharing-within-containers
    """
    total = Amounts.of(pod_spec.get("overhead"))
    for container in pod_spec.get("containers", ()):
        total += Amounts.of(container.get("resources", {}).get("requests"))
    sidecars, largest = Amounts(), Amounts()
    for container in pod_spec.get("initContainers", ()):
        asked = Amounts.of(container.get("resources", {}).get("requests"))
        if container.get("restartPolicy") == "Always":
            sidecars += asked
        else:
            largest = largest.larger(sidecars + asked)
    return (total + sidecars).larger(largest)


@dataclass(frozen=True, slots=True)
class Node:
    """A node; `pressures` are its troubles in Kubernetes' words, `taints` those that keep pods away.

    `schedulable`: not cordoned. `architecture` as Go calls it, "" when it is not known.
    """

    name: str
    ready: bool
    ready_since: str | None
    schedulable: bool
    pressures: tuple[str, ...]
    allocatable: Amounts
    taints: tuple[Mapping[str, Any], ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    architecture: str = ""

    @classmethod
    def of(cls, body: Mapping[str, Any]) -> Self:
        """Read a node as the API server sends it."""
        spec, status = body.get("spec", {}), body.get("status", {})
        conditions = {item["type"]: item for item in status.get("conditions", ())}
        ready = conditions.get("Ready", {})
        return cls(
            name=body["metadata"]["name"],
            ready=ready.get("status") == "True",
            ready_since=ready.get("lastTransitionTime"),
            schedulable=not spec.get("unschedulable"),
            pressures=tuple(
                kind for kind, item in conditions.items() if kind != "Ready" and item.get("status") == "True"
            ),
            allocatable=Amounts.of(status.get("allocatable")),
            taints=tuple(
                taint
                for taint in spec.get("taints", ())
                if taint.get("effect") in ("NoSchedule", "NoExecute")
            ),
            labels=body["metadata"].get("labels", {}),
            architecture=status.get("nodeInfo", {}).get("architecture", ""),
        )

    def suits(self, pod: Wanted) -> bool:
        """Whether the pod selects the node and tolerates the taints that people gave it. Affinity is not looked at."""
        selected = all(self.labels.get(key) == value for key, value in pod.node_selector.items())
        # Those that tell a condition pass.
        lasting = (taint for taint in self.taints if not taint["key"].startswith("node.kubernetes.io/"))
        return selected and all(pod.tolerates(taint) for taint in lasting)

    def takes(self, pod: Wanted) -> bool:
        """Whether the scheduler may put the pod there, if there is room."""
        usable = self.ready and self.schedulable
        return usable and self.suits(pod) and all(pod.tolerates(taint) for taint in self.taints)


def _tolerates(toleration: Mapping[str, Any], taint: Mapping[str, Any]) -> bool:
    """Source: https://kubernetes.io/docs/concepts/scheduling-eviction/taint-and-toleration/"""
    return (
        toleration.get("effect") in (None, "", taint.get("effect"))
        and toleration.get("key") in (None, "", taint.get("key"))
        and (toleration.get("operator") == "Exists" or toleration.get("value", "") == taint.get("value", ""))
    )


@dataclass(frozen=True, slots=True)
class NodeClock:
    """A node's Lease: `written` is by the node's clock, `taken` by the API server's, in whole seconds."""

    node: str
    written: datetime
    taken: datetime

    @classmethod
    def of(cls, body: Mapping[str, Any]) -> Self | None:
        """Read a Lease with its managed fields, whose time the API server sets; None when something is missing."""
        written = parse_time(body.get("spec", {}).get("renewTime"))
        taken = max(
            (
                moment
                for entry in body["metadata"].get("managedFields", ())
                if "f:renewTime" in entry.get("fieldsV1", {}).get("f:spec", {})
                and (moment := parse_time(entry.get("time"))) is not None
            ),
            default=None,
        )
        return None if written is None or taken is None else cls(body["metadata"]["name"], written, taken)

    @property
    def ahead_seconds(self) -> float:
        """How far the node's clock is surely ahead of the API server's, negative for behind, 0 when it may be right.

        The API server's time is cut to the second, and the request was on its way for a while.
        """
        apart = (self.written - self.taken).total_seconds()
        if apart > 1:
            return apart - 1
        return min(0.0, apart)


@dataclass(frozen=True, slots=True)
class StorageClass:
    """A StorageClass; `created` as the API server tells it."""

    name: str
    default: bool
    grows: bool
    provisioner: str
    created: str = ""

    @classmethod
    def of(cls, body: Mapping[str, Any]) -> Self:
        """Read it as the API server sends it."""
        annotations = body["metadata"].get("annotations", {})
        return cls(
            name=body["metadata"]["name"],
            default=annotations.get("storageclass.kubernetes.io/is-default-class") == "true",
            grows=bool(body.get("allowVolumeExpansion")),
            provisioner=body.get("provisioner", ""),
            created=body["metadata"].get("creationTimestamp") or "",
        )


@dataclass(frozen=True, slots=True)
class Right:
    """A right on objects; `group` as RBAC names it, `purpose`: what needs it. `essential`: nothing goes without.

    `namespace`: where, "" for all of them, None for that of the cluster. `cluster_wide`: objects without a namespace.
    """

    verb: str
    resource: str
    group: str = ""
    subresource: str = ""
    purpose: str = ""
    essential: bool = False
    cluster_wide: bool = False
    namespace: str | None = None

    def __str__(self) -> str:
        below = f"/{self.subresource}" if self.subresource else ""
        where = "" if self.namespace is None else f" in {self.namespace or 'all namespaces'}"
        return f"{self.verb} {self.resource}{below}{where}"


@dataclass(frozen=True, slots=True)
class Claim:
    """A PersistentVolumeClaim; `trouble` says why it is not as it should be."""

    name: str
    phase: str
    trouble: str

    @classmethod
    def of(cls, body: Mapping[str, Any]) -> Self:
        """Read it as the API server sends it."""
        status = body.get("status", {})
        failed = (
            f"{item['type']}: {item.get('message', '')}"
            for item in status.get("conditions", ())
            if item.get("status") == "True" and item["type"] in ("ControllerResizeError", "NodeResizeError")
        )
        return cls(body["metadata"]["name"], status.get("phase", "Unknown"), next(failed, ""))


@dataclass(frozen=True, slots=True)
class Event:
    """A warning of the last minutes about one object."""

    about: str
    reason: str
    message: str
    count: int
    last: str


@dataclass(frozen=True, slots=True)
class Wanted:
    """A pod that the spec asks for, with what it reserves and where it may run; `there`: it exists and has a node."""

    component: str
    requests: Amounts
    there: bool
    node_selector: Mapping[str, str] = field(default_factory=dict)
    tolerations: tuple[Mapping[str, Any], ...] = ()

    def tolerates(self, taint: Mapping[str, Any]) -> bool:
        """Whether it may come onto a node with the taint."""
        return any(_tolerates(given, taint) for given in self.tolerations)


@dataclass(frozen=True, slots=True)
class ClusterFacts:
    """What is known of one cluster. `secrets`: keys by name. `live`: False for one that is only planned."""

    view: View
    live: bool
    wanted: tuple[Wanted, ...] = ()
    storage_classes: tuple[str | None, ...] = ()
    secrets: Mapping[str, frozenset[str]] | Unknown = field(default_factory=dict)
    claims: tuple[Claim, ...] | Unknown = ()
    events: tuple[Event, ...] | Unknown = ()


@dataclass(frozen=True, slots=True)
class Operator:
    """The operator as it is installed. `account` as the API server calls it; `denied`: rights that it lacks where the
    cluster lives.
    """

    pods: tuple[Pod, ...]
    images: tuple[str, ...]
    lease: Lease | None
    account: str = ""
    installation: Installation = field(default_factory=Installation)
    denied: tuple[Right, ...] | Unknown = ()


@dataclass(frozen=True, slots=True)
class Facts:
    """`now` is the API server's time. `crd` None: not installed. `reserved`: what pods reserve, by node.

    `namespace`: where the cluster is, or is to be.
    """

    now: datetime
    namespace: str
    plugin_version: str
    server_version: str
    crd: Mapping[str, Any] | Unknown | None
    operator: Operator | Unknown
    denied: tuple[Right, ...] | Unknown
    storage_classes: tuple[StorageClass, ...] | Unknown
    nodes: tuple[Node, ...] | Unknown
    clocks: tuple[NodeClock, ...] | Unknown
    dns: tuple[Pod, ...] | Unknown
    reserved: Mapping[str, Amounts] | Unknown
    cluster: ClusterFacts | None = None


# --- Rights ---

_READING: Final = "status, doctor"
USER_RIGHTS: Final = (
    Right("list", names.PLURAL, names.API_GROUP, purpose="all commands", essential=True),
    Right("list", "pods", purpose="all commands", essential=True),
    Right("list", "leases", "coordination.k8s.io", purpose="status, leases", essential=True),
    Right("list", "events", purpose="doctor, support-bundle"),
    Right("list", "persistentvolumeclaims", purpose=_READING),
    Right("list", "secrets", purpose="doctor: whether a Secret is missing; support-bundle: what to take out"),
    Right("list", "configmaps", purpose="support-bundle"),
    Right("get", "pods", subresource="log", purpose="logs, support-bundle"),
    Right("create", "pods", subresource="exec", purpose="psql, redis-cli"),
    Right("patch", names.PLURAL, names.API_GROUP, purpose="switchover"),
    Right(
        "list",
        "leases",
        "coordination.k8s.io",
        purpose="plan, logs operator, support-bundle: where the operator is",
        namespace="",
    ),
)


def rights_beside_the_operator(namespace: str) -> tuple[Right, ...]:
    """What a person needs in the operator's namespace."""
    logs = "logs operator, support-bundle"
    return (
        Right("list", "pods", purpose=f"plan, {logs}", namespace=namespace),
        Right("get", "pods", subresource="log", purpose=logs, namespace=namespace),
        Right("get", "deployments", "apps", purpose="plan", namespace=namespace),
        Right("create", "pods", subresource="exec", purpose="plan", namespace=namespace),
    )


# Without the definition the next thing to do is to install, which needs these.
INSTALL_RIGHTS: Final = (
    Right(
        "create",
        "customresourcedefinitions",
        "apiextensions.k8s.io",
        purpose="helm install",
        cluster_wide=True,
    ),
    Right("create", "clusterroles", "rbac.authorization.k8s.io", purpose="helm install", cluster_wide=True),
    Right(
        "create",
        "clusterrolebindings",
        "rbac.authorization.k8s.io",
        purpose="helm install",
        cluster_wide=True,
    ),
    Right("create", "namespaces", purpose="helm install --create-namespace", cluster_wide=True),
)


def _operator_rights() -> Iterator[Right]:
    """What the operator cannot do without; the chart grants it."""
    yield Right("list", names.PLURAL, names.API_GROUP)
    yield Right("patch", names.PLURAL, names.API_GROUP, "status")
    for group, resources in (
        ("", ("configmaps", "secrets", "services", "serviceaccounts")),
        ("apps", ("deployments", "statefulsets")),
        ("policy", ("poddisruptionbudgets",)),
        ("rbac.authorization.k8s.io", ("roles", "rolebindings")),
        ("coordination.k8s.io", ("leases",)),
        ("batch", ("jobs",)),
        ("autoscaling", ("horizontalpodautoscalers",)),
        ("networking.k8s.io", ("ingresses",)),
    ):
        for resource in resources:
            yield Right("patch", resource, group)
    yield Right("create", "pods")
    yield Right("delete", "pods")
    yield Right("patch", "persistentvolumeclaims")
    yield Right("create", "events")


OPERATOR_RIGHTS: Final = tuple(_operator_rights())
