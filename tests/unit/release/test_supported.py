"""The supported versions of Kubernetes are one list, which documents, charts, doctor and CI follow."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from kindbed import versions
from kindbed.console import TestBedError
from release.version import ROOT
from runnerhub_cli.doctor.platform import OLDEST_KUBERNETES

SUPPORTED = list(versions.NODE_IMAGES)
OLDEST, NEWEST = SUPPORTED[0], SUPPORTED[-1]


def workflow(name: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((ROOT / ".github" / "workflows" / f"{name}.yaml").read_text())
    return found


def test_the_list_has_each_minor_version_from_the_oldest_to_the_newest_by_digest() -> None:
    first = int(OLDEST.removeprefix("1."))
    assert [f"1.{first + number}" for number in range(len(SUPPORTED))] == SUPPORTED
    for minor, image in versions.NODE_IMAGES.items():
        assert image.startswith(f"kindest/node:v{minor}.")
        assert len(image.partition("@sha256:")[2]) == 64
    assert versions.KUBERNETES.startswith(tuple(f"v{minor}." for minor in SUPPORTED))


def test_ci_runs_the_end_to_end_tests_with_each() -> None:
    assert workflow("ci")["jobs"]["e2e"]["strategy"]["matrix"]["kubernetes"] == SUPPORTED


@pytest.mark.parametrize("chart", ["runnerhub-operator", "runnerhub-cluster"])
def test_charts_refuse_older_ones(chart: str) -> None:
    about = yaml.safe_load((ROOT / "charts" / chart / "Chart.yaml").read_text())
    assert about["kubeVersion"] == f">={OLDEST}.0-0"


def test_documents_name_the_oldest_and_the_newest() -> None:
    assert f"Kubernetes {OLDEST} to {NEWEST}" in (ROOT / "docs" / "install.md").read_text()
    assert f"run with {versions.KUBERNETES.removeprefix('v')};" in (ROOT / "docs" / "install.md").read_text()
    assert f"Kubernetes {OLDEST} or newer" in (ROOT / "docs" / "reference" / "versions.md").read_text()


def test_the_doctor_calls_older_ones_too_old() -> None:
    assert ".".join(str(part) for part in OLDEST_KUBERNETES) == OLDEST


def test_the_environment_chooses_among_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(versions.KUBERNETES_VARIABLE, raising=False)
    assert versions.KUBERNETES.startswith(f"v{versions.kubernetes_minor()}.")
    monkeypatch.setenv(versions.KUBERNETES_VARIABLE, OLDEST)
    assert versions.upstream_node_image() == versions.NODE_IMAGES[OLDEST]
    monkeypatch.setenv(versions.KUBERNETES_VARIABLE, "1.2")
    with pytest.raises(TestBedError, match="must be one of"):
        versions.upstream_node_image()
