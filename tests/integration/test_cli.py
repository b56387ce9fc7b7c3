"""The plugin for kubectl with real kubectl, a real API server, a real operator, and played databases."""

from __future__ import annotations

import base64
import io
import json
import os
import sys
import tarfile
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import yaml

from e2e.lab.kubectl import Kubectl, wait_for
from e2e.stage import Stage
from kindbed import gotools, paths
from runnerhub_cli.entry import run
from runnerhub_operator import names
from tests.integration.conftest import PATIENT

MEMBERS = {"hub-postgres-0", "hub-postgres-1"}
CLUSTER: dict[str, Any] = {
    "apiVersion": f"{names.API_GROUP}/{names.API_VERSION}",
    "kind": names.KIND,
    "metadata": {"name": "hub", "namespace": "seen"},
    "spec": {"postgres": {"instances": 2}},
}
SECRET = "Tr0ub4dor~and_3.0"


@dataclass(frozen=True, slots=True)
class Done:
    """How a run ended."""

    code: int
    out: str
    err: str


@dataclass(frozen=True, slots=True)
class Plugin:
    """The plugin as an administrator calls it in the cluster's namespace."""

    kubectl: Kubectl
    folder: Path

    def __call__(self, command: str, *words: str, namespace: str = "seen", user: str | None = None) -> Done:
        environment = {
            "PATH": f"{self.folder}:{os.environ['PATH']}",
            "KUBECONFIG": str(self._of(user) if user else self.kubectl.kubeconfig),
        }
        out, err = io.StringIO(), io.StringIO()
        with patch.dict(os.environ, environment), redirect_stdout(out), redirect_stderr(err):
            code = run([command, *words, "-n", namespace])
        return Done(code, out.getvalue(), err.getvalue())

    def _of(self, user: str) -> Path:
        """A kubeconfig that logs in as a ServiceAccount of the namespace."""
        config = yaml.safe_load(self.kubectl.kubeconfig.read_text())
        config["users"][0]["user"] = {"token": self.kubectl("create", "token", user).strip()}
        path = self.folder / f"{user}.kubeconfig"
        path.write_text(yaml.safe_dump(config))
        return path


@pytest.fixture(scope="module")
def plugin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plugin]:
    """The plugin beside a cluster that is Ready, with an operator at work."""
    folder = tmp_path_factory.mktemp("plugin")
    # Pods are played here, so what would run in the operator's pod runs beside it.
    program = folder / "kubectl"
    program.write_text(
        "#!/bin/sh\n"
        'if [ "$1" = exec ]; then\n'
        '  while [ "$1" != -- ]; do shift; done\n'
        f'  shift 2; PYTHONPATH={paths.REPOSITORY}/operator exec {sys.executable} -m runnerhub_operator "$@"\n'
        "fi\n"
        f'exec {gotools.ensure("kubectl")["kubectl"]} "$@"\n'
    )
    program.chmod(0o755)
    with Stage() as stage:
        stage.create_namespaces("seen", "empty")
        stage.start_operator("operator-0", **PATIENT)
        kubectl = stage.kubectl.in_namespace("seen")
        kubectl("apply", "--server-side", "-f", "-", stdin=yaml.safe_dump(CLUSTER))
        wait_for("the cluster to be Ready", lambda: _status(kubectl).get("phase") == "Ready", 180)
        yield Plugin(kubectl, folder)


def _status(kubectl: Kubectl) -> dict[str, Any]:
    found: dict[str, Any] = (kubectl.get("runnerhubcluster", "hub") or {}).get("status", {})
    return found


def test_status_tells_what_the_operator_observed(plugin: Plugin) -> None:
    done = plugin("status", "-o", "json")
    found = json.loads(done.out)
    assert (done.code, found["level"], found["phase"]) == (0, "ok", "Ready"), done.err
    roles = {member["name"]: member["role"] for item in found["components"] for member in item["members"]}
    assert roles[_status(plugin.kubectl)["postgres"]["primary"]] == "primary"
    assert found["nextSteps"] == [{"text": "Nothing.", "command": ""}]


def test_leases_and_elections_are_read(plugin: Plugin) -> None:
    assert {item["name"] for item in json.loads(plugin("leases", "-o", "json").out)} >= {
        "hub-postgres-primary",
        "hub-redis-master",
        "runnerhub-operator",
    }
    assert plugin("failovers").code == 0


def test_the_doctor_asks_everything_and_the_api_server_answers(plugin: Plugin) -> None:
    done = plugin("doctor", "-o", "json")
    found = {item["check"]: item for item in json.loads(done.out)["findings"]}
    assert found["Kubernetes"]["level"] == "ok"
    assert found["permissions"] == {
        "check": "permissions",
        "level": "ok",
        "message": "yours suffice for all commands",
        "remedy": "",
        "command": "",
    }
    assert found["definition"]["level"] == "ok"
    assert found["Secrets"]["level"] == "ok"
    assert found["spec"]["level"] == "ok"


def test_the_doctor_tells_who_may_not_look_what_they_may_not(plugin: Plugin) -> None:
    plugin.kubectl("create", "serviceaccount", "dev")
    plugin.kubectl(
        "create", "role", "dev", "--verb=list,get", "--resource=pods,runnerhubclusters.runnerhub.io"
    )
    plugin.kubectl("create", "rolebinding", "dev", "--role=dev", "--serviceaccount=seen:dev")
    findings = json.loads(plugin("doctor", "-o", "json", user="dev").out)["findings"]
    denied = {
        item["message"].split(",")[0]: item["level"] for item in findings if item["check"] == "permissions"
    }
    assert denied["you may not list leases"] == "warning"
    assert denied["you may not patch runnerhubclusters"] == "note"
    assert denied["you may not list leases in all namespaces"] == "note"
    assert not any("list pods" in message for message in denied)
    assert {item["check"] for item in findings if item["level"] == "unknown"} >= {
        "nodes",
        "operator",
        "Secrets",
    }


def test_the_doctor_tells_who_may_do_everything_beside_the_cluster_what_they_may_not_beside_the_operator(
    plugin: Plugin,
) -> None:
    plugin.kubectl("create", "serviceaccount", "owner")
    plugin.kubectl(
        "create", "rolebinding", "owner", "--clusterrole=cluster-admin", "--serviceaccount=seen:owner"
    )
    mine = "--resource=runnerhubclusters.runnerhub.io,leases.coordination.k8s.io,pods,events"
    plugin.kubectl("create", "clusterrole", "owner", "--verb=list,get,patch", mine)
    plugin.kubectl(
        "create", "clusterrolebinding", "owner", "--clusterrole=owner", "--serviceaccount=seen:owner"
    )
    findings = json.loads(plugin("doctor", "-o", "json", user="owner").out)["findings"]
    (lease,) = [
        item for item in json.loads(plugin("leases", "-o", "json").out) if item["namespace"] != "seen"
    ]
    told = [item["message"].split(",")[0] for item in findings if item["check"] == "permissions"]
    assert told == [
        f"you may not get pods/log in {lease['namespace']}",
        f"you may not get deployments in {lease['namespace']}",
        f"you may not create pods/exec in {lease['namespace']}",
    ]


NOWHERE = {"nodeSelector": {"example.com/disk": "none"}}


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        (
            {"postgres": {"resources": {"requests": {"memory": "900Ti"}}}},
            "no room for 3 of postgres",
        ),
        ({"redis": {"podTemplate": NOWHERE}}, "no node for 3 of redis:"),
        ({"orchestrator": {"podTemplate": NOWHERE}}, "no node for 3 of orchestrator:"),
        ({"runnerPools": [{"name": "linux", "minReplicas": 2, **NOWHERE}]}, "no node for 2 of runner:"),
    ],
)
def test_the_doctor_says_before_there_is_a_cluster_whether_one_has_room(
    plugin: Plugin, spec: dict[str, Any], told: str
) -> None:
    # One that no kubelet has made ready.
    node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "worker"}}
    plugin.kubectl("apply", "-f", "-", stdin=json.dumps(node))
    file = plugin.folder / "large.yaml"
    file.write_text(yaml.safe_dump({**CLUSTER, "metadata": {"name": "large"}, "spec": spec}))
    done = plugin("doctor", "-f", str(file), "-o", "json", namespace="empty")
    plugin.kubectl("delete", "node", "worker")
    (capacity,) = [item for item in json.loads(done.out)["findings"] if item["check"] == "capacity"]
    assert (done.code, capacity["level"]) == (2, "error")
    assert told in capacity["message"]


def test_an_empty_namespace_has_nothing_to_show(plugin: Plugin) -> None:
    done = plugin("status", namespace="empty")
    assert done.code == 3
    assert done.err.startswith("error: there is no RunnerHubCluster in the namespace empty")


def test_a_manifest_that_the_api_server_refuses_is_refused_with_its_words(plugin: Plugin) -> None:
    file = plugin.folder / "wrong.yaml"
    file.write_text(yaml.safe_dump({**CLUSTER, "spec": {"postgres": {"instances": 99}}}))
    done = plugin("plan", "-f", str(file))
    assert done.code == 2
    assert done.err.startswith("error: `kubectl apply` would be refused: ")
    assert "instances" in done.err
    assert len(done.err.splitlines()) == 1


def test_the_plan_is_the_operators_own(plugin: Plugin) -> None:
    file = plugin.folder / "larger.yaml"
    file.write_text(
        yaml.safe_dump({**CLUSTER, "spec": {"postgres": {"instances": 2}, "redis": {"replicas": 5}}})
    )
    done = plugin("plan", "-f", str(file))
    assert done.code == 0, done.err
    assert "create  Service hub-redis-3" in done.out
    (plan,) = json.loads(plugin("plan", "-f", str(file), "-o", "json").out)
    assert (plan["namespace"], plan["name"], plan["paused"]) == ("seen", "hub", False)
    changed = {(item["verb"], item["kind"], item["name"]) for item in plan["changes"]}
    assert {("create", "Service", "hub-redis-4"), ("change", "StatefulSet", "hub-redis")} <= changed
    assert _status(plugin.kubectl)["observedGeneration"] == 1, "nothing was written"


def test_a_switchover_takes_place_and_can_be_asked_for_back_and_forth(plugin: Plugin) -> None:
    for _ in range(3):
        (replica,) = MEMBERS - {_status(plugin.kubectl)["postgres"]["primary"]}
        done = plugin("switchover", replica, "--timeout", "60", "-o", "json")
        assert done.code == 0, done.err
        assert json.loads(done.out)["result"] == "Done"
        assert _status(plugin.kubectl)["postgres"]["primary"] == replica


def test_no_value_of_any_secret_is_in_the_support_bundle(plugin: Plugin) -> None:
    plugin.kubectl("create", "secret", "generic", "other", f"--from-literal=key={SECRET}")
    beside = {"host": "hub-postgres", "username": "runner", "namespace": "seen", "password": f"{SECRET}2"}
    plugin.kubectl(
        "create", "secret", "generic", "beside", *(f"--from-literal={key}={beside[key]}" for key in beside)
    )
    # Somebody wrote a password where none belongs.
    plugin.kubectl("annotate", "runnerhubcluster", "hub", f"note=it is {SECRET}")
    plugin.kubectl("create", "configmap", "hub-note", f"--from-literal=note=app/{SECRET}@db")
    plugin.kubectl("label", "configmap", "hub-note", "runnerhub.io/cluster=hub")
    path = plugin.folder / "bundle.tar.gz"
    done = plugin("support-bundle", "--file", str(path))
    assert done.code == 0, done.err
    with tarfile.open(path) as archive:
        files = {
            member.name.partition("/")[2]: archive.extractfile(member).read()  # type: ignore[union-attr]
            for member in archive.getmembers()
        }
    assert {
        "README.txt", "cluster.yaml", "doctor.txt", "events.txt", "secrets.yaml", "status.txt",
        "objects/configmaps.yaml", "objects/leases.yaml", "objects/pods.yaml", "objects/statefulsets.yaml",
        "objects/horizontalpodautoscalers.yaml", "objects/jobs.yaml", "kubernetes/definition.yaml",
        "kubernetes/nodes.yaml",
    } <= set(files)  # fmt: skip
    # Played pods have no logs.
    assert b"objects/" not in files["README.txt"].partition(b"Could not be had")[2]
    assert b"it is <***>" in files["cluster.yaml"]
    assert b"hub-postgres-credentials" in files["secrets.yaml"]
    left_in = files["README.txt"].partition(b"Left in")[2].partition(b"\n\n")[0].decode().splitlines()[2:]
    assert left_in == ["beside/host", "beside/namespace", "beside/username"]
    everything = b"".join(files.values())
    assert b"hub-postgres-0" in everything
    secrets = plugin.kubectl.items("secrets")
    assert len(secrets) >= 4
    for secret in secrets:
        for key, value in secret["data"].items():
            if not value or f"{secret['metadata']['name']}/{key}" in left_in:
                continue
            assert value.encode() not in everything
            assert base64.b64decode(value) not in everything
