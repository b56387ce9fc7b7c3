"""The ways of installing against a real API server: what it stores, admits and lets the operator do."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from apiserver import ApiServer
from e2e.lab.hub import Hub
from e2e.lab.kubectl import Kubectl, wait_for
from kindbed import paths
from runnerhub_operator.api.crd import custom_resource_definition
from tests import charts
from tests.integration.conftest import SYSTEM, Operator, Start

DEFINITION = "runnerhubclusters.runnerhub.io"


def cluster(spec: dict[str, Any] | None = None) -> dict[str, Any]:
    return {
        "apiVersion": "runnerhub.io/v1alpha1",
        "kind": "RunnerHubCluster",
        "metadata": {"name": "hub"},
        "spec": spec or {},
    }


def kubeconfig_of(account: Kubectl, server: ApiServer, file: Path) -> Path:
    """A kubeconfig for the ServiceAccount runnerhub-operator of a namespace."""
    token = account("create", "token", "runnerhub-operator", "--duration=1h").strip()
    config = yaml.safe_load(server.kubeconfig.read_text())
    config["users"][0]["user"] = {"token": token}
    file.write_text(yaml.safe_dump(config))
    return file


def test_the_definition_is_stored_as_it_is_applied(admin: Kubectl) -> None:
    stored = admin.get("crd", DEFINITION)
    assert stored is not None
    # Argo CD and others compare what they applied with what is there.
    assert stored["spec"].pop("conversion") == {"strategy": "None"}
    applied = custom_resource_definition()["spec"]
    assert stored["spec"] == applied


def test_applying_a_cluster_again_would_change_nothing(operator: Operator, namespace: Kubectl) -> None:
    first = {"name": "first", "image": "example.com/first"}
    pool = {"name": "linux", "tolerations": [{"key": "dedicated"}]}
    manifest = json.dumps(
        cluster(
            {
                "orchestrator": {"replicas": 2, "initContainers": [first]},
                "postgres": {"storage": {"size": "2Gi"}},
                "runnerPools": [pool],
            }
        )
    )
    apply = ("apply", "--server-side", "--field-manager=argocd-controller", "-o", "json", "-f", "-")
    namespace(*apply, stdin=manifest)
    hub = Hub(namespace, "hub")
    wait_for("a status", lambda: hub.status().get("conditions"), 60)

    # What Argo CD's ServerSideDiff compares. Status, version and times of what was not applied are left out by it.
    again = json.loads(namespace(*apply, "--dry-run=server", stdin=manifest))
    live = hub.body()
    assert again["spec"] == live["spec"]
    # Its other way is a merge patch, which compares a list as a whole.
    assert (live["spec"]["orchestrator"]["initContainers"], live["spec"]["runnerPools"]) == ([first], [pool])
    assert again["metadata"]["generation"] == live["metadata"]["generation"]
    assert again["status"] == live["status"], "the status is a subresource, which applying cannot touch"
    shown = json.loads(namespace("get", "rhc", "hub", "-o", "json", "--show-managed-fields"))
    owners = {
        item["manager"]: (item.get("subresource"), set(item["fieldsV1"]))
        for item in shown["metadata"]["managedFields"]
    }
    assert owners["argocd-controller"] == (None, {"f:spec"})
    others = {subresource for manager, (subresource, _) in owners.items() if manager != "argocd-controller"}
    assert others == {"status"}, "nobody else writes the spec"


def test_the_charts_pods_are_admitted_where_the_restricted_standard_is_enforced(admin: Kubectl) -> None:
    admin("label", "namespace", SYSTEM, "pod-security.kubernetes.io/enforce=restricted", "--overwrite")
    inside = admin.in_namespace(SYSTEM)
    wait_for("the ServiceAccount", lambda: inside.get("serviceaccount", "runnerhub-operator"), 60)
    rendered = charts.render(charts.OPERATOR)
    (deployment,) = [item for item in rendered if item["kind"] == "Deployment"]
    (test,) = [item for item in rendered if item["kind"] == "Pod"]
    template = deployment["spec"]["template"]
    operator = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "operator", **template["metadata"]},
        "spec": template["spec"],
    }
    for pod in (operator, test):
        text = json.dumps(pod)
        assert "created (server dry run)" in inside("create", "--dry-run=server", "-f", "-", stdin=text)


def test_the_kustomization_is_the_definition_and_the_operator(admin: Kubectl) -> None:
    built = list(yaml.safe_load_all(admin("kustomize", str(charts.KUSTOMIZE))))
    files = (
        paths.REPOSITORY / "crds" / "runnerhub.io_runnerhubclusters.yaml",
        charts.KUSTOMIZE / "operator.yaml",
    )
    expected = [item for file in files for item in yaml.safe_load_all(file.read_text())]

    def by_name(items: list[Any]) -> dict[tuple[str, str], Any]:
        return {(item["kind"], item["metadata"]["name"]): item for item in items}

    assert by_name(built) == by_name(expected)
    assert len(built) == len(expected)
    # Taken by the API server as it is, in the order in which kubectl sends it.
    apply = ("apply", "--server-side", "--force-conflicts", "--dry-run=server", "-k", str(charts.KUSTOMIZE))
    applied = admin.in_namespace(SYSTEM)(*apply)
    assert len(applied.splitlines()) == len(built)


def test_the_example_of_an_overlay_takes_all_images_from_one_registry(admin: Kubectl) -> None:
    built = admin("kustomize", str(paths.REPOSITORY / "examples" / "kustomize"))
    assert "ghcr.io" not in built
    (deployment,) = [item for item in yaml.safe_load_all(built) if item["kind"] == "Deployment"]
    (base,) = [item for item in charts.render(charts.OPERATOR) if item["kind"] == "Deployment"]
    variables = [
        [item["name"] for item in found["spec"]["template"]["spec"]["containers"][0]["env"]]
        for found in (deployment, base)
    ]
    assert sorted(variables[0]) == sorted(variables[1]), "an image more needs a line more in the overlay"


def test_an_operator_for_some_namespaces_serves_those_and_has_no_right_elsewhere(
    admin: Kubectl, server: ApiServer, start_operator: Start, tmp_path: Path
) -> None:
    system, served, other = "scoped-system", "scoped-served", "scoped-other"
    for name in (system, served, other):
        admin("create", "namespace", name)
    objects = charts.render(
        charts.OPERATOR,
        "--set",
        f"watchNamespaces={{{served}}}",
        "--set",
        "crds.install=false",
        namespace=system,
    )
    rights = [item for item in objects if item["kind"] in ("ServiceAccount", "Role", "RoleBinding")]
    for item in rights:
        admin.in_namespace(item["metadata"]["namespace"]).apply(item)
    for name in (served, other):
        admin.in_namespace(name).apply(cluster())

    config = kubeconfig_of(admin.in_namespace(system), server, tmp_path / "scoped")
    operator = start_operator(
        "scoped-0", KUBECONFIG=str(config), POD_NAMESPACE=system, RUNNERHUB_WATCH_NAMESPACES=served
    )
    inside, outside = admin.in_namespace(served), admin.in_namespace(other)
    wait_for("the children in the namespace", lambda: inside.get("deployment", "hub-orchestrator"), 60)
    assert Hub(inside, "hub").status()["conditions"]
    assert outside.items("statefulset,deployment,service,secret") == []
    assert "status" not in Hub(outside, "hub").body()
    assert "forbidden" not in operator.log.read_text()
    account = f"--as=system:serviceaccount:{system}:runnerhub-operator"
    answer = outside("auth", "can-i", "--list", account)
    assert "secrets" not in answer
    assert "runnerhubclusters" not in answer


def checked(config: Path, seconds: float, **environment: str) -> subprocess.CompletedProcess[str]:
    """What `helm test` runs."""
    return subprocess.run(
        [sys.executable, "-m", "runnerhub_operator", "check", "--timeout", str(seconds)],
        env={
            **os.environ,
            "PYTHONPATH": str(paths.REPOSITORY / "operator"),
            "KUBECONFIG": str(config),
            "POD_NAMESPACE": SYSTEM,
            **environment,
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_the_check_passes_only_while_somebody_renews_the_lease(
    admin: Kubectl, server: ApiServer, operator: Operator, tmp_path: Path
) -> None:
    config = kubeconfig_of(admin.in_namespace(SYSTEM), server, tmp_path / "check")
    well = checked(config, 30)
    assert (well.returncode, well.stderr) == (0, "")
    assert f"the active operator is {operator.name}" in well.stdout

    operator.process.send_signal(signal.SIGSTOP)
    try:
        frozen = checked(config, 6)
    finally:
        operator.process.send_signal(signal.SIGCONT)
    assert frozen.returncode == 1
    assert "has not renewed it yet" in frozen.stderr

    operator.stop()
    gone = checked(config, 6)
    assert gone.returncode == 1
    assert "nobody holds" in gone.stderr


@pytest.mark.parametrize(
    ("environment", "problem"),
    [
        ({"POD_NAMESPACE": "default"}, "leases"),
        ({"RUNNERHUB_WATCH_NAMESPACES": "default"}, "the active operator"),
    ],
)
def test_the_check_looks_where_the_operator_is_told_to(
    admin: Kubectl,
    server: ApiServer,
    operator: Operator,
    tmp_path: Path,
    environment: dict[str, str],
    problem: str,
) -> None:
    config = kubeconfig_of(admin.in_namespace(SYSTEM), server, tmp_path / "check")
    is_well = "RUNNERHUB_WATCH_NAMESPACES" in environment
    # Where nothing is found it looks until the end.
    found = checked(config, 30 if is_well else 6, **environment)
    assert problem in found.stdout + found.stderr
    assert (found.returncode == 0) == is_well
