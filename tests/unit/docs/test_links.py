"""Links of pages that are no part of the site; those of the site are checked when it is built (`make lint`)."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from mkdocs.config import load_config

from tests.generate import ROOT

LINK = re.compile(r"\]\((?!https?:)([^)#\s]+)(#[^)\s]+)?\)")


@pytest.mark.parametrize(
    "path", [ROOT / "README.md", ROOT / "CHANGELOG.md", ROOT / "e2e" / "kind" / "README.md"]
)
def test_links_lead_to_files(path: Path) -> None:
    missing = [target for target, _ in LINK.findall(path.read_text()) if not (path.parent / target).exists()]
    assert missing == []


def test_every_page_has_a_place_in_the_site() -> None:
    config = load_config(str(ROOT / "mkdocs.yml"))
    for hook in config.plugins.events["config"]:
        hook(config)
    listed = re.findall(r"[\w/-]+\.md", str(config.nav))
    assert sorted(listed) == sorted(
        str(path.relative_to(ROOT / "docs")) for path in (ROOT / "docs").rglob("*.md")
    )
