"""Comparing two builds of one release: which files are the same to the bit, and what differs in the others."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

from e2e.lab import report

from . import archives
from .build import SUMS

# Debian's packages and what their installation scripts write are not in our hands.
_MAY_DIFFER = (".oci.tar", ".cdx.json")


@dataclass(frozen=True, slots=True)
class Comparison:
    """One file of both builds; `differing` names paths inside an image."""

    name: str
    identical: bool
    may_differ: bool
    differing: list[str]


def compare(one: Path, other: Path) -> list[Comparison]:
    """Compare all files of two folders; also written to build/reports/release.json."""
    names = sorted({file.name for folder in (one, other) for file in folder.iterdir()} - {SUMS})
    found = [_compare(one / name, other / name) for name in names]
    report.write("release", [asdict(item) for item in found])
    return found


def table(found: list[Comparison]) -> str:
    """The comparison for people."""
    rows = [
        (item.name, "identical" if item.identical else "differs", ", ".join(item.differing[:5]))
        for item in found
    ]
    return report.table(("file", "second build", "what differs"), rows)


def _compare(one: Path, other: Path) -> Comparison:
    name = one.name
    identical = one.exists() and other.exists() and archives.sha256(one) == archives.sha256(other)
    differing: list[str] = []
    if not identical and name.endswith(".oci.tar") and one.exists() and other.exists():
        differing = archives.differences(one, other)
    return Comparison(name, identical, name.endswith(_MAY_DIFFER), differing)
