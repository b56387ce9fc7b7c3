"""The schema that the API server gets, and the operator's own validation of the same rules."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runnerhub_operator.api import RunnerHubClusterSpec, parse_cluster
from runnerhub_operator.api.crd import custom_resource_definition
from runnerhub_operator.errors import InvalidSpecError


def schema() -> dict[str, Any]:
    found: dict[str, Any] = custom_resource_definition()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    return found


def walk(node: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    yield path, node
    for name, inner in node.get("properties", {}).items():
        yield from walk(inner, f"{path}.{name}")
    for key in ("items", "additionalProperties"):
        if isinstance(node.get(key), dict):
            yield from walk(node[key], f"{path}[]")


def resource(spec: dict[str, Any], name: str = "hub") -> dict[str, Any]:
    return {"metadata": {"name": name, "namespace": "d", "uid": "1", "generation": 1}, "spec": spec}


def test_the_schema_is_structural() -> None:
    for path, node in walk(schema()):
        assert "type" in node, path
        assert not {"$ref", "anyOf", "allOf", "$defs", "title"} & set(node), path


def test_every_field_of_spec_and_status_is_described() -> None:
    bare = [
        path
        for path, node in walk(schema())
        if path.startswith((".spec", ".status")) and not path.endswith("[]") and not node.get("description")
    ]
    assert bare == []


def test_lists_strings_and_maps_of_the_spec_are_bounded_for_the_cost_of_cel() -> None:
    for path, node in walk(schema()["properties"]["spec"]):
        if node["type"] == "string" and "enum" not in node:
            assert "maxLength" in node, path
        if node["type"] == "array":
            assert "maxItems" in node, path
        if node["type"] == "object" and "additionalProperties" in node:
            assert "maxProperties" in node, path


def default_of(node: dict[str, Any]) -> Any:
    """What the API server makes of an absent value."""
    if "default" not in node:
        return None
    value = node["default"]
    if node["type"] != "object":
        return value
    filled = {name: default_of(inner) for name, inner in node.get("properties", {}).items()}
    return {name: inner for name, inner in filled.items() if inner is not None} | value


def test_the_defaults_of_the_schema_are_those_of_the_models() -> None:
    by_server = default_of(schema()["properties"]["spec"])
    assert RunnerHubClusterSpec.model_validate(by_server) == RunnerHubClusterSpec()
    assert by_server["redis"]["storage"] == {"size": "5Gi"}


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"redis": {"replicas": 4}}, "odd"),
        ({"redis": {"replicas": 0}}, "greater than or equal to 3"),
        ({"postgres": {"instances": 0}}, "greater than or equal to 1"),
        ({"postgres": {"storage": {"size": "much"}}}, "spec.postgres.storage.size"),
        ({"ingress": {"host": "no_host"}}, "spec.ingress.host"),
        ({"ingress": {}}, "spec.ingress.host"),
        ({"surprise": 1}, "spec.surprise"),
        ({"leaderElection": {"leaseDurationSeconds": 5}}, "leaseDurationSeconds > renewDeadlineSeconds"),
        ({"orchestrator": {"image": "no image"}}, "spec.orchestrator.image"),
    ],
)
def test_a_bad_spec_is_told_by_field(spec: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidSpecError) as caught:
        parse_cluster(resource(spec))
    assert words in str(caught.value)


def test_a_name_too_long_for_its_children_is_refused() -> None:
    parse_cluster(resource({}, "a" * 40))
    with pytest.raises(InvalidSpecError):
        parse_cluster(resource({}, "a" * 41))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=10,
)
fields = st.sampled_from(
    ["orchestrator", "postgres", "redis", "loadBalancer", "ingress", "leaderElection", "x"]
)


@given(st.dictionaries(fields, json_values, max_size=4))
def test_hostile_specs_are_accepted_or_refused_but_never_crash(spec: dict[str, Any]) -> None:
    with contextlib.suppress(InvalidSpecError):
        parse_cluster(resource(spec))
