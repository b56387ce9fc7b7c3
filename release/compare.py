"""Comparing two builds of one release: which files are the same to the bit, and what differs in the others."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

from e2e.lab import report

from . import archives
from .build import SUMS

# Names the packages of an image with their versions.
_PACKAGES = "var/lib/dpkg/status"
_IMAGE, _CONTENTS = ".oci.tar", ".cdx.json"


@dataclass(frozen=True, slots=True)
class Comparison:
    """One file of both builds; `differing` names paths inside an image.

    `may_differ`: Debian had other packages for the second build, in this image or in one that the file tells of.
    """

    name: str
    identical: bool
    may_differ: bool
    differing: list[str]


def compare(one: Path, other: Path) -> list[Comparison]:
    """Compare all files of two folders; also written to build/reports/release.json."""
    names = sorted({file.name for folder in (one, other) for file in folder.iterdir()} - {SUMS})
    different = [name for name in names if not _identical(one / name, other / name)]
    inside = {
        name: archives.differences(one / name, other / name)
        for name in different
        if name.endswith(_IMAGE) and (one / name).exists() and (other / name).exists()
    }
    renewed = {name.removesuffix(_IMAGE) for name, paths in inside.items() if _PACKAGES in paths}
    found = [
        Comparison(name, name not in different, _follows(name, renewed), inside.get(name, []))
        for name in names
    ]
    report.write("release", [asdict(item) for item in found])
    return found


def table(found: list[Comparison]) -> str:
    """The comparison for people."""
    rows = [
        (item.name, "identical" if item.identical else "differs", ", ".join(item.differing[:5]))
        for item in found
    ]
    return report.table(("file", "second build", "what differs"), rows)


def _identical(one: Path, other: Path) -> bool:
    return one.exists() and other.exists() and archives.sha256(one) == archives.sha256(other)


def _follows(name: str, renewed: set[str]) -> bool:
    """Whether a file is other when the packages of these images are."""
    if name.endswith((_IMAGE, _CONTENTS)):
        return name.removesuffix(_IMAGE).removesuffix(_CONTENTS) in renewed
    # Chart and manifest have the digests of images.
    return bool(renewed) and name.startswith("runnerhub-operator-")
