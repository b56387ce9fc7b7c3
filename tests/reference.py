"""The reference of the API as a page, from the same schema as the CRD."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from runnerhub_operator import names
from runnerhub_operator.api.base import RULES
from runnerhub_operator.api.crd import PRINTER_COLUMNS, SCALE, is_immutable, spec_schema, status_schema
from runnerhub_operator.api.meanings import CONDITIONS
from runnerhub_operator.api.spec import NAME_RULES
from tests.markdown import table

Schema = Mapping[str, Any]

_INTRODUCTION = f"""\
# Reference: {names.KIND} `{names.API_GROUP}/{names.API_VERSION}`

Made by `make generate` from the models in `operator/runnerhub_operator/api/`; `kubectl explain rhc.spec --recursive`
tells the same. Short name `rhc`, category `runnerhub`. What changes between versions: [versions.md](versions.md).
"""

_ANNOTATIONS = (
    (
        f"`{names.ANNOTATION_SWITCH_PRIMARY}`",
        "name of a Postgres member, such as `hub-postgres-1`",
        "Make this member the primary. It is followed once, as soon as the member streams from the primary, is not far "
        "behind, and, with synchronous replication, confirms commits; after ten minutes it is given up. "
        "`status.postgres.switchover` tells what became of it. To ask for the same member again, take the annotation "
        "away first.",
    ),
)

_SCALE_TEXT = f"""\
`kubectl scale rhc/NAME --replicas=N` and a HorizontalPodAutoscaler set the number of orchestrators:

```yaml
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata:
  name: hub
spec:
  scaleTargetRef: {{apiVersion: {names.API_GROUP}/{names.API_VERSION}, kind: {names.KIND}, name: hub}}
  minReplicas: 3
  maxReplicas: 10
  metrics:
    - type: Resource
      resource: {{name: cpu, target: {{type: Utilization, averageUtilization: 70}}}}
```
"""


def fields(schema: Schema, path: str, *, immutable: bool = False) -> Iterator[tuple[str, Schema, bool]]:
    """Each field below a schema with its path and whether it is immutable."""
    for name, value in schema.get("properties", {}).items():
        fixed = immutable or is_immutable(value)
        here = f"{path}.{name}"
        yield here, value, fixed
        yield from fields(value, here, immutable=fixed)
        if value["type"] == "array":
            yield from fields(value["items"], f"{here}[]", immutable=fixed)


def _type(schema: Schema) -> str:
    if "enum" in schema:
        return " or ".join(f"`{value}`" for value in schema["enum"])
    if schema["type"] == "array":
        return f"list of {schema['items']['type']}"
    if "additionalProperties" in schema:
        return f"map of {schema['additionalProperties']['type']}"
    return str(schema["type"])


def _default(schema: Schema, *, required: bool) -> str:
    if required:
        return "required"
    if "default" not in schema or "properties" in schema:
        return ""
    return f"`{json.dumps(schema['default'])}`"


def _bounds(schema: Schema, patterns: list[str], *, immutable: bool) -> str:
    told = ["immutable"] if immutable else []
    if "minimum" in schema:
        told.append(f"{schema['minimum']} to {schema['maximum']}")
    for key, unit in (("maxLength", "characters"), ("maxItems", "items"), ("maxProperties", "entries")):
        if key in schema:
            told.append(f"at most {schema[key]} {unit}")
    inner = schema.get("additionalProperties")
    if isinstance(inner, Mapping) and "maxLength" in inner:
        told.append(f"values of at most {inner['maxLength']} characters")
    for source in (schema, inner):
        if isinstance(source, Mapping) and "pattern" in source:
            if source["pattern"] not in patterns:
                patterns.append(source["pattern"])
            told.append(f"[pattern {patterns.index(source['pattern']) + 1}](#patterns)")
    return ", ".join(told)


def _required(schema: Schema, path: str) -> set[str]:
    found = {f"{path}.{name}" for name in schema.get("required", ())}
    for name, value in schema.get("properties", {}).items():
        found |= _required(value, f"{path}.{name}")
        found |= _required(value.get("items", {}), f"{path}.{name}[]")
    return found


def _spec(patterns: list[str]) -> str:
    spec = spec_schema()
    required = _required(spec, "spec")
    rows = [
        (
            f"`{path}`",
            _type(schema),
            _default(schema, required=path in required),
            _bounds(schema, patterns, immutable=immutable),
            schema["description"],
        )
        for path, schema, immutable in fields(spec, "spec")
    ]
    return table(("Field", "Type", "Default", "Bounds", "Meaning"), rows)


# As code, so that nothing in it is taken for a link.
_PATTERN = re.compile(r"(\^\S+\$)")


def _rules() -> str:
    places: dict[str, list[str]] = {rule.message: ["`metadata.name`"] for rule in NAME_RULES}
    for path, schema, _ in fields(spec_schema(), "spec"):
        for rule in (*schema.get(RULES, ()), *schema.get("items", {}).get(RULES, ())):
            places.setdefault(rule["message"], []).append(f"`{path}`")
    return table(
        ("Rule", "Of"),
        [(_PATTERN.sub(r"`\1`", message), ", ".join(found)) for message, found in places.items()],
    )


def _status() -> str:
    rows = [
        (f"`{path}`", _type(schema), schema["description"])
        for path, schema, _ in fields(status_schema(), "status")
    ]
    return table(("Field", "Type", "Meaning"), rows)


def reference() -> str:
    """The page."""
    patterns: list[str] = []
    spec = _spec(patterns)
    listed = "".join(f"{number}. `{pattern}`\n" for number, pattern in enumerate(patterns, 1))
    columns = [(name, f"`{path}`", text) for name, _, path, wide, text in PRINTER_COLUMNS if not wide]
    columns += [
        (name, f"`{path}`", f"{text} (`-o wide`)") for name, _, path, wide, text in PRINTER_COLUMNS if wide
    ]
    conditions = [(f"`{kind}`", text) for kind, text in CONDITIONS.items()]
    return "\n".join(
        [
            _INTRODUCTION,
            "## Spec\n",
            spec,
            "### Rules\n",
            "The API server refuses what breaks one of these. The operator checks the same ones again and answers with "
            "`Accepted=False, InvalidSpec`.\n",
            _rules(),
            "### Patterns\n",
            listed,
            "## Annotations\n",
            "What a person asks for once; the operator reads them and leaves them as they are.\n",
            table(("Annotation", "Value", "Meaning"), list(_ANNOTATIONS)),
            "## Status\n",
            _status(),
            "### Conditions\n",
            "All are there from the first visit, as Unknown when nothing is known. `lastTransitionTime` moves only "
            "when the status does; `observedGeneration` tells which spec was looked at.\n",
            table(("Condition", "True means"), conditions),
            "### Reasons\n",
            "Each word that a condition can have as its reason, with what to look at and what to do: "
            "[reasons](reasons.md). The operator also tells what happens by [Events](events.md).\n",
            "## Scale\n",
            _SCALE_TEXT,
            table(("Path in scale", "Field"), [(name, f"`{path}`") for name, path in SCALE.items()]),
            "## Columns of `kubectl get rhc`\n",
            table(("Column", "Path", "Meaning"), columns),
        ]
    )
