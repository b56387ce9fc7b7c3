"""The test bed's decisions that need neither an engine nor a cluster."""

from __future__ import annotations

import re
import tarfile
from pathlib import Path

import pytest

from kindbed import gotools, hostclients, nodeimage, paths, productimages, versions

GO_MODULES = sorted(path.parent.name for path in gotools.TOOLS_DIR.glob("*/go.mod"))


def test_kubernetes_version_is_the_one_that_go_mod_pins() -> None:
    pinned = re.search(
        r"k8s\.io/kubernetes (v\S+)", (gotools.TOOLS_DIR / "kubernetes" / "go.mod").read_text()
    )
    assert pinned is not None
    assert pinned.group(1) == versions.KUBERNETES


def test_pause_image_of_the_node_is_the_preloaded_one() -> None:
    assert versions.PAUSE_IMAGE in (nodeimage.SOURCES / "containerd.toml").read_text()


@pytest.mark.parametrize("module", GO_MODULES)
def test_each_go_module_names_its_tools_and_has_checksums(module: str) -> None:
    text = (gotools.TOOLS_DIR / module / "go.mod").read_text()
    for tool in gotools.TOOLS.values():
        if tool.module == module:
            assert tool.package in text
    assert "tool " in text or (gotools.TOOLS_DIR / module / "main.go").exists()
    assert (gotools.TOOLS_DIR / module / "go.sum").stat().st_size > 0


def test_content_hash_changes_with_content_name_and_words(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    one.write_text("same")
    two.write_text("same")
    first = paths.content_hash([one])
    assert paths.content_hash([one]) == first
    assert paths.content_hash([two]) != first
    assert paths.content_hash([one], "word") != first
    one.write_text("else")
    assert paths.content_hash([one]) != first


def test_copied_sources_are_those_of_the_build_context(tmp_path: Path) -> None:
    dockerfile = tmp_path / "Dockerfile"
    dockerfile.write_text(
        "FROM base AS build\n"
        "COPY pyproject.toml requirements.lock ./\n"
        "COPY --from=build /opt/venv /opt/venv\n"
        'COPY --chmod=0755 ["images/x/bin/", "/usr/local/bin/"]\n'
        "COPY operator/a \\\n    operator/b /src/\n"
    )
    assert productimages._copied(dockerfile) == [
        "pyproject.toml",
        "requirements.lock",
        "images/x/bin/",
        "operator/a",
        "operator/b",
    ]


def test_mirrors_of_another_release_become_those_of_the_wanted_suite(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = (
        "http://mirror.test/debian-security/|Debian|Debian-Security|bookworm-security\n"
        "http://mirror.test/debian/|Debian|Debian|bookworm-updates\n"
        "http://mirror.test/debian/|Debian|Debian|bookworm\n"
        "https://elsewhere.test/apt|Vendor|Vendor|stable\n"
    )
    monkeypatch.setattr(hostclients.shutil, "which", lambda _program: "/usr/bin/apt-get")
    monkeypatch.setattr(hostclients, "output_of", lambda _command: rows)
    assert hostclients.debian_mirrors("trixie") == [
        "deb http://mirror.test/debian/ trixie main",
        "deb http://mirror.test/debian-security/ trixie-security main",
        "deb http://mirror.test/debian/ trixie-updates main",
    ]


def test_layers_of_an_archive_are_compressed_and_the_rest_is_kept(tmp_path: Path) -> None:
    layer, manifest = tmp_path / "layer.tar", tmp_path / "manifest.json"
    layer.write_bytes(b"x" * 100_000)
    manifest.write_text("[]")
    saved, compressed = tmp_path / "saved.tar", tmp_path / "compressed.tar"
    with tarfile.open(saved, "w") as archive:
        archive.add(layer, "layer.tar")
        archive.add(manifest, "manifest.json")
    nodeimage._compress_layers(saved, compressed)
    with tarfile.open(compressed) as archive:
        assert archive.getnames() == ["layer.tar", "manifest.json"]
        packed = archive.extractfile("layer.tar")
        kept = archive.extractfile("manifest.json")
        assert packed is not None
        assert packed.read(2) == b"\x1f\x8b"
        assert kept is not None
        assert kept.read() == b"[]"
