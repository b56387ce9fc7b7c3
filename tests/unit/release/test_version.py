"""The version is said once, and all other places follow."""

from __future__ import annotations

import re
import shutil
from datetime import date
from pathlib import Path

import pytest

from kindbed import productimages, versions
from release import version
from runnerhub_operator import __version__

ROOT = version.ROOT
# Files that say a version of something else, or that are made from those that follow.
_OTHERS = re.compile(
    r"^(CHANGELOG\.md|requirements\.lock|kustomize/operator\.yaml|tests/.*|docs/.*|e2e/kind/tools/.*|.*package-lock\.json)$"
)


def test_all_places_say_the_version_of_the_code() -> None:
    said = version.said()
    assert {name: sorted(set(found)) for name, found in said.items()} == {
        name: [__version__] for name in said
    }
    assert len(said) > 10


def test_the_test_bed_reads_the_version_of_the_code() -> None:
    assert __version__ == versions.PRODUCT_VERSION
    assert productimages.image_name("operator").endswith(f"/operator:{__version__}")


def test_no_file_says_the_version_without_being_a_known_place() -> None:
    known = version.said()
    found = [
        name
        for path in productimages._tracked(["."])
        if not _OTHERS.match(name := str(path.relative_to(ROOT)))
        and re.search(rf"(?<![\d.]){re.escape(__version__)}(?![\d.])", path.read_text(errors="ignore"))
    ]
    assert set(found) <= known.keys()


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """The places and a changelog, in a folder where they may be changed."""
    for name in (*version.said(), version.CHANGELOG):
        target = tmp_path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, target)
    (tmp_path / version.CHANGELOG).write_text("# Changelog\n\n## [Unreleased]\n\n### Added\n\n- A thing.\n")
    return tmp_path


def test_another_version_is_written_everywhere_and_nowhere_else(checkout: Path) -> None:
    lock = "e2e/client/node/package-lock.json"
    others = (checkout / lock).read_text().count('"version": ')
    version.write("7.8.9-rc.1", date(2026, 5, 4), checkout)
    said = version.said(checkout)
    assert {name: set(found) for name, found in said.items()} == {name: {"7.8.9-rc.1"} for name in said}
    assert {name: len(found) for name, found in said.items()} == {
        name: len(found) for name, found in version.said().items()
    }
    assert (checkout / lock).read_text().count('"version": "7.8.9-rc.1"') == 2 < others
    assert version.releases(checkout) == [("Unreleased", None), ("7.8.9-rc.1", "2026-05-04")]
    assert version.changes("7.8.9-rc.1", checkout) == "### Added\n\n- A thing."
    assert version.changes("Unreleased", checkout) == ""


def test_a_tag_must_be_the_version_of_checkout_and_changelog(checkout: Path) -> None:
    version.write("7.8.9", date(2026, 5, 4), checkout)
    assert version.check_tag("v7.8.9", checkout) == "7.8.9"
    with pytest.raises(version.ReleaseError, match=r"the tag is v7\.9\.0"):
        version.check_tag("v7.9.0", checkout)


def test_no_release_without_a_word_about_it(checkout: Path) -> None:
    version.write("7.8.9", date(2026, 5, 4), checkout)
    with pytest.raises(version.ReleaseError, match="nothing unreleased"):
        version.write("7.9.0", date(2026, 5, 5), checkout)
    with pytest.raises(version.ReleaseError, match="no version such as"):
        version.write("v8", date(2026, 5, 5), checkout)


def test_the_changelog_has_unreleased_changes_first_and_then_versions_from_the_newest() -> None:
    first, *released = version.releases()
    assert first == ("Unreleased", None)
    assert all(day and version.VERSION.fullmatch(name) for name, day in released)
    assert [day for _, day in released] == sorted((day or "" for _, day in released), reverse=True)
