"""The test bed itself: what a run that was cut off leaves behind must not stop the next one."""

from __future__ import annotations

from pathlib import Path

from e2e.lab.bed import Bed
from kindbed import cluster as kind_cluster
from kindbed import nodeimage
from kindbed.engine import NETWORK


def test_nodes_that_do_not_start_again_are_removed(bed: Bed, tmp_path: Path) -> None:
    """As many nodes as a whole cluster has, each of which ends as soon as it is started."""
    engine = bed.cluster.engine
    broken = kind_cluster.Cluster(engine, "runnerhub-broken", tmp_path / "kubeconfig")
    image = nodeimage.ensure(engine)
    for number, node in enumerate(bed.cluster.nodes()):
        role = "worker" if number else "control-plane"
        engine.output(
            "create", "--name", node.replace(bed.cluster.name, broken.name), "--network", NETWORK,
            "--label", f"io.x-k8s.kind.cluster={broken.name}", "--label", f"io.x-k8s.kind.role={role}",
            "--entrypoint", "/bin/true", image,
        )  # fmt: skip
    try:
        assert not kind_cluster.prepare(broken)
        assert broken.nodes() == []
        assert len(bed.cluster.nodes("running")) == len(bed.cluster.nodes())
    finally:
        kind_cluster.down(broken)
