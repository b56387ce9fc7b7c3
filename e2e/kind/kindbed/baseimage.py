"""The Debian base image: upstream's where a registry is reachable, else made from Debian's packages."""

import inspect
import shutil
import tempfile
from pathlib import Path

from kindbed import versions
from kindbed.console import exclusive, run_logged, step
from kindbed.engine import Engine
from kindbed.hostclients import debian_mirrors
from kindbed.paths import cache_dir, content_hash

# What upstream's slim image leaves out too: nobody reads manuals in a container.
_UNWANTED = ("usr/share/doc", "usr/share/man", "usr/share/locale", "usr/share/info", "usr/share/lintian")
_APT_SETTINGS = """APT::Keep-Downloaded-Packages "false";
Acquire::Languages "none";
Dir::Cache::pkgcache "";
Dir::Cache::srcpkgcache "";
"""
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_EXCLUDES = "".join(f"path-exclude=/{folder}/*\n" for folder in _UNWANTED)


def ensure(engine: Engine) -> str:
    """Name of the Debian base image; with podman it is made once and kept by a hash of how it is made."""
    if engine.is_docker:
        return versions.UPSTREAM_BASE_IMAGE
    mirrors = debian_mirrors(versions.DEBIAN_SUITE)
    recipe = [inspect.getsource(part) for part in (_make, _slim_down)]
    key = content_hash([], *recipe, _APT_SETTINGS, _EXCLUDES, _PATH, versions.DEBIAN_SUITE, *mirrors)
    tag = f"localhost/runnerhub-testbed/debian:{versions.DEBIAN_SUITE}-{key}"
    if engine.succeeds("image", "exists", tag):
        return tag
    with exclusive("base-image"):
        if not engine.succeeds("image", "exists", tag):
            with step(f"make the base image from Debian {versions.DEBIAN_SUITE} packages"):
                _make(engine, tag, mirrors)
            engine.forget_older(tag)
    return tag


def _make(engine: Engine, tag: str, mirrors: list[str]) -> None:
    with tempfile.TemporaryDirectory(prefix="base-", dir=cache_dir()) as folder:
        root, archive = Path(folder, "root"), Path(folder, "root.tar")
        # In a mount namespace of its own: an interrupted run leaves no mounts behind in the folder.
        command = ["unshare", "--mount", "--propagation", "private", "debootstrap", "--variant=minbase"]
        mirror = [mirrors[0].split()[1]] if mirrors else []
        run_logged([*command, versions.DEBIAN_SUITE, root, *mirror], "base-image")
        _slim_down(root)
        if mirrors:
            (root / "etc/apt/sources.list").write_text("\n".join(mirrors) + "\n")
        run_logged(
            ["tar", "--directory", root, "--numeric-owner", "--create", "--file", archive, "."], "base-image"
        )
        changes = ["--change", 'CMD ["bash"]', "--change", f"ENV PATH={_PATH}"]
        run_logged([engine.command, "import", *changes, archive, tag], "base-image", env=engine.environment)


def _slim_down(root: Path) -> None:
    (root / "etc/dpkg/dpkg.cfg.d/slim").write_text(f"{_EXCLUDES}path-include=/usr/share/doc/*/copyright\n")
    (root / "etc/apt/apt.conf.d/slim").write_text(_APT_SETTINGS)
    for folder in ("var/lib/apt/lists", "var/cache/apt", "var/log", *_UNWANTED):
        for path in sorted((root / folder).rglob("*"), reverse=True):
            if path.name == "copyright":
                continue
            if path.is_dir() and not path.is_symlink():
                if folder.startswith("usr/share") and not any(path.iterdir()):
                    path.rmdir()
            else:
                path.unlink()
    for folder in ("var/lib/apt/lists/partial", "var/cache/apt/archives/partial"):
        shutil.rmtree(root / folder, ignore_errors=True)
        (root / folder).mkdir(parents=True)
    # Made anew by whoever boots or uses the image.
    for name in ("etc/machine-id", "etc/hostname", "etc/resolv.conf"):
        (root / name).unlink(missing_ok=True)
