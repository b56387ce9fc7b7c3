"""The orchestrators under the requests of clients that come by the load balancer."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, ClassVar

from ...lab import bed as test_bed
from ...lab.hub import Hub
from ...lab.load import LOG_DIRECTORY
from ..arena import Arena, Member, let_pass
from ..fault import Fault, Target
from ..results import RunResult

AGENT = "ha-agent"
# Latency is told of so long before a fault and after the cluster was whole again.
CALM_SECONDS = 10.0
BURST_PATIENCE_SECONDS = 120
_FLAG = f"{LOG_DIRECTORY}/no-jobs"


@dataclass(frozen=True, slots=True)
class HubFault(Fault["HubArena"]):
    """A fault with a service level for the time in which nobody leads."""

    leader_target: Target | None = None


@dataclass(frozen=True)
class HubArena(Arena):
    """A cluster of RunnerHub whose clients delegate jobs, ask, hold WebSockets and work jobs off, all by HAProxy.

    Beside them every orchestrator and every ha-agent is asked directly whether it leads. Members are the orchestrators,
    the primary is the one that leads, and clients go through the load balancer. `told`: what a fault itself measures
    while it lasts.
    """

    COMPONENT: ClassVar[str] = "orchestrator"
    CONTAINER: ClassVar[str] = "orchestrator"
    # A job every 100 ms and a GET every 50 ms, each waited for at most 5 s. Runners that can do twice as much, and no
    # more, so that jobs wait after a burst. The database and the queue get no load of their own.
    LOAD_ARGUMENTS: ClassVar[tuple[str, ...]] = (
        "--jobs-rate=10", "--gets-rate=20", "--websockets=6", "--runners=8", "--work-seconds=0.3", "--timeout=5",
        "--rows-rate=0", "--queue-rate=0",
    )  # fmt: skip
    PROBES: ClassVar[tuple[str, ...]] = ("jobs", "gets")
    WRITERS: ClassVar[tuple[str, ...]] = ("jobs",)
    STORE: ClassVar[str] = "jobs"
    ERRORS_OF: ClassVar[str] = "requests"
    # Jobs are executed at least once.
    ONCE: ClassVar[bool] = False
    WAY_IN: ClassVar[str] = "loadbalancer"

    told: dict[str, float] = field(default_factory=dict)

    def leader(self) -> str | None:
        """The holder of the orchestrators' Lease; None while nobody has it."""
        found = self.hub.kubectl.get("lease", f"{self.hub.name}-leader")
        return ((found or {}).get("spec", {}).get("holderIdentity")) or None

    def is_whole(self) -> bool:
        """Settled by the operator's word, which names the holder of the Lease, with no pod too many or too few."""
        if not self.hub.is_settled():
            return False
        leader = self.leader()
        return (
            leader is not None
            and leader == self.hub.role_holder(self.COMPONENT)
            and leader in self.pod_uids()
            and all(self._is_complete(component) for component in (self.COMPONENT, self.WAY_IN))
        )

    def _is_complete(self, component: str) -> bool:
        deployment = self.hub.kubectl.get("deployment", f"{self.hub.name}-{component}")
        if deployment is None:
            return False
        wanted = deployment["spec"]["replicas"]
        status = deployment.get("status", {})
        counts = {status.get(name, 0) for name in ("replicas", "updatedReplicas", "readyReplicas")}
        # A pod that is told to stop is none of the Deployment's any more, and there for a while.
        return counts == {wanted} and len(self.hub.pods(component)) == wanted

    def start_load(self) -> None:
        """Start the clients anew, and make the name by which they find all orchestrators, well or not."""
        service = all_orchestrators(self.hub)
        self.hub.kubectl.apply(service)
        self.load.start(
            test_bed.CLIENT_IMAGE,
            *self.LOAD_ARGUMENTS,
            f"--leaders={service['metadata']['name']}",
            probes=self.PROBES,
        )

    def prepare(self, seconds: float) -> None:
        """The same as for all, and then nothing for a while: how fast requests are without a fault."""
        Arena.prepare(self, seconds)
        self.pause_jobs(paused=False)
        self.told.clear()
        let_pass("calm before the fault", CALM_SECONDS)

    def settle(self) -> None:
        """The same afterwards."""
        let_pass("calm after the fault", CALM_SECONDS)

    def burst(self, jobs: int, *labels: str, wait_seconds: float = 0) -> dict[str, Any]:
        """Have jobs posted at once, and wait for at most so long until all are completed; what became of them."""
        return self.load.run(
            "burst", "--log", LOG_DIRECTORY, "--jobs", str(jobs), "--labels", ",".join(labels),
            "--wait", f"{wait_seconds:g}", timeout=wait_seconds + BURST_PATIENCE_SECONDS,
        )  # fmt: skip

    def pause_jobs(self, *, paused: bool) -> None:
        """Let the load delegate no jobs, or again."""
        command = ("touch", _FLAG) if paused else ("rm", "-f", _FLAG)
        self.hub.kubectl("exec", self.load.pod, "-c", "client", "--", *command, timeout=20)

    def both_containers(self, pod: str) -> list[Member]:
        """Orchestrator and ha-agent of a pod."""
        return [
            member
            for container in (self.CONTAINER, AGENT)
            for member in self.containers(self.COMPONENT, container)
            if member.name == pod
        ]

    def figures(self, result: RunResult, measured: dict[str, Any]) -> dict[str, Any]:
        """Requests, latency before, during and after, WebSockets and terms of leaders."""
        requests = measured["stores"][self.ERRORS_OF]
        return {
            "requests": requests["acknowledged"] + requests["errors"],
            "latency_seconds": {
                when: self._latency(*window) for when, window in windows(result).items() if window is not None
            },
            "websockets": measured["websocket"],
            "leader": measured["leaders"],
        }

    def _latency(self, since: str, until: str) -> dict[str, float]:
        found: dict[str, float] = self.load.measure(since, until)["stores"][self.ERRORS_OF]["latency_seconds"]
        return found

    def broken_rule(self, figures: dict[str, Any]) -> str | None:
        """At no instant may two lead, by the word of their agents; and somebody must have looked."""
        leader = figures["leader"]
        if leader["two_leaders"]:
            return f"two leaders: {leader['told'][0]}"
        return None if leader["claims"] else "nobody was ever seen leading, so nothing is known of leaders"


def all_orchestrators(hub: Hub) -> dict[str, Any]:
    """A headless Service with the addresses of all orchestrators' pods, also of those that are not ready."""
    selector = {"runnerhub.io/cluster": hub.name, "runnerhub.io/component": HubArena.COMPONENT}
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": f"{hub.name}-suite-orchestrators"},
        "spec": {
            "clusterIP": "None",
            "publishNotReadyAddresses": True,
            "selector": selector,
            "ports": [{"name": "agent", "port": 9808}],
        },
    }


def windows(result: RunResult) -> dict[str, tuple[str, str] | None]:
    """The times before, during and after a fault; None for one that did not come."""
    since = datetime.fromisoformat(result.since)
    found: dict[str, tuple[str, str] | None] = {
        "before": (_text(since - timedelta(seconds=CALM_SECONDS)), result.since),
        "during": (result.since, result.until),
        "after": None,
    }
    if result.redundancy_seconds is not None:
        whole = _text(since + timedelta(seconds=result.redundancy_seconds))
        if whole < result.until:
            found.update(during=(result.since, whole), after=(whole, result.until))
    return found


def _text(moment: datetime) -> str:
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")
