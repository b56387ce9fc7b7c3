"""The command blocks of the documentation: which the end-to-end tests run, and why the others cannot run there.

A block of `sh` in the quick start or in a how-to has a line before it that no reader sees: `<!-- run -->`, or
`<!-- not run: REASON -->`. Blocks run in the order of the site, each in a shell of its own.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

ROOT: Final = Path(__file__).resolve().parent.parent
DOCS: Final = ROOT / "docs"
QUICK_START: Final = "quickstart.md"

_FENCE: Final = re.compile(
    r"(?P<before>[^\n]*)\n(?P<indent> *)```(?P<language>[a-z]*)\n(?P<text>.*?)\n(?P=indent)```$",
    re.DOTALL | re.MULTILINE,
)
_MARK: Final = re.compile(r"<!-- (?:(?P<run>run)|not run: (?P<reason>.+)) -->")


class UnmarkedBlockError(ValueError):
    """A command block does not say whether it is run."""


@dataclass(frozen=True, slots=True)
class Block:
    """One fenced block. `line`: of its first line; `reason`: why it is not run, None when it is."""

    page: str
    line: int
    language: str
    text: str
    reason: str | None = None

    @property
    def place(self) -> str:
        """For people: page and line."""
        return f"docs/{self.page}:{self.line}"


def pages() -> list[str]:
    """The quick start and the how-tos, in the order of the site."""
    site: dict[str, Any] = yaml.safe_load((ROOT / "mkdocs.yml").read_text())
    how_to: list[str] = next(part["How to"] for part in site["nav"] if "How to" in part)
    return [QUICK_START, *how_to]


def fences(page: str, text: str) -> Iterator[Block]:
    """All fenced blocks of a page; UnmarkedBlockError for commands that do not say whether they are run."""
    # A fence can stand in the first line.
    for found in _FENCE.finditer(f"\n{text}"):
        line = text.count("\n", 0, found.start("text") - 1) + 1
        block = Block(page, line, found["language"], found["text"])
        if found["language"] != "sh":
            yield block
            continue
        mark = _MARK.fullmatch(found["before"].strip())
        if mark is None:
            raise UnmarkedBlockError(f"{block.place}: no <!-- run --> or <!-- not run: REASON --> before it")
        yield Block(page, line, "sh", found["text"], mark["reason"])


def every_fence(text: str) -> Iterator[Block]:
    """All fenced blocks of a page that may have blocks without marks."""
    for found in _FENCE.finditer(f"\n{text}"):
        yield Block("", 0, found["language"], found["text"])


def blocks(page: str) -> list[Block]:
    """All fenced blocks of a page of the documentation."""
    return list(fences(page, (DOCS / page).read_text()))


def commands(page: str) -> list[Block]:
    """The command blocks of a page."""
    return [block for block in blocks(page) if block.language == "sh"]


def runnable(page: str) -> list[Block]:
    """The command blocks of a page that are run."""
    return [block for block in commands(page) if block.reason is None]


def runnable_pages() -> list[str]:
    """The pages with such blocks, in the order in which they are run."""
    return [page for page in pages() if runnable(page)]
