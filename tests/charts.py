"""The Helm charts as tests and generator see them: what they render, and the values schema made from the CRD."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import yaml

from kindbed import gotools, versions

ROOT: Final = Path(__file__).resolve().parent.parent
OPERATOR: Final = ROOT / "charts" / "runnerhub-operator"
CLUSTER: Final = ROOT / "charts" / "runnerhub-cluster"
CASES: Final = ROOT / "tests" / "unit" / "charts" / "values"
GOLDEN: Final = ROOT / "tests" / "unit" / "charts" / "golden"
KUSTOMIZE: Final = ROOT / "kustomize"
NAMESPACE: Final = "runnerhub-system"
# Both major versions that are in use; the first one makes the committed files.
HELMS: Final = ("helm", "helm3")

Manifest = dict[str, Any]
Schema = dict[str, Any]

# What JSON Schema has too. The rules in CEL stay with the API server.
_SHARED: Final = (
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
_TEXTS: Final[Schema] = {"type": "object", "additionalProperties": {"type": "string"}}


class HelmError(Exception):
    """Helm refused; the text is what it said."""


def helm(*arguments: str | Path, binary: str = "helm", stdin: str | None = None) -> str:
    """Run Helm; its output. Raises HelmError."""
    command = [str(word) for word in (gotools.ensure(binary)[binary], *arguments)]
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, check=False, timeout=120)
    if done.returncode != 0:
        raise HelmError(done.stderr.strip() + done.stdout.strip())
    return done.stdout


def render(
    chart: Path,
    *options: str | Path,
    release: str = "",
    namespace: str = NAMESPACE,
    binary: str = "helm",
    stdin: str | None = None,
) -> list[Manifest]:
    """The manifests that a chart gives."""
    name = release or chart.name
    # A Helm 3 built from its module takes a Kubernetes of long ago for the target.
    cluster = ("--namespace", namespace, "--kube-version", versions.KUBERNETES)
    text = helm("template", name, chart, *cluster, *options, binary=binary, stdin=stdin)
    return [item for item in yaml.safe_load_all(text) if item]


def render_text(chart: Path, values: str, release: str) -> list[Manifest]:
    """The manifests that a chart gives for values as text."""
    return render(chart, "--values", "-", release=release, stdin=values)


def cases(chart: Path) -> dict[str, Path]:
    """Files with values that a chart is rendered with, by name."""
    return {path.stem: path for path in sorted((CASES / chart.name).glob("*.yaml"))}


def render_case(chart: Path, values: Path, binary: str = "helm") -> list[Manifest]:
    """What a chart gives for values; the spec of the CRD, which is a file of its own, is left out."""
    found = render(chart, "--values", values, binary=binary, release=_release(chart))
    for item in found:
        if item["kind"] == "CustomResourceDefinition":
            item["spec"] = {}
    return found


def _release(chart: Path) -> str:
    return "hub" if chart == CLUSTER else chart.name


def plain(manifests: list[Manifest]) -> list[Manifest]:
    """Manifests for those who apply them without Helm: no test, and no marks that only Helm reads."""
    result = []
    for item in manifests:
        metadata = item["metadata"]
        annotations = metadata.get("annotations", {})
        if "helm.sh/hook" in annotations:
            continue
        annotations.pop("helm.sh/resource-policy", None)
        if not annotations:
            metadata.pop("annotations", None)
        template = item.get("spec", {}).get("template", {}).get("metadata", {})
        for labels in (metadata["labels"], template.get("labels", {})):
            labels.pop("helm.sh/chart", None)
            labels.pop("app.kubernetes.io/managed-by", None)
        result.append(item)
    return result


def namespace_manifest(name: str) -> Manifest:
    """The operator's namespace, closed to pods with more rights than the operator's have."""
    level = "pod-security.kubernetes.io/enforce"
    return {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {"name": name, "labels": {level: "restricted"}},
    }


def installation(*options: str | Path, namespace: str = NAMESPACE) -> list[Manifest]:
    """All that installs the operator without Helm, in the order in which it can be applied."""
    rendered = plain(render(OPERATOR, *options, namespace=namespace))
    definitions = [item for item in rendered if item["kind"] == "CustomResourceDefinition"]
    others = [item for item in rendered if item["kind"] != "CustomResourceDefinition"]
    return [namespace_manifest(namespace), *definitions, *others]


def rendered_files() -> dict[Path, list[Manifest]]:
    """Committed files that Helm gives, with their content."""
    files = {
        GOLDEN / chart.name / f"{name}.yaml": render_case(chart, values)
        for chart in (OPERATOR, CLUSTER)
        for name, values in cases(chart).items()
    }
    # The definition is in crds/, which is a part of the same kustomization.
    files[KUSTOMIZE / "operator.yaml"] = installation("--set", "crds.install=false")
    return files


def values_schema(crd: Mapping[str, Any]) -> Schema:
    """The schema of the cluster chart's values: the spec of the CRD, and what the chart adds."""
    spec = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Values of the chart runnerhub-cluster",
        "description": "Made by `make generate` from the models in operator/runnerhub_operator/api/.",
        "type": "object",
        "additionalProperties": False,
        "properties": {
            "global": {"type": "object", "description": "Values of a chart around this one; not used."},
            "name": {
                "type": "string",
                "description": "Name of the RunnerHubCluster. Default: the release's name.",
                "pattern": "^([a-z]([-a-z0-9]*[a-z0-9])?)?$",
                "maxLength": 40,
            },
            "labels": {**_TEXTS, "description": "Labels of the RunnerHubCluster."},
            "annotations": {**_TEXTS, "description": "Annotations of the RunnerHubCluster."},
            "keep": {
                "type": "boolean",
                "description": "Leave the cluster running when the release is uninstalled.",
                "default": False,
            },
            "spec": _json_schema(spec),
        },
    }


def _json_schema(schema: Mapping[str, Any]) -> Schema:
    """A structural schema as JSON Schema that refuses what it does not know."""
    result: Schema = {key: schema[key] for key in _SHARED if key in schema}
    if "properties" in schema:
        result["additionalProperties"] = False
        result["properties"] = {name: _json_schema(value) for name, value in schema["properties"].items()}
    elif "additionalProperties" in schema:
        result["additionalProperties"] = _json_schema(schema["additionalProperties"])
    if "items" in schema:
        result["items"] = _json_schema(schema["items"])
    return result
