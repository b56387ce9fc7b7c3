"""Argo CD for the test of all ways to install: its image, built here, and its manifests, read from its Go module."""

import inspect
import json
import os
import tempfile
from pathlib import Path

from kindbed import baseimage, gotools
from kindbed.console import Word, exclusive, output_of, run_logged, step
from kindbed.engine import Engine
from kindbed.hostclients import build_mounts
from kindbed.nodeimage import REPOSITORY_NAME
from kindbed.paths import KIND_DIR, cache_dir, content_hash
from kindbed.productimages import INPUTS_LABEL

CONTAINERFILE = KIND_DIR / "argocd" / "Containerfile"
MODULE = "github.com/argoproj/argo-cd/v3"
# Name in the image -> our tool. Argo CD 3.2 is written for Helm 3.
_PROGRAMS = {"argocd": "argocd", "helm": "helm3"}


def ensure(engine: Engine) -> str:
    """Name of the image; built once per content."""
    base = baseimage.ensure(engine)
    tools = [gotools.tool_path(tool).parent.name for tool in _PROGRAMS.values()]
    key = content_hash([CONTAINERFILE], inspect.getsource(_build), base, *tools)
    tag = f"{REPOSITORY_NAME}/argocd:{key}"
    if engine.image_label(tag, INPUTS_LABEL) == key:
        return tag
    gotools.ensure(*_PROGRAMS.values())
    with exclusive("argocd-image"):
        if engine.image_label(tag, INPUTS_LABEL) != key:
            with step("build the image of Argo CD"):
                _build(engine, base, tag, key)
            engine.forget_older(tag)
    return tag


def manifests() -> Path:
    """The folder of Argo CD's manifests, in Go's module cache; fetched when it is not there."""
    answer = output_of(
        ["go", "-C", gotools.TOOLS_DIR / "argocd", "mod", "download", "-json", MODULE],
        env={"GOWORK": "off"},
        timeout_seconds=300,
    )
    return Path(json.loads(answer)["Dir"], "manifests")


def _build(engine: Engine, base: str, tag: str, key: str) -> None:
    own: list[Word] = []
    if not engine.is_docker:
        own = ["--network", "host", "--isolation", "chroot", "--pull=never", *build_mounts()]
    with tempfile.TemporaryDirectory(prefix="argocd-", dir=cache_dir()) as folder:
        programs = Path(folder, "bin")
        programs.mkdir()
        for name, tool in _PROGRAMS.items():
            os.link(gotools.tool_path(tool), programs / name)
        run_logged(
            [
                engine.command, "build", *own, "--build-arg", f"BASE_IMAGE={base}", "--tag", tag,
                "--label", f"{INPUTS_LABEL}={key}", "--file", CONTAINERFILE, folder,
            ],
            "image-argocd",
            env=engine.environment,
        )  # fmt: skip
