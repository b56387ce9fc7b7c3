"""Logins at registries: all pods of a cluster get them, whatever makes the pods."""

from __future__ import annotations

from typing import Any

import pytest

from runnerhub_operator.api import parse_cluster
from runnerhub_operator.errors import InvalidSpecError
from runnerhub_operator.plan.layout import COMPONENTS, WORKLOADS
from runnerhub_operator.resources.common import BuildContext
from runnerhub_operator.resources.migration import migration_job
from runnerhub_operator.resources.runners import runner_pod, template_hash
from tests.generate import context

POOL = {"runnerPools": [{"name": "linux"}]}
SECRETS = {"imagePullSecrets": [{"name": "registry"}, {"name": "mirror"}]}


def pod_specs(built: BuildContext) -> dict[str, dict[str, Any]]:
    """Each kind of pod that the operator makes."""
    workloads = {
        component.name: item["spec"]["template"]["spec"]
        for component in COMPONENTS
        for item in component.build(built)
        if item["kind"] in WORKLOADS
    }
    (pool,) = built.cluster.spec.runner_pools
    return {
        **workloads,
        "migration": migration_job(built)["spec"]["template"]["spec"],
        "runner": runner_pod(built, pool, 0)["spec"],
    }


def test_every_pod_of_a_cluster_gets_them() -> None:
    specs = pod_specs(context("hub", {**POOL, **SECRETS}))
    assert len(specs) == len(COMPONENTS) + 2
    for name, spec in specs.items():
        assert spec["imagePullSecrets"] == [{"name": "registry"}, {"name": "mirror"}], name


def test_without_them_no_pod_has_the_field_so_none_is_renewed() -> None:
    for name, spec in pod_specs(context("hub", POOL)).items():
        assert "imagePullSecrets" not in spec, name


def test_a_change_renews_runners() -> None:
    before, after = context("hub", POOL), context("hub", {**POOL, **SECRETS})
    (pool,) = before.cluster.spec.runner_pools
    assert template_hash(before, pool) != template_hash(after, pool)


def test_orchestrators_and_their_migration_have_their_own_beside_them() -> None:
    own = {"podTemplate": {"imagePullSecrets": [{"name": "registry"}, {"name": "apps"}]}}
    specs = pod_specs(context("hub", {**POOL, **SECRETS, "orchestrator": own}))
    for name in ("orchestrator", "migration"):
        assert [item["name"] for item in specs[name]["imagePullSecrets"]] == ["registry", "mirror", "apps"]
    assert [item["name"] for item in specs["postgres"]["imagePullSecrets"]] == ["registry", "mirror"]


def test_the_same_twice_is_refused() -> None:
    with pytest.raises(InvalidSpecError, match="imagePullSecrets must not have the same name twice"):
        parse_cluster(
            {
                "metadata": {"name": "hub", "namespace": "runnerhub", "uid": "0000", "generation": 1},
                "spec": {"imagePullSecrets": [{"name": "registry"}, {"name": "registry"}]},
            }
        )
