"""Write the generated files: the CRD (for kubectl and for the charts), references, golden manifests and screens.

`make generate` runs it; unit tests fail when a committed file differs from what this would write.
"""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from runnerhub_operator.api import parse_cluster
from runnerhub_operator.api.crd import custom_resource_definition
from runnerhub_operator.plan.objects import desired
from runnerhub_operator.resources.common import BuildContext, Images
from runnerhub_operator.resources.runners import runner_pod
from runnerhub_operator.snapshot import Snapshot
from tests import charts
from tests.cli_reference import cli_reference
from tests.metrics_reference import metrics_reference
from tests.reference import reference
from tests.size_reference import size_reference
from tests.unit.cli.scenes import screens
from tests.values_reference import values_reference
from tests.words_reference import events_reference, reasons_reference

ROOT = Path(__file__).resolve().parent.parent
CRD_FILE = "runnerhub.io_runnerhubclusters.yaml"
IMAGES = Images(
    **{
        name: f"example.test/{name}:1"
        for name in ("operator", "postgres", "pooler", "redis", "haproxy", "orchestrator", "runner")
    }
)


class _Dumper(yaml.SafeDumper):
    """Multi-line text as a block, so that configuration files read well in a diff."""


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    style = "|" if "\n" in value else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)


_Dumper.add_representer(str, _text)
_Dumper.ignore_aliases = lambda *_: True  # type: ignore[method-assign]


def to_yaml(*documents: dict[str, Any]) -> str:
    """Documents as YAML."""
    return yaml.dump_all(
        documents, Dumper=_Dumper, sort_keys=False, width=110, explicit_start=len(documents) > 1
    )


def context(name: str, spec: dict[str, Any]) -> BuildContext:
    """A build context for a spec."""
    body = {
        "metadata": {"name": name, "namespace": "runnerhub", "uid": "0000", "generation": 1},
        "spec": spec,
    }
    return BuildContext(parse_cluster(body), IMAGES, credentials_hash="0" * 16)


def desired_objects(built: BuildContext) -> list[dict[str, Any]]:
    """All objects of a cluster of which nothing exists yet."""
    return list(desired(built, Snapshot(now=datetime(2026, 1, 1, tzinfo=UTC))).manifests)


def example(name: str) -> dict[str, Any]:
    """An example manifest by its file name without suffix."""
    found: dict[str, Any] = yaml.safe_load((ROOT / "examples" / f"{name}.yaml").read_text())
    return found


def _objects_of_example(name: str) -> list[dict[str, Any]]:
    body = example(name)
    return desired_objects(context(body["metadata"]["name"], body.get("spec", {})))


def references(values_schema: dict[str, Any]) -> dict[str, str]:
    """The generated pages of docs/reference by their names."""
    return {
        "api": reference(),
        "cli": cli_reference(),
        "events": events_reference(),
        "metrics": metrics_reference(),
        "reasons": reasons_reference(),
        "size": size_reference(_objects_of_example("minimal")),
        "values": values_reference(values_schema),
    }


def generated() -> dict[Path, str]:
    """All generated files with their content."""
    crd = custom_resource_definition()
    values = charts.values_schema(crd)
    files = {
        ROOT / "crds" / CRD_FILE: to_yaml(crd),
        # The chart writes the metadata itself.
        charts.OPERATOR / "files" / "runnerhubclusters.spec.yaml": to_yaml({"spec": crd["spec"]}),
        charts.CLUSTER / "values.schema.json": json.dumps(values, indent=2, ensure_ascii=False) + "\n",
        **{ROOT / "docs" / "reference" / f"{name}.md": text for name, text in references(values).items()},
        **screens(),
    }
    for path in sorted((ROOT / "examples").glob("*.yaml")):
        body = example(path.stem)
        built = context(body["metadata"]["name"], body.get("spec", {}))
        objects = desired_objects(built)
        objects += [runner_pod(built, pool, 0) for pool in built.cluster.spec.runner_pools]
        files[ROOT / "tests" / "unit" / "golden" / f"{path.stem}.yaml"] = to_yaml(*objects)
    return files


def main() -> int:
    """Write the files: first those that the charts consist of, then what the charts give."""
    _write(generated())
    _write({path: to_yaml(*documents) for path, documents in charts.rendered_files().items()})
    return 0


def _write(files: dict[Path, str]) -> None:
    for path, text in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        sys.stdout.write(f"{path.relative_to(ROOT)}\n")


if __name__ == "__main__":
    sys.exit(main())
