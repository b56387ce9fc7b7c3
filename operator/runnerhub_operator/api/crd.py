"""The CustomResourceDefinition, generated from the models.

Kubernetes wants a structural schema: no references, no `anyOf` with null, defaults on every level so that an empty
section is filled. Source: https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from .. import names
from .base import RULES, cel_string
from .spec import NAME_RULES, RunnerHubClusterSpec
from .status import RunnerHubClusterStatus

Schema = dict[str, Any]

_KEPT = (
    "type",
    "description",
    "default",
    "enum",
    "format",
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

PRINTER_COLUMNS = (
    ("Ready", "string", '.status.conditions[?(@.type=="Ready")].status', 0, "Whether the cluster serves."),
    ("Phase", "string", ".status.phase", 0, "One word for people."),
    ("Primary", "string", ".status.postgres.primary", 0, "The Postgres primary."),
    ("Master", "string", ".status.redis.master", 0, "The Redis master."),
    ("Leader", "string", ".status.orchestrator.leader", 0, "The leading orchestrator."),
    ("Runners", "integer", ".status.runners.ready", 0, "Runners that are ready."),
    ("Age", "date", ".metadata.creationTimestamp", 0, "Time since creation."),
    ("Paused", "boolean", ".spec.paused", 1, "Whether the operator leaves everything as it is."),
    ("Message", "string", '.status.conditions[?(@.type=="Ready")].message', 1, "Why it is ready or not."),
)


# What `kubectl scale` and a HorizontalPodAutoscaler see: the orchestrators.
SCALE = {
    "specReplicasPath": ".spec.orchestrator.replicas",
    "statusReplicasPath": ".status.orchestrator.replicas",
    "labelSelectorPath": ".status.orchestrator.selector",
}


def _structural(schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> Schema:
    if "$ref" in schema:
        target = definitions[schema["$ref"].rsplit("/", 1)[1]]
        merged = {**target, **{key: value for key, value in schema.items() if key != "$ref"}}
        if rules := [*target.get(RULES, ()), *schema.get(RULES, ())]:
            merged[RULES] = rules
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
            "rule": f"self.all(name, name.matches({cel_string(pattern)}))",
            "message": f"names must match {pattern}",
        }
        result[RULES] = [*result.get(RULES, ()), rule]
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


def _without_defaults_in_lists(schema: Schema, *, inside: bool = False) -> None:
    """Let the entries of lists be stored as they were written; the models know the defaults.

    A merge patch compares a list as a whole, so tools that make one of what was applied, such as Argo CD, would find a
    difference for ever.
    """
    if inside:
        schema.pop("default", None)
    for value in schema.get("properties", {}).values():
        _without_defaults_in_lists(value, inside=inside)
    if "items" in schema:
        _without_defaults_in_lists(schema["items"], inside=True)


def _loosen(schema: Schema) -> None:
    """What the operator writes needs no default, and a pattern or maximum would say no more than the type."""
    for key in ("default", "pattern", "maximum"):
        schema.pop(key, None)
    for value in schema.get("properties", {}).values():
        _loosen(value)
    if "items" in schema:
        _loosen(schema["items"])


def is_immutable(schema: Mapping[str, Any]) -> bool:
    """Whether a rule of the schema forbids every change of the value."""
    return any(rule["rule"] == "self == oldSelf" for rule in schema.get(RULES, ()))


def _tell_facts(schema: Schema, *, immutable: bool = False) -> None:
    """Add to the description of each field what `kubectl explain` does not show: default, bounds, immutability."""
    immutable = immutable or is_immutable(schema)
    for value in schema.get("properties", {}).values():
        fixed = immutable or is_immutable(value)
        facts = [*_bounds(value), *_default(value), *(["Immutable in this version."] if fixed else [])]
        value["description"] = " ".join([value["description"], *facts])
        _tell_facts(value, immutable=fixed)
        _tell_facts(value.get("items", {}), immutable=fixed)


def _bounds(schema: Mapping[str, Any]) -> list[str]:
    if "minimum" in schema and "maximum" in schema:
        return [f"{schema['minimum']} to {schema['maximum']}."]
    if "maxProperties" in schema:
        return [f"At most {schema['maxProperties']} entries."]
    return []


def _default(schema: Mapping[str, Any]) -> list[str]:
    if "default" not in schema or schema["type"] == "object":
        return []
    return [f"Default: {json.dumps(schema['default']).strip(chr(34))}."]


def schema_of(model: type[BaseModel]) -> Schema:
    """Structural schema of a model, with defaults."""
    raw = model.model_json_schema(by_alias=True, mode="validation")
    return _structural(raw, raw.get("$defs", {}))


def spec_schema() -> Schema:
    """The schema of the spec, with the descriptions of the models."""
    spec = schema_of(RunnerHubClusterSpec)
    spec["default"] = _fill_defaults(spec)
    return spec


def status_schema() -> Schema:
    """The schema of the status."""
    status = schema_of(RunnerHubClusterStatus)
    _loosen(status)
    status.pop("required", None)
    return status


def custom_resource_definition() -> Schema:
    """The CRD of RunnerHubCluster."""
    spec = spec_schema()
    _tell_facts(spec)
    _without_defaults_in_lists(spec)
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
                    "subresources": {"status": {}, "scale": dict(SCALE)},
                    "additionalPrinterColumns": [
                        {
                            "name": name,
                            "type": kind,
                            "jsonPath": path,
                            # The API server stores no 0, and what it stores must not differ from what was applied.
                            **({"priority": priority} if priority else {}),
                            "description": text,
                        }
                        for name, kind, path, priority, text in PRINTER_COLUMNS
                    ],
                    "schema": {
                        "openAPIV3Schema": {
                            "type": "object",
                            "description": "A highly available GitHub RunnerHub installation.",
                            "properties": {
                                "apiVersion": {
                                    "type": "string",
                                    "description": f"{names.API_GROUP}/{names.API_VERSION}.",
                                },
                                "kind": {"type": "string", "description": f"{names.KIND}."},
                                "metadata": {"type": "object"},
                                "spec": spec,
                                "status": status_schema(),
                            },
                            RULES: [rule.as_validation() for rule in NAME_RULES],
                        }
                    },
                }
            ],
        },
    }
