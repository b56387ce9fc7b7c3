"""Undoing every fault at once, whatever is left of which: before a run, after a failed one, and on every exit."""

from __future__ import annotations

from collections.abc import Sequence

from ..lab.bed import OPERATOR_NAMESPACE, Bed
from ..lab.kubectl import KubectlError, wait_for

OPERATOR = "deployment/runnerhub-operator"
OPERATOR_REPLICAS = 2
NODE_DEADLINE_SECONDS = 60
API_DEADLINE_SECONDS = 240
READY_DEADLINE_SECONDS = 180

_COMMENT = "runnerhub-fault"
# A rule is what follows `iptables -A`; podman and kubelet reach the node in other ways than by this interface.
_PARTITION = ("INPUT -i eth0", "OUTPUT -o eth0", "FORWARD -i eth0", "FORWARD -o eth0")
_REMOVE_RULES = (
    f"iptables-save -t filter | sed -n '/--comment {_COMMENT} /s/^-A/-D/p' "
    "| while read -r rule; do iptables -w 10 $rule; done"
)
_CONTINUE_STOPPED = (
    "for status in $(grep -lsE '^State:[[:space:]]+T' /proc/[0-9]*/status); do "
    'pid=${status#/proc/}; kill -s CONT "${pid%/status}" 2>/dev/null; done'
)


def drop(bed: Bed, node: str, rules: Sequence[str]) -> None:
    """Drop what matches on a node, all at once; a rule is what follows `iptables -A`."""
    lines = "".join(f"-I {rule} -m comment --comment {_COMMENT} -j DROP\\n" for rule in rules)
    script = f"printf '*filter\\n{lines}COMMIT\\n' | iptables-restore -w 10 --noflush"
    bed.on_node(node, "sh", "-c", script)


def cut_off(bed: Bed, node: str) -> None:
    """Drop all traffic between a node with its pods and everything else."""
    drop(bed, node, _PARTITION)


def connect_again(bed: Bed, node: str) -> None:
    """Undo `drop` and `cut_off`; fine when there was none."""
    bed.on_node(node, "sh", "-c", f"{_REMOVE_RULES}; exit 0")


def start_nodes(bed: Bed) -> None:
    """Bring back nodes that are frozen or dead."""
    for node in bed.cluster.nodes("paused"):
        bed.cluster.engine.output("unpause", node)
    for state in ("exited", "created"):
        for node in bed.cluster.nodes(state):
            bed.cluster.engine.output("start", node)


def api_answers(bed: Bed) -> bool:
    """Whether the API server is ready."""
    try:
        return bed.kubectl("get", "--raw", "/readyz", "--request-timeout=5s", timeout=10).strip() == "ok"
    except KubectlError:
        return False


def mend(bed: Bed) -> None:
    """Heal nodes, processes, network, scheduling and the operator, and wait until all nodes are Ready."""
    start_nodes(bed)
    for node in bed.cluster.nodes("running"):
        _mend_node(bed, node)
    wait_for("the API server", lambda: api_answers(bed), API_DEADLINE_SECONDS, every=1)
    for node in bed.kubectl.items("node"):
        if node["spec"].get("unschedulable"):
            bed.kubectl("uncordon", node["metadata"]["name"])
    operator = bed.kubectl.in_namespace(OPERATOR_NAMESPACE)
    deployment = operator.get("deployment", "runnerhub-operator")
    if deployment is not None and deployment["spec"]["replicas"] != OPERATOR_REPLICAS:
        operator("scale", OPERATOR, f"--replicas={OPERATOR_REPLICAS}")
    bed.kubectl(
        "wait", "--for=condition=Ready", "nodes", "--all", f"--timeout={READY_DEADLINE_SECONDS}s",
        timeout=READY_DEADLINE_SECONDS + 10,
    )  # fmt: skip


def _mend_node(bed: Bed, node: str) -> None:
    script = f"{_CONTINUE_STOPPED}; {_REMOVE_RULES}; systemctl start kubelet"
    # A node that has just been started has no systemd to talk to for a moment.
    wait_for(
        f"{node} to be mended",
        lambda: bed.cluster.engine.succeeds("exec", node, "sh", "-c", script),
        NODE_DEADLINE_SECONDS,
    )


def pin_dns(bed: Bed) -> None:
    """Keep the cluster's DNS on the control plane's node, which no fault takes away.

    Where CoreDNS happened to start decides otherwise whether a dead worker takes half of all name lookups with it,
    and the suite would measure that. The pod network, kube-proxy and volumes have no such bystander: they run on each
    node for this node only, or on the control plane.
    """
    system = bed.kubectl.in_namespace("kube-system")
    place = '{"spec":{"template":{"spec":{"nodeSelector":{"node-role.kubernetes.io/control-plane":""}}}}}'
    system("patch", "deployment", "coredns", "--type=strategic", "-p", place)
    system("rollout", "status", "deployment/coredns", "--timeout=120s", timeout=130)
