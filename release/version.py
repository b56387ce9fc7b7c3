"""The version of the product. `runnerhub_operator.__version__` says it; all other places follow."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
SOURCE: Final = "operator/runnerhub_operator/__init__.py"
CHANGELOG: Final = "CHANGELOG.md"
VERSION: Final = re.compile(r"\d+\.\d+\.\d+(?:-(?:alpha|beta|rc)\.\d+)?")
_UNRELEASED: Final = "## [Unreleased]"
_HEADING: Final = re.compile(r"^## \[(?P<name>[^\]]+)\](?: - (?P<date>\d{4}-\d{2}-\d{2}))?$", re.MULTILINE)


class ReleaseError(Exception):
    """A release cannot be made; the text tells why."""


@dataclass(frozen=True, slots=True)
class Place:
    """Files that say the version, and how: the pattern has it as its group `version`."""

    files: str
    pattern: str


# What `make generate` writes is not here: it follows the charts.
PLACES: Final = (
    Place(SOURCE, r'^__version__ = "(?P<version>[^"]+)"$'),
    Place("charts/*/Chart.yaml", r"^(?:version|appVersion): (?P<version>\S+)$"),
    Place("images/*/Dockerfile", r"^ARG BASE_IMAGE=ghcr\.io/runnerhub/base:(?P<version>\S+)$"),
    Place("examples/argocd/application*.yaml", r"targetRevision: v(?P<version>\S+)$"),
    Place("examples/kustomize/kustomization.yaml", r"(?:\?ref=v|/runnerhub/[a-z]+:)(?P<version>[\w.-]+)"),
    Place("e2e/client/node/package.json", r'^  "version": "(?P<version>[^"]+)"'),
    # Once for the file and once for the package of its own; the libraries have other versions.
    Place(
        "e2e/client/node/package-lock.json", r'"name": "runnerhub[^"]*",\s+"version": "(?P<version>[^"]+)"'
    ),
)


def said(root: Path = ROOT) -> dict[str, list[str]]:
    """The versions that each file says, in the order of the file; raises ReleaseError when a place says none."""
    result: dict[str, list[str]] = {}
    for file, pattern in _files(root):
        versions = [match["version"] for match in pattern.finditer(file.read_text())]
        if not versions:
            raise ReleaseError(f"{file.relative_to(root)} says no version any more")
        result[str(file.relative_to(root))] = versions
    return result


def current(root: Path = ROOT) -> str:
    """The version of this checkout."""
    return said(root)[SOURCE][0]


def write(version: str, today: date, root: Path = ROOT) -> None:
    """Say another version everywhere, and turn what the changelog has as unreleased into that version."""
    if not VERSION.fullmatch(version):
        raise ReleaseError(f"{version!r} is no version such as 1.2.3 or 1.2.3-rc.1")
    notes = root / CHANGELOG
    text = notes.read_text()
    if f"## [{version}]" in text:
        raise ReleaseError(f"{CHANGELOG} has {version} already")
    if not changes("Unreleased", root):
        raise ReleaseError(f"{CHANGELOG} has nothing unreleased")
    for file, pattern in _files(root):
        file.write_text(pattern.sub(lambda match: _with(match, version), file.read_text()))
    notes.write_text(text.replace(_UNRELEASED, f"{_UNRELEASED}\n\n## [{version}] - {today.isoformat()}", 1))


def changes(name: str, root: Path = ROOT) -> str:
    """What the changelog has under a version, or under Unreleased; raises ReleaseError when it has no such heading."""
    text = (root / CHANGELOG).read_text()
    headings = list(_HEADING.finditer(text))
    for number, heading in enumerate(headings):
        if heading["name"] == name:
            end = headings[number + 1].start() if number + 1 < len(headings) else len(text)
            return text[heading.end() : end].strip()
    raise ReleaseError(f"{CHANGELOG} has no heading for {name}")


def releases(root: Path = ROOT) -> list[tuple[str, str | None]]:
    """The headings of the changelog, from the top: version and date."""
    return [(found["name"], found["date"]) for found in _HEADING.finditer((root / CHANGELOG).read_text())]


def check_tag(tag: str, root: Path = ROOT) -> str:
    """The version that a tag stands for; raises ReleaseError unless checkout and changelog have that version."""
    version = current(root)
    if tag != f"v{version}":
        raise ReleaseError(f"the tag is {tag}, and the checkout's version {version}")
    if not changes(version, root):
        raise ReleaseError(f"{CHANGELOG} tells nothing of {version}")
    return version


def _files(root: Path) -> Iterator[tuple[Path, re.Pattern[str]]]:
    for place in PLACES:
        files = sorted(root.glob(place.files))
        if place.files.startswith("images/"):
            # The base itself is built on Debian.
            files = [file for file in files if file.parent.name != "base"]
        for file in files:
            yield file, re.compile(place.pattern, re.MULTILINE)


def _with(match: re.Match[str], version: str) -> str:
    start, end = match.start("version") - match.start(), match.end("version") - match.start()
    return match[0][:start] + version + match[0][end:]
