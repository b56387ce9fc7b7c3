"""The CustomResourceDefinition, generated from the models.

Kubernetes wants a structural schema: no references, no `anyOf` with null, defaults on every level so that an empty
section is filled. Source: https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from .. import names
from .spec import RunnerHubClusterSpec
from .status import RunnerHubClusterStatus

Schema = dict[str, Any]

_KEPT = (
    "type",
    "description",
    "default",
    "enum",
    "pattern",
    "minimum",
    "maximum",
    "minLength",
    "maxLength",
    "minItems",
    "maxItems",
    "maxProperties",
    "required",
)

_PRINTER_COLUMNS = (
    ("Ready", "string", '.status.conditions[?(@.type=="Ready")].status', 0, "Whether the cluster serves."),
    ("Phase", "string", ".status.phase", 0, "One word for people."),
    ("Primary", "string", ".status.postgres.primary", 0, "The Postgres primary."),
    ("Master", "string", ".status.redis.master", 0, "The Redis master."),
    ("Leader", "string", ".status.orchestrator.leader", 0, "The leading orchestrator."),
    ("Age", "date", ".metadata.creationTimestamp", 0, "Time since creation."),
    ("Message", "string", '.status.conditions[?(@.type=="Ready")].message', 1, "Why it is ready or not."),
)


def _structural(schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> Schema:
    if "$ref" in schema:
        target = definitions[schema["$ref"].rsplit("/", 1)[1]]
        merged = {**target, **{key: value for key, value in schema.items() if key != "$ref"}}
        return _structural(merged, definitions)
    if "anyOf" in schema:
        kind = next(option for option in schema["anyOf"] if option.get("type") != "null")
        merged = {**kind, **{key: value for key, value in schema.items() if key not in ("anyOf", "default")}}
        return _structural(merged, definitions)
    result: Schema = {key: schema[key] for key in _KEPT if key in schema}
    result |= {key: value for key, value in schema.items() if key.startswith("x-kubernetes-")}
    if result.get("type") == "integer":
        result["format"] = "int64"
    if result.get("default", 0) is None:
        del result["default"]
    if "properties" in schema:
        result["properties"] = {
            name: _structural(value, definitions) for name, value in schema["properties"].items()
        }
    if "items" in schema:
        result["items"] = _structural(schema["items"], definitions)
    additional = schema.get("additionalProperties")
    if isinstance(additional, Mapping):
        result["additionalProperties"] = _structural(additional, definitions)
    if "patternProperties" in schema:
        ((pattern, value),) = schema["patternProperties"].items()
        result["additionalProperties"] = _structural(value, definitions)
        rule = {
            "rule": f"self.all(name, name.matches('{pattern}'))",
            "message": f"names must match {pattern}",
        }
        result.setdefault("x-kubernetes-validations", [])
        result["x-kubernetes-validations"] = [*result["x-kubernetes-validations"], rule]
    return result


def _fill_defaults(schema: Schema) -> Schema:
    """Give each optional section a default with all defaults inside; gives the section's own.

    The API server would fill {} by itself, but it checks CEL rules on the default as written.
    """
    inside: Schema = {}
    for name, value in schema.get("properties", {}).items():
        section = value.get("type") == "object" and "properties" in value and not value.get("required")
        if section and name not in schema.get("required", ()) and (default := _fill_defaults(value)):
            value["default"] = default
        if "default" in value:
            inside[name] = value["default"]
    return inside


def _drop_defaults(schema: Schema) -> None:
    schema.pop("default", None)
    for value in schema.get("properties", {}).values():
        _drop_defaults(value)
    if "items" in schema:
        _drop_defaults(schema["items"])


def schema_of(model: type[BaseModel]) -> Schema:
    """Structural schema of a model, with defaults."""
    raw = model.model_json_schema(by_alias=True, mode="validation")
    return _structural(raw, raw.get("$defs", {}))


def custom_resource_definition() -> Schema:
    """The CRD of RunnerHubCluster."""
    spec = schema_of(RunnerHubClusterSpec)
    spec["default"] = _fill_defaults(spec)
    status = schema_of(RunnerHubClusterStatus)
    _drop_defaults(status)
    status.pop("required", None)
    name_rules = [
        {
            "rule": f"self.metadata.name.size() <= {names.MAX_CLUSTER_NAME_LENGTH}",
            "message": f"metadata.name must have at most {names.MAX_CLUSTER_NAME_LENGTH} characters, "
            "because the names of its pods and Services are made from it",
        },
        {
            "rule": "self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')",
            "message": "metadata.name must start with a letter and have only a-z, 0-9 and -, "
            "because it is the name of a Service",
        },
    ]
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{names.PLURAL}.{names.API_GROUP}"},
        "spec": {
            "group": names.API_GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": names.KIND,
                "listKind": f"{names.KIND}List",
                "plural": names.PLURAL,
                "singular": names.KIND.lower(),
                "shortNames": ["rhc"],
                "categories": ["runnerhub"],
            },
            "versions": [
                {
                    "name": names.API_VERSION,
                    "served": True,
                    "storage": True,
                    "subresources": {"status": {}},
                    "additionalPrinterColumns": [
                        {
                            "name": name,
                            "type": kind,
                            "jsonPath": path,
                            "priority": priority,
                            "description": text,
                        }
                        for name, kind, path, priority, text in _PRINTER_COLUMNS
                    ],
                    "schema": {
                        "openAPIV3Schema": {
                            "type": "object",
                            "description": "A highly available GitHub RunnerHub installation.",
                            "properties": {
                                "apiVersion": {"type": "string"},
                                "kind": {"type": "string"},
                                "metadata": {"type": "object"},
                                "spec": spec,
                                "status": status,
                            },
                            "x-kubernetes-validations": name_rules,
                        }
                    },
                }
            ],
        },
    }
