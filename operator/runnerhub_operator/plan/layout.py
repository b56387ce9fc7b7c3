"""Layouts: an operator upgrade restarts no pod by itself.

Each workload carries the layout that its pod template was built with (version and default images) and the template's
hash. As long as that layout still gives the same template, the spec asks for no restart, and the template stays as it
is, although the operator of today would build another one. It moves to today's layout with the next change that
renews the pods anyway, or at once with `updatePolicy: Immediate`.

A StatefulSet is made anew when its volumes grow, and its pods live on meanwhile. So that the layout lives on too, the
PodDisruptionBudget of its pods carries the same record.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace

from .. import names
from ..api import UpdatePolicy
from ..resources.common import OLDEST_LAYOUT, BuildContext, Manifest, config_hash
from ..resources.loadbalancer import loadbalancer_manifests
from ..resources.orchestrator import orchestrator_manifests
from ..resources.pooler import pooler_manifests
from ..resources.postgres import postgres_manifests
from ..resources.redis import redis_manifests
from ..snapshot import Snapshot

WORKLOADS = ("StatefulSet", "Deployment")
_SECOND_RECORD = "PodDisruptionBudget"


@dataclass(frozen=True, slots=True)
class Component:
    """A component with pods: its builder, the kind of its workload, the default images that it uses."""

    name: str
    workload: str
    build: Callable[[BuildContext], list[Manifest]]
    images: tuple[str, ...]


# In the order in which they are applied.
COMPONENTS = (
    Component(names.POSTGRES, "StatefulSet", postgres_manifests, ("postgres",)),
    Component(names.POOLER, "Deployment", pooler_manifests, ("pooler",)),
    Component(names.REDIS, "StatefulSet", redis_manifests, ("redis",)),
    Component(names.ORCHESTRATOR, "Deployment", orchestrator_manifests, ("orchestrator", "operator")),
    Component(names.LOAD_BALANCER, "Deployment", loadbalancer_manifests, ("haproxy",)),
)


@dataclass(frozen=True, slots=True)
class Built:
    """A component's manifests, the context that they were built in, and whether its pods wait for a newer layout."""

    manifests: list[Manifest]
    context: BuildContext
    waits: bool = False


def template_hash(manifests: list[Manifest]) -> str:
    """Hash of the pod template among a component's manifests."""
    return next(config_hash(item["spec"]["template"]) for item in manifests if item["kind"] in WORKLOADS)


def build(component: Component, context: BuildContext, snapshot: Snapshot) -> Built:
    """Build a component in the layout that its pods shall have now."""
    today = component.build(context)
    annotations = _record(component, context, snapshot)
    told = annotations.get(names.ANNOTATION_TEMPLATE)
    immediate = context.cluster.spec.update_policy is UpdatePolicy.IMMEDIATE
    wanted = template_hash(today)
    if told is not None and not immediate and wanted != told:
        before = _recorded(component, context, annotations)
        if before is not None and template_hash(kept := component.build(before)) == told:
            return Built(_stamped(component, before, kept, told), before, waits=True)
    return Built(_stamped(component, context, today, wanted), context)


def _record(component: Component, context: BuildContext, snapshot: Snapshot) -> Mapping[str, str]:
    """The annotations that tell layout and template of the pods that are there."""
    name = names.child(context.name, component.name)
    live = snapshot.child(component.workload, name)
    if live is None and component.workload == "StatefulSet":
        live = snapshot.child(_SECOND_RECORD, name)
    found: Mapping[str, str] = (live or {}).get("metadata", {}).get("annotations", {})
    return found


def _recorded(
    component: Component, context: BuildContext, annotations: Mapping[str, str]
) -> BuildContext | None:
    """The context that the live pod template was built in; None when it is unknown or can no longer be built."""
    try:
        told = json.loads(annotations.get(names.ANNOTATION_LAYOUT, ""))
        images = {name: str(told["images"][name]) for name in component.images}
        version = int(told["version"])
    except (ValueError, KeyError, TypeError):
        return None
    if not OLDEST_LAYOUT <= version <= context.layout:
        return None
    return replace(context, layout=version, images=replace(context.images, **images))


def _stamped(
    component: Component, context: BuildContext, manifests: list[Manifest], template: str
) -> list[Manifest]:
    """The manifests with layout and template hash on the workload, and on what keeps them while it is away."""
    images = {name: value for name, value in asdict(context.images).items() if name in component.images}
    stamps = {
        names.ANNOTATION_LAYOUT: json.dumps({"version": context.layout, "images": images}, sort_keys=True),
        names.ANNOTATION_TEMPLATE: template,
    }
    stamped = (*WORKLOADS, _SECOND_RECORD) if component.workload == "StatefulSet" else WORKLOADS
    return [_with_annotations(item, stamps) if item["kind"] in stamped else item for item in manifests]


def _with_annotations(manifest: Manifest, added: Mapping[str, str]) -> Manifest:
    metadata = manifest["metadata"]
    return {
        **manifest,
        "metadata": {**metadata, "annotations": {**metadata.get("annotations", {}), **added}},
    }
