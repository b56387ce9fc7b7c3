"""A kind cluster, made by pytest-kind from the test bed's parts, with the product's images and the operator in it."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

from pytest_kind import KindCluster

from kindbed import cluster as kind_cluster
from kindbed import engine, gotools, nodeimage, paths, prerequisites, productimages

from .hub import Hub
from .kubectl import Kubectl, KubectlError, wait_for

OPERATOR_NAMESPACE = "runnerhub-system"
CHART = paths.REPOSITORY / "charts" / "runnerhub-operator"
CLIENT_IMAGE = productimages.image_name("client")


@dataclass(frozen=True, slots=True)
class Bed:
    """A running kind cluster."""

    cluster: kind_cluster.Cluster
    kubectl: Kubectl

    def on_node(self, node: str, *command: str) -> str:
        """Run a command on a node."""
        return self.cluster.engine.output("exec", node, *command)

    def helm(self, *arguments: str) -> str:
        """Run Helm against the cluster."""
        binary = gotools.ensure("helm")["helm"]
        done = subprocess.run(
            [str(binary), f"--kubeconfig={self.cluster.kubeconfig}", *arguments],
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
        if done.returncode != 0:
            raise KubectlError(f"helm {' '.join(arguments)}: {done.stderr.strip()}")
        return done.stdout

    def install_operator(self, *options: str) -> None:
        """Install or upgrade the operator by its chart, and wait until its replicas are ready."""
        # The tag stays the same while the image is worked on; the annotation makes the pods follow it.
        image = productimages.image_id(self.cluster.engine, productimages.image_name("operator"))
        self.helm(
            "upgrade", "--install", "runnerhub-operator", str(CHART), "--namespace", OPERATOR_NAMESPACE,
            "--create-namespace", "--wait", "--timeout", "180s",
            "--set-string", f"podAnnotations.runnerhub\\.io/image-id={image[:12]}", *options,
        )  # fmt: skip

    def operator_pods(self) -> list[str]:
        """Names of the operator's pods."""
        found = self.kubectl.in_namespace(OPERATOR_NAMESPACE).items(
            "pod", "app.kubernetes.io/name=runnerhub-operator"
        )
        return [pod["metadata"]["name"] for pod in found]

    def create_namespace(self, name: str) -> Kubectl:
        """A namespace that enforces the restricted Pod Security Standard; kubectl for it."""
        self.kubectl.apply(
            {
                "apiVersion": "v1",
                "kind": "Namespace",
                "metadata": {
                    "name": name,
                    "labels": {
                        "pod-security.kubernetes.io/enforce": "restricted",
                        "pod-security.kubernetes.io/warn": "restricted",
                    },
                },
            }
        )
        inside = self.kubectl.in_namespace(name)
        # The ServiceAccount of a new namespace comes a moment later.
        wait_for(f"namespace {name}", lambda: inside.get("serviceaccount", "default"), 30)
        return inside

    def delete_namespace(self, name: str) -> None:
        """Remove a namespace with everything in it, volumes too, and no runner that waits for who takes its result.

        Kubernetes would look at the namespace again only after half of a runner's hour.
        """
        inside = self.kubectl.in_namespace(name)
        inside("delete", "runnerhubclusters", "--all", timeout=60)
        inside("delete", "pods", "--all", "--force", "--grace-period=0", timeout=60)
        self.kubectl("delete", "namespace", name, "--ignore-not-found", "--wait=true", timeout=240)


def bring_up(name: str, kubeconfig: Path) -> Bed:
    """Create the kind cluster, or use the one of that name, and load the product's images."""
    prerequisites.ensure()
    chosen = engine.choose()
    os.environ.update(chosen.environment)
    cluster = kind_cluster.Cluster(chosen, name, kubeconfig)
    kind_cluster.prepare(cluster)
    binaries = gotools.ensure("kind", "kubectl")
    KindCluster(
        name,
        kubeconfig,
        image=nodeimage.ensure(chosen),
        kind_path=binaries["kind"],
        kubectl_path=binaries["kubectl"],
    ).create(config_file=kind_cluster.CONFIG)
    kind_cluster.wait_ready(cluster, kind_cluster.READY_DEADLINE_SECONDS)
    productimages.load(cluster)
    return Bed(cluster, Kubectl(binaries["kubectl"], kubeconfig))


def tear_down(bed: Bed) -> None:
    """Delete the kind cluster."""
    kind_cluster.down(bed.cluster)


def apply_example(hub_name: str, kubectl: Kubectl, example: str) -> Hub:
    """Apply one of examples/ ."""
    kubectl("apply", "-f", str(paths.REPOSITORY / "examples" / f"{example}.yaml"))
    return Hub(kubectl, hub_name)


def conditions_line(hub: Hub) -> str:
    """One line that tells the progress of each component."""
    conditions = hub.status().get("conditions", [])
    parts = [
        f"{item['type'].removesuffix('Ready')}: {item['message']}"
        for item in conditions
        if item["type"].endswith("Ready") and item["type"] not in ("Ready", "IngressReady")
    ]
    return " | ".join(parts) or json.dumps(conditions)
