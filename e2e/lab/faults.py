"""Faults while clients write, each with the time that the writers could not write and what was lost."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from .hub import Hub
from .kubectl import wait_for
from .load import LoadClient, now

# Which of the load client's probes tells the gap of a component's fault.
PROBE_OF = {"postgres": "rows", "redis": "queue", "orchestrator": "jobs"}


@dataclass(frozen=True, slots=True)
class FaultResult:
    """What clients saw of one fault; times in seconds, counts from the fault until all was whole again."""

    fault: str
    component: str
    gap_seconds: float
    acknowledged: int
    lost: int
    took_over: str
    took_over_seconds: float

    def as_report(self) -> dict[str, Any]:
        """One entry of demo.json."""
        return {
            "fault": self.fault,
            "component": self.component,
            "gap_seconds": self.gap_seconds,
            "acknowledged": self.acknowledged,
            "lost": self.lost,
            "took_over": self.took_over,
            "took_over_seconds": self.took_over_seconds,
        }


def strike(hub: Hub, load: LoadClient, fault: str, component: str, do: Callable[[str], None]) -> FaultResult:
    """Do something to the holder of a component's role while the load runs, and wait until all is whole again."""
    victim = wait_for(f"a holder of the {component} role", lambda: hub.role_holder(component), 30)
    since, started = now(), time.monotonic()
    do(victim)

    def successor() -> str | None:
        holder = hub.role_holder(component)
        return holder if holder not in (None, victim) else None

    took_over = wait_for(f"{component} to have another holder than {victim}", successor, 90, every=0.3)
    took_over_seconds = time.monotonic() - started
    hub.wait_settled(240)
    until = now()
    gap = load.gaps(since, until)[PROBE_OF[component]]
    verdict = load.verify(since, until)
    return FaultResult(
        fault=fault,
        component=component,
        gap_seconds=round(float(gap["gap_seconds"]), 2),
        acknowledged=int(verdict["acknowledged"]),
        lost=int(verdict["lost"]),
        took_over=took_over,
        took_over_seconds=round(took_over_seconds, 1),
    )


@contextmanager
def replication_cut(
    hub: Hub, component: str, port: str, primary: str, on_node: Callable[..., object]
) -> Iterator[None]:
    """Drop what goes between a primary's port and the pods of its replicas, which is how they replicate.

    Patroni, its lock and the clients see nothing of it; a Sentinel in a replica's pod does.
    `on_node(node, *command)` runs a command on a node.
    """
    pods = {pod["metadata"]["name"]: pod for pod in hub.pods(component)}
    source = pods.pop(primary)
    address, node = source["status"]["podIP"], source["spec"]["nodeName"]
    rules = []
    for pod in pods.values():
        other = pod["status"]["podIP"]
        rules.append(("-s", address, "-d", other, "-p", "tcp", "--sport", port, "-j", "DROP"))
        rules.append(("-s", other, "-d", address, "-p", "tcp", "--dport", port, "-j", "DROP"))
    for rule in rules:
        on_node(node, "iptables", "-I", "FORWARD", *rule)
    try:
        yield
    finally:
        for rule in rules:
            on_node(node, "iptables", "-D", "FORWARD", *rule)


@contextmanager
def kept_away(hub: Hub, pod: str) -> Iterator[None]:
    """Let no new pod start on the node of a pod: a member with its volume there comes back when others have decided."""
    node = hub.kubectl.get("pod", pod)["spec"]["nodeName"]
    hub.kubectl("cordon", node)
    try:
        yield
    finally:
        hub.kubectl("uncordon", node)
