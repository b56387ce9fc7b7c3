"""All checks, in the order in which things depend on one another. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from . import cluster, platform
from .facts import ClusterFacts, Facts
from .findings import Finding

_CHECKS: Final[tuple[Callable[[Facts], Iterator[Finding]], ...]] = (
    platform.check_version,
    platform.check_permissions,
    platform.check_definition,
    platform.check_operator,
    platform.check_nodes,
    platform.check_clocks,
    platform.check_dns,
    platform.check_storage,
)
_CLUSTER_CHECKS: Final[tuple[Callable[[Facts, ClusterFacts], Iterator[Finding]], ...]] = (
    cluster.check_accepted,
    cluster.check_components,
    cluster.check_pods,
    cluster.check_spread,
    cluster.check_capacity,
    cluster.check_architecture,
    cluster.check_claims,
    cluster.check_memory,
    cluster.check_secrets,
    cluster.check_events,
)


def judge(facts: Facts) -> tuple[Finding, ...]:
    """All findings."""
    found = [finding for check in _CHECKS for finding in check(facts)]
    if facts.cluster is not None:
        found += [finding for check in _CLUSTER_CHECKS for finding in check(facts, facts.cluster)]
    return tuple(found)
