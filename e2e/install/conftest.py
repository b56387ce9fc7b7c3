"""One kind cluster without an operator for the whole run; `--keep-cluster` leaves it up."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from e2e.install.ways import NEXT
from e2e.lab import bed as test_bed
from e2e.lab import report
from e2e.lab.bed import Bed
from kindbed import paths, productimages


def pytest_configure(config: pytest.Config) -> None:
    """A cluster of its own, unless the caller names one."""
    if config.option.cluster_name == "pytest-kind":
        config.option.cluster_name = "runnerhub-install"


@pytest.fixture(scope="session")
def bed(request: pytest.FixtureRequest) -> Iterator[Bed]:
    """A kind cluster with the product's images on its nodes, and nothing of ours installed."""
    name = request.config.getoption("cluster_name")
    given = request.config.getoption("kubeconfig")
    # An older one must not be taken for that of a run which did not come as far as its first line.
    report.path("install").unlink(missing_ok=True)
    found = test_bed.bring_up(name, Path(given) if given else paths.BUILD_DIR / f"kubeconfig-{name}")
    productimages.tag(found.cluster, NEXT)
    yield found
    if not request.config.getoption("keep_cluster"):
        test_bed.tear_down(found)
