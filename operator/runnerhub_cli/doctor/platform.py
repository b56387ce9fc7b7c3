"""Judging Kubernetes and the operator. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from runnerhub_operator import names
from runnerhub_operator.api.crd import custom_resource_definition

from ..kubectl import Unknown
from ..operators import Installation
from ..times import age, seconds_since, span
from .facts import Amounts, ClusterFacts, Facts, Node, Operator, StorageClass, Wanted
from .findings import Finding, Level, pod_finding, unknown

# The first whose preStop hooks can sleep, which the pods need; the charts say the same.
OLDEST_KUBERNETES: Final = (1, 30)
# The operator renews every two seconds and is replaced after fifteen.
LEASE_STALE_SECONDS: Final = 30
CLOCK_WARNING_SECONDS: Final = 5
# The leeway that certificates and tokens usually have.
CLOCK_ERROR_SECONDS: Final = 60

# A checkout has it as charts/runnerhub-operator.
_CHART: Final = "oci://ghcr.io/runnerhub/charts/runnerhub-operator"


def check_version(facts: Facts) -> Iterator[Finding]:
    """Kubernetes is new enough."""
    check = "Kubernetes"
    parts = facts.server_version.removeprefix("v").split(".")
    try:
        version = int(parts[0]), int("".join(char for char in parts[1] if char.isdigit()))
    except (ValueError, IndexError):
        yield Finding(check, Level.UNKNOWN, f"the version {facts.server_version!r} cannot be read")
        return
    if version < OLDEST_KUBERNETES:
        oldest = ".".join(str(part) for part in OLDEST_KUBERNETES)
        yield Finding(
            check,
            Level.ERROR,
            f"{facts.server_version} is too old",
            f"Upgrade Kubernetes to {oldest} or later.",
        )
    else:
        yield Finding(check, Level.OK, facts.server_version)


def check_definition(facts: Facts) -> Iterator[Finding]:
    """The CustomResourceDefinition is there, and has the fields that this version knows."""
    check, crd = "definition", facts.crd
    wanted = f"{names.API_GROUP}/{names.API_VERSION}"
    if isinstance(crd, Unknown):
        yield unknown(check, crd)
        return
    if crd is None and isinstance(facts.operator, Operator) and facts.operator.pods:
        yield Finding(
            check,
            Level.ERROR,
            f"Kubernetes does not know {names.KIND}, though the operator is there",
            "Apply the definition of its version.",
            _apply_definition(facts),
        )
        return
    if crd is None:
        yield Finding(
            check,
            Level.ERROR,
            f"Kubernetes does not know {names.KIND}: RunnerHub is not installed",
            "Install it.",
            f"{_helm('install', facts)} --create-namespace",
        )
        return
    live = _version(crd)
    if live is None or not live.get("served"):
        served = ", ".join(item["name"] for item in crd["spec"]["versions"] if item.get("served"))
        yield Finding(
            check,
            Level.ERROR,
            f"{wanted} is not served, only {served or 'nothing'}",
            "Use the plugin of the installed version.",
        )
        return
    ours, theirs = _fields(_version(custom_resource_definition()) or {}), _fields(live)
    if missing := sorted(ours - theirs):
        yield Finding(
            check,
            Level.WARNING,
            f"{wanted} is served, but of an older version: it lacks {_some(missing)}",
            f"Apply the definition of version {_version_of(facts)}; where it is that already, use the plugin of that "
            "version.",
            _apply_definition(facts),
        )
    elif more := sorted(theirs - ours):
        yield Finding(
            check,
            Level.NOTE,
            f"{wanted} is served, and of a newer version than this plugin ({facts.plugin_version}), which does not "
            f"know {_some(more)}",
        )
    else:
        yield Finding(
            check, Level.OK, f"{wanted} is served, with the fields of version {facts.plugin_version}"
        )


def _installation(facts: Facts) -> Installation:
    return facts.operator.installation if isinstance(facts.operator, Operator) else Installation()


def _version_of(facts: Facts) -> str:
    """Of the operator; of the plugin, where there is none."""
    return _installation(facts).version or facts.plugin_version


def _helm(verb: str, facts: Facts) -> str:
    """A command of Helm for the operator's release; it leaves the operator's version as it is."""
    found = _installation(facts)
    return f"helm {verb} {found.release} {_CHART} --version {_version_of(facts)} -n {found.namespace}"


def _apply_definition(facts: Facts) -> str:
    show = f"{_helm('template', facts)} --show-only templates/crd.yaml"
    return f"{show} | kubectl apply --server-side --force-conflicts -f -"


def _version(crd: Mapping[str, Any]) -> Mapping[str, Any] | None:
    versions: list[Mapping[str, Any]] = crd["spec"]["versions"]
    return next((item for item in versions if item["name"] == names.API_VERSION), None)


def _fields(version: Mapping[str, Any]) -> set[str]:
    """Paths of all fields below spec and status."""

    def walk(schema: Mapping[str, Any], path: str) -> Iterator[str]:
        for name, value in schema.get("properties", {}).items():
            here = f"{path}.{name}" if path else name
            yield here
            yield from walk(value, here)
            if isinstance(value.get("items"), dict):
                yield from walk(value["items"], f"{here}[]")

    schema = version.get("schema", {}).get("openAPIV3Schema", {})
    return {path for path in walk(schema, "") if path.startswith(("spec", "status"))}


def _some(listed: list[str], most: int = 3) -> str:
    more = len(listed) - most
    return ", ".join(listed[:most]) + (f" and {more} more" if more > 0 else "")


def check_operator(facts: Facts) -> Iterator[Finding]:
    """The operator's pods run, and one of them holds a fresh Lease."""
    check, operator = "operator", facts.operator
    if isinstance(operator, Unknown):
        yield unknown(check, operator)
        return
    if not operator.pods:
        level = Level.ERROR if facts.cluster is not None and facts.cluster.live else Level.WARNING
        yield Finding(
            check,
            level,
            "there is no pod of it",
            "Install it, or see why its Deployment makes no pod.",
            "kubectl get deployment -A -l app.kubernetes.io/name=runnerhub-operator",
        )
        return
    ready = [pod for pod in operator.pods if pod.ready]
    images = ", ".join(operator.images)
    if len(ready) == len(operator.pods):
        yield Finding(check, Level.OK, f"{len(ready)} of {len(operator.pods)} pods ready, {images}")
    if _version_of(facts) != facts.plugin_version:
        yield Finding(
            check,
            Level.NOTE,
            f"it is of version {_version_of(facts)}, this plugin of {facts.plugin_version}",
        )
    for pod in operator.pods:
        if not pod.ready:
            yield pod_finding(check, pod, facts, "kubectl runnerhub logs operator --tail 50")
    lease = operator.lease
    if lease is None:
        yield Finding(
            check,
            Level.ERROR,
            "it has never been at work: there is no Lease of it",
            "Read its log.",
            "kubectl runnerhub logs operator --tail 50",
        )
        return
    silence = seconds_since(lease.renewed, facts.now)
    if not lease.holder or silence is None or silence > LEASE_STALE_SECONDS:
        since = "ever" if silence is None else f"for {span(silence)}"
        yield Finding(
            check,
            Level.ERROR,
            f"nobody has renewed its Lease {lease.namespace}/{lease.name} {since}: no operator is at work; elections "
            "and routing go on, repairs and changes wait",
            "Read its log.",
            "kubectl runnerhub logs operator --since 15m",
        )
    else:
        yield Finding(check, Level.OK, f"{lease.holder} is at work, Lease renewed {span(silence)} ago")
    if isinstance(operator.denied, Unknown):
        yield Finding(check, Level.UNKNOWN, f"its permissions could not be looked at: {operator.denied.why}")
    elif operator.denied:
        remedy, command = _more_rights(facts)
        yield Finding(
            check,
            Level.ERROR,
            f"its account may not, in {facts.namespace}: {_some([str(right) for right in operator.denied], 5)}",
            remedy,
            command,
        )


def _more_rights(facts: Facts) -> tuple[str, str]:
    """Remedy and command for an operator that may not do here what it must."""
    found = _installation(facts)
    missing = bool(found.watched) and facts.namespace not in found.watched
    remedy = "Add the namespace to watchNamespaces." if missing else "Restore the chart's roles."
    if _by_argo_cd(facts.crd):
        return f"{remedy[:-1]}, in the Application of Argo CD.", ""
    if not found.by_helm:
        return f"{remedy[:-1]}, by applying its manifests again.", ""
    command = f"{_helm('upgrade', facts)} --reset-then-reuse-values"
    if missing:
        command += f" --set 'watchNamespaces={{{','.join((*found.watched, facts.namespace))}}}'"
    return remedy, command


def _by_argo_cd(crd: Mapping[str, Any] | Unknown | None) -> bool:
    """Whether Argo CD has applied the definition, which comes with the operator; its labels are those of Helm.

    Source of the annotation: https://argo-cd.readthedocs.io/en/stable/user-guide/resource_tracking/
    """
    metadata = {} if crd is None or isinstance(crd, Unknown) else crd.get("metadata", {})
    return any(name.startswith("argocd.argoproj.io/tracking") for name in metadata.get("annotations", {}))


def check_permissions(facts: Facts) -> Iterator[Finding]:
    """What the person who asks may do."""
    check = "permissions"
    if isinstance(facts.denied, Unknown):
        yield unknown(check, facts.denied)
        return
    if not facts.denied:
        yield Finding(check, Level.OK, "yours suffice for all commands")
    for right in facts.denied:
        yield Finding(
            check,
            Level.WARNING if right.essential else Level.NOTE,
            f"you may not {right}, which is for: {right.purpose}",
            "Ask for a role with it." if right.essential else "",
        )


def check_nodes(facts: Facts) -> Iterator[Finding]:
    """Nodes are ready, and enough of them take pods."""
    check, nodes = "nodes", facts.nodes
    if isinstance(nodes, Unknown):
        yield unknown(check, nodes)
        return
    for node in nodes:
        if not node.ready:
            yield Finding(
                check,
                Level.WARNING,
                f"{node.name} is not ready for {age(node.ready_since, facts.now)}",
                "Bring it back, or remove it from Kubernetes so that its pods are made elsewhere.",
                f"kubectl describe node {node.name}",
            )
        if node.pressures:
            yield Finding(
                check,
                Level.WARNING,
                f"{node.name} tells {', '.join(node.pressures)}",
                "Free what it is short of, before Kubernetes evicts pods there.",
                f"kubectl describe node {node.name}",
            )
    usable = _usable(facts.cluster, nodes)
    if len(usable) < 3:
        yield Finding(
            check,
            Level.WARNING,
            f"only {len(usable)} of {len(nodes)} nodes take pods: with fewer than three, the loss of one can take a "
            "majority of the database or of the Sentinels",
            "Add nodes, or uncordon those that were closed.",
            "kubectl get nodes",
        )
    else:
        yield Finding(check, Level.OK, f"{len(usable)} of {len(nodes)} nodes are ready and take pods")


def _usable(cluster: ClusterFacts | None, nodes: tuple[Node, ...]) -> list[Node]:
    """Nodes that take the database's pods, or the queue's if those are fewer."""
    elect = [
        item
        for item in (cluster.wanted if cluster is not None else ())
        if item.component in (names.POSTGRES, names.REDIS)
    ]
    asked = elect or [Wanted(names.POSTGRES, Amounts(), there=False)]
    return min(([node for node in nodes if node.takes(pod)] for pod in asked), key=len)


def check_clocks(facts: Facts) -> Iterator[Finding]:
    """The nodes' clocks agree with the API server's."""
    check, clocks = "clocks", facts.clocks
    if isinstance(clocks, Unknown):
        yield unknown(check, clocks)
        return
    if not clocks:
        yield Finding(check, Level.UNKNOWN, "no node's Lease tells the time")
        return
    wrong = [clock for clock in clocks if abs(clock.ahead_seconds) >= CLOCK_WARNING_SECONDS]
    for clock in wrong:
        apart = abs(clock.ahead_seconds)
        side = "ahead of" if clock.ahead_seconds > 0 else "behind"
        far = apart >= CLOCK_ERROR_SECONDS
        yield Finding(
            check,
            Level.ERROR if far else Level.WARNING,
            f"the clock of {clock.node} is {span(apart)} {side} that of the API server"
            + (
                ": certificates and tokens may be refused"
                if far
                else ": times in logs and lags in seconds are wrong by it"
            ),
            "Make the node's time service run (chrony, systemd-timesyncd).",
        )
    if not wrong:
        yield Finding(check, Level.OK, f"those of {len(clocks)} nodes agree with the API server's")


def check_dns(facts: Facts) -> Iterator[Finding]:
    """Pods can look up names."""
    check, pods = "DNS", facts.dns
    if isinstance(pods, Unknown):
        yield unknown(check, pods)
        return
    ready = sum(pod.ready for pod in pods)
    command = "kubectl get pods -n kube-system -l k8s-app=kube-dns"
    if not pods:
        yield Finding(check, Level.UNKNOWN, "no pod in kube-system carries k8s-app=kube-dns")
    elif ready == 0:
        yield Finding(
            check,
            Level.ERROR,
            f"none of {len(pods)} pods is ready: clients find no name",
            "Repair it first.",
            command,
        )
    elif ready < len(pods):
        yield Finding(check, Level.WARNING, f"{ready} of {len(pods)} pods ready", "See why.", command)
    else:
        yield Finding(check, Level.OK, f"{ready} of {len(pods)} pods ready")


def check_storage(facts: Facts) -> Iterator[Finding]:
    """The StorageClasses that the volumes are made from exist, and let them grow."""
    check, classes = "StorageClass", facts.storage_classes
    if isinstance(classes, Unknown):
        yield unknown(check, classes)
        return
    wanted = dict.fromkeys(facts.cluster.storage_classes) if facts.cluster is not None else {None: None}
    # Of several the newest is taken, and of those of one second the first by name.
    # Source: https://kubernetes.io/docs/concepts/storage/storage-classes/#default-storageclass
    defaults = sorted((item for item in classes if item.default), key=lambda item: item.name)
    defaults.sort(key=lambda item: item.created, reverse=True)
    if len(defaults) > 1:
        listed = ", ".join(item.name for item in defaults)
        yield Finding(
            check, Level.NOTE, f"several are the default: {listed}; the newest is taken, {defaults[0].name}"
        )
    by_name = {item.name: item for item in classes}
    for name in wanted:
        if name is not None and name not in by_name:
            yield Finding(
                check,
                Level.ERROR,
                f"the spec asks for {name}, which does not exist",
                f"Make it, or name one of: {', '.join(sorted(by_name)) or 'there is none'}.",
                "kubectl get storageclass",
            )
        elif name is None and not defaults:
            yield Finding(
                check,
                Level.ERROR,
                "there is no default, and the spec names none: volumes cannot be made",
                "Name one in spec.postgres.storage.storageClassName and spec.redis.storage.storageClassName, or make "
                "one the default.",
                "kubectl get storageclass",
            )
        else:
            yield _growth(by_name[name] if name is not None else defaults[0])


def _growth(found: StorageClass) -> Finding:
    told = f"{found.name} ({found.provisioner}{', the default' if found.default else ''})"
    if found.grows:
        return Finding("StorageClass", Level.OK, f"{told} lets volumes grow")
    patch = "'{\"allowVolumeExpansion\":true}'"
    return Finding(
        "StorageClass",
        Level.NOTE,
        f"{told} does not let volumes grow: a full one can only be replaced",
        "If its driver can enlarge volumes, allow it; if not, choose the sizes with room to spare.",
        f"kubectl patch storageclass {found.name} -p {patch}",
    )
