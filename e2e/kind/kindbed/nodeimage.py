"""The node image: upstream's with Docker, else built from the pinned Go components and Debian packages."""

import gzip
import inspect
import os
import shutil
import tarfile
import tempfile
from pathlib import Path

from kindbed import baseimage, gotools, versions
from kindbed.console import TestBedError, Word, exclusive, run_logged, step
from kindbed.engine import Engine
from kindbed.hostclients import build_mounts
from kindbed.paths import KIND_DIR, cache_dir, content_hash, files_below

SOURCES = KIND_DIR / "node"
REPOSITORY_NAME = "localhost/runnerhub-testbed"

# Stage of the Containerfile -> the names under which Kubernetes or our manifests ask for that image.
_PRELOADED = {
    "control-plane": [
        f"{versions.KUBE_IMAGES}/kube-apiserver:{versions.KUBERNETES}",
        f"{versions.KUBE_IMAGES}/kube-controller-manager:{versions.KUBERNETES}",
        f"{versions.KUBE_IMAGES}/kube-scheduler:{versions.KUBERNETES}",
        versions.ETCD_IMAGE,
    ],
    "kube-proxy": [f"{versions.KUBE_IMAGES}/kube-proxy:{versions.KUBERNETES}"],
    "coredns": [versions.COREDNS_IMAGE],
    "pause": [versions.PAUSE_IMAGE],
    "local-path-provisioner": [f"{REPOSITORY_NAME}/local-path-provisioner:1"],
    "node-tools": [f"{REPOSITORY_NAME}/node-tools:1"],
}


def ensure(engine: Engine) -> str:
    """Name of the node image for `kind create cluster --image`; built once per content with podman."""
    if engine.is_docker:
        return versions.upstream_node_image()
    if not versions.KUBERNETES.startswith(f"v{versions.kubernetes_minor()}."):
        raise TestBedError(f"from packages the test bed makes {versions.KUBERNETES} only; others need Docker")
    base = baseimage.ensure(engine)
    recipe = [inspect.getsource(part) for part in (_build, _compress_layers, _build_stage)]
    keys = [gotools.tool_path(name).parent.name for name in gotools.NODE_IMAGE_TOOLS]
    key = content_hash(files_below(SOURCES), *recipe, str(_PRELOADED), base, *keys)
    tag = f"{REPOSITORY_NAME}/node:{versions.KUBERNETES}-{key}"
    if engine.succeeds("image", "exists", tag):
        return tag
    gotools.ensure(*gotools.NODE_IMAGE_TOOLS)
    with exclusive("node-image"):
        if not engine.succeeds("image", "exists", tag):
            with step(f"build the node image for Kubernetes {versions.KUBERNETES}"):
                _build(engine, base, tag)
            engine.forget_older(tag)
    return tag


def _build(engine: Engine, base: str, tag: str) -> None:
    with tempfile.TemporaryDirectory(prefix="node-", dir=cache_dir()) as folder:
        context, preload = Path(folder, "context"), Path(folder, "preload")
        shutil.copytree(SOURCES, context)
        (context / "version").write_text(f"{versions.KUBERNETES}\n")
        (context / "bin").mkdir()
        for name, path in gotools.ensure(*gotools.NODE_IMAGE_TOOLS).items():
            os.link(path, context / "bin" / name)
        preload.mkdir()
        names = []
        for stage, images in _PRELOADED.items():
            _build_stage(engine, context, base, stage, images[0], [])
            for image in images[1:]:
                engine.output("tag", images[0], image)
            names += images
        saved = Path(folder, "saved.tar")
        save: list[Word] = ["save", "--quiet", "--multi-image-archive", "--output", saved, *names]
        run_logged([engine.command, *save], "node-image", env=engine.environment)
        _compress_layers(saved, preload / "images.tar")
        _build_stage(engine, context, base, "node", tag, ["-v", f"{preload}:/preload:ro"])
        # They live in the node image now; the engine need not keep them under names that are not ours.
        engine.output("rmi", *names)


def _compress_layers(saved: Path, compressed: Path) -> None:
    """Copy an image archive with its layers compressed: each node copies all of them when it is created."""
    with tarfile.open(saved) as source, tarfile.open(compressed, "w") as target:
        for member in source:
            content = source.extractfile(member) if member.isreg() else None
            if content and member.name.endswith(".tar"):
                with tempfile.TemporaryFile(dir=compressed.parent) as packed:
                    with gzip.GzipFile(fileobj=packed, mode="wb", compresslevel=1, mtime=0) as layer:
                        shutil.copyfileobj(content, layer, 1 << 20)
                    member.size = packed.tell()
                    packed.seek(0)
                    target.addfile(member, packed)
            else:
                target.addfile(member, content)


def _build_stage(engine: Engine, context: Path, base: str, stage: str, tag: str, extra: list[str]) -> None:
    run_logged(
        [
            engine.command, "build", "--network", "host", "--isolation", "chroot", "--pull=never",
            "--build-arg", f"BASE_IMAGE={base}", "--target", stage, "--tag", tag, *build_mounts(), *extra,
            "--file", context / "Containerfile", context,
        ],
        "node-image",
        env=engine.environment,
    )  # fmt: skip
