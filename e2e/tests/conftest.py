"""One kind cluster with one operator for the whole run; `--keep-cluster` leaves it up."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from e2e.lab import bed as test_bed
from e2e.lab.bed import Bed
from e2e.lab.hub import Hub
from e2e.lab.load import LoadClient
from kindbed import paths

NAMESPACE = "runnerhub-e2e"


def pytest_configure(config: pytest.Config) -> None:
    """A cluster of its own, unless the caller names one."""
    if config.option.cluster_name == "pytest-kind":
        config.option.cluster_name = "runnerhub-e2e"


@pytest.fixture(scope="session")
def bed(request: pytest.FixtureRequest) -> Iterator[Bed]:
    """A kind cluster with the product's images and the operator."""
    name = request.config.getoption("cluster_name")
    given = request.config.getoption("kubeconfig")
    found = test_bed.bring_up(name, Path(given) if given else paths.BUILD_DIR / f"kubeconfig-{name}")
    found.install_operator()
    yield found
    if not request.config.getoption("keep_cluster"):
        test_bed.tear_down(found)


@pytest.fixture(scope="session")
def hub(bed: Bed, request: pytest.FixtureRequest) -> Iterator[Hub]:
    """The minimal example, complete, in a namespace that enforces the restricted Pod Security Standard."""
    kubectl = bed.create_namespace(NAMESPACE)
    found = test_bed.apply_example("hub", kubectl, "minimal")
    found.wait_settled(900)
    yield found
    if request.config.getoption("keep_cluster"):
        bed.delete_namespace(NAMESPACE)


@pytest.fixture(scope="session")
def load(hub: Hub) -> Iterator[LoadClient]:
    """Clients that write as long as the tests run."""
    client = LoadClient(hub)
    client.start(test_bed.CLIENT_IMAGE)
    yield client
    client.stop()
