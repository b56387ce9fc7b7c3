"""What the operator would change: asked of the operator that runs, because it is the one that would.

It knows its own version, images and templates, reaches Patroni, and has the Secrets that must not leave the cluster;
this program, on somebody's machine, has none of that.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from runnerhub_operator import names

from .errors import CliError, Exit
from .kubectl import Kubectl, KubectlError, Manifest
from .operators import operator_namespace

_OPERATOR = "deployment/runnerhub-operator"


def manifests_of(text: str, source: str) -> list[Manifest]:
    """The RunnerHubClusters of a file."""
    try:
        documents = [item for item in yaml.safe_load_all(text) if isinstance(item, dict)]
    except yaml.YAMLError as error:
        raise CliError(f"{source} is no YAML: {' '.join(str(error).split())}") from error
    found = [item for item in documents if item.get("kind") == names.KIND]
    if not found:
        raise CliError(f"there is no {names.KIND} in {source}")
    for item in found:
        if not isinstance(item.get("metadata"), dict) or not item["metadata"].get("name"):
            raise CliError(f"a {names.KIND} in {source} has no metadata.name")
    return found


def read_file(path: str, stdin: Any) -> str:
    """A file's text; "-" is standard input."""
    try:
        return str(stdin.read()) if path == "-" else Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CliError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from error


def check(kubectl: Kubectl, manifest: Manifest) -> None:
    """Let the API server say whether it would take the manifest from this user; nothing is stored."""
    try:
        kubectl.text("apply", "--dry-run=server", "--filename", "-", stdin=json.dumps(manifest))
    except KubectlError as error:
        if error.kind == "forbidden":
            # Who may look but not write still wants to see the plan.
            return
        if error.kind == "unreachable":
            raise
        raise CliError(f"`kubectl apply` would be refused: {error}", Exit.CRITICAL) from error


def plan(kubectl: Kubectl, manifest: Manifest, *, as_json: bool) -> str:
    """The plan of the operator that runs, as text or JSON."""
    namespace = manifest["metadata"].get("namespace") or kubectl.current_namespace()
    operator = kubectl.in_namespace(operator_namespace(kubectl.in_namespace(namespace)))
    words = ["exec", "--stdin", "--quiet", _OPERATOR, "--", "runnerhub-operator", "plan"]
    words += ["--namespace", namespace, "--filename", "-", *(["--output", "json"] if as_json else [])]
    try:
        return operator.text(*words, stdin=json.dumps(manifest), seconds=60)
    except KubectlError as error:
        if error.kind == "forbidden":
            raise CliError(
                f"the plan is made in the operator's pod, and you may not run programs there: {error}"
            ) from error
        raise


def parsed(text: str) -> list[Any]:
    """The plans in the operator's JSON."""
    try:
        found = json.loads(text)
    except ValueError as error:
        raise CliError(
            "the operator that runs gives no JSON; its version may be older than the plugin's"
        ) from error
    return found if isinstance(found, list) else [found]
