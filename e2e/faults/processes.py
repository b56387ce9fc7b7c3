"""Signals to the processes of a pod, sent from its node: the pod's own tools and rights do not matter.

A process belongs to a container when the container's id is in the path of its control group, with either driver and
either version of control groups.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from kindbed.console import TestBedError

from ..lab.bed import Bed

# Prints `/proc/<pid>/status:Name:<tab>...` and the same with PPid. Processes that end meanwhile are no error.
_LIST = (
    'for group in $(grep -ls "$1" /proc/[0-9]*/cgroup); do echo "${group%/cgroup}/status"; done'
    ' | xargs -r grep -sHE "^(Name|PPid):"; exit 0'
)
# Fails when a process is gone: a signal that reached nobody must not pass for a fault.
_SIGNAL = 'signal=$1; shift; kill -s "$signal" "$@"'
_SIGNAL_LEFT = 'signal=$1; shift; for pid in "$@"; do kill -s "$signal" "$pid" 2>/dev/null; done; exit 0'


@dataclass(frozen=True, slots=True)
class Process:
    """A process on a node, with ids of the node's name space."""

    pid: int
    parent: int
    name: str


def parse(listing: str) -> list[Process]:
    """Processes from the lines that `_LIST` prints; one of which only half was read is left out."""
    found: dict[int, dict[str, str]] = {}
    for line in listing.splitlines():
        path, _, rest = line.partition(":")
        key, _, value = rest.partition(":")
        pid = path.removeprefix("/proc/").removesuffix("/status")
        if pid.isdigit():
            found.setdefault(int(pid), {})[key] = value.strip()
    return [
        Process(pid, int(fields["PPid"]), fields["Name"])
        for pid, fields in sorted(found.items())
        if {"PPid", "Name"} <= fields.keys()
    ]


def postmaster(processes: Collection[Process]) -> Process:
    """The server process that started all other ones of Postgres. Raises TestBedError when there is not just one."""
    servers = {process.pid for process in processes if process.name == "postgres"}
    found = [process for process in processes if process.pid in servers and process.parent not in servers]
    if len(found) != 1:
        raise TestBedError(f"{len(found)} postmasters among {len(processes)} processes of the container")
    return found[0]


def named(processes: Iterable[Process], name: str) -> Process:
    """The process of that name whose parent has another one. Raises TestBedError when there is not just one."""
    same = {process.pid: process for process in processes if process.name == name}
    found = [process for process in same.values() if process.parent not in same]
    if len(found) != 1:
        raise TestBedError(f"{len(found)} processes are called {name}")
    return found[0]


def list_container(bed: Bed, node: str, container: str) -> list[Process]:
    """The processes that a container has now, perhaps none."""
    return parse(bed.on_node(node, "sh", "-c", _LIST, "sh", container))


def of_container(bed: Bed, node: str, container: str) -> list[Process]:
    """The processes of a container that must be there. Raises TestBedError when there is none."""
    found = list_container(bed, node, container)
    if not found:
        raise TestBedError(f"no process of container {container[:12]} on {node}")
    return found


def send(bed: Bed, node: str, signal: str, processes: Iterable[Process]) -> None:
    """Send a signal such as KILL; raises TestBedError when one of the processes is not there."""
    bed.on_node(node, "sh", "-c", _SIGNAL, "sh", signal, *(str(process.pid) for process in processes))


def send_to_those_left(bed: Bed, node: str, signal: str, processes: Iterable[Process]) -> None:
    """Send a signal to those processes that have not ended meanwhile."""
    bed.on_node(node, "sh", "-c", _SIGNAL_LEFT, "sh", signal, *(str(process.pid) for process in processes))
