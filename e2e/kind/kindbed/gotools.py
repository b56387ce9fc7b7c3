"""The Go components, built from go.mod files that pin them, and cached by the content of those files."""

import os
import re
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from kindbed import versions
from kindbed.console import TestBedError, exclusive, output_of, run_logged, step
from kindbed.paths import KIND_DIR, cache_dir, content_hash

TOOLS_DIR = KIND_DIR / "tools"


@dataclass(frozen=True, slots=True)
class Tool:
    """One binary: the folder of its go.mod below tools/, and its main package."""

    binary: str
    module: str
    package: str


def _kubernetes(binary: str) -> Tool:
    return Tool(binary, "kubernetes", f"k8s.io/kubernetes/cmd/{binary}")


CONTROL_PLANE = ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "etcd")
NODE_BINARIES = ("kubelet", "kubeadm", "kubectl")
NODE_IMAGE_TOOLS = (*CONTROL_PLANE, *NODE_BINARIES, "kube-proxy", "coredns", "local-path-provisioner")
API_SERVER_TOOLS = ("etcd", "kube-apiserver", "kubectl", "kube-controller-manager", "kwok")
CLUSTER_TOOLS = ("kind", "kubectl")
DEVELOPER_TOOLS = ("helm", "helm3", "actionlint", "s3-server")

TOOLS = {
    tool.binary: tool
    for tool in (
        _kubernetes("kube-apiserver"),
        _kubernetes("kube-controller-manager"),
        _kubernetes("kube-scheduler"),
        _kubernetes("kube-proxy"),
        _kubernetes("kubelet"),
        _kubernetes("kubeadm"),
        _kubernetes("kubectl"),
        Tool("etcd", "etcd", "go.etcd.io/etcd/server/v3"),
        Tool("coredns", "coredns", "github.com/coredns/coredns"),
        Tool("local-path-provisioner", "local-path-provisioner", "github.com/rancher/local-path-provisioner"),
        Tool("kind", "kind", "sigs.k8s.io/kind"),
        Tool("kwok", "kwok", "sigs.k8s.io/kwok/cmd/kwok"),
        Tool("helm", "helm", "helm.sh/helm/v4/cmd/helm"),
        # Many installations still use the former major version; the charts are checked with both.
        Tool("helm3", "helm3", "helm.sh/helm/v3/cmd/helm"),
        # One program for all parts of Argo CD; each part is told by the name it is called by.
        Tool("argocd", "argocd", "github.com/argoproj/argo-cd/v3/cmd"),
        # Lists what an image holds.
        Tool("syft", "syft", "github.com/anchore/syft/cmd/syft"),
        Tool("actionlint", "actionlint", "github.com/rhysd/actionlint/cmd/actionlint"),
        # A few lines of our own around a library.
        Tool("s3-server", "s3-server", "runnerhub.io/e2e/kind/tools/s3-server"),
    )
}


def _linker_flags(module: str) -> str:
    flags = ["-s", "-w"]
    if module == "kubernetes":
        # Without these the server calls itself v0.0.0 and kubeadm refuses to work with it.
        major, minor, _patch = versions.KUBERNETES.lstrip("v").split(".")
        for package in ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version"):
            flags += [
                f"-X {package}.gitVersion={versions.KUBERNETES}",
                f"-X {package}.gitMajor={major}",
                f"-X {package}.gitMinor={minor}",
                f"-X {package}.gitTreeState=clean",
            ]
    return " ".join(flags)


def _folder(tool: Tool) -> Path:
    module_dir = TOOLS_DIR / tool.module
    sources = [module_dir / "go.mod", module_dir / "go.sum", *module_dir.glob("*.go")]
    key = content_hash(sources, _linker_flags(tool.module))
    return cache_dir() / "go" / f"{tool.module}-{key}"


def tool_path(binary: str) -> Path:
    """Where the binary of the pinned version is kept, whether it has been built yet or not."""
    return _folder(TOOLS[binary]) / binary


def ensure(*binaries: str) -> dict[str, Path]:
    """Paths of the named binaries, building those that the cache does not have."""
    missing = [name for name in binaries if not tool_path(name).exists()]
    if missing:
        with exclusive("go"):
            for name in missing:
                # Another run may have built it while this one waited.
                if not tool_path(name).exists():
                    _build(TOOLS[name])
    return {name: tool_path(name) for name in binaries}


def in_build_order(binaries: Iterable[str]) -> list[str]:
    """The binaries with those of one module together, so that each module's packages are compiled once in a row."""
    return sorted(binaries, key=lambda name: (TOOLS[name].module, name))


def _build(tool: Tool) -> None:
    check_go()
    folder = _folder(tool)
    folder.mkdir(parents=True, exist_ok=True)
    unfinished = folder / f".{tool.binary}.{os.getpid()}"
    environment = {"CGO_ENABLED": "0", "GOOS": "linux", "GOARCH": "amd64", "GOWORK": "off"}
    try:
        with step(f"build {tool.binary} (once; cached in {folder})"):
            run_logged(
                [
                    "go", "build", "-mod=readonly", "-buildvcs=false", "-trimpath",
                    "-ldflags", _linker_flags(tool.module), "-o", unfinished, tool.package,
                ],
                f"go-{tool.binary}",
                env=environment,
                cwd=TOOLS_DIR / tool.module,
            )  # fmt: skip
        unfinished.rename(folder / tool.binary)
    finally:
        unfinished.unlink(missing_ok=True)


def check_go() -> None:
    """Raise TestBedError unless a Go that can fetch the toolchain of the go.mod files is installed."""
    if not shutil.which("go"):
        raise TestBedError("Go 1.21 or newer must be installed (it fetches the toolchain that go.mod names)")
    version = output_of(["go", "env", "GOVERSION"])
    found = re.match(r"go1\.(\d+)", version)
    if not found or int(found.group(1)) < 21:  # older ones cannot switch toolchains
        raise TestBedError(f"Go 1.21 or newer is needed, found {version.strip()}")
