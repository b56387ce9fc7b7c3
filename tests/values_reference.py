"""The reference of the charts' values as a page, from their schemas and default values."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

import yaml

from tests import charts
from tests.markdown import table

_INTRODUCTION: Final = """\
# Reference: Helm values

Made by `make generate` from `values.schema.json` and `values.yaml` of the charts. Helm refuses what is not in the
schema.
"""

_CLUSTER: Final = """\
## runnerhub-cluster

A chart with one object, the RunnerHubCluster. `spec` is its spec, of which [the API](api.md#spec) tells every field.
"""

_OPERATOR: Final = """\
## runnerhub-operator

The operator with its rights and the definition of the API.
"""

_ABSENT: Final = object()


def _type(schema: Mapping[str, Any]) -> str:
    if "enum" in schema:
        return " or ".join(f"`{json.dumps(value)}`" for value in schema["enum"])
    if "anyOf" in schema:
        return " or ".join(_type(part) for part in schema["anyOf"])
    kind = schema["type"]
    if isinstance(kind, list):
        return " or ".join(kind)
    if kind == "array":
        return f"list of {schema['items']['type']}"
    if kind == "object" and "properties" not in schema:
        inner = schema.get("additionalProperties")
        return f"map of {inner['type']}" if isinstance(inner, Mapping) else "object"
    return str(kind)


def _fields(
    schema: Mapping[str, Any], values: object, path: str = ""
) -> Iterator[tuple[str, Mapping[str, Any], object]]:
    """Each value that can be set, with its schema and its default; what stands in lists is told by Kubernetes."""
    for name, inner in schema["properties"].items():
        here = f"{path}.{name}" if path else name
        default = values.get(name, _ABSENT) if isinstance(values, Mapping) else _ABSENT
        if "properties" in inner and name != "spec":
            yield from _fields(inner, default, here)
        else:
            yield here, inner, default


def _rows(schema: Mapping[str, Any], values: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    for path, inner, default in _fields(schema, values):
        told = "" if default is _ABSENT else f"`{json.dumps(default)}`"
        yield f"`{path}`", _type(inner), told, inner["description"]


def values_reference(cluster_schema: Mapping[str, Any]) -> str:
    """The page; the schema of the cluster's chart is made from the definition, that of the operator's is a file."""
    head = ("Value", "Type", "Default", "Meaning")
    operator_schema = json.loads((charts.OPERATOR / "values.schema.json").read_text())
    values = {
        chart: yaml.safe_load((chart / "values.yaml").read_text())
        for chart in (charts.OPERATOR, charts.CLUSTER)
    }
    return "\n".join(
        [
            _INTRODUCTION,
            _OPERATOR,
            table(head, _rows(operator_schema, values[charts.OPERATOR])),
            _CLUSTER,
            table(head, _rows(cluster_schema, values[charts.CLUSTER])),
        ]
    )
