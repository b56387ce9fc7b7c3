"""The stage: which processes it has, and what is installed on it."""

from __future__ import annotations

import json
import random
import shutil
import socket
import subprocess
import sys
import tempfile
from collections import Counter
from contextlib import closing, suppress
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import yaml

from apiserver import ApiServer
from e2e.lab.kubectl import Kubectl, wait_for
from e2e.stage.audit import AuditLog
from e2e.stage.process import OperatorProcess
from e2e.stage.volumes import storage_classes
from kindbed import gotools
from kindbed.paths import BUILD_DIR, REPOSITORY

SYSTEM: Final = "runnerhub-system"
NODES: Final = tuple(f"stage-{number}" for number in range(8))

_HERE: Final = Path(__file__).resolve().parent
_ACCOUNT: Final = "runnerhub-operator"
_INSTALLED: Final = (
    "CustomResourceDefinition",
    "ServiceAccount",
    "Role",
    "RoleBinding",
    "ClusterRole",
    "ClusterRoleBinding",
)
_CONTROLLERS: Final = (
    "deployment-controller",
    "disruption-controller",
    "garbage-collector-controller",
    "namespace-controller",
    "replicaset-controller",
    "statefulset-controller",
)
# 127.64.0.0/10 in parts of 65,000 addresses: stages that run at the same time rarely meet.
_POD_NETWORKS: Final = range(64, 128)
_PORTS: Final = range(10000, 20000)


class Stage:
    """A Kubernetes in which the operator makes clusters Ready although nothing runs; use it as a context manager.

    etcd, kube-apiserver, kube-controller-manager and kwok are real. A pod gets Running and Ready, and an address
    of loopback at which the cast (e2e/stage/cast.py) answers as Patroni and Sentinel. Volumes exist as claims only,
    which the cast binds and enlarges (e2e/stage/volumes.py). There are no EndpointSlices (Kubernetes refuses addresses
    of loopback in them) and no node heartbeats.

    `checkout` is the repository whose operator and chart are installed; another one serves to compare. A given
    `folder` is kept, and a later stage there begins with what the last one ended with.
    """

    def __init__(self, checkout: Path = REPOSITORY, folder: Path | None = None) -> None:
        self._checkout = checkout
        self._given_folder = folder
        self._operators: list[OperatorProcess] = []
        self._server: ApiServer
        self._audit: AuditLog
        self.folder = Path()
        self.kubectl: Kubectl

    def __enter__(self) -> Self:
        binaries = gotools.ensure("kubectl", "kube-controller-manager", "kwok", "helm")
        BUILD_DIR.mkdir(exist_ok=True)
        self.folder = self._given_folder or Path(tempfile.mkdtemp(prefix="stage-", dir=BUILD_DIR))
        self.folder.mkdir(parents=True, exist_ok=True)
        self._audit = AuditLog(self.folder / "audit.log")
        self._server = ApiServer(
            self.folder,
            flags=(
                f"--audit-policy-file={_HERE / 'audit.yaml'}",
                f"--audit-log-path={self._audit.path}",
            ),
        )
        try:
            self._server.start()
            self.kubectl = Kubectl(binaries["kubectl"], self.kubeconfig)
            self._install(binaries["helm"])
            self._spawn_players(binaries)
            wait_for("the nodes to be Ready", self._nodes_ready, 120)
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    @property
    def kubeconfig(self) -> Path:
        """An administrator's."""
        return self._server.kubeconfig

    def start_operator(self, name: str, **settings: str) -> OperatorProcess:
        """Start an operator that logs in as the chart's ServiceAccount; settings are RUNNERHUB_* without prefix."""
        environment = {f"RUNNERHUB_{key.upper()}": value for key, value in settings.items()}
        operator = OperatorProcess(
            self._checkout / "operator",
            self.folder / "kubeconfig-operator",
            self.folder / f"{name}.log",
            {
                **environment,
                "POD_NAME": name,
                "POD_NAMESPACE": SYSTEM,
                "RUNNERHUB_HEALTH_PORT": str(_free_port()),
            },
            metrics_port=_free_port(),
        )
        self._operators.append(operator)
        return operator

    def create_namespaces(self, *names: str) -> None:
        """Create those that are missing."""
        spaces = [{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}} for name in names]
        self.kubectl("apply", "--server-side", "-f", "-", stdin=yaml.safe_dump_all(spaces))

    def calls(self) -> Counter[tuple[str, str]]:
        """All calls of operators so far by verb and resource, as the API server counts them."""
        return self._audit.calls()

    def call_seconds(self) -> list[float]:
        """What each call of operators took in the API server so far; watches are left out."""
        return self._audit.seconds()

    def _spawn_players(self, binaries: dict[str, Path]) -> None:
        kubeconfig = f"--kubeconfig={self.kubeconfig}"
        self._server.spawn(
            "kube-controller-manager", binaries["kube-controller-manager"], kubeconfig,
            "--secure-port=0", "--leader-elect=false", f"--controllers={','.join(_CONTROLLERS)}",
            "--kube-api-qps=500", "--kube-api-burst=1000",
        )  # fmt: skip
        network = random.choice(_POD_NETWORKS)  # noqa: S311 - keeps stages apart, protects nothing
        self._server.spawn(
            "kwok",
            binaries["kwok"],
            kubeconfig,
            f"--config={_HERE / 'kwok.yaml'}",
            f"--cidr=127.{network}.0.0/16",
        )
        self._server.spawn(
            "cast", sys.executable, "-m", "e2e.stage.cast", kubeconfig, f"--nodes={','.join(NODES)}"
        )  # fmt: skip

    def _nodes_ready(self) -> bool:
        states = self.kubectl(
            "get", "nodes", "-o", "jsonpath={.items[*].status.conditions[0].status}"
        ).split()
        return states == ["True"] * len(NODES)

    def _install(self, helm: Path) -> None:
        nodes = [
            {
                "apiVersion": "v1",
                "kind": "Node",
                "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}},
            }
            for name in NODES
        ]
        self.create_namespaces(SYSTEM)
        rendered = subprocess.run(
            [helm, "template", _ACCOUNT, self._checkout / "charts" / _ACCOUNT, "--namespace", SYSTEM],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        chart = [item for item in yaml.safe_load_all(rendered) if item and item["kind"] in _INSTALLED]
        install = self.kubectl.in_namespace(SYSTEM)
        install(
            "apply",
            "--server-side",
            "-f",
            "-",
            stdin=yaml.safe_dump_all([*nodes, *storage_classes(), *chart]),
        )
        wait_for("the CRD to be served", lambda: self.kubectl("get", "rhc", "-A") is not None, 120)
        token = install("create", "token", _ACCOUNT, "--duration=24h").strip()
        config = json.loads(self.kubeconfig.read_text())
        config["users"][0]["user"] = {"token": token}
        kubeconfig = self.folder / "kubeconfig-operator"
        kubeconfig.touch(0o600)
        kubeconfig.write_text(json.dumps(config))

    def _stop(self) -> None:
        for operator in self._operators:
            operator.stop()
        self._server.stop()
        if not self._given_folder:
            shutil.rmtree(self.folder, ignore_errors=True)


def _free_port() -> int:
    """Below those that the kernel gives to connections: the many that are made here would take one that is free."""
    for port in random.sample(_PORTS, len(_PORTS)):
        with suppress(OSError), closing(socket.socket()) as probe:
            probe.bind(("127.0.0.1", port))
            return port
    raise RuntimeError("no port is free")
