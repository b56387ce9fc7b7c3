"""What the spec adds to pods, mostly the orchestrators', put beside what the operator decides; nothing is replaced.

The API refuses additions that would take the place of something (api/pod.py), so nothing here has to choose.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from .. import names
from ..api import InitContainer, OrchestratorSpec, Placement, PodTemplate, Variable, Volume
from ..api.base import ApiModel
from .common import (
    BuildContext,
    Manifest,
    container_security_context,
    pod_security_context,
    pull_secrets,
    resource_requirements,
    spread,
)

TEMPORARY_MOUNT: Final = {"name": "tmp", "mountPath": "/tmp"}  # noqa: S108 - the pod's own emptyDir


def dump(given: ApiModel) -> Any:
    """As Kubernetes writes it: what is empty or has its default is left out there too."""
    return _without_empty(given.model_dump(mode="json", by_alias=True, exclude_none=True))


def _without_empty(value: Any) -> Any:
    if isinstance(value, dict):
        cleaned = {key: _without_empty(inner) for key, inner in value.items()}
        return {
            key: inner for key, inner in cleaned.items() if inner not in ("", [], {}) and inner is not False
        }
    return [_without_empty(inner) for inner in value] if isinstance(value, list) else value


def variables(given: Iterable[Variable]) -> list[Manifest]:
    """Entries of a container's environment."""
    return [dump(variable) for variable in given]


def volumes(given: Iterable[Volume]) -> list[Manifest]:
    """Volumes of a pod."""
    # A folder without any settings is an object without any fields.
    return [{"emptyDir": {}, **dump(item)} if item.empty_dir is not None else dump(item) for item in given]


def container_additions(spec: OrchestratorSpec) -> Manifest:
    """The field `envFrom` of the orchestrator container, if any."""
    return {"envFrom": [dump(source) for source in spec.env_from]} if spec.env_from else {}


def init_containers(context: BuildContext) -> Manifest:
    """The field `initContainers` of the pod's spec, if any."""
    spec = context.cluster.spec.orchestrator
    if not spec.init_containers:
        return {}
    default = spec.image or context.images.orchestrator
    return {"initContainers": [_init_container(item, default) for item in spec.init_containers]}


def _init_container(given: InitContainer, default_image: str) -> Manifest:
    plain: Manifest = {
        "name": given.name,
        "image": given.image or default_image,
        "command": list(given.command),
        "args": list(given.args),
        "env": variables(given.env),
        "envFrom": [dump(source) for source in given.env_from],
    }
    return {
        **{key: value for key, value in plain.items() if value},
        "resources": resource_requirements(given.resources, cpu="10m", memory="32Mi"),
        "securityContext": container_security_context(),
        "volumeMounts": [TEMPORARY_MOUNT, *(dump(mount) for mount in given.volume_mounts)],
    }


def account_name(context: BuildContext) -> str:
    """Name of the ServiceAccount of the pods."""
    template = context.cluster.spec.orchestrator.pod_template
    return template.service_account_name or names.child(context.name, names.ORCHESTRATOR)


def template_metadata(context: BuildContext, own: Manifest) -> Manifest:
    """Metadata of the pod template; what is the operator's `own` stays."""
    template = context.cluster.spec.orchestrator.pod_template
    return {
        "labels": {**template.labels, **own["labels"]},
        "annotations": {**template.annotations, **own["annotations"]},
    }


def node_placement(given: Placement | PodTemplate) -> Manifest:
    """The fields `nodeSelector` and `tolerations` of a pod's spec, if any."""
    fields = {
        "nodeSelector": dict(given.node_selector),
        "tolerations": [dump(item) for item in given.tolerations],
    }
    return {key: value for key, value in fields.items() if value}


def placement(context: BuildContext) -> Manifest:
    """Where the pods run and as whom: fields of the pod's spec."""
    template = context.cluster.spec.orchestrator.pod_template
    fields: Manifest = {
        "affinity": None
        if template.affinity is None
        # Its inside is passed on as it is, with all that seems to be empty.
        else template.affinity.model_dump(mode="json", by_alias=True, exclude_none=True),
        "priorityClassName": template.priority_class_name,
        **pull_secrets(context, template.image_pull_secrets),
    }
    return {
        "serviceAccountName": account_name(context),
        "securityContext": {**pod_security_context(), **dump(template.security_context)},
        "topologySpreadConstraints": _spread(context),
        **node_placement(template),
        **{key: value for key, value in fields.items() if value},
    }


def _spread(context: BuildContext) -> list[Manifest]:
    own = spread(context.name, names.ORCHESTRATOR)
    selector = own[0]["labelSelector"]
    added = [
        {**dump(item), "labelSelector": selector}
        for item in context.cluster.spec.orchestrator.pod_template.topology_spread_constraints
    ]
    taken = {_constraint_key(item) for item in added}
    return [*(item for item in own if _constraint_key(item) not in taken), *added]


def _constraint_key(constraint: Manifest) -> tuple[str, str]:
    return constraint["topologyKey"], constraint["whenUnsatisfiable"]
