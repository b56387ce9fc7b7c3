"""Where a fault happens: a cluster under load, and what it looked like just before."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from ..lab import bed as test_bed
from ..lab.bed import Bed
from ..lab.hub import Hub
from ..lab.kubectl import WaitTimeoutError, wait_for
from ..lab.load import LoadClient, now

if TYPE_CHECKING:
    from .results import RunResult

CONTROL_PLANE_LABEL = "node-role.kubernetes.io/control-plane"
# Of the spec of a pod that no fault touches: workers are broken on purpose.
OUT_OF_THE_WAY: Mapping[str, Any] = {
    "enableServiceLinks": False,
    "automountServiceAccountToken": False,
    "terminationGracePeriodSeconds": 1,
    "securityContext": {
        "runAsNonRoot": True,
        "runAsUser": 1001,
        "seccompProfile": {"type": "RuntimeDefault"},
    },
    "tolerations": [{"key": CONTROL_PLANE_LABEL, "operator": "Exists"}],
    "nodeSelector": {CONTROL_PLANE_LABEL: ""},
}


@dataclass(frozen=True, slots=True)
class Member:
    """A pod of a tier as it was before the fault, with one of its containers."""

    name: str
    uid: str
    node: str
    container: str


@dataclass(frozen=True, slots=True)
class Before:
    """A tier just before a fault: who has the role, be it primary, master or leader, and the others.

    `replicas` has those first that confirm writes, where the servers tell. `poolers` maps the name of each pod that
    clients go through to its uid, `pooler_nodes` has their nodes; both are empty where clients go directly.
    """

    primary: Member
    replicas: tuple[Member, ...]
    poolers: dict[str, str] = field(default_factory=dict)
    pooler_nodes: frozenset[str] = frozenset()

    @property
    def members(self) -> tuple[Member, ...]:
        """All of them."""
        return (self.primary, *self.replicas)


@dataclass(frozen=True)
class Arena(ABC):
    """A cluster of RunnerHub with clients that write to one of its tiers.

    `COMPONENT`: the tier's name in labels and status. `CONTAINER`: the one whose processes are broken.
    `LOAD_ARGUMENTS`: what the load client does. `NODE_JS_RATE`: jobs per second of its part in Node. `PROBES`: those
    that must get through before anything is broken, and again when it is healed. `WRITERS`: those whose
    acknowledgements tell how long clients could not write, and `STORE`: the load client's name for them together.
    `ERRORS_OF`: the store whose errors count, where that is another one. `ONCE`: whether it is a broken promise when
    something is done twice. `WAY_IN`: the pods that clients go through, if any, by their component.
    """

    COMPONENT: ClassVar[str]
    CONTAINER: ClassVar[str]
    LOAD_ARGUMENTS: ClassVar[tuple[str, ...]]
    NODE_JS_RATE: ClassVar[float] = 0
    PROBES: ClassVar[tuple[str, ...]]
    WRITERS: ClassVar[tuple[str, ...]]
    STORE: ClassVar[str]
    ERRORS_OF: ClassVar[str] = ""
    ONCE: ClassVar[bool] = True
    WAY_IN: ClassVar[str] = ""

    bed: Bed
    hub: Hub
    load: LoadClient

    @abstractmethod
    def leader(self) -> str | None:
        """Who has the role by the servers' own record, which is right with the operator away; None for nobody."""

    @abstractmethod
    def is_whole(self) -> bool:
        """Settled by the operator's word, with the right holder of the role, and all replicas in step by its own."""

    def prepare(self, seconds: float) -> None:
        """Make of a whole cluster one that each run can start with; `seconds`: the patience for each step.

        Two poolers on one node, as a drain can leave them, are parted: their loss would make another fault of its loss.
        """
        nodes = self.pooler_nodes()
        if len(set(nodes)) == len(nodes):
            return
        self.hub.kubectl("delete", "pod", max(self.poolers()), "--wait=true", timeout=120)
        self.wait_whole(seconds)

    def start_load(self) -> None:
        """Start the clients anew."""
        self.load.start(
            test_bed.CLIENT_IMAGE, *self.LOAD_ARGUMENTS, probes=self.PROBES, node_js_rate=self.NODE_JS_RATE
        )

    def settle(self) -> None:
        """What is still to be measured when the cluster is whole again after a fault."""
        return

    def figures(self, _result: RunResult, _measured: dict[str, Any]) -> dict[str, Any]:
        """What else a run tells of this tier; `measured` is what the load client measured from its beginning to end."""
        return {}

    def broken_rule(self, _figures: dict[str, Any]) -> str | None:
        """What in these figures must not be, in a sentence."""
        return None

    def wait_whole(self, seconds: float) -> None:
        """Wait until nothing is missing."""
        wait_for(f"{self.hub.name} to be whole", self.is_whole, seconds, every=2)

    def before(self) -> Before:
        """What there is now."""
        leader = self.leader()
        members = {member.name: member for member in self.members()}
        if leader not in members:
            raise WaitTimeoutError(f"the primary {leader} is not among the running members {sorted(members)}")
        primary = members.pop(leader)
        first = self._first_replicas()
        replicas = sorted(members.values(), key=lambda member: (member.name not in first, member.name))
        return Before(primary, tuple(replicas), self.poolers(), frozenset(self.pooler_nodes()))

    def _first_replicas(self) -> Sequence[str]:
        """Names of the replicas that faults choose first."""
        return ()

    def members(self) -> list[Member]:
        """The members whose container has been started."""
        return self.containers(self.COMPONENT, self.CONTAINER)

    def containers(self, component: str, container: str) -> list[Member]:
        """The containers of that name in the pods of a component that have been started."""
        found = (_member(pod, container) for pod in self.hub.pods(component))
        return [member for member in found if member is not None]

    def _pods_on_the_way(self) -> list[dict[str, Any]]:
        return self.hub.pods(self.WAY_IN) if self.WAY_IN else []

    def poolers(self) -> dict[str, str]:
        """Uid of each pod that clients go through by its name."""
        return {pod["metadata"]["name"]: pod["metadata"]["uid"] for pod in self._pods_on_the_way()}

    def pooler_nodes(self) -> list[str]:
        """Node of each of them that has one."""
        nodes = [pod["spec"].get("nodeName") for pod in self._pods_on_the_way()]
        return [node for node in nodes if node]

    def pod_uids(self) -> dict[str, str]:
        """Uid of each member's pod by its name."""
        return {pod["metadata"]["name"]: pod["metadata"]["uid"] for pod in self.hub.pods(self.COMPONENT)}

    def wait_writing(self, seconds: float, least: int = 20) -> None:
        """Wait until each writer was acknowledged several times from now on."""
        self._wait_acknowledged(self.WRITERS, seconds, least)

    def wait_through(self, seconds: float) -> None:
        """Wait until every probe gets through, workers too."""
        self._wait_acknowledged(self.PROBES, seconds, 1)

    def _wait_acknowledged(self, probes: Sequence[str], seconds: float, least: int) -> None:
        since = now()

        def all_are() -> bool:
            gaps = self.load.gaps(since, now())
            return all(gaps[probe]["acknowledged"] >= least for probe in probes)

        wait_for(f"{' and '.join(probes)} to be acknowledged", all_are, seconds, every=2)


A = TypeVar("A", bound=Arena)
A_contra = TypeVar("A_contra", bound=Arena, contravariant=True)


def _member(pod: dict[str, Any], container_name: str) -> Member | None:
    statuses = pod["status"].get("containerStatuses", ())
    container = next((item.get("containerID") for item in statuses if item["name"] == container_name), None)
    if not container:
        return None
    return Member(
        name=pod["metadata"]["name"],
        uid=pod["metadata"]["uid"],
        node=pod["spec"]["nodeName"],
        container=container.rpartition("/")[2],
    )


def control_plane(bed: Bed) -> str:
    """Name of the control plane's node."""
    return str(bed.kubectl.items("node", CONTROL_PLANE_LABEL)[0]["metadata"]["name"])


def let_pass(what: str, seconds: float) -> None:
    """A bounded time in which nothing is to be waited for but its end."""
    end = time.monotonic() + seconds
    wait_for(what, lambda: time.monotonic() >= end, seconds + 5)
