"""What the machine must have. Missing packages are installed on Debian as root, else named in one sentence."""

import os
import platform
import shutil
from pathlib import Path

from kindbed import gotools
from kindbed.console import TestBedError, output_of, run_logged, say, step
from kindbed.engine import Engine, as_root, choose
from kindbed.paths import cache_dir

GIB = 1024**3
# An empty machine needs room for Go's build cache, three sets of images and four nodes.
DISK_FIRST_BYTES = 30 * 10**9
DISK_LATER_BYTES = 10 * 10**9
# 8 GiB machines report a little less.
MEMORY_BYTES = int(7.5 * GIB)

# Debian package -> a program that proves it is there (also on other distributions).
PODMAN_PACKAGES = {
    "podman": "podman",
    "runc": "runc",
    "netavark": "/usr/lib/podman/netavark",
    "aardvark-dns": "/usr/lib/podman/aardvark-dns",
    "debootstrap": "debootstrap",
    "iptables": "iptables",  # netavark calls it
    "nftables": "nft",  # the traffic guard
}
DOCKER_PACKAGES = {"nftables": "nft"}

# Four nodes of systemd, containerd and kubelet use far more than the default of 128.
INOTIFY = {"max_user_instances": 8192, "max_user_watches": 524288}


def ensure() -> None:
    """Raise TestBedError with one sentence for the first thing that is missing and cannot be installed."""
    engine = choose()
    if platform.system() != "Linux" or platform.machine() != "x86_64":
        raise TestBedError(f"the test bed needs Linux on amd64, not {platform.system()} {platform.machine()}")
    if not engine.is_docker and os.geteuid() != 0:
        raise TestBedError(
            "the test bed needs root, or a working Docker engine with a reachable image registry"
        )
    _check_memory()
    _check_disk(engine)
    if not engine.is_docker:
        ensure_packages(PODMAN_PACKAGES)
    elif as_root(["true"]):
        # Otherwise the guard is set from a container.
        ensure_packages(DOCKER_PACKAGES)
    gotools.check_go()
    _raise_inotify_limits()
    if not engine.is_docker:
        _prepare_podman_host()


def _check_memory() -> None:
    for line in Path("/proc/meminfo").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == "MemTotal" and int(value.split()[0]) * 1024 < MEMORY_BYTES:
            raise TestBedError(f"the test bed needs 8 GiB of memory; this machine has {value.strip()}")


def _check_disk(engine: Engine) -> None:
    has_images = any((cache_dir() / "go").glob("*/kubelet")) or engine.is_docker
    needed = DISK_LATER_BYTES if has_images else DISK_FIRST_BYTES
    storage = Path("/var/lib")
    for folder in (cache_dir(), storage):
        free = shutil.disk_usage(folder).free
        if free < needed:
            raise TestBedError(
                f"the test bed needs {needed // 10**9} GB of free disk at {folder}, found {free // 10**9} GB"
            )


def ensure_packages(packages: dict[str, str]) -> None:
    """Install the packages (name -> program that proves it) whose program is missing; raises TestBedError."""
    missing = [name for name, program in packages.items() if not _program_exists(program)]
    if not missing:
        return
    names = " ".join(missing)
    # Through env, because sudo drops the variable.
    install = ["env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "install", "--yes"]
    install_as_root = as_root([*install, "--no-install-recommends", *missing])
    update_as_root = as_root(["apt-get", "update"])
    if not shutil.which("apt-get") or not install_as_root or not update_as_root:
        raise TestBedError(f"please install these packages (Debian names): {names}")
    with step(f"install Debian packages: {names}"):
        run_logged(update_as_root, "packages")
        run_logged(install_as_root, "packages")


def _program_exists(program: str) -> bool:
    if program.startswith("/"):
        # Distributions disagree about the folder of helper programs.
        name = Path(program).name
        return any(Path(folder, name).exists() for folder in ("/usr/lib/podman", "/usr/libexec/podman"))
    return shutil.which(program, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin") is not None


def _raise_inotify_limits() -> None:
    for name, wanted in INOTIFY.items():
        path = Path("/proc/sys/fs/inotify") / name
        if int(path.read_text()) >= wanted:
            continue
        setting = as_root(["sysctl", "-q", "-w", f"fs.inotify.{name}={wanted}"])
        if setting:
            output_of(setting)
        else:
            say(f"    note: fs.inotify.{name} is below {wanted}; nodes may fail with 'too many open files'")


def _prepare_podman_host() -> None:
    # kind mounts it into each node; machines with a monolithic kernel do not have it.
    Path("/lib/modules").mkdir(exist_ok=True)
    policies = (Path("/etc/containers/policy.json"), Path.home() / ".config/containers/policy.json")
    if not any(policy.exists() for policy in policies):
        # podman refuses to load any image, also local ones, without such a file.
        policies[0].parent.mkdir(parents=True, exist_ok=True)
        policies[0].write_text('{"default": [{"type": "insecureAcceptAnything"}]}\n')
