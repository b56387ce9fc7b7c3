"""`runnerhub-operator plan`: what a manifest would change and restart, and in which order; nothing is written."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import aiohttp
import yaml

from . import __version__, names
from .api import RunnerHubCluster, parse_cluster
from .cache import ObjectCache
from .errors import InvalidSpecError, KubeError, NotFoundError, RefusedError
from .kube.client import KubeClient, ObjectRef
from .kube.reflector import Source
from .observe import observe
from .plan.preview import Preview, preview
from .settings import read_settings
from .watches import optional_sources, sources

FORBIDDEN = 403
_API = f"{names.API_GROUP}/{names.API_VERSION}"


def run(path: str, namespace: str, kubeconfig: str | None, *, as_json: bool = False) -> int:
    """Print the plan of each RunnerHubCluster in a file ("-": standard input); gives the exit code.

    `as_json`: as a list for programs instead of text.
    """
    text = sys.stdin.read() if path == "-" else Path(path).read_text(encoding="utf-8")
    manifests = [item for item in yaml.safe_load_all(text) if item and item.get("kind") == names.KIND]
    if not manifests:
        sys.stderr.write(f"no {names.KIND} in {path}\n")
        return 1
    try:
        plans = [asyncio.run(_plan_of(manifest, namespace, kubeconfig)) for manifest in manifests]
    except (KubeError, InvalidSpecError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    if as_json:
        sys.stdout.write(json.dumps([data_of(*plan) for plan in plans], indent=2) + "\n")
    else:
        sys.stdout.write("".join(text_of(*plan) for plan in plans))
    return 0


async def _plan_of(
    manifest: Mapping[str, Any], namespace: str, kubeconfig: str | None
) -> tuple[RunnerHubCluster, Preview, bool]:
    """The cluster as it would be, its plan, and whether Patroni could be asked."""
    metadata = {"namespace": namespace, **manifest["metadata"]}
    client = await KubeClient.connect(kubeconfig=kubeconfig)
    try:
        await _check(client, {**manifest, "metadata": metadata})
        cluster = await _as_wanted(client, manifest, metadata)
        store = ObjectCache(lambda _: None)
        watched = (metadata["namespace"],)
        for source in (*sources(watched), *optional_sources(watched)):
            await _read(client, source, store)
    finally:
        await client.close()
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5)) as http:
        snapshot = await observe(cluster, store.observed(cluster.key), http)
    plan = preview(cluster, snapshot, read_settings().images)
    return cluster, plan, snapshot.patroni_config is not None


async def _read(client: KubeClient, source: Source, store: ObjectCache) -> None:
    try:
        bodies = await client.list_objects(
            source.api_version, source.kind, source.namespace, source.label_selector
        )
    except (NotFoundError, RefusedError):
        if source.optional:
            return
        raise
    for body in bodies:
        store.put(source, {"apiVersion": source.api_version, "kind": source.kind, **body})
    store.retain(source, {(source.namespace, body["metadata"]["name"]) for body in bodies})


async def _check(client: KubeClient, manifest: dict[str, Any]) -> None:
    """Refuse what `kubectl apply` would: by the schema, its rules, quotas."""
    try:
        await client.apply(manifest, dry_run=True)
    except RefusedError as error:
        # The operator's own account may not write clusters; its rules are those of the schema, without the immutable.
        if error.status != FORBIDDEN:
            raise
        sys.stderr.write("the API server was not asked: this account may not write RunnerHubClusters\n")


async def _as_wanted(
    client: KubeClient, manifest: Mapping[str, Any], metadata: Mapping[str, Any]
) -> RunnerHubCluster:
    """The cluster as it would be: the spec of the manifest with the identity and the status of what is there."""
    ref = ObjectRef(_API, names.KIND, metadata["namespace"], metadata["name"])
    try:
        live = await client.get(ref)
    except NotFoundError:
        live = {"metadata": {**metadata, "uid": "not created yet"}}
    return parse_cluster({**live, "spec": manifest.get("spec") or {}})


def text_of(cluster: RunnerHubCluster, plan: Preview, patroni_known: bool) -> str:
    """The plan for people."""
    lines = [f"{names.KIND} {cluster.namespace}/{cluster.name}, by operator {__version__}:"]
    if cluster.spec.paused:
        lines.append("  spec.paused is true: nothing of this happens before it is false")
    if not plan.changes and not plan.patroni:
        lines.append("  nothing would change")
    lines += [
        f"  {change.verb:<7} {change.kind} {change.name}"
        + (f": {_short(change.paths)}" if change.paths else "")
        for change in plan.changes
    ]
    lines += [f"  change  Patroni's configuration, {entry}" for entry in plan.patroni]
    if cluster.status.postgres.primary is not None and not patroni_known:
        lines.append("  Patroni did not answer from here: changes of Postgres' parameters are not listed")
    if plan.restarts:
        lines.append("Restarts, one component at a time, in this order:")
        lines += [
            f"  {number}. {restart.component}: {restart.how}"
            for number, restart in enumerate(plan.restarts, start=1)
        ]
    else:
        lines.append(
            "No pod would restart" + (", except for Patroni's configuration" if plan.patroni else "")
        )
    if plan.waiting:
        lines.append(
            f"Waiting for their next change, or for updatePolicy: Immediate: {', '.join(plan.waiting)}"
        )
    return "\n".join(lines) + "\n"


def data_of(cluster: RunnerHubCluster, plan: Preview, patroni_known: bool) -> dict[str, Any]:
    """The plan for programs."""
    return {
        "namespace": cluster.namespace,
        "name": cluster.name,
        "operatorVersion": __version__,
        "paused": cluster.spec.paused,
        "patroniKnown": patroni_known,
        **asdict(plan),
    }


def _short(paths: tuple[str, ...]) -> str:
    shown = ", ".join(paths[:4])
    return f"{shown} and {len(paths) - 4} more" if len(paths) > 4 else shown
