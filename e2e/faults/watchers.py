"""Faults of those who only watch: the API server and the operator. Writes must not notice."""

from __future__ import annotations

import time
from contextlib import contextmanager

from ..lab.bed import OPERATOR_NAMESPACE
from ..lab.kubectl import WaitTimeoutError, wait_for
from . import mend
from .arena import Arena, Before, control_plane
from .fault import Break

API_SERVER_AWAY = "api-server-away"
CONTROL_PLANE_RESTARTED = "control-plane-restarted"
STATUS_DEADLINE_SECONDS = 120
# Of the failover by the status, in a run's notes.
TOLD_SECONDS = "told_seconds"

# The kernel keeps fifteen characters of a name.
_PROGRAMS = "etcd kube-apiserver kube-controller kube-scheduler"
_KILL = f"for name in {_PROGRAMS}; do pkill -KILL -x $name || exit 1; done"
_MISSING = f"for name in {_PROGRAMS}; do pgrep -x $name >/dev/null || echo $name; done"


@contextmanager
def api_server_away(arena: Arena, _before: Before) -> Break:
    """Freeze the API server: it takes connections and never answers.

    kubelet would start it anew after its liveness probe failed, so it is stopped too; on a node with systemd the
    pods go on without it.
    """
    bed, node = arena.bed, control_plane(arena.bed)
    try:
        bed.on_node(node, "sh", "-c", "systemctl stop kubelet && pkill -STOP -x kube-apiserver")
        yield
    finally:
        bed.on_node(node, "sh", "-c", "pkill -CONT -x kube-apiserver; systemctl start kubelet")
        wait_for("the API server", lambda: mend.api_answers(bed), mend.API_DEADLINE_SECONDS, every=1)


@contextmanager
def restart_control_plane(arena: Arena, _before: Before) -> Break:
    """SIGKILL to etcd, the API server, the controllers and the scheduler; the kubelet starts them anew."""
    bed, node = arena.bed, control_plane(arena.bed)
    try:
        bed.on_node(node, "sh", "-c", _KILL)
        yield
    finally:
        wait_for(
            "the control plane",
            lambda: not bed.on_node(node, "sh", "-c", _MISSING).strip() and mend.api_answers(bed),
            mend.API_DEADLINE_SECONDS,
            every=1,
        )


@contextmanager
def operator_away(arena: Arena, before: Before) -> Break:
    """Take all operators away, delete the primary's pod without grace, and give the operators back."""
    kubectl = arena.bed.kubectl.in_namespace(OPERATOR_NAMESPACE)
    try:
        kubectl("scale", mend.OPERATOR, "--replicas=0")
        wait_for("the operators to go", lambda: not arena.bed.operator_pods(), 60)
        arena.hub.kubectl.delete_pod_now(before.primary.name)
        yield
    finally:
        kubectl("scale", mend.OPERATOR, f"--replicas={mend.OPERATOR_REPLICAS}")


def status_right(arena: Arena) -> dict[str, float]:
    """Wait until the status names the primary that Patroni elected meanwhile; seconds since the operators' return."""
    started = time.monotonic()

    def right() -> bool:
        status = arena.hub.status()
        primary = arena.hub.role_holder(arena.COMPONENT)
        elected = [item["to"] for item in status.get("failovers", ()) if item["component"] == arena.COMPONENT]
        return primary is not None and primary == arena.leader() and elected[:1] == [primary]

    wait_for("the status to be right", right, STATUS_DEADLINE_SECONDS)
    return {"status_right_seconds": round(time.monotonic() - started, 1)}


def failover_told(arena: Arena) -> dict[str, float]:
    """Wait until the status tells of the failover; the seconds that it took by that.

    Raises WaitTimeoutError when it tells none.
    """
    status_right(arena)
    found = next(item for item in arena.hub.status()["failovers"] if item["component"] == arena.COMPONENT)
    if "durationSeconds" not in found:
        raise WaitTimeoutError(f"the status tells no duration of the failover to {found['to']}")
    return {TOLD_SECONDS: found["durationSeconds"]}
