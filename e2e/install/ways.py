"""The ways to install, as docs/install.md tells them: installing, a change, the way back, and the end."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Protocol

import yaml

from e2e.lab import argocd, bed
from e2e.lab.argocd import ArgoCD
from e2e.lab.bed import OPERATOR_NAMESPACE, Bed
from kindbed import gotools, productimages, versions
from runnerhub_operator.resources.common import Images
from tests import charts, manifest

CLUSTER_NAMESPACE = "builds"
# The same images under another tag: for operator and clusters, another version.
NEXT = f"{versions.PRODUCT_VERSION}-next"
DEFINITION = "runnerhubclusters.runnerhub.io"


class Way(Protocol):
    """One way. An upgrade is to other images, of the operator and for what clusters are made of."""

    name: str
    namespace: str  # of the cluster

    def install(self) -> None:
        """Install the operator, and a cluster named hub."""

    def upgrade(self) -> None:
        """Let the operator have the images with the tag NEXT, and make them the default of clusters."""

    def back(self) -> None:
        """Undo the upgrade."""

    def remove(self) -> None:
        """Remove the operator; clusters and their definition stay."""


@dataclass(slots=True)
class Helm:
    """One major version of Helm."""

    bed: Bed
    binary: str
    name: str
    namespace: str = CLUSTER_NAMESPACE

    def install(self) -> None:
        inside = ("--namespace", OPERATOR_NAMESPACE)
        self._helm("install", "runnerhub-operator", charts.OPERATOR, *inside, "--create-namespace", "--wait")
        self._helm("test", "runnerhub-operator", *inside)
        self._helm("install", "hub", charts.CLUSTER, "--namespace", self.namespace, "--create-namespace")

    def upgrade(self) -> None:
        self._helm(
            "upgrade", "runnerhub-operator", charts.OPERATOR, "--namespace", OPERATOR_NAMESPACE,
            "--reset-then-reuse-values", "--set", f"image.tag={NEXT}",
        )  # fmt: skip

    def back(self) -> None:
        self._helm("rollback", "runnerhub-operator", "--namespace", OPERATOR_NAMESPACE)

    def remove(self) -> None:
        self._helm("uninstall", "runnerhub-operator", "--namespace", OPERATOR_NAMESPACE)

    def _helm(self, *arguments: str | Path) -> None:
        config = f"--kubeconfig={self.bed.cluster.kubeconfig}"
        command = [str(gotools.ensure(self.binary)[self.binary]), config, *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=400)
        assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}{done.stdout}"


@dataclass(slots=True)
class Manifests:
    """kubectl with the one file that `make manifest` writes."""

    bed: Bed
    folder: Path
    name: str = "kubectl"
    namespace: str = CLUSTER_NAMESPACE

    def install(self) -> None:
        self._apply()
        _await_definition(self.bed)
        bed.apply_example("hub", self.bed.create_namespace(self.namespace), "minimal")

    def upgrade(self) -> None:
        self._apply(NEXT)

    def back(self) -> None:
        self._apply()

    def remove(self) -> None:
        remove_operator(self.bed)

    def _apply(self, tag: str = "") -> None:
        values = ("--set", f"image.tag={tag}") if tag else ()
        file = self.folder / "runnerhub-operator.yaml"
        manifest.main([str(file), "--namespace", OPERATOR_NAMESPACE, *values])
        self.bed.kubectl.in_namespace(OPERATOR_NAMESPACE)("apply", "--server-side", "-f", str(file))


@dataclass(slots=True)
class Kustomize(Manifests):
    """kubectl with an overlay on the committed base."""

    name: str = "kustomize"

    def _apply(self, tag: str = "") -> None:
        overlay = self.folder.resolve()
        # kustomize takes no absolute paths.
        content: dict[str, Any] = {"resources": [os.path.relpath(charts.KUSTOMIZE.resolve(), overlay)]}
        if tag:
            images = {item.name: productimages.image_name(item.name, tag) for item in fields(Images)}
            variables = [
                {"name": f"RUNNERHUB_IMAGE_{name.upper()}", "value": image} for name, image in images.items()
            ]
            container = {"name": "operator", "image": images["operator"], "env": variables}
            patch = {
                "apiVersion": "apps/v1",
                "kind": "Deployment",
                "metadata": {"name": "runnerhub-operator", "namespace": OPERATOR_NAMESPACE},
                "spec": {"template": {"spec": {"containers": [container]}}},
            }
            content["patches"] = [{"patch": json.dumps(patch)}]
        (overlay / "kustomization.yaml").write_text(yaml.safe_dump(content))
        self.bed.kubectl.in_namespace(OPERATOR_NAMESPACE)("apply", "--server-side", "-k", str(overlay))


@dataclass(slots=True)
class Argo:
    """Argo CD with the Application of the examples, which has operator and cluster, and changes by commits."""

    bed: Bed
    argo: ArgoCD
    name: str = "argocd"
    namespace: str = OPERATOR_NAMESPACE
    application: str = "runnerhub"
    revision: str = ""

    def install(self) -> None:
        self.revision = self.argo.repository.head()
        self.argo.kubectl.apply(argocd.example(self.argo.repository))
        self.argo.wait(self.application, self.revision, seconds=420)

    def upgrade(self) -> None:
        def tag(values: dict[str, Any]) -> None:
            values["image"]["tag"] = NEXT

        self.argo.repository.edit("charts/runnerhub-operator/values.yaml", tag)
        self._commit("The next images")

    def back(self) -> None:
        self.revision = self.argo.repository.revert(self.revision)
        self.argo.wait(self.application, self.revision)

    def remove(self) -> None:
        """What the user interface does when an Application is deleted with all that belongs to it."""
        finalizer = {"metadata": {"finalizers": ["resources-finalizer.argocd.argoproj.io"]}}
        what = ("application.argoproj.io", self.application)
        self.argo.kubectl("patch", *what, "--type=merge", "-p", json.dumps(finalizer))
        self.argo.kubectl("delete", *what, "--timeout=180s", timeout=200)

    def change_cluster(self, message: str, **spec: Any) -> None:
        """Commit other fields of the cluster's spec; returns when Git is published, not when it has taken effect."""

        def change(values: dict[str, Any]) -> None:
            values["spec"].update(spec)

        self.argo.repository.edit("charts/runnerhub-cluster/values.yaml", change)
        self.revision = self.argo.repository.commit(message)

    def _commit(self, message: str) -> None:
        self.revision = self.argo.repository.commit(message)
        self.argo.wait(self.application, self.revision)


def remove_operator(found: Bed) -> None:
    """Remove the operator as docs/install.md tells for those without Helm."""
    rights, ours = (
        "clusterrole,clusterrolebinding,role,rolebinding",
        "app.kubernetes.io/name=runnerhub-operator",
    )
    # kubectl deletes in all namespaces only when it is told none.
    found.kubectl.in_namespace("")("delete", rights, "--all-namespaces", "-l", ours)
    found.delete_namespace(OPERATOR_NAMESPACE)


def _await_definition(found: Bed) -> None:
    found.kubectl.await_definition(DEFINITION)
    found.kubectl(
        "rollout", "status", "deployment/runnerhub-operator", "-n", OPERATOR_NAMESPACE, "--timeout=180s",
        timeout=200,
    )  # fmt: skip
