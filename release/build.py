"""Building what a release publishes: from what is committed and with its time, so that it comes out the same again."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from kindbed import baseimage, engine, gotools, productimages, pythonenv
from kindbed.console import Word, run_logged, step
from kindbed.hostclients import build_mounts

from . import archives
from .version import ROOT, ReleaseError, current

SUMS: Final = "SHA256SUMS"
# Beside the names that tests and clusters of this machine use.
_WORKSHOP: Final = "localhost/runnerhub-release"


@dataclass(frozen=True, slots=True)
class Release:
    """One build: from a source tree without anything uncommitted into a folder."""

    source: Path
    output: Path
    version: str
    epoch: int  # seconds; the time of everything in the archives

    @property
    def environment(self) -> dict[str, str]:
        """For programs that honour https://reproducible-builds.org/specs/source-date-epoch/."""
        python = (self.source, self.source / "operator", self.source / "e2e" / "kind")
        return {"SOURCE_DATE_EPOCH": str(self.epoch), "PYTHONPATH": os.pathsep.join(map(str, python))}

    def wheel(self) -> None:
        """The wheel with operator and plugin."""
        with step("build the wheel"):
            self._run(
                [
                    sys.executable, "-m", "pip", "wheel", "--quiet", "--disable-pip-version-check", "--no-deps",
                    "--no-cache-dir", "--no-build-isolation", "--wheel-dir", self.output, ".",
                ]
            )  # fmt: skip

    def plugin(self) -> None:
        """The plugin for kubectl as one file, for this kind of Python and machine."""
        kind = f"cp{sys.version_info.major}{sys.version_info.minor}-{sysconfig.get_platform()}"
        file = self.output / f"kubectl-runnerhub-{self.version}-{kind}"
        pythonenv.plugin(file, self.source, {"SOURCE_DATE_EPOCH": str(self.epoch)})

    def charts(self) -> None:
        """The Helm charts as archives."""
        helm = gotools.ensure("helm")["helm"]
        with step("package the charts"):
            for chart in sorted(self.source.glob("charts/*/Chart.yaml")):
                self._run([helm, "package", chart.parent, "--destination", self.output])
                archives.settle(self.output / f"{chart.parent.name}-{self.version}.tgz", self.epoch)

    def manifest(self) -> None:
        """The file that installs the operator without Helm."""
        with step("render the manifest"):
            file = self.output / f"runnerhub-operator-{self.version}.yaml"
            self._run([sys.executable, "-m", "tests.manifest", file])

    def images(self, names: Sequence[str], foundation: str) -> None:
        """Images as OCI archives, each with the list of what it holds (CycloneDX); chart and manifest name them."""
        podman = engine.Engine("podman")
        # The others are built on it; nobody runs it itself.
        self._image(podman, productimages.BASE, foundation)
        for name in names:
            self._image(podman, name, self._tag(productimages.BASE))
            archive = self.output / f"{name}-{self.version}.oci.tar"
            archive.unlink(missing_ok=True)
            with step(f"write {archive.name} and what it holds"):
                target = f"oci-archive:{archive}:{productimages.image_name(name)}"
                run_logged(
                    [podman.command, "push", "--quiet", self._tag(name), target],
                    "release",
                    env=podman.environment,
                )
                archives.settle_image(archive, self.epoch)
                self._contents(name, archive)
        pin(self.source, {name: self.output / f"{name}-{self.version}.oci.tar" for name in names})

    def sums(self) -> None:
        """SHA256SUMS of all files, for `sha256sum --check`."""
        files = sorted(file for file in self.output.iterdir() if file.name != SUMS)
        lines = [f"{archives.sha256(file)}  {file.name}\n" for file in files]
        (self.output / SUMS).write_text("".join(lines))

    def _image(self, podman: engine.Engine, name: str, base: str) -> None:
        with step(f"build the image {name}"):
            run_logged(
                [
                    podman.command, "build", "--network", "host", "--isolation", "chroot", "--pull=missing",
                    "--no-cache", "--timestamp", str(self.epoch), "--build-arg", f"SOURCE_DATE_EPOCH={self.epoch}",
                    "--build-arg", f"BASE_IMAGE={base}", "--tag", self._tag(name), *build_mounts(),
                    "--label", f"org.opencontainers.image.version={self.version}",
                    "--label", "org.opencontainers.image.title=" + name,
                    "--file", self.source / "images" / name / "Dockerfile", self.source,
                ],
                f"release-{name}",
                env=podman.environment,
            )  # fmt: skip

    def _contents(self, name: str, archive: Path) -> None:
        syft = gotools.ensure("syft")["syft"]
        file = self.output / f"{name}-{self.version}.cdx.json"
        self._run(
            [syft, "scan", f"oci-archive:{archive}", "--quiet", "--output", f"cyclonedx-json={file}"],
            {"SYFT_CHECK_FOR_APP_UPDATE": "false"},
        )
        content = json.loads(file.read_text())
        # Of the hour and of chance in syft, of the image here.
        digest = archives.image_digest(archive)
        content["serialNumber"] = uuid.uuid5(uuid.NAMESPACE_URL, digest).urn
        content["metadata"]["timestamp"] = datetime.fromtimestamp(self.epoch, UTC).isoformat()
        content["metadata"]["component"]["name"] = productimages.image_name(name)
        file.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n")

    def _tag(self, name: str) -> str:
        return f"{_WORKSHOP}/{name}:{self.version}"

    def _run(self, command: Sequence[Word], extra: Mapping[str, str] | None = None) -> None:
        run_logged(command, "release", env={**self.environment, **(extra or {})}, cwd=self.source)


def pin(source: Path, images: Mapping[str, Path]) -> None:
    """Let the operator's chart name images, given as OCI archives, by their digests."""
    lines = [f"{name}: {archives.image_digest(archive)}\n" for name, archive in sorted(images.items())]
    (source / "charts/runnerhub-operator/files/digests.yaml").write_text("".join(lines))


def images() -> list[str]:
    """The images that are published."""
    return [name for name in productimages.names() if name not in (productimages.BASE, "client")]


def build(output: Path, names: Sequence[str], foundation: str | None) -> None:
    """Build a release into an empty folder; raises ReleaseError when something is not committed.

    `foundation` is the Debian image below all others; without it, the test bed's own, made from Debian's packages.
    """
    changed = _git("status", "--porcelain", "--untracked-files=no").strip()
    if changed:
        raise ReleaseError(f"a release is made from what is committed; this is not:\n{changed}")
    if output.exists() and any(output.iterdir()):
        raise ReleaseError(f"{output} is not empty")
    output.mkdir(parents=True, exist_ok=True)
    epoch = int(os.environ.get("SOURCE_DATE_EPOCH") or _git("log", "-1", "--format=%ct"))
    with tempfile.TemporaryDirectory(prefix="release-") as folder:
        source = Path(folder, "source")
        _check_out(source)
        release = Release(source, output.resolve(), current(), epoch)
        release.wheel()
        release.plugin()
        if names:
            release.images(names, foundation or _own_foundation())
        release.charts()
        release.manifest()
        release.sums()


def _own_foundation() -> str:
    return baseimage.ensure(engine.Engine("podman"))


def _check_out(source: Path) -> None:
    """The committed files, in a folder where a build leaves nothing in the checkout."""
    archive = source.with_suffix(".tar")
    _git("archive", "--format=tar", f"--output={archive}", "HEAD")
    with tarfile.open(archive) as content:
        content.extractall(source, filter="data")


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=ROOT, check=True, capture_output=True, text=True).stdout
