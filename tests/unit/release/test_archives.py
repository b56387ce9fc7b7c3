"""Archives without time and place, and what differs between two images."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
import time
from pathlib import Path

from release import archives

EPOCH = 1_700_000_000


def write_tgz(path: Path, names: list[str], mtime: float, owner: str) -> None:
    with tarfile.open(path, "w:gz") as archive:
        for name in names:
            member = tarfile.TarInfo(name)
            member.size, member.mtime, member.uname = len(name), int(mtime), owner
            archive.addfile(member, io.BytesIO(name.encode()))


def test_the_same_files_give_the_same_archive_whoever_packs_them_and_when(tmp_path: Path) -> None:
    one, other = tmp_path / "one.tgz", tmp_path / "other.tgz"
    write_tgz(one, ["chart/a", "chart/b"], time.time(), "me")
    write_tgz(other, ["chart/b", "chart/a"], 1, "you")
    assert one.read_bytes() != other.read_bytes()
    for file in (one, other):
        archives.settle(file, EPOCH)
    assert one.read_bytes() == other.read_bytes()
    with tarfile.open(one) as archive:
        assert [(member.name, member.mtime) for member in archive] == [("chart/a", EPOCH), ("chart/b", EPOCH)]
        content = archive.extractfile("chart/b")
        assert content is not None
        assert content.read() == b"chart/b"


def test_another_content_gives_another_archive(tmp_path: Path) -> None:
    one, other = tmp_path / "one.tgz", tmp_path / "other.tgz"
    write_tgz(one, ["chart/a"], 1, "me")
    write_tgz(other, ["chart/c"], 1, "me")
    for file in (one, other):
        archives.settle(file, EPOCH)
    assert one.read_bytes() != other.read_bytes()


def write_image(path: Path, layers: list[dict[str, bytes]], user: str = "1001", mtime: int = 0) -> None:
    """An OCI archive with the least that one needs."""
    blobs: dict[str, bytes] = {}

    def put(content: bytes) -> str:
        digest = hashlib.sha256(content).hexdigest()
        blobs[digest] = content
        return f"sha256:{digest}"

    packed = []
    for files in layers:
        raw = io.BytesIO()
        with tarfile.open(fileobj=raw, mode="w") as layer:
            for name, content in files.items():
                member = tarfile.TarInfo(name)
                member.size = len(content)
                layer.addfile(member, io.BytesIO(content))
        packed.append({"digest": put(gzip.compress(raw.getvalue(), mtime=0))})
    config = put(json.dumps({"config": {"User": user}}).encode())
    manifest = put(json.dumps({"config": {"digest": config}, "layers": packed}).encode())
    index = json.dumps({"manifests": [{"digest": manifest}]}).encode()
    with tarfile.open(path, "w") as archive:
        for name, content in {
            "index.json": index,
            **{f"blobs/sha256/{k}": v for k, v in blobs.items()},
        }.items():
            member = tarfile.TarInfo(name)
            member.size, member.mtime = len(content), mtime
            archive.addfile(member, io.BytesIO(content))


def test_the_same_image_gives_the_same_archive_whenever_it_was_written(tmp_path: Path) -> None:
    one, other = tmp_path / "one.oci.tar", tmp_path / "other.oci.tar"
    write_image(one, [{"etc/a": b"1"}], mtime=1)
    write_image(other, [{"etc/a": b"1"}], mtime=2)
    assert one.read_bytes() != other.read_bytes()
    digest = archives.image_digest(one)
    for file in (one, other):
        archives.settle_image(file, EPOCH)
    assert one.read_bytes() == other.read_bytes()
    assert archives.image_digest(one) == digest
    assert {file.name for file in tmp_path.iterdir()} == {one.name, other.name}


def test_two_images_differ_in_the_files_that_their_last_layers_have(tmp_path: Path) -> None:
    one, other = tmp_path / "one.tar", tmp_path / "other.tar"
    write_image(one, [{"etc/a": b"1", "etc/b": b"old"}, {"etc/b": b"new"}])
    write_image(other, [{"etc/a": b"2", "etc/b": b"older"}, {"etc/b": b"new", "etc/c": b""}])
    assert archives.differences(one, other) == ["etc/a", "etc/c"]
    assert archives.differences(one, one) == []
    write_image(other, [{"./etc/a": b"1", "etc/b": b"new"}])
    assert archives.differences(one, other) == []
    assert archives.image_digest(one) != archives.image_digest(other)


def test_two_images_differ_in_their_configuration(tmp_path: Path) -> None:
    one, other = tmp_path / "one.tar", tmp_path / "other.tar"
    write_image(one, [{"etc/a": b"1"}])
    write_image(other, [{"etc/a": b"1"}], user="0")
    assert archives.differences(one, other) == ["configuration: config"]
