"""Gathering the facts for `doctor`, everything at once; what may not be read becomes Unknown."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from datetime import UTC, datetime
from typing import Any, Final

from runnerhub_operator import names
from runnerhub_operator.api import RunnerHubCluster, parse_cluster
from runnerhub_operator.errors import InvalidSpecError
from runnerhub_operator.resources.common import BuildContext, Images
from runnerhub_operator.resources.loadbalancer import loadbalancer_manifests
from runnerhub_operator.resources.orchestrator import orchestrator_manifests
from runnerhub_operator.resources.pooler import pooler_manifests
from runnerhub_operator.resources.postgres import postgres_manifests
from runnerhub_operator.resources.redis import redis_manifests
from runnerhub_operator.resources.runners import runner_pod

from ..errors import CliError, Exit
from ..kubectl import CLUSTERS, Kubectl, KubectlError, Manifest, Unknown, at_once, known
from ..objects import Lease, Pod
from ..operators import Installation, read_operator_leases, read_operator_pods, serving
from ..picture import Picture, look
from ..reading import choose, namespace_of, pods_of
from ..times import parse_time, seconds_since
from .facts import (
    INSTALL_RIGHTS,
    OPERATOR_RIGHTS,
    USER_RIGHTS,
    Amounts,
    Claim,
    ClusterFacts,
    Event,
    Facts,
    Node,
    NodeClock,
    Operator,
    Right,
    StorageClass,
    Wanted,
    requests_of,
    rights_beside_the_operator,
)

_RECENT_WARNING_SECONDS: Final = 900
_NODE_LEASES: Final = "kube-node-lease"
# The values stay with kubectl: only the names of keys come here.
_KEYS_ONLY: Final = (
    "go-template={{range .items}}{{.metadata.name}}{{range $key, $value := .data}} {{$key}}{{end}}"
    '{{"\\n"}}{{end}}'
)
_BUILDERS: Final = {
    names.POSTGRES: postgres_manifests,
    names.POOLER: pooler_manifests,
    names.REDIS: redis_manifests,
    names.ORCHESTRATOR: orchestrator_manifests,
    names.LOAD_BALANCER: loadbalancer_manifests,
}


def gather(kubectl: Kubectl, name: str | None, manifest: Manifest | None, plugin_version: str) -> Facts:
    """All facts; of the cluster of that name, of the only one, of a manifest, or of none when there is none yet."""
    namespace = (manifest or {}).get("metadata", {}).get("namespace") or kubectl.current_namespace()
    here, system = kubectl.in_namespace(namespace), kubectl.in_namespace("kube-system")
    answers = at_once(
        {
            "version": lambda: kubectl.json("version", everywhere=True),
            "now": lambda: known(lambda: kubectl.json("auth", "whoami", everywhere=True)),
            "crd": lambda: _crd(kubectl),
            "clusters": lambda: known(lambda: here.items(CLUSTERS)),
            "operator pods": lambda: read_operator_pods(kubectl),
            "operator leases": lambda: read_operator_leases(kubectl),
            "classes": lambda: known(lambda: kubectl.json("get", "storageclasses", everywhere=True)["items"]),
            "nodes": lambda: known(lambda: kubectl.json("get", "nodes", everywhere=True)["items"]),
            "clocks": lambda: known(
                lambda: kubectl.in_namespace(_NODE_LEASES).items("leases", options=("--show-managed-fields",))
            ),
            "dns": lambda: known(lambda: system.items("pods", selector="k8s-app=kube-dns")),
        }
    )
    now = _server_time(answers["now"])
    cluster = _cluster(here, name, manifest, namespace, answers, now)
    pods, leases = answers["operator pods"], answers["operator leases"]
    lease = _operator_lease(pods, leases, namespace)
    operator = _operator(pods, leases, lease)
    rights = (
        *USER_RIGHTS,
        *(rights_beside_the_operator(lease.namespace) if lease is not None else ()),
        *(INSTALL_RIGHTS if answers["crd"] is None else ()),
    )
    more = at_once(
        {
            "user": lambda: known(lambda: _denied(kubectl, rights, namespace)),
            "operator": lambda: _operator_denied(kubectl, operator, namespace),
            "reserved": lambda: _reserved(kubectl, cluster),
        }
    )
    if isinstance(operator, Operator):
        operator = replace(operator, denied=more["operator"])
    return Facts(
        now=now,
        namespace=namespace,
        plugin_version=plugin_version,
        server_version=answers["version"].get("serverVersion", {}).get("gitVersion", ""),
        crd=answers["crd"],
        operator=operator,
        denied=more["user"],
        storage_classes=_each(answers["classes"], StorageClass.of),
        nodes=_each(answers["nodes"], Node.of),
        clocks=_each(answers["clocks"], NodeClock.of),
        dns=_each(answers["dns"], Pod.of),
        reserved=more["reserved"],
        cluster=cluster,
    )


def _each(bodies: Sequence[Manifest] | Unknown, read: Any) -> Any:
    if isinstance(bodies, Unknown):
        return bodies
    return tuple(found for body in bodies if (found := read(body)) is not None)


def _crd(kubectl: Kubectl) -> Manifest | Unknown | None:
    try:
        return kubectl.json("get", "customresourcedefinition", CLUSTERS, everywhere=True)
    except KubectlError as error:
        if error.kind == "notfound":
            return None
        if error.kind == "unreachable":
            raise
        return Unknown(str(error))


def _server_time(whoami: Manifest | Unknown) -> datetime:
    """The API server's time, which it puts on each such answer; this machine's when it does not answer that."""
    told = None if isinstance(whoami, Unknown) else whoami.get("metadata", {}).get("creationTimestamp")
    return parse_time(told) or datetime.now(UTC)


def _reserved(kubectl: Kubectl, cluster: ClusterFacts | None) -> Mapping[str, Amounts] | Unknown:
    """What pods of everybody reserve on the nodes; all of them are read only when some of ours have no place yet."""
    if cluster is None or all(item.there for item in cluster.wanted):
        return {}
    running = "status.phase!=Succeeded,status.phase!=Failed"
    pods = known(lambda: kubectl.items("pods", fields=running, everywhere=True))
    if isinstance(pods, Unknown):
        return pods
    found: dict[str, Amounts] = defaultdict(Amounts)
    for pod in pods:
        if node := pod["spec"].get("nodeName"):
            found[node] += requests_of(pod["spec"])
    return dict(found)


def _operator_lease(
    pods: Sequence[Manifest] | Unknown, leases: Sequence[Lease] | Unknown, namespace: str
) -> Lease | None:
    if isinstance(leases, Unknown):
        return None
    return serving(leases, [] if isinstance(pods, Unknown) else pods, namespace)


def _operator(
    pods: Sequence[Manifest] | Unknown, leases: Sequence[Lease] | Unknown, lease: Lease | None
) -> Operator | Unknown:
    """The operator with that Lease; of several ones only its pods."""
    if isinstance(pods, Unknown):
        return pods
    if isinstance(leases, Unknown):
        return leases
    if lease is not None and len(leases) > 1:
        pods = [pod for pod in pods if pod["metadata"]["namespace"] == lease.namespace]
    images = {container["image"] for pod in pods for container in pod["spec"]["containers"]}
    accounts = (
        f"system:serviceaccount:{pod['metadata']['namespace']}:{pod['spec'].get('serviceAccountName', 'default')}"
        for pod in pods
    )
    return Operator(
        pods=tuple(Pod.of(pod) for pod in pods),
        images=tuple(sorted(images)),
        lease=lease,
        account=next(accounts, ""),
        installation=Installation.of(pods),
    )


# --- Rights ---


def _denied(
    kubectl: Kubectl, rights: Sequence[Right], namespace: str, user: str | None = None
) -> tuple[Right, ...]:
    """Which of these rights somebody lacks: the user who asks, or another account. One call for all of them."""
    kind = "SelfSubjectAccessReview" if user is None else "SubjectAccessReview"
    reviews = [
        {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": kind,
            "spec": {
                **({} if user is None else {"user": user, "groups": ["system:authenticated"]}),
                "resourceAttributes": {
                    "verb": right.verb,
                    "group": right.group,
                    "resource": right.resource,
                    "subresource": right.subresource,
                    **({} if right.cluster_wide else {"namespace": _place(right, namespace)}),
                },
            },
        }
        for right in rights
    ]
    answers = kubectl.documents(
        "create",
        "--validate=false",
        "--filename",
        "-",
        stdin="\n---\n".join(json.dumps(review) for review in reviews),
        everywhere=True,
    )
    return tuple(
        right for right, review in zip(rights, answers, strict=True) if not review["status"].get("allowed")
    )


def _place(right: Right, namespace: str) -> str:
    return namespace if right.namespace is None else right.namespace


def _operator_denied(
    kubectl: Kubectl, operator: Operator | Unknown, namespace: str
) -> tuple[Right, ...] | Unknown:
    if isinstance(operator, Unknown) or not operator.account:
        return ()
    return known(lambda: _denied(kubectl, OPERATOR_RIGHTS, namespace, operator.account))


# --- One cluster ---


def _cluster(
    kubectl: Kubectl,
    name: str | None,
    manifest: Manifest | None,
    namespace: str,
    answers: Mapping[str, Any],
    now: datetime,
) -> ClusterFacts | None:
    found = answers["clusters"]
    if isinstance(found, Unknown):
        if name is not None and manifest is None and answers["crd"] is not None:
            raise CliError(f"the RunnerHubClusters of {namespace} could not be read: {found.why}")
        found = []
    if manifest is not None:
        wanted = manifest["metadata"]["name"]
        live = next((item for item in found if item["metadata"]["name"] == wanted), None)
        body = _as_wanted(manifest, live, namespace)
    elif not found and (name is None or answers["crd"] is None):
        return None
    else:
        live = body = choose(found, name, namespace_of(kubectl, found))
    cluster = _parsed(body, strict=manifest is not None)
    mine = f"{names.LABEL_CLUSTER}={body['metadata']['name']}"
    details = at_once(
        {
            "pods": lambda: known(lambda: kubectl.items("pods", selector=mine)),
            "claims": lambda: known(lambda: kubectl.items("persistentvolumeclaims", selector=mine)),
            "events": lambda: known(lambda: kubectl.items("events", fields="type=Warning")),
            "secrets": lambda: known(lambda: _secret_keys(kubectl)),
        }
    )
    bodies = [] if isinstance(details["pods"], Unknown) else details["pods"]
    picture = Picture(now, body, tuple(pods_of(bodies, body["metadata"]["name"])), (), None)
    classes = (
        (cluster.spec.postgres.storage.storage_class_name, cluster.spec.redis.storage.storage_class_name)
        if cluster is not None
        else (None,)
    )
    return ClusterFacts(
        view=look(picture),
        live=live is not None,
        wanted=_wanted(cluster, picture) if cluster is not None else (),
        storage_classes=classes,
        secrets=details["secrets"],
        claims=_each(details["claims"], Claim.of),
        events=_events(details["events"], body["metadata"]["name"], now),
    )


def _as_wanted(manifest: Manifest, live: Manifest | None, namespace: str) -> Manifest:
    """The cluster as a file wants it, with identity and status of what is there."""
    base = live or {
        "metadata": {"name": manifest["metadata"]["name"], "namespace": namespace, "uid": "none yet"}
    }
    return {**base, "spec": manifest.get("spec") or {}}


def _parsed(body: Manifest, *, strict: bool) -> RunnerHubCluster | None:
    try:
        return parse_cluster(body)
    except InvalidSpecError as error:
        if strict:
            raise CliError(f"the manifest does not hold: {error}", Exit.CRITICAL) from error
        return None


def _wanted(cluster: RunnerHubCluster, picture: Picture) -> tuple[Wanted, ...]:
    """Each pod of the spec, as the operator's own builders would make it."""
    # The images do not matter here.
    images = Images(**{image.name: "-" for image in fields(Images)})
    context = BuildContext(cluster, images, credentials_hash="")
    found: list[Wanted] = []
    for component, build in _BUILDERS.items():
        for item in build(context):
            if item["kind"] not in ("StatefulSet", "Deployment"):
                continue
            placed = sum(pod.component == component and bool(pod.node) for pod in picture.pods)
            found += _alike(component, item["spec"]["template"]["spec"], item["spec"]["replicas"], placed)
    for pool in cluster.spec.runner_pools:
        runners = {names.runner(cluster.name, pool.name, slot) for slot in range(pool.max_replicas)}
        placed = sum(pod.name in runners and bool(pod.node) for pod in picture.pods)
        # More of them come with the jobs.
        found += _alike(names.RUNNER, runner_pod(context, pool, 0)["spec"], pool.min_replicas, placed)
    return tuple(found)


def _alike(component: str, spec: Manifest, count: int, placed: int) -> list[Wanted]:
    where = spec.get("nodeSelector", {}), tuple(spec.get("tolerations", ()))
    return [Wanted(component, requests_of(spec), number < placed, *where) for number in range(count)]


def _secret_keys(kubectl: Kubectl) -> dict[str, frozenset[str]]:
    lines = kubectl.text("get", "secrets", "--output", _KEYS_ONLY).splitlines()
    return {words[0]: frozenset(words[1:]) for line in lines if (words := line.split())}


def _events(bodies: Sequence[Manifest] | Unknown, cluster: str, now: datetime) -> tuple[Event, ...] | Unknown:
    """Warnings of the last quarter of an hour about the cluster and what is named after it."""
    if isinstance(bodies, Unknown):
        return bodies
    found: dict[tuple[str, str], Event] = {}
    for body in bodies:
        about = body.get("involvedObject", {})
        series = body.get("series") or {}
        last = series.get("lastObservedTime") or body.get("lastTimestamp") or body.get("eventTime") or ""
        passed = seconds_since(last, now)
        named = str(about.get("name", ""))
        mine = named == cluster or named.startswith((f"{cluster}-", f"{names.CLAIM_TEMPLATE}-{cluster}-"))
        if not mine or passed is None or passed > _RECENT_WARNING_SECONDS:
            continue
        event = Event(
            about=f"{about.get('kind', '')} {named}",
            reason=body.get("reason", ""),
            message=body.get("message", ""),
            count=int(series.get("count") or body.get("count") or 1),
            last=last,
        )
        known_one = found.get((event.about, event.reason))
        if known_one is None or event.last > known_one.last:
            found[event.about, event.reason] = event
    return tuple(found.values())
