"""Reading a cluster: which one is meant, and everything that its summary is made from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from runnerhub_operator import names

from .errors import CliError
from .kubectl import CLUSTERS, Kubectl, Manifest, at_once
from .objects import Lease, Pod
from .operators import lease_for, read_operator_leases
from .picture import Picture


def choose(found: Sequence[Manifest], name: str | None, namespace: str) -> Manifest:
    """The cluster that is meant: the one of that name, or the only one when no name is given."""
    by_name = {str(item["metadata"]["name"]): item for item in found}
    listed = ", ".join(sorted(by_name))
    if name is not None:
        if name not in by_name:
            there = f"there are: {listed}" if by_name else "there is none at all"
            raise CliError(f"there is no RunnerHubCluster {name} in the namespace {namespace}; {there}")
        return by_name[name]
    if not by_name:
        raise CliError(
            f"there is no RunnerHubCluster in the namespace {namespace}; name another one with -n "
            "(`kubectl get rhc -A` lists all)"
        )
    if len(by_name) > 1:
        raise CliError(f"the namespace {namespace} has several RunnerHubClusters, name one of: {listed}")
    return found[0]


def namespace_of(kubectl: Kubectl, found: Sequence[Manifest]) -> str:
    """The namespace that was looked at; kubectl is asked only when the answer was empty."""
    return str(found[0]["metadata"]["namespace"]) if found else kubectl.current_namespace()


def read_cluster(kubectl: Kubectl, name: str | None) -> tuple[Manifest, Kubectl]:
    """The cluster that is meant, and kubectl in its namespace."""
    found = kubectl.items(CLUSTERS)
    namespace = namespace_of(kubectl, found)
    return choose(found, name, namespace), kubectl.in_namespace(namespace)


def read_picture(kubectl: Kubectl, name: str | None) -> Picture:
    """The cluster that is meant with its pods, its Leases and the operator's Lease, all read at once."""
    answers = at_once(
        {
            "clusters": lambda: kubectl.items(CLUSTERS),
            "pods": lambda: kubectl.items("pods", selector=names.LABEL_CLUSTER),
            "leases": lambda: kubectl.items("leases"),
            "operators": lambda: read_operator_leases(kubectl),
        }
    )
    namespace = namespace_of(kubectl, answers["clusters"])
    body = choose(answers["clusters"], name, namespace)
    chosen = body["metadata"]["name"]
    return Picture(
        now=datetime.now(UTC),
        body=body,
        pods=tuple(pods_of(answers["pods"], chosen)),
        leases=tuple(Lease.of(item) for item in answers["leases"]),
        operator=lease_for(kubectl, answers["operators"], namespace),
    )


def pods_of(bodies: Sequence[Mapping[str, Any]], cluster: str) -> list[Pod]:
    """The pods of a cluster by name."""
    mine = [item for item in bodies if item["metadata"].get("labels", {}).get(names.LABEL_CLUSTER) == cluster]
    return sorted((Pod.of(item) for item in mine), key=lambda pod: pod.name)
