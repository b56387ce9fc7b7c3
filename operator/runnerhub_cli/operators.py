"""Which operator looks after a namespace: with `watchNamespaces` there may be several in one Kubernetes cluster."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Self

from runnerhub_operator import names

from .errors import CliError
from .kubectl import Kubectl, KubectlError, Manifest, Unknown, known
from .objects import Lease

OPERATOR_SELECTOR: Final = "app.kubernetes.io/name=runnerhub-operator"
_WATCH: Final = "RUNNERHUB_WATCH_NAMESPACES"


@dataclass(frozen=True, slots=True)
class Installation:
    """How an operator was installed, from the labels of its pods; by default as the documentation does it.

    `version`: the chart's, "" when unknown; `watched`: the namespaces that it serves, empty for all.
    """

    namespace: str = "runnerhub-system"
    release: str = "runnerhub-operator"
    version: str = ""
    by_helm: bool = True
    watched: tuple[str, ...] = ()

    @classmethod
    def of(cls, pods: Sequence[Manifest]) -> Self:
        """Read it from the newest pod."""
        if not pods:
            return cls()
        pod = max(pods, key=lambda item: item["metadata"].get("creationTimestamp", ""))
        labels = pod["metadata"].get("labels", {})
        return cls(
            namespace=pod["metadata"]["namespace"],
            release=labels.get("app.kubernetes.io/instance", cls().release),
            version=labels.get("app.kubernetes.io/version", ""),
            by_helm=labels.get("app.kubernetes.io/managed-by") == "Helm",
            watched=_watched(pod),
        )


def read_operator_leases(kubectl: Kubectl) -> tuple[Lease, ...] | Unknown:
    """The Leases of all operators, wherever they are installed."""
    fields = f"metadata.name={names.OPERATOR_LEASE}"
    found = known(lambda: kubectl.items("leases", fields=fields, everywhere=True))
    return found if isinstance(found, Unknown) else tuple(Lease.of(item) for item in found)


def read_operator_pods(kubectl: Kubectl) -> list[Manifest] | Unknown:
    """The pods of all operators, wherever they are installed."""
    return known(lambda: kubectl.items("pods", selector=OPERATOR_SELECTOR, everywhere=True))


def lease_for(
    kubectl: Kubectl, leases: tuple[Lease, ...] | Unknown, namespace: str
) -> Lease | Unknown | None:
    """The Lease of the operator that serves a namespace. Pods are read only where there are several operators."""
    if isinstance(leases, Unknown):
        return leases
    if len(leases) < 2:
        return next(iter(leases), None)
    pods = read_operator_pods(kubectl)
    return serving(leases, [] if isinstance(pods, Unknown) else pods, namespace)


def serving(leases: Sequence[Lease], pods: Sequence[Manifest], namespace: str) -> Lease | None:
    """Of several operators the one that names the namespace, else one that serves all, else any; of equal ones the
    one whose Lease was renewed last.
    """
    watched = {pod["metadata"]["namespace"]: _watched(pod) for pod in pods}

    def rank(lease: Lease) -> tuple[int, str]:
        of_it = watched.get(lease.namespace)
        serves = 0 if of_it is None else 2 if namespace in of_it else 1 if not of_it else -1
        return serves, lease.renewed or ""

    return max(leases, key=rank, default=None)


def operator_namespace(kubectl: Kubectl) -> str:
    """Namespace in which the operator runs that serves the namespace of `kubectl`."""
    lease = operator_lease(kubectl)
    if isinstance(lease, Unknown):
        raise CliError(f"where the operator runs is not known: {lease.why}")
    if lease is None:
        raise KubectlError(
            "no operator has ever run here: there is no Lease of it; `kubectl runnerhub doctor` tells what is missing",
            "notfound",
        )
    return lease.namespace


def operator_lease(kubectl: Kubectl) -> Lease | Unknown | None:
    """The Lease of the operator that serves the namespace of `kubectl`; None where no operator ever ran."""
    leases = read_operator_leases(kubectl)
    several = not isinstance(leases, Unknown) and len(leases) > 1
    return lease_for(kubectl, leases, kubectl.current_namespace() if several else "")


def _watched(pod: Manifest) -> tuple[str, ...]:
    """Namespaces that an operator's pod serves; empty: all."""
    for container in pod["spec"]["containers"]:
        for variable in container.get("env", ()):
            if variable["name"] == _WATCH:
                return tuple(part for part in variable.get("value", "").split(",") if part)
    return ()
