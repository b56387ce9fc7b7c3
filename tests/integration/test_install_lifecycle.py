"""The life of an installation: what comes, is brought up to date, goes back and stays, with both major versions of Helm
and without any.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from apiserver import ApiServer
from e2e.lab.kubectl import Kubectl, wait_for
from kindbed import gotools
from tests import charts, manifest

DEFINITION = "runnerhubclusters.runnerhub.io"
SYSTEM = "runnerhub-system"
OLDER = "What an older version said."
Helm = Callable[..., str]


@pytest.fixture(params=charts.HELMS)
def helm(request: pytest.FixtureRequest, bare: ApiServer, kubectl: Kubectl) -> Iterator[Helm]:
    """Helm against an API server on which nothing of ours is installed."""

    def run(*arguments: str | Path) -> str:
        return charts.helm("--kubeconfig", bare.kubeconfig, *arguments, binary=request.param)

    yield run
    for release, namespace in (("hub", "team"), ("op", SYSTEM), ("other", "elsewhere")):
        run("uninstall", release, "--namespace", namespace, "--ignore-not-found", "--wait=false")
    kubectl("delete", "crd", DEFINITION, "--ignore-not-found")


@pytest.fixture(scope="module")
def bare() -> Iterator[ApiServer]:
    with ApiServer() as running:
        yield running


@pytest.fixture
def kubectl(bare: ApiServer) -> Kubectl:
    return Kubectl(gotools.ensure("kubectl")["kubectl"], bare.kubeconfig, "team")


def first_column(kubectl: Kubectl) -> str:
    """A text of the definition in which versions differ."""
    definition: dict[str, Any] | None = kubectl.get("crd", DEFINITION)
    assert definition is not None
    text: str = definition["spec"]["versions"][0]["additionalPrinterColumns"][0]["description"]
    return text


@pytest.fixture
def older(tmp_path: Path) -> Path:
    """The operator's chart with another definition."""
    chart = tmp_path / "runnerhub-operator"
    shutil.copytree(charts.OPERATOR, chart)
    file = chart / "files" / "runnerhubclusters.spec.yaml"
    text = file.read_text()
    assert "Whether the cluster serves." in text
    file.write_text(text.replace("Whether the cluster serves.", OLDER))
    return chart


def test_an_upgrade_brings_the_definition_up_to_date_and_a_rollback_back(
    helm: Helm, kubectl: Kubectl, older: Path
) -> None:
    # As the documentation has it.
    inside, reuse = ("--namespace", SYSTEM), ("--reset-then-reuse-values",)
    helm("install", "op", older, *inside, "--create-namespace")
    assert first_column(kubectl) == OLDER
    helm("upgrade", "op", charts.OPERATOR, *inside, *reuse)
    assert first_column(kubectl) == "Whether the cluster serves."
    helm("rollback", "op", "1", *inside)
    assert first_column(kubectl) == OLDER
    # The way back that keeps the newer definition under an older operator.
    helm("upgrade", "op", charts.OPERATOR, *inside, *reuse)
    helm("upgrade", "op", older, *inside, *reuse, "--set", "crds.install=false")
    assert first_column(kubectl) == "Whether the cluster serves."


def test_uninstalling_the_operator_keeps_definition_and_clusters_and_it_can_come_back(
    helm: Helm, kubectl: Kubectl
) -> None:
    inside = ("--namespace", SYSTEM)
    helm("install", "op", charts.OPERATOR, *inside, "--create-namespace")
    wait_for("the definition to be served", lambda: kubectl("get", "rhc", "-A") is not None, 60)
    helm("install", "hub", charts.CLUSTER, "--namespace", "team", "--create-namespace")
    cluster = kubectl.get("rhc", "hub")
    assert cluster is not None

    helm("uninstall", "op", *inside)
    assert (
        kubectl.in_namespace(SYSTEM).items("deployment,serviceaccount", "app.kubernetes.io/instance=op") == []
    )
    helm("install", "op", charts.OPERATOR, *inside)
    again = kubectl.get("rhc", "hub")
    assert again is not None
    assert again["metadata"]["uid"] == cluster["metadata"]["uid"]

    helm("uninstall", "op", *inside)
    elsewhere = ("install", "other", charts.OPERATOR, "--namespace", "elsewhere", "--create-namespace")
    with pytest.raises(charts.HelmError, match=r"cannot be imported|conflict"):
        helm(*elsewhere)
    helm(*elsewhere, "--take-ownership")
    assert kubectl.get("rhc", "hub") is not None


def test_without_keep_the_definition_goes_and_the_clusters_with_it(helm: Helm, kubectl: Kubectl) -> None:
    inside = ("--namespace", SYSTEM)
    helm("install", "op", charts.OPERATOR, *inside, "--create-namespace")
    helm("upgrade", "op", charts.OPERATOR, *inside, "--set", "crds.keep=false")
    helm("uninstall", "op", *inside)
    wait_for("the definition to be gone", lambda: kubectl.get("crd", DEFINITION) is None, 60)


@pytest.mark.parametrize("keep", [True, False])
def test_a_cluster_stays_after_its_release_only_on_demand(helm: Helm, kubectl: Kubectl, keep: bool) -> None:
    helm("install", "op", charts.OPERATOR, "--namespace", SYSTEM, "--create-namespace")
    wait_for("the definition to be served", lambda: kubectl("get", "rhc", "-A") is not None, 60)
    chosen = ("--namespace", "team", "--set", f"keep={str(keep).lower()}")
    helm("install", "hub", charts.CLUSTER, "--create-namespace", *chosen)
    helm("upgrade", "hub", charts.CLUSTER, *chosen, "--set", "spec.orchestrator.replicas=4")
    changed = kubectl.get("rhc", "hub")
    assert changed is not None
    assert changed["spec"]["orchestrator"]["replicas"] == 4
    helm("uninstall", "hub", "--namespace", "team")
    assert (kubectl.get("rhc", "hub") is not None) == keep


def test_the_manifest_installs_with_kubectl_alone_and_again_changes_nothing(
    kubectl: Kubectl, tmp_path: Path
) -> None:
    file, system = tmp_path / "operator.yaml", "plain-system"
    manifest.main([str(file), "--namespace", system])
    inside = kubectl.in_namespace(system)
    apply = ("apply", "--server-side", "-f", str(file))
    inside(*apply)
    try:
        # The API server itself writes into its status before that.
        inside("wait", "--for=condition=Established", f"crd/{DEFINITION}", "--timeout=60s")
        before = inside.get("crd", DEFINITION), inside.get("deployment", "runnerhub-operator")
        assert None not in before
        inside(*apply)
        assert (inside.get("crd", DEFINITION), inside.get("deployment", "runnerhub-operator")) == before
    finally:
        inside("delete", "-f", str(file), "--wait=false")
    wait_for("the definition to be gone", lambda: kubectl.get("crd", DEFINITION) is None, 60)
