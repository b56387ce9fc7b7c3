"""The runners: single pods, so that the operator can choose which of them goes, and what all of them share."""

from __future__ import annotations

import base64
import json
from dataclasses import asdict, replace
from typing import Final

from .. import names
from ..api import RunnerPoolSpec, ZoneSpread
from .additions import dump, variables
from .common import (
    OLDEST_LAYOUT,
    BuildContext,
    Manifest,
    config_hash,
    container_security_context,
    field_env,
    metadata,
    pod_security_context,
    pull_secrets,
    resource_requirements,
    secret_env,
    secret_volume,
    service_account,
)
from .loadbalancer import inside_url

TOKEN_KEY: Final = "token"  # noqa: S105 - the name of a key
CONTROL_KEY: Final = "control-key"
_FOLDER: Final = "/etc/runnerhub/runner"
_WORK: Final = "/work"
_REGION: Final = "topology.kubernetes.io/region"
_ZONE: Final = "topology.kubernetes.io/zone"
# More runners than this cannot be busy, so none of them may be evicted. Not maxUnavailable: for pods without a
# workload Kubernetes would take the scale of their owner, which is the number of orchestrators.
_MORE_THAN_ALL: Final = 1_000_000
_WHEN_UNSATISFIABLE: Final = {
    ZoneSpread.PREFERRED: "ScheduleAnyway",
    ZoneSpread.REQUIRED: "DoNotSchedule",
}


def shared_manifests(context: BuildContext) -> list[Manifest]:
    """What the runners of all pools share, but for the Secret with their token."""
    return [service_account(context, names.RUNNER), busy_budget(context)]


def busy_budget(context: BuildContext) -> Manifest:
    """PodDisruptionBudget by which no runner that has a job is evicted; idle ones may be."""
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": metadata(context, names.child(context.name, names.RUNNER), names.RUNNER),
        "spec": {
            "minAvailable": _MORE_THAN_ALL,
            "selector": {
                "matchLabels": {
                    **names.selector_labels(context.name, names.RUNNER),
                    names.LABEL_BUSY: "true",
                }
            },
        },
    }


def token_secret(context: BuildContext, token: str, control_key: str) -> Manifest:
    """Secret with the token by which runners log in, and the key of whoever may tell them to take no more jobs.

    Runners run other people's code, so they do not get the key that makes tokens.
    """
    values = {TOKEN_KEY: token, CONTROL_KEY: control_key}
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": metadata(context, names.runner_token(context.name), names.RUNNER),
        "type": "Opaque",
        "data": {key: base64.b64encode(value.encode()).decode() for key, value in values.items()},
    }


def runner_pod(context: BuildContext, pool: RunnerPoolSpec, slot: int) -> Manifest:
    """The pod of one runner, which notes the template and the layout that it was made from."""
    name = names.runner(context.name, pool.name, slot)
    labels = {names.LABEL_POOL: pool.name}
    annotations = {
        names.ANNOTATION_TEMPLATE: template_hash(context, pool),
        names.ANNOTATION_LAYOUT: layout_record(context),
        names.ANNOTATION_SAFE_TO_EVICT: "true",
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": metadata(context, name, names.RUNNER, labels=labels, annotations=annotations),
        "spec": _pod_spec(context, pool),
    }


def layout_record(context: BuildContext) -> str:
    """Version of the template and default image that a runner is made with."""
    record = {"version": context.layout, "images": {"runner": asdict(context.images)["runner"]}}
    return json.dumps(record, sort_keys=True)


def template_hash(context: BuildContext, pool: RunnerPoolSpec) -> str:
    """Hash of all that a change of the spec can change of a runner's pod."""
    return config_hash(_pod_spec(context, pool))


def is_outdated(context: BuildContext, pool: RunnerPoolSpec, template: str, layout: str) -> bool:
    """Whether the spec asks for another pod than the one made from a template.

    A newer operator alone is no reason: as long as the layout of then still gives the template, the runner stays.
    """
    if template == template_hash(context, pool):
        return False
    try:
        told = json.loads(layout)
        version, image = int(told["version"]), str(told["images"]["runner"])
    except (ValueError, KeyError, TypeError, OverflowError):
        return True
    if not OLDEST_LAYOUT <= version <= context.layout:
        return True
    before = replace(context, layout=version, images=replace(context.images, runner=image))
    return template != template_hash(before, pool)


def _pod_spec(context: BuildContext, pool: RunnerPoolSpec) -> Manifest:
    region = {_REGION: pool.region} if pool.region is not None else {}
    spec: Manifest = {
        "serviceAccountName": names.child(context.name, names.RUNNER),
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "restartPolicy": "Always",
        "terminationGracePeriodSeconds": pool.termination_grace_period_seconds,
        "securityContext": pod_security_context(),
        **pull_secrets(context),
        "nodeSelector": {**pool.node_selector, **region},
        "tolerations": [dump(item) for item in pool.tolerations],
        "topologySpreadConstraints": _spread(context, pool),
        "containers": [_container(context, pool)],
        "volumes": [
            secret_volume("token", names.runner_token(context.name)),
            {"name": "work", "emptyDir": {}},
            {"name": "tmp", "emptyDir": {}},
        ],
    }
    return {key: value for key, value in spec.items() if value not in ({}, [])}


def _spread(context: BuildContext, pool: RunnerPoolSpec) -> list[Manifest]:
    """Over zones only: over nodes a pool shall be packed, so that a node can become free of runners."""
    if pool.zone_spread is ZoneSpread.DISABLED:
        return []
    labels = {**names.selector_labels(context.name, names.RUNNER), names.LABEL_POOL: pool.name}
    return [
        {
            "maxSkew": 1,
            "topologyKey": _ZONE,
            "whenUnsatisfiable": _WHEN_UNSATISFIABLE[pool.zone_spread],
            "labelSelector": {"matchLabels": labels},
        }
    ]


def _container(context: BuildContext, pool: RunnerPoolSpec) -> Manifest:
    return {
        "name": names.RUNNER,
        "image": pool.image or context.images.runner,
        "env": [*_environment(context, pool), *variables(pool.env)],
        **({"envFrom": [dump(source) for source in pool.env_from]} if pool.env_from else {}),
        "ports": [{"name": "http", "containerPort": names.PORT_RUNNER, "protocol": "TCP"}],
        # No preStop hook: at SIGTERM a runner takes no more jobs and ends when its job has.
        "startupProbe": {
            "httpGet": {"path": "/livez", "port": "http"},
            "periodSeconds": 2,
            "timeoutSeconds": 2,
            "failureThreshold": 60,
        },
        # A job may take all of the CPU; only a program that is gone for good is started anew.
        "livenessProbe": {
            "httpGet": {"path": "/livez", "port": "http"},
            "periodSeconds": 20,
            "timeoutSeconds": 10,
            "failureThreshold": 6,
        },
        "readinessProbe": {
            "httpGet": {"path": "/readyz", "port": "http"},
            "periodSeconds": 5,
            "timeoutSeconds": 5,
            "failureThreshold": 3,
        },
        "resources": resource_requirements(pool.resources, cpu="100m", memory="128Mi"),
        # Jobs of an image of one's own may write where they like inside their container.
        "securityContext": container_security_context(read_only_root=pool.image is None),
        "volumeMounts": [
            {"name": "token", "mountPath": _FOLDER, "readOnly": True},
            {"name": "work", "mountPath": _WORK},
            {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 - the pod's own emptyDir
        ],
    }


def _environment(context: BuildContext, pool: RunnerPoolSpec) -> list[Manifest]:
    github = context.cluster.spec.github
    registering = (
        [secret_env("GITHUB_TOKEN", github.token_secret_name, "token")] if github.token_secret_name else []
    )
    # Not by port 80, which with TLS sends on to a name that only outside is known.
    url = inside_url(context.cluster, names.load_balancer_service(context.name))
    return [
        field_env("RUNNER_NAME", "metadata.name"),
        {"name": "RUNNER_LABELS", "value": ",".join(pool.labels)},
        {"name": "ORCHESTRATOR_URL", "value": url},
        {"name": "RUNNERHUB_TOKEN_FILE", "value": f"{_FOLDER}/{TOKEN_KEY}"},
        {"name": "RUNNERHUB_CONTROL_KEY_FILE", "value": f"{_FOLDER}/{CONTROL_KEY}"},
        {"name": "GITHUB_URL", "value": github.url},
        *registering,
        {"name": "RUNNER_POOL", "value": pool.name},
        {"name": "RUNNER_WORK_FOLDER", "value": _WORK},
        {"name": "HOME", "value": _WORK},
    ]
