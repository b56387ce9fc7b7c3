"""Comparison of desired and live objects."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runnerhub_operator.kube.compare import differences, is_subset, needs_apply, with_applied_hash

DEPLOYMENT: dict[str, Any] = {
    "apiVersion": "apps/v1",
    "kind": "Deployment",
    "metadata": {"name": "hub", "namespace": "d"},
    "spec": {
        "replicas": 3,
        "template": {
            "spec": {
                "containers": [
                    {
                        "name": "app",
                        "env": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}],
                        "resources": {"requests": {"cpu": "0.1", "memory": "1024Mi"}},
                        "args": ["--x", "--y"],
                    }
                ]
            }
        },
    },
}


def live_of(desired: dict[str, Any]) -> dict[str, Any]:
    """As the API server returns it: defaults added, quantities canonical."""
    live = copy.deepcopy(desired)
    live["metadata"]["uid"] = "1"
    live["spec"]["revisionHistoryLimit"] = 10
    container = live["spec"]["template"]["spec"]["containers"][0]
    container["imagePullPolicy"] = "IfNotPresent"
    container["resources"]["requests"] = {"cpu": "100m", "memory": "1Gi"}
    return live


def test_nothing_is_written_when_only_defaults_and_canonical_forms_differ() -> None:
    desired = with_applied_hash(DEPLOYMENT)
    assert not needs_apply(desired, live_of(desired))


def test_a_missing_object_needs_apply() -> None:
    assert needs_apply(with_applied_hash(DEPLOYMENT), None)


@pytest.mark.parametrize(
    "break_it",
    [
        lambda live: live["spec"].update(replicas=2),
        lambda live: live["spec"]["template"]["spec"]["containers"][0]["env"].pop(),
        lambda live: live["spec"]["template"]["spec"]["containers"][0]["args"].append("--z"),
        lambda live: live["spec"]["template"]["spec"]["containers"][0]["resources"]["requests"].update(
            cpu="200m"
        ),
        lambda live: live["spec"]["template"]["spec"].pop("containers"),
        lambda live: live["metadata"].pop("annotations"),
    ],
)
def test_drift_by_hand_needs_apply(break_it: Any) -> None:
    desired = with_applied_hash(DEPLOYMENT)
    live = live_of(desired)
    break_it(live)
    assert needs_apply(desired, live)


def test_a_field_that_is_not_wanted_any_more_needs_apply() -> None:
    live = live_of(with_applied_hash(DEPLOYMENT))
    without = copy.deepcopy(DEPLOYMENT)
    del without["spec"]["replicas"]
    assert needs_apply(with_applied_hash(without), live)


def test_numbers_and_booleans_are_not_mixed_up() -> None:
    assert not is_subset(1, True)
    assert not is_subset({"a": False}, {"a": 0})


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=12,
)


@given(values)
def test_every_value_is_a_subset_of_itself(value: Any) -> None:
    assert is_subset(value, value)


@given(st.dictionaries(st.text(max_size=4), values, max_size=4), st.text(max_size=4), values)
def test_additions_of_the_server_do_not_matter(value: dict[str, Any], key: str, added: Any) -> None:
    live = {key: added, **value}
    assert is_subset(value, live)


@pytest.mark.parametrize(
    ("desired", "live"),
    [("1", "1.0"), ("12e9876543210", "0e99"), ("7e12345678", "3"), ("1Gi", "1024Mi"), ("010", "10")],
)
def test_texts_that_look_like_amounts_are_texts(desired: str, live: str) -> None:
    """A hash of digits and an e once overflowed, and its cluster was never visited again."""
    assert not is_subset(
        {"metadata": {"annotations": {"a": desired}}}, {"metadata": {"annotations": {"a": live}}}
    )


def test_the_paths_of_differences_are_told() -> None:
    live = live_of(DEPLOYMENT)
    live["spec"]["replicas"] = 2
    live["spec"]["template"]["spec"]["containers"][0]["env"][1]["value"] = "3"
    assert list(differences(DEPLOYMENT, live)) == [
        "spec.replicas",
        "spec.template.spec.containers[app].env[B].value",
    ]
