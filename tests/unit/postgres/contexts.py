"""A context for the builders of the database and its pooler."""

from __future__ import annotations

from typing import Any

from runnerhub_operator.api import parse_cluster
from runnerhub_operator.resources.common import BuildContext, Images


def context(**postgres: Any) -> BuildContext:
    """Context of the cluster `hub` with the given fields of spec.postgres, as they are on the wire."""
    body = {
        "metadata": {"name": "hub", "namespace": "runners", "uid": "1-2-3", "generation": 1},
        "spec": {"postgres": postgres},
    }
    images = Images(
        operator="operator:1",
        postgres="postgres:1",
        pooler="pooler:1",
        redis="redis:1",
        haproxy="haproxy:1",
        orchestrator="orchestrator:1",
        runner="runner:1",
    )
    return BuildContext(cluster=parse_cluster(body), images=images)
