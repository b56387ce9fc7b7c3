"""Which differences between two builds of a release are let pass."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from e2e.lab import report
from release.compare import Comparison, compare
from tests.unit.release.test_archives import write_image

STATUS = "var/lib/dpkg/status"
CHART, MANIFEST, OTHER_CHART = (
    "runnerhub-operator-1.tgz",
    "runnerhub-operator-1.yaml",
    "runnerhub-cluster-1.tgz",
)


@pytest.fixture(autouse=True)
def reports(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    written: list[Any] = []
    monkeypatch.setattr(report, "write", lambda _, content: written.append(content))
    return written


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Two builds that are the same."""
    found = tmp_path / "first", tmp_path / "second"
    for folder in found:
        folder.mkdir()
        write_image(folder / "redis-1.oci.tar", [{STATUS: b"1", "etc/a": b"1"}])
        for name in ("redis-1.cdx.json", CHART, MANIFEST, OTHER_CHART):
            (folder / name).write_text("same")
    return found


def wrong(found: list[Comparison]) -> set[str]:
    """What makes the check fail."""
    return {item.name for item in found if not item.identical and not item.may_differ}


def test_the_same_is_the_same(folders: tuple[Path, Path], reports: list[Any]) -> None:
    assert all(item.identical for item in compare(*folders))
    assert len(reports[0]) == 5


def test_an_image_that_differs_without_other_packages_is_wrong(folders: tuple[Path, Path]) -> None:
    write_image(folders[1] / "redis-1.oci.tar", [{STATUS: b"1", "etc/a": b"2"}])
    found = compare(*folders)
    assert wrong(found) == {"redis-1.oci.tar"}
    assert next(item for item in found if not item.identical).differing == ["etc/a"]


def test_an_archive_that_differs_where_its_image_does_not_is_wrong(folders: tuple[Path, Path]) -> None:
    write_image(folders[1] / "redis-1.oci.tar", [{STATUS: b"1", "etc/a": b"1"}], mtime=1)
    assert wrong(compare(*folders)) == {"redis-1.oci.tar"}


@pytest.mark.parametrize("name", ["redis-1.cdx.json", CHART, MANIFEST, OTHER_CHART])
def test_all_other_files_must_be_the_same_while_the_images_are(folders: tuple[Path, Path], name: str) -> None:
    (folders[1] / name).write_text("other")
    assert wrong(compare(*folders)) == {name}


def test_other_packages_of_debian_make_another_image_and_what_tells_of_it(folders: tuple[Path, Path]) -> None:
    write_image(folders[1] / "redis-1.oci.tar", [{STATUS: b"2", "etc/a": b"2"}])
    for name in ("redis-1.cdx.json", CHART, MANIFEST, OTHER_CHART):
        (folders[1] / name).write_text("other")
    assert wrong(compare(*folders)) == {OTHER_CHART}


def test_a_file_that_only_one_build_has_is_wrong(folders: tuple[Path, Path]) -> None:
    (folders[0] / "redis-1.oci.tar").unlink()
    assert wrong(compare(*folders)) == {"redis-1.oci.tar"}
