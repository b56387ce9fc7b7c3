"""A real Argo CD in the cluster, with a Git repository that it follows."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from kindbed import argocdimage, paths, productimages

from .bed import Bed
from .kubectl import Kubectl, wait_for

NAMESPACE = "argocd"
EXAMPLES = paths.REPOSITORY / "examples" / "argocd"
BRANCH = "main"
_REPOSITORY = "runnerhub-operator.git"
_SERVED = f"/srv/git/{_REPOSITORY}"
_AUTHOR = ("-c", "user.name=Runner Hub", "-c", "user.email=test@example.com", "-c", "commit.gpgsign=false")
Manifest = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Repository:
    """A Git repository on this machine; what it publishes is served inside the cluster."""

    folder: Path
    server: Kubectl

    @property
    def url(self) -> str:
        """Where Argo CD finds it."""
        return f"git://git.{self.server.namespace}.svc/{_REPOSITORY}"

    def start(self, image: str) -> None:
        """Start the server in the cluster, and publish the charts as the first commit."""
        self.server.apply(*_git_server(self.server.namespace, image))
        self.server("wait", "pod/git", "--for=condition=Ready", "--timeout=60s")
        shutil.copytree(paths.REPOSITORY / "charts", self.folder / "charts")
        self._git("init", "--quiet", f"--initial-branch={BRANCH}")
        self.commit("The charts as they are")

    def commit(self, message: str) -> str:
        """Commit and publish everything that was changed in the folder; the revision."""
        self._git("add", "--all")
        self._git("commit", "--quiet", "--message", message)
        return self._publish()

    def revert(self, revision: str) -> str:
        """Commit and publish the opposite of a revision; the new revision."""
        self._git("revert", "--no-edit", revision)
        return self._publish()

    def edit(self, file: str, change: Callable[[Any], None]) -> None:
        """Change a YAML file of the folder."""
        path = self.folder / file
        content = yaml.safe_load(path.read_text())
        change(content)
        path.write_text(yaml.safe_dump(content, sort_keys=False))

    def _publish(self) -> str:
        # As one file through the API server: nothing of this machine has to be reachable from the cluster.
        bundle = self._git("bundle", "create", "--quiet", "-", BRANCH)
        script = f"base64 -d > /tmp/bundle && git -C {_SERVED} fetch --quiet /tmp/bundle +{BRANCH}:{BRANCH}"
        text = base64.b64encode(bundle).decode()
        self.server("exec", "--stdin", "git", "--", "sh", "-ec", script, stdin=text)
        return self.head()

    def head(self) -> str:
        """The newest revision."""
        return self._git("rev-parse", BRANCH).decode().strip()

    def _git(self, *arguments: str) -> bytes:
        command = ["git", "-C", str(self.folder), *_AUTHOR, *arguments]
        return subprocess.run(command, check=True, stdout=subprocess.PIPE, timeout=60).stdout


@dataclass(frozen=True, slots=True)
class ArgoCD:
    """Argo CD without its user interface: controller, repository server and Redis."""

    kubectl: Kubectl
    repository: Repository

    def application(self, name: str) -> Manifest:
        """An Application; raises KeyError when it is gone."""
        found = self.kubectl.get("application.argoproj.io", name)
        if found is None:
            raise KeyError(name)
        return found

    def refresh(self, name: str, how: str = "normal") -> None:
        """Let Argo CD look at Git and the cluster now, and wait until it has; `hard`: with nothing remembered."""
        annotation = "argocd.argoproj.io/refresh"
        self.kubectl("annotate", "application.argoproj.io", name, f"{annotation}={how}", "--overwrite")

        def looked() -> bool:
            return annotation not in self.application(name)["metadata"].get("annotations", {})

        wait_for(f"Argo CD to refresh {name}", looked, 60)

    def wait(self, name: str, revision: str, health: str = "Healthy", seconds: float = 240) -> None:
        """Wait until a revision is what is in the cluster, and has this health."""

        def state() -> tuple[object, ...]:
            status = self.application(name).get("status", {})
            sync = status.get("sync", {})
            seen = set(sync.get("revisions") or [sync.get("revision")])
            ended = status.get("operationState", {}).get("phase")
            return seen, sync.get("status"), status.get("health", {}).get("status"), ended

        wanted = ({revision}, "Synced", health, "Succeeded")
        self.refresh(name)
        try:
            wait_for(f"{name} to be Synced and {health}", lambda: state() == wanted, seconds)
        except AssertionError as late:
            status = self.application(name).get("status", {})
            parts = {key: status.get(key) for key in ("conditions", "operationState", "resources")}
            raise AssertionError(f"{late}; seen: {state()}; {json.dumps(parts)[:6000]}") from late


def install(bed: Bed, folder: Path) -> ArgoCD:
    """Install Argo CD with our health check, and a repository with the charts that it can reach."""
    image = argocdimage.ensure(bed.cluster.engine)
    productimages.place(bed.cluster, [image])
    bed.kubectl.apply(_namespace(NAMESPACE))
    kubectl = bed.kubectl.in_namespace(NAMESPACE)
    _apply(kubectl, manifests(image))
    # As the documentation says it, before the controller reads it.
    kubectl("patch", "configmap", "argocd-cm", "--patch-file", str(EXAMPLES / "argocd-cm.yaml"))
    for what in (
        "deployment/argocd-redis",
        "deployment/argocd-repo-server",
        "statefulset/argocd-application-controller",
    ):
        kubectl("rollout", "status", what, "--timeout=180s", timeout=200)
    repository = Repository(folder, kubectl)
    repository.start(image)
    return ArgoCD(kubectl, repository)


def manifests(image: str) -> list[Manifest]:
    """What Argo CD's authors ship for an installation without user interface, with one image for all its parts."""
    shipped = yaml.safe_load_all((argocdimage.manifests() / "core-install.yaml").read_text())
    found = [item for item in shipped if "applicationset-controller" not in item["metadata"]["name"]]
    for item in found:
        template = item["spec"]["template"]["spec"] if item["kind"] in ("Deployment", "StatefulSet") else {}
        for container in (*template.get("initContainers", ()), *template.get("containers", ())):
            container["image"] = image
            container["imagePullPolicy"] = "IfNotPresent"
            if container["name"] == "redis":
                container["command"] = ["/usr/bin/tini", "--", "redis-server"]
            # Nobody signs commits here, and the image has no GnuPG.
            container.setdefault("env", []).append({"name": "ARGOCD_GPG_ENABLED", "value": "false"})
    # The part with the user interface would make it.
    anything = [{"group": "*", "kind": "*"}]
    project = {
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": "AppProject",
        "metadata": {"name": "default", "namespace": NAMESPACE},
        "spec": {
            "sourceRepos": ["*"],
            "destinations": [{"namespace": "*", "server": "*"}],
            "clusterResourceWhitelist": anything,
        },
    }
    return [*found, project]


def example(repository: Repository) -> Manifest:
    """The Application of the examples, with the repository of the test in place of the public one."""
    application: Manifest = yaml.safe_load((EXAMPLES / "application.yaml").read_text())
    for source in application["spec"]["sources"]:
        source["repoURL"] = repository.url
        source["targetRevision"] = BRANCH
    return application


def _apply(kubectl: Kubectl, objects: list[Manifest]) -> None:
    """Apply the definitions first: kubectl refuses a kind that is not served yet."""
    definitions = [item for item in objects if item["kind"] == "CustomResourceDefinition"]
    others = [item for item in objects if item["kind"] != "CustomResourceDefinition"]
    for part in (definitions, others):
        kubectl("apply", "--server-side", "-f", "-", stdin=yaml.safe_dump_all(part))
        for item in definitions:
            kubectl.await_definition(item["metadata"]["name"])


def _namespace(name: str) -> Manifest:
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}


def _git_server(namespace: str, image: str) -> list[Manifest]:
    serve = (
        f"git init --quiet --bare --initial-branch={BRANCH} {_SERVED}"
        " && exec git daemon --reuseaddr --export-all --base-path=/srv/git /srv/git"
    )
    labels = {"app.kubernetes.io/name": "git"}
    metadata = {"name": "git", "namespace": namespace}
    pod = {
        "containers": [
            {
                "name": "git",
                "image": image,
                "imagePullPolicy": "IfNotPresent",
                "args": ["sh", "-ec", serve],
                "ports": [{"containerPort": 9418}],
                "readinessProbe": {"tcpSocket": {"port": 9418}, "periodSeconds": 1},
                "volumeMounts": [{"name": "data", "mountPath": "/srv/git"}],
            }
        ],
        "securityContext": {"fsGroup": 999},
        "volumes": [{"name": "data", "emptyDir": {}}],
    }
    return [
        {"apiVersion": "v1", "kind": "Pod", "metadata": {**metadata, "labels": labels}, "spec": pod},
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": metadata,
            "spec": {"selector": labels, "ports": [{"port": 9418}]},
        },
    ]
