"""Which container engine carries the cluster: Docker with upstream images, or podman with our own."""

import functools
import os
import resource
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from kindbed import versions
from kindbed.console import TestBedError, output_of, succeeds
from kindbed.paths import cache_dir

ENGINE_VARIABLE = "RUNNERHUB_ENGINE"
# A network of its own: the traffic guard must not touch other kind clusters of the same machine.
NETWORK = "runnerhub-kind"

_REGISTRY_DEADLINE_SECONDS = 20
# podman's own helper processes run with 32768; a container cannot ask for more than they have.
_MOST_PROCESSES = 30000


@dataclass(frozen=True, slots=True)
class Engine:
    """The chosen engine; `command` is its command line client, Docker-compatible in what is used here."""

    command: str

    @property
    def is_docker(self) -> bool:
        """Docker means upstream node and base images; podman means both are made from packages."""
        return self.command == "docker"

    @property
    def environment(self) -> dict[str, str]:
        """Variables that kind and the engine's client need, beside the process's own."""
        if self.is_docker:
            return {
                "KIND_EXPERIMENTAL_PROVIDER": "docker",
                "KIND_EXPERIMENTAL_DOCKER_NETWORK": NETWORK,
                # Attestations would make an index of each image, which the nodes cannot import by name.
                "BUILDX_NO_DEFAULT_ATTESTATIONS": "1",
            }
        return {
            "KIND_EXPERIMENTAL_PROVIDER": "podman",
            "KIND_EXPERIMENTAL_PODMAN_NETWORK": NETWORK,
            "CONTAINERS_CONF": str(_containers_conf()),
        }

    def output(self, *arguments: str | Path, timeout_seconds: float = 60) -> str:
        """Standard output of an engine command; raises TestBedError."""
        command = [self.command, *arguments]
        return output_of(command, env=self.environment, timeout_seconds=timeout_seconds)

    def succeeds(self, *arguments: str) -> bool:
        """Whether an engine command ends with status 0."""
        return succeeds([self.command, *arguments], env=self.environment)

    def image_label(self, image: str, label: str) -> str | None:
        """Value of an image's label ("" without that label), or None when there is no such image."""
        template = f'{{{{index .Config.Labels "{label}"}}}}'
        try:
            value = self.output("image", "inspect", "--format", template, image).strip()
        except TestBedError:
            return None
        return "" if value == "<no value>" else value

    def forget_older(self, keep: str) -> None:
        """Remove the other tags of an image's repository, except those that containers still use."""
        repository = keep.rpartition(":")[0]
        listing = self.output("images", "--format", "{{.Repository}}:{{.Tag}}", repository)
        for image in listing.split():
            if image != keep and not image.endswith(":<none>"):
                self.succeeds("rmi", image)


@functools.cache
def choose() -> Engine:
    """Docker when it works and can get the upstream images, otherwise podman; RUNNERHUB_ENGINE forces one."""
    wanted = os.environ.get(ENGINE_VARIABLE, "")
    if wanted in ("docker", "podman"):
        return Engine(wanted)
    if wanted:
        raise TestBedError(f"{ENGINE_VARIABLE} must be docker or podman, not {wanted!r}")
    if _docker_has_images():
        return Engine("docker")
    return Engine("podman")


def _docker_has_images() -> bool:
    if not shutil.which("docker") or not succeeds(["docker", "info"]):
        return False
    images = (versions.upstream_node_image(), versions.UPSTREAM_BASE_IMAGE)
    if all(succeeds(["docker", "image", "inspect", image]) for image in images):
        return True
    return all(
        succeeds(["docker", "manifest", "inspect", image], timeout_seconds=_REGISTRY_DEADLINE_SECONDS)
        for image in images
    )


@functools.cache
def _containers_conf() -> Path:
    """podman's settings for this machine, in a file of our own: the user's configuration is left alone."""
    # podman asks for more than the hard limit by default, which fails without CAP_SYS_RESOURCE.
    limits = []
    for name, kind, most in (
        ("nofile", resource.RLIMIT_NOFILE, resource.RLIM_INFINITY),
        ("nproc", resource.RLIMIT_NPROC, _MOST_PROCESSES),
    ):
        known = [limit for limit in (resource.getrlimit(kind)[1], most) if limit != resource.RLIM_INFINITY]
        if known:
            limits.append(f'"{name}={min(known)}:{min(known)}"')
    lines = ["[containers]", f"default_ulimits = [{', '.join(limits)}]"]
    if not Path("/sys/fs/cgroup/cgroup.controllers").exists() or not shutil.which("crun"):
        # crun, podman's first choice, refuses machines that mount both cgroup versions.
        lines += ["[engine]", 'runtime = "runc"']
    text = "\n".join(lines) + "\n"
    path = cache_dir() / "containers.conf"
    if not path.exists() or path.read_text() != text:
        unfinished = path.with_suffix(f".{os.getpid()}")
        unfinished.write_text(text)
        unfinished.rename(path)
    return path


def as_root(command: Sequence[str]) -> list[str] | None:
    """The command as it must be written to run as root without asking, or None when that is impossible."""
    if os.geteuid() == 0:
        return list(command)
    if succeeds(["sudo", "-n", "true"]):
        return ["sudo", "-n", *command]
    return None
