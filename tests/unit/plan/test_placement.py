"""On which nodes the pods of each part may run."""

from __future__ import annotations

from typing import Any

import pytest

from runnerhub_operator import names
from runnerhub_operator.api import parse_cluster
from runnerhub_operator.errors import InvalidSpecError
from runnerhub_operator.plan.layout import COMPONENTS, WORKLOADS
from tests.generate import context

PLACEMENT = {
    "nodeSelector": {"kubernetes.io/arch": "amd64"},
    # The API server drops an empty value, so the operator does, or it would write it again and again.
    "tolerations": [{"key": "dedicated", "operator": "Equal", "value": "", "effect": "NoSchedule"}],
}
TOLERATED = [{"key": "dedicated", "operator": "Equal", "effect": "NoSchedule"}]
PARTS = {
    names.POSTGRES: {"postgres": {"podTemplate": PLACEMENT}},
    names.POOLER: {"postgres": {"pooler": {"podTemplate": PLACEMENT}}},
    names.REDIS: {"redis": {"podTemplate": PLACEMENT}},
    names.ORCHESTRATOR: {"orchestrator": {"podTemplate": PLACEMENT}},
    names.LOAD_BALANCER: {"loadBalancer": {"podTemplate": PLACEMENT}},
}


def pod_specs(spec: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The pods of each component."""
    return {
        component.name: item["spec"]["template"]["spec"]
        for component in COMPONENTS
        for item in component.build(context("hub", spec))
        if item["kind"] in WORKLOADS
    }


@pytest.mark.parametrize("part", PARTS)
def test_a_part_gets_its_own_and_no_other_changes(part: str) -> None:
    before, after = pod_specs({}), pod_specs(PARTS[part])
    placed = {"nodeSelector": PLACEMENT["nodeSelector"], "tolerations": TOLERATED}
    assert after == {**before, part: {**before[part], **placed}}


@pytest.mark.parametrize("part", PARTS)
def test_without_them_no_pod_has_the_fields_so_none_is_renewed(part: str) -> None:
    assert not {"nodeSelector", "tolerations"} & set(pod_specs({})[part])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"nodeSelector": {"a b": "x"}}, "must have names like"),
        ({"nodeSelector": {"a": "x y"}}, "nodeSelector"),
        ({"tolerations": [{"value": "x"}]}, "without key must have operator: Exists"),
        ({"labels": {"a": "b"}}, "labels"),
    ],
)
def test_what_kubernetes_would_refuse_is_refused(given: dict[str, Any], message: str) -> None:
    body = {
        "metadata": {"name": "hub", "namespace": "n", "uid": "u"},
        "spec": {"postgres": {"podTemplate": given}},
    }
    with pytest.raises(InvalidSpecError, match=message):
        parse_cluster(body)
