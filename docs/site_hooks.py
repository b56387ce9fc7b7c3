"""What the site needs beside its pages: files of the repository that pages link to, and the fault suites' pages."""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Final

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.plugins import get_plugin_logger
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT: Final = Path(__file__).resolve().parent.parent
# A link that leaves docs/, as it stands in a page: it works where the repository is looked at, too.
_LINK: Final = re.compile(r"\]\(((?:\.\./)+[^)#\s]+)\)")
_FOLDER: Final = "repository"

logger = get_plugin_logger("repository links")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Add the page of each fault suite that there is to the promises."""
    suites = sorted(path.name for path in Path(config.docs_dir).glob("fault-tests*.md"))
    nav = config.nav or []
    next(part["Promises"] for part in nav if isinstance(part, dict) and "Promises" in part)[1:1] = suites
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the files of the repository that pages link to, as text."""
    for page in list(files.documentation_pages()):
        for link in _LINK.findall(page.content_string):
            place = _place(page.src_uri, link)
            if place is None or files.get_file_from_path(f"{_FOLDER}/{place}.txt"):
                continue
            if not (ROOT / place).is_file():
                logger.warning("%s links to %s, which is no file of the repository", page.src_uri, link)
                continue
            text = (ROOT / place).read_text()
            files.append(File.generated(config, f"{_FOLDER}/{place}.txt", content=text))
    return files


def on_page_markdown(markdown: str, page: Page, **_: object) -> str:
    """Lead such links to the copies."""

    def lead(match: re.Match[str]) -> str:
        place = _place(page.file.src_uri, match[1])
        if place is None:
            return match[0]
        here = posixpath.dirname(page.file.src_uri) or "."
        return f"]({posixpath.relpath(f'{_FOLDER}/{place}.txt', here)})"

    return _LINK.sub(lead, markdown)


def _place(page: str, link: str) -> str | None:
    """The path inside the repository of what a page links to; None for a place inside docs/."""
    path = posixpath.normpath(posixpath.join("docs", posixpath.dirname(page), link))
    return None if path.startswith(("docs/", "../")) else path
