"""Archives that come out the same wherever and whenever they are made, and looking into them."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any


def settle(archive: Path, epoch: int) -> None:
    """Write a .tgz anew with nothing of the machine or the hour in it: order, times, owners, modes."""
    with tarfile.open(archive) as source:
        members = sorted((member for member in source if member.isfile()), key=lambda member: member.name)
        contents = {member.name: _content(source, member) for member in members}
    with (
        archive.open("wb") as raw,
        gzip.GzipFile(filename="", fileobj=raw, mode="wb", mtime=epoch) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as target,
    ):
        for name, content in contents.items():
            member = tarfile.TarInfo(name)
            member.size, member.mtime, member.mode = len(content), epoch, 0o644
            target.addfile(member, io.BytesIO(content))


def settle_image(archive: Path, epoch: int) -> None:
    """Write an OCI archive anew with one time for all its blobs; podman gives each the hour of its writing."""
    settled = archive.with_suffix(".settled")
    with tarfile.open(archive) as source, tarfile.open(settled, "w", format=tarfile.PAX_FORMAT) as target:
        for member in sorted(source.getmembers(), key=lambda member: member.name):
            member.mtime, member.pax_headers = epoch, {}
            target.addfile(member, source.extractfile(member) if member.isfile() else None)
    settled.replace(archive)


def sha256(file: Path) -> str:
    """Hash of a file, 64 hexadecimal digits."""
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def image_digest(archive: Path) -> str:
    """Digest of the manifest of an OCI archive with one image."""
    with tarfile.open(archive) as found:
        digest: str = _json(found, "index.json")["manifests"][0]["digest"]
    return digest


def differences(one: Path, other: Path) -> list[str]:
    """What differs inside two OCI archives of one image: paths of files, or parts of the configuration."""
    with tarfile.open(one) as first, tarfile.open(other) as second:
        images = [_image(archive) for archive in (first, second)]
        layers = [_files(archive) for archive in (first, second)]
        found = [
            f"configuration: {key}"
            for key in sorted(images[0].keys() | images[1].keys())
            if key not in ("rootfs", "history") and images[0].get(key) != images[1].get(key)
        ]
        found += [
            path
            for path in sorted(layers[0].keys() | layers[1].keys())
            if layers[0].get(path) != layers[1].get(path)
        ]
    return found


def _image(archive: tarfile.TarFile) -> dict[str, Any]:
    return _blob(archive, _manifest(archive)["config"]["digest"])


def _manifest(archive: tarfile.TarFile) -> dict[str, Any]:
    return _blob(archive, _json(archive, "index.json")["manifests"][0]["digest"])


def _files(archive: tarfile.TarFile) -> dict[str, object]:
    """Each path with all that makes it up, as the last layer has it."""
    found: dict[str, object] = {}
    for layer in _manifest(archive)["layers"]:
        blob = archive.extractfile(f"blobs/{layer['digest'].replace(':', '/')}")
        if blob is not None:
            found.update(_entries(blob))
    return found


def _entries(layer: IO[bytes]) -> Iterator[tuple[str, object]]:
    with tarfile.open(fileobj=layer, mode="r:*") as content:
        for member in content:
            data = hashlib.sha256(_content(content, member)).hexdigest() if member.isfile() else ""
            about = (
                member.type,
                member.mode,
                member.uid,
                member.gid,
                int(member.mtime),
                member.linkname,
                data,
            )
            yield member.name.removeprefix("./"), about


def _content(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = archive.extractfile(member)
    return file.read() if file else b""


def _json(archive: tarfile.TarFile, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(_content(archive, archive.getmember(name)))
    return found


def _blob(archive: tarfile.TarFile, digest: str) -> dict[str, Any]:
    return _json(archive, f"blobs/{digest.replace(':', '/')}")
