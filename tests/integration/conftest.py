"""A real API server (etcd and kube-apiserver on loopback) and real operator processes with the chart's RBAC."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

import pytest
import yaml

from apiserver import ApiServer
from e2e.lab.kubectl import Kubectl, wait_for
from e2e.stage import stage as stages
from kindbed import gotools, paths
from tests import share
from tests.share import free_port

SYSTEM = "runnerhub-system"
# Policies that change what is written, as webhooks do: still behind a gate in Kubernetes 1.35.
MUTATING_POLICIES: Final = (
    "--feature-gates=MutatingAdmissionPolicy=true",
    "--runtime-config=admissionregistration.k8s.io/v1beta1=true",
)
# Of an operator on a stage. A busy machine must not cost it its Lease: it ends then, and nobody starts it anew there.
PATIENT: Final = {"lease_duration_seconds": "90", "renew_deadline_seconds": "80"}


@pytest.fixture(scope="session", autouse=True)
def own_networks() -> Iterator[None]:
    """Pods of a stage have fixed ports at addresses of loopback, which a stage of another process must not give too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stages, "_POD_NETWORKS", share.own(stages._POD_NETWORKS))
        yield


@pytest.fixture(scope="session")
def server() -> Iterator[ApiServer]:
    """The API server."""
    with ApiServer(flags=MUTATING_POLICIES) as running:
        yield running


@pytest.fixture(scope="session")
def admin(server: ApiServer) -> Kubectl:
    """kubectl as an administrator, with the chart's CRD and RBAC in place."""
    kubectl = Kubectl(gotools.ensure("kubectl")["kubectl"], server.kubeconfig)
    kubectl("create", "namespace", SYSTEM)
    chart = paths.REPOSITORY / "charts" / "runnerhub-operator"
    rendered = subprocess.run(
        [gotools.ensure("helm")["helm"], "template", "runnerhub-operator", chart, "--namespace", SYSTEM],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    kinds = (
        "CustomResourceDefinition",
        "ServiceAccount",
        "Role",
        "RoleBinding",
        "ClusterRole",
        "ClusterRoleBinding",
    )
    wanted = [item for item in yaml.safe_load_all(rendered) if item and item["kind"] in kinds]
    kubectl.in_namespace(SYSTEM)("apply", "--server-side", "-f", "-", stdin=yaml.safe_dump_all(wanted))
    wait_for("the CRD to be served", lambda: kubectl("get", "rhc", "-A") is not None, 60)
    return kubectl


@pytest.fixture
def namespace(admin: Kubectl, request: pytest.FixtureRequest) -> Kubectl:
    """kubectl in a namespace of the test's own."""
    name = f"t{abs(hash(request.node.nodeid)) % 10**10}"
    admin("create", "namespace", name)
    return admin.in_namespace(name)


@dataclass(slots=True)
class Operator:
    """One operator process."""

    name: str
    process: subprocess.Popen[bytes]
    metrics_port: int
    health_port: int
    log: Path

    def metrics(self) -> str:
        """What it tells Prometheus."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.metrics_port}/metrics", timeout=5) as answer:
            text: str = answer.read().decode()
            return text

    def leads(self) -> bool:
        """Whether it is the active one."""
        return "\nrunnerhub_operator_leader 1.0" in self.metrics()

    def stop(self, number: int = signal.SIGTERM) -> int:
        """End it; its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(30)


class Start(Protocol):
    """Starts an operator process; `environment` adds variables."""

    def __call__(self, name: str, **environment: str) -> Operator:
        """The process, which may not lead yet."""


@pytest.fixture
def start_operator(admin: Kubectl, server: ApiServer, tmp_path: Path) -> Iterator[Start]:
    """Starts operator processes that log in as the chart's ServiceAccount.

    A busy machine must not cost them their Lease: they end then, and nobody starts them anew here.
    """
    token = admin.in_namespace(SYSTEM)("create", "token", "runnerhub-operator", "--duration=1h").strip()
    config = yaml.safe_load(server.kubeconfig.read_text())
    config["users"][0]["user"] = {"token": token}
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text(yaml.safe_dump(config))
    started: list[Operator] = []

    def start(name: str, **more: str) -> Operator:
        metrics_port, health_port = free_port(), free_port()
        environment = {
            **os.environ,
            "PYTHONPATH": str(paths.REPOSITORY / "operator"),
            "KUBECONFIG": str(kubeconfig),
            "POD_NAME": name,
            "POD_NAMESPACE": SYSTEM,
            "RUNNERHUB_METRICS_PORT": str(metrics_port),
            "RUNNERHUB_HEALTH_PORT": str(health_port),
            "RUNNERHUB_LEASE_DURATION_SECONDS": "30",
            "RUNNERHUB_RENEW_DEADLINE_SECONDS": "25",
            "RUNNERHUB_RETRY_PERIOD_SECONDS": "1",
            **more,
        }
        log = tmp_path / f"{name}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "runnerhub_operator", "run"],
                env=environment,
                stdout=output,
                stderr=output,
            )
        found = Operator(name, process, metrics_port, health_port, log)
        started.append(found)
        return found

    yield start
    for operator in started:
        if operator.process.poll() is None:
            operator.process.send_signal(signal.SIGCONT)
            try:
                # It gives its Lease back, so that the next test need not wait for its end.
                operator.stop()
            except subprocess.TimeoutExpired:
                operator.stop(signal.SIGKILL)


@pytest.fixture
def operator(start_operator: Start) -> Operator:
    """One active operator."""
    return until_it_leads(start_operator("operator-0"))


def until_it_leads(operator: Operator) -> Operator:
    """The same operator, when it is the active one."""

    def leading() -> bool:
        assert operator.process.poll() is None, operator.log.read_text()
        try:
            return operator.leads()
        except OSError:
            return False

    wait_for("the operator to lead", leading, 90)
    return operator


def wait_until_time_passed(seconds: float) -> None:
    """Bounded observation of an absence: there is no state to poll for."""
    end = time.monotonic() + seconds
    wait_for(f"{seconds} s to pass", lambda: time.monotonic() >= end, seconds + 5)


def denial(name: str, expression: str, message: str) -> list[dict[str, Any]]:
    """Policy and binding by which the API server refuses to change or delete pods of which `expression` is false."""
    rule = {
        "apiGroups": [""],
        "apiVersions": ["v1"],
        "operations": ["UPDATE", "DELETE"],
        "resources": ["pods"],
    }
    api = "admissionregistration.k8s.io/v1"
    return [
        {
            "apiVersion": api,
            "kind": "ValidatingAdmissionPolicy",
            "metadata": {"name": name},
            "spec": {
                "matchConstraints": {"resourceRules": [rule]},
                "validations": [{"expression": expression, "message": message}],
            },
        },
        {
            "apiVersion": api,
            "kind": "ValidatingAdmissionPolicyBinding",
            "metadata": {"name": name},
            "spec": {"policyName": name, "validationActions": ["Deny"]},
        },
    ]
