"""Making, judging, mending and removing the cluster. Idempotent: a healthy cluster is left as it is."""

import time
from dataclasses import dataclass
from pathlib import Path

from kindbed import gotools, guard, nodeimage
from kindbed.console import TestBedError, Word, output_of, run_logged, say, step
from kindbed.engine import NETWORK, Engine
from kindbed.paths import KIND_DIR

CONFIG = KIND_DIR / "cluster.yaml"
READY_DEADLINE_SECONDS = 180
# How long a cluster whose nodes have just been started again may take before it counts as broken.
MEND_DEADLINE_SECONDS = 90
_LABEL = "io.x-k8s.kind.cluster"


@dataclass(frozen=True, slots=True)
class Cluster:
    """A kind cluster by name, with the kubeconfig file through which people and tests reach it."""

    engine: Engine
    name: str
    kubeconfig: Path

    def kubectl(self, *arguments: str, timeout_seconds: float = 60) -> str:
        """Output of a kubectl command against this cluster; raises TestBedError."""
        kubectl = gotools.ensure("kubectl")["kubectl"]
        command: list[Word] = [kubectl, "--kubeconfig", self.kubeconfig, *arguments]
        return output_of(command, timeout_seconds=timeout_seconds)

    def nodes(self, state: str = "") -> list[str]:
        """Names of the node containers, all of them or those in one state such as running."""
        filters = ["--filter", f"label={_LABEL}={self.name}"]
        if state:
            filters += ["--filter", f"status={state}"]
        listing = self.engine.output("ps", "--all", *filters, "--format", "{{.Names}}")
        return sorted(listing.split())


def names(engine: Engine) -> list[str]:
    """Names of the clusters on the test bed's network; other kind clusters of the machine are not ours."""
    # The two clients' templates differ in this.
    label = f'.Label "{_LABEL}"' if engine.is_docker else f'index .Labels "{_LABEL}"'
    listing = engine.output("ps", "--all", "--filter", f"network={NETWORK}", "--format", f"{{{{{label}}}}}")
    return sorted(set(listing.split()))


def prepare(cluster: Cluster) -> bool:
    """All that must be true before `kind create cluster`; returns whether a healthy cluster is there already.

    The network with its guard exists before the first node does. A cluster that cannot be mended is removed.
    """
    cluster.kubeconfig.parent.mkdir(parents=True, exist_ok=True)
    guard.raise_guard(cluster.engine, guard.ensure_network(cluster.engine))
    existing = cluster.nodes()
    if not existing:
        return False
    try:
        if len(existing) == _wanted_nodes() and _mend(cluster):
            return True
    except TestBedError as error:
        say(f"    {error}")
    say(f"cluster {cluster.name} is broken and will be made again")
    down(cluster)
    return False


def up(cluster: Cluster) -> None:
    """Make sure the cluster exists, is healthy and is written to its kubeconfig file."""
    wanted = _wanted_nodes()
    if prepare(cluster):
        say(f"cluster {cluster.name} is up ({wanted} nodes); kubeconfig: {cluster.kubeconfig}")
        return
    image = nodeimage.ensure(cluster.engine)
    with step(f"create the kind cluster {cluster.name} with {wanted} nodes"):
        _kind(
            cluster, "create", "cluster", "--name", cluster.name, "--image", image, "--config", str(CONFIG),
            "--kubeconfig", str(cluster.kubeconfig),
        )  # fmt: skip
        wait_ready(cluster, READY_DEADLINE_SECONDS)


def down(cluster: Cluster) -> None:
    """Remove the cluster's nodes and its entry in the kubeconfig file."""
    with step(f"delete the kind cluster {cluster.name}"):
        for node in cluster.nodes("paused"):
            cluster.engine.output("unpause", node)
        _kind(cluster, "delete", "cluster", "--name", cluster.name, "--kubeconfig", str(cluster.kubeconfig))


def wait_ready(cluster: Cluster, deadline_seconds: float) -> None:
    """Wait until all nodes are Ready and DNS and volumes can be used; raises TestBedError at the deadline."""
    wait = f"--timeout={deadline_seconds:.0f}s"
    longer = deadline_seconds + 10
    cluster.kubectl("wait", "--for=condition=Ready", "nodes", "--all", wait, timeout_seconds=longer)
    for namespace in ("kube-system", "local-path-storage"):
        cluster.kubectl(
            "wait", "--for=condition=Available", "deployments", "--all", "-n", namespace, wait,
            timeout_seconds=longer,
        )  # fmt: skip


def _wanted_nodes() -> int:
    return sum(line.strip().startswith("- role:") for line in CONFIG.read_text().splitlines())


def _mend(cluster: Cluster) -> bool:
    """Whether the cluster is healthy, after starting again what a reboot or a fault test left stopped.

    Raises TestBedError when a node does not start, or stops again at once.
    """
    for node in cluster.nodes("paused"):
        cluster.engine.output("unpause", node)
    for state in ("exited", "created"):
        for node in cluster.nodes(state):
            say(f"    node {node} was stopped; starting it")
            cluster.engine.output("start", node)
    _kind(cluster, "export", "kubeconfig", "--name", cluster.name, "--kubeconfig", str(cluster.kubeconfig))
    deadline = time.monotonic() + MEND_DEADLINE_SECONDS
    while time.monotonic() < deadline:
        try:
            wait_ready(cluster, MEND_DEADLINE_SECONDS / 3)
        except TestBedError:
            time.sleep(1)  # between two questions to an API server that is only coming up
        else:
            return True
    return False


def _kind(cluster: Cluster, *arguments: str) -> None:
    kind = gotools.ensure("kind")["kind"]
    run_logged([kind, *arguments], f"kind-{cluster.name}", env=cluster.engine.environment)
