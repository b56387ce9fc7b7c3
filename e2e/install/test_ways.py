"""Each way to install: the operator and a cluster from nothing, a change, the way back, and the operator's end."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from e2e.install import journey
from e2e.install.ways import Argo, Helm, Kustomize, Manifests, Way
from e2e.lab import argocd
from e2e.lab.argocd import ArgoCD
from e2e.lab.bed import OPERATOR_NAMESPACE, Bed
from e2e.lab.hub import Hub
from e2e.lab.kubectl import wait_for


@pytest.fixture(params=["helm 3", "helm 4", "kubectl", "kustomize"])
def way(request: pytest.FixtureRequest, bed: Bed, tmp_path: Path) -> Iterator[Way]:
    """A way with no more than Helm or kubectl."""
    found: dict[str, Way] = {
        "helm 3": Helm(bed, "helm3", "helm 3"),
        "helm 4": Helm(bed, "helm", "helm 4"),
        "kubectl": Manifests(bed, tmp_path),
        "kustomize": Kustomize(bed, tmp_path),
    }
    chosen = found[request.param]
    yield chosen
    journey.clear(bed, chosen)


def test_a_cluster_becomes_complete_and_does_not_notice_what_happens_to_its_operator(
    bed: Bed, way: Way
) -> None:
    with journey.recorded(way) as row:
        journey.travel(bed, way, row)


@pytest.fixture(scope="module")
def argo(bed: Bed, tmp_path_factory: pytest.TempPathFactory) -> ArgoCD:
    """Argo CD with a repository that has the charts; it goes with the kind cluster."""
    return argocd.install(bed, tmp_path_factory.mktemp("repository"))


@pytest.fixture
def by_argo(bed: Bed, argo: ArgoCD) -> Iterator[Argo]:
    """The way by Argo CD."""
    chosen = Argo(bed, argo)
    yield chosen
    # Without what it stands for: a failure may have left it, and it would bring everything back.
    argo.kubectl(
        "delete", "application.argoproj.io", chosen.application, "--ignore-not-found", "--wait=false"
    )
    journey.clear(bed, chosen)


def test_argo_cd_keeps_an_installation_as_git_has_it(bed: Bed, by_argo: Argo) -> None:
    """In sync for good, changes and their opposites by commits, drift, and deletion with all that belongs to it."""
    with journey.recorded(by_argo) as row:
        started = time.monotonic()
        by_argo.install()
        hub = Hub(bed.kubectl.in_namespace(by_argo.namespace), "hub")
        assert hub.is_settled(), "Healthy means complete"
        row.seconds = round(time.monotonic() - started, 1)
        _stays_in_sync(by_argo)
        _a_commit_changes_the_cluster_and_a_revert_takes_it_back(by_argo, hub)

        before = journey.pods(hub)
        _drift_is_healed(bed, by_argo)
        journey.go_there_and_back(bed, by_argo, hub, before, row)

        by_argo.remove()
        journey.must_be_without_operator(bed, hub)
        journey.must_not_notice(hub, before, row)


def test_argo_cd_knows_every_field_of_the_example_of_an_applicationset(argo: ArgoCD) -> None:
    """Its controller is not part of the installation, so only the schema is asked."""
    file = str(argocd.EXAMPLES / "applicationset.yaml")
    argo.kubectl("apply", "--server-side", "--dry-run=server", "--validate=strict", "-f", file)


def _stays_in_sync(by_argo: Argo) -> None:
    """Argo CD compares anew, without anything remembered, and finds nothing to do."""
    history = by_argo.argo.application(by_argo.application)["status"]["history"]
    for _ in range(3):
        by_argo.argo.refresh(by_argo.application, "hard")
        status = by_argo.argo.application(by_argo.application)["status"]
        assert status["sync"]["status"] == "Synced", status["resources"]
        assert not status.get("conditions"), status["conditions"]
        assert len(status["history"]) == len(history), "it was synced once more"


def _a_commit_changes_the_cluster_and_a_revert_takes_it_back(by_argo: Argo, hub: Hub) -> None:
    """A pause shows that our health check is the one that is asked: without it the Application would be Healthy."""
    by_argo.change_cluster("Pause", paused=True)
    by_argo.argo.wait(by_argo.application, by_argo.revision, "Suspended")
    assert hub.body()["spec"]["paused"] is True
    by_argo.back()
    assert hub.body()["spec"].get("paused", False) is False
    by_argo.change_cluster("One orchestrator more", orchestrator={"replicas": 4})
    by_argo.argo.wait(by_argo.application, by_argo.revision)
    assert len(hub.pods("orchestrator")) == 4
    # What Git says is brought back, when somebody changes it by hand.
    hub.kubectl("patch", "rhc", "hub", "--type=merge", "-p", '{"spec":{"orchestrator":{"replicas":5}}}')
    wait_for("the number to be back", lambda: hub.body()["spec"]["orchestrator"]["replicas"] == 4, 120)
    by_argo.back()
    wait_for("the fourth to go", lambda: len(hub.pods("orchestrator")) == 3, 120)
    hub.wait_settled(60)


def _drift_is_healed(bed: Bed, by_argo: Argo) -> None:
    """An object that was deleted, and a field that was changed, come back without a commit."""
    system = bed.kubectl.in_namespace(OPERATOR_NAMESPACE)
    system("delete", "service", "runnerhub-operator-metrics")
    system("scale", "deployment/runnerhub-operator", "--replicas=1")

    def healed() -> bool:
        deployment = system.get("deployment", "runnerhub-operator")
        assert deployment is not None
        service = system.get("service", "runnerhub-operator-metrics")
        return service is not None and deployment["spec"]["replicas"] == 2

    wait_for("the drift to be healed", healed, 120)
    by_argo.argo.wait(by_argo.application, by_argo.revision)
