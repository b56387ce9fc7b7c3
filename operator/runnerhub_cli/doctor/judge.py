"""Judging the facts. Pure: each check gives findings, at least one, with what a person can do."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from runnerhub_operator import names
from runnerhub_operator.api import ConditionReason, ConditionType, RunnerHubClusterSpec
from runnerhub_operator.api.crd import custom_resource_definition
from runnerhub_operator.resources.credentials import CREDENTIAL_KEYS

from ..errors import Exit
from ..kubectl import Unknown
from ..objects import Pod
from ..picture import is_paused
from ..status import with_ages
from ..steps import remedy
from ..times import age, parse_time, seconds_since, span
from .facts import Amounts, ClusterFacts, Facts, Node, StorageClass, Wanted

# The first with all of CEL that the schema uses; the chart says the same.
OLDEST_KUBERNETES: Final = (1, 29)
# The operator renews every two seconds and is replaced after fifteen.
LEASE_STALE_SECONDS: Final = 30
# An image is pulled, a claim is bound, a pod becomes ready within this time, or it is worth a word.
PATIENCE_SECONDS: Final = 120
CLOCK_WARNING_SECONDS: Final = 5
# The leeway that certificates and tokens usually have.
CLOCK_ERROR_SECONDS: Final = 60
RECENT_SECONDS: Final = 3600


class Level(StrEnum):
    """How bad a finding is. `note` needs nobody, `unknown` could not be looked at."""

    OK = "ok"
    NOTE = "note"
    UNKNOWN = "unknown"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found. `remedy`: what to do, as a sentence; `command`: how, when one command does it or shows more."""

    check: str
    level: Level
    message: str
    remedy: str = ""
    command: str = ""


def judge(facts: Facts) -> tuple[Finding, ...]:
    """All findings, in the order in which things depend on one another."""
    found = [finding for check in _CHECKS for finding in check(facts)]
    if facts.cluster is not None:
        found += [finding for check in _CLUSTER_CHECKS for finding in check(facts, facts.cluster)]
    return tuple(found)


def exit_code(findings: tuple[Finding, ...]) -> Exit:
    """0 when nothing needs anybody, 1 with warnings, 2 with errors."""
    levels = {finding.level for finding in findings}
    if Level.ERROR in levels:
        return Exit.CRITICAL
    return Exit.WARNING if Level.WARNING in levels else Exit.OK


def _unknown(check: str, fact: Unknown) -> Finding:
    return Finding(check, Level.UNKNOWN, f"could not be looked at: {fact.why}")


# --- The Kubernetes cluster and the operator ---


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
        yield _unknown(check, crd)
        return
    if crd is None:
        yield Finding(
            check,
            Level.ERROR,
            f"Kubernetes does not know {names.KIND}: RunnerHub is not installed",
            "Install it.",
            "helm install runnerhub-operator charts/runnerhub-operator -n runnerhub-system --create-namespace",
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
            "Apply the definition of the installed operator's version; helm does not upgrade it by itself everywhere.",
            "kubectl apply --server-side -f crds/",
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
        yield _unknown(check, operator)
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
    for pod in operator.pods:
        if not pod.ready:
            yield _pod_finding(check, pod, facts, f"kubectl runnerhub logs operator --tail 50")
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
        where = facts.cluster.view.picture.namespace if facts.cluster is not None else "the namespace"
        yield Finding(
            check,
            Level.ERROR,
            f"its account may not, in {where}: {_some([str(right) for right in operator.denied], 5)}",
            "Add the namespace to watchNamespaces in the chart's values, or restore the chart's roles.",
            "helm upgrade runnerhub-operator charts/runnerhub-operator -n runnerhub-system --reuse-values",
        )


def check_permissions(facts: Facts) -> Iterator[Finding]:
    """What the person who asks may do."""
    check = "permissions"
    if isinstance(facts.denied, Unknown):
        yield _unknown(check, facts.denied)
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
        yield _unknown(check, nodes)
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
    usable = [node for node in nodes if node.ready and node.schedulable]
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


def check_clocks(facts: Facts) -> Iterator[Finding]:
    """The nodes' clocks agree with the API server's."""
    check, clocks = "clocks", facts.clocks
    if isinstance(clocks, Unknown):
        yield _unknown(check, clocks)
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
        yield _unknown(check, pods)
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
        yield _unknown(check, classes)
        return
    wanted = dict.fromkeys(facts.cluster.storage_classes) if facts.cluster is not None else {None: None}
    defaults = [item for item in classes if item.default]
    if len(defaults) > 1:
        listed = ", ".join(item.name for item in defaults)
        yield Finding(check, Level.NOTE, f"several are the default: {listed}; the newest is taken")
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
                "Name one in spec.postgres.storage.storageClassName and spec.redis.storage.storageClassName, or make one "
                "the default.",
                "kubectl get storageclass",
            )
        else:
            yield _growth(by_name[name] if name is not None else defaults[-1])


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


_CHECKS: Final[tuple[Callable[[Facts], Iterator[Finding]], ...]] = (
    check_version,
    check_permissions,
    check_definition,
    check_operator,
    check_nodes,
    check_clocks,
    check_dns,
    check_storage,
)


# --- One cluster ---


def check_accepted(facts: Facts, cluster: ClusterFacts) -> Iterator[Finding]:
    """The operator takes the spec, has acted upon the newest one, and is allowed to act."""
    check, view = "spec", cluster.view
    if view.spec is None:
        yield Finding(
            check, Level.UNKNOWN, "this version of the plugin cannot read it; use the operator's version"
        )
    if not cluster.live:
        return
    accepted = view.condition(ConditionType.ACCEPTED)
    generation = int(view.picture.body["metadata"].get("generation", 0))
    if accepted is None:
        yield Finding(
            check,
            Level.WARNING,
            "the operator has not looked at it yet",
            "If that lasts, see why the operator does not work.",
        )
    elif accepted.status == "False":
        yield Finding(check, Level.ERROR, f"{accepted.reason}: {accepted.message}", remedy(accepted.reason))
    elif view.status.observed_generation < generation:
        yield Finding(
            check,
            Level.WARNING,
            f"generation {generation} is not acted upon yet, only {view.status.observed_generation}",
            "Wait; if it lasts, read the operator's log.",
            "kubectl runnerhub logs operator --since 15m",
        )
    else:
        yield Finding(check, Level.OK, f"accepted, generation {generation} is in effect or under way")
    if is_paused(view):
        yield Finding(
            check,
            Level.WARNING,
            "the cluster is paused: nothing is changed or repaired",
            "Set spec.paused to false.",
        )


def check_components(_facts: Facts, cluster: ClusterFacts) -> Iterator[Finding]:
    """What the operator says of each component."""
    now = cluster.view.picture.now
    for kind in (
        ConditionType.POSTGRES,
        ConditionType.REDIS,
        ConditionType.ORCHESTRATORS,
        ConditionType.LOAD_BALANCER,
        ConditionType.INGRESS,
    ):
        condition = cluster.view.condition(kind)
        if condition is None:
            continue
        check = kind.removesuffix("Ready").lower()
        message = with_ages(condition.message, now)
        if condition.reason in (ConditionReason.AVAILABLE, ConditionReason.NOT_REQUESTED):
            yield Finding(check, Level.OK, message)
            continue
        serves = condition.status == "True" or kind is ConditionType.INGRESS
        passing = condition.reason == ConditionReason.CREATING
        level = Level.WARNING if serves or passing else Level.ERROR
        yield Finding(check, level, f"{condition.reason}: {message}", remedy(condition.reason))


def check_pods(facts: Facts, cluster: ClusterFacts) -> Iterator[Finding]:
    """Pods that cannot start, are not ready for long, or were restarted."""
    check = "pods"
    pods = cluster.view.picture.pods
    bad = 0
    for pod in pods:
        waited = seconds_since(pod.ready_since or pod.created, facts.now) or 0
        if pod.trouble or (not pod.ready and not pod.terminating and waited > PATIENCE_SECONDS):
            bad += 1
            yield _pod_finding(
                check, pod, facts, f"kubectl describe pod {pod.name} -n {cluster.view.picture.namespace}"
            )
        ended = seconds_since(pod.last_end_at, facts.now)
        if pod.restarts and ended is not None and ended < RECENT_SECONDS:
            bad += 1
            out_of_memory = "OOMKilled" in pod.last_end
            yield Finding(
                check,
                Level.WARNING,
                f"{pod.name} was restarted, {pod.restarts} times in all, {span(ended)} ago because {pod.last_end}",
                "Raise the memory limit of its component in the spec."
                if out_of_memory
                else "Read its last words.",
                f"kubectl runnerhub logs {pod.component} --previous --tail 50 -n {cluster.view.picture.namespace}",
            )
    if not bad and pods:
        yield Finding(
            check, Level.OK, f"{sum(pod.ready for pod in pods)} of {len(pods)} ready, none in trouble"
        )


def _pod_finding(check: str, pod: Pod, facts: Facts, command: str) -> Finding:
    lasting = age(pod.ready_since or pod.created, facts.now)
    said = f": {pod.message}" if pod.message else ""
    where = f" on {pod.node}" if pod.node else ""
    what = pod.trouble or ("not ready" if pod.phase == "Running" else pod.phase)
    return Finding(
        check,
        Level.ERROR if pod.trouble else Level.WARNING,
        f"{pod.name}{where}: {what} for {lasting}{said}",
        remedy(pod.trouble) or "See its Events.",
        command,
    )


def check_spread(facts: Facts, cluster: ClusterFacts) -> Iterator[Finding]:
    """No node has a majority of what elects."""
    for component, what in (
        (names.POSTGRES, "members of the database"),
        (names.REDIS, "Redis pods and Sentinels"),
    ):
        pods = [pod for pod in cluster.view.picture.pods if pod.component == component and pod.node]
        if len(pods) < 3:
            continue
        node, count = Counter(pod.node for pod in pods).most_common(1)[0]
        if count * 2 > len(pods):
            yield Finding(
                "spread",
                Level.WARNING,
                f"{count} of {len(pods)} {what} are on {node}: its loss leaves no majority",
                "When other nodes have room again, delete one of the pods there, a replica's; it is made elsewhere unless "
                "its volume is bound to the node.",
                f"kubectl get pods -o wide -l {names.LABEL_CLUSTER}={cluster.view.picture.name} "
                f"-n {cluster.view.picture.namespace}",
            )


def check_capacity(facts: Facts, cluster: ClusterFacts) -> Iterator[Finding]:
    """What the spec asks for and has no node yet fits onto the nodes."""
    check = "capacity"
    if isinstance(facts.nodes, Unknown):
        yield _unknown(check, facts.nodes)
        return
    if isinstance(facts.reserved, Unknown):
        yield _unknown(check, facts.reserved)
        return
    if not cluster.wanted:
        return
    total = sum((item.requests for item in cluster.wanted), Amounts())
    told = f"{len(cluster.wanted)} pods with {total} together"
    missing = [item for item in cluster.wanted if not item.there]
    if not missing:
        yield Finding(check, Level.OK, f"all {told} have their place")
        return
    homeless, free = place(missing, facts.nodes, facts.reserved)
    if not homeless:
        yield Finding(check, Level.OK, f"there is room for the {len(missing)} pods to come, of {told}")
        return
    most = Amounts(
        max((room.cpu for room in free.values()), default=Amounts().cpu),
        max((room.memory for room in free.values()), default=Amounts().memory),
    )
    by_component = Counter(item.component for item in homeless)
    listed = ", ".join(f"{count} of {component}" for component, count in by_component.items())
    largest = max(homeless, key=lambda item: (item.requests.memory, item.requests.cpu)).requests
    yield Finding(
        check,
        Level.ERROR,
        f"no room for {listed}: a pod asks for up to {largest}, and the most that is free on a node is {most}",
        "Add nodes, free some, or ask for less in the spec's resources.",
        "kubectl describe nodes",
    )


def place(
    missing: list[Wanted], nodes: tuple[Node, ...], reserved: Mapping[str, Amounts]
) -> tuple[list[Wanted], dict[str, Amounts]]:
    """Put pods onto the emptiest node each, as the scheduler likes it; gives who found none, and what is left free."""
    free = {
        node.name: node.allocatable - reserved.get(node.name, Amounts())
        for node in nodes
        if node.ready and node.schedulable
    }
    homeless = []
    for pod in sorted(missing, key=lambda item: (item.requests.memory, item.requests.cpu), reverse=True):
        fitting = [name for name, room in free.items() if room.has_room_for(pod.requests)]
        if not fitting:
            homeless.append(pod)
            continue
        emptiest = max(fitting, key=lambda name: (free[name].memory, free[name].cpu))
        free[emptiest] -= pod.requests
    return homeless, free


def check_secrets(facts: Facts, cluster: ClusterFacts) -> Iterator[Finding]:
    """The Secrets that pods use are there, with all their keys."""
    check, secrets = "Secrets", cluster.secrets
    if not cluster.live:
        return
    if isinstance(secrets, Unknown):
        yield _unknown(check, secrets)
        return
    picture = cluster.view.picture
    wanted: dict[str, tuple[str, ...]] = {
        names.credentials(picture.name, component): keys for component, keys in CREDENTIAL_KEYS.items()
    }
    own = set(wanted)
    wanted |= _foreign_secrets(cluster.view.spec)
    bad = False
    for name, keys in wanted.items():
        lacking = [key for key in keys if key not in secrets.get(name, ())]
        if not lacking:
            continue
        bad = True
        there = f"lacks {', '.join(lacking)}" if name in secrets else "is missing"
        yield Finding(
            check,
            Level.ERROR,
            f"{name} {there}" + (", and the running servers still use it" if name in own else ""),
            "Restore it from a backup, with its labels; new passwords would lock everybody out."
            if name in own
            else "Make it.",
            f"kubectl get secret {name} -n {picture.namespace}",
        )
    if not bad:
        yield Finding(check, Level.OK, f"{len(wanted)} are there with all their keys")


def _foreign_secrets(spec: RunnerHubClusterSpec | None) -> dict[str, tuple[str, ...]]:
    if spec is None or spec.ingress is None or spec.ingress.tls_secret_name is None:
        return {}
    return {spec.ingress.tls_secret_name: ("tls.crt", "tls.key")}


def check_claims(_facts: Facts, cluster: ClusterFacts) -> Iterator[Finding]:
    """The volumes are bound, and none failed to grow."""
    check, claims = "volumes", cluster.claims
    if isinstance(claims, Unknown):
        yield _unknown(check, claims)
        return
    bad = [claim for claim in claims if claim.phase != "Bound" or claim.trouble]
    for claim in bad:
        yield Finding(
            check,
            Level.WARNING if claim.phase == "Bound" else Level.ERROR,
            f"{claim.name}: {claim.trouble or claim.phase}",
            "See what the storage driver says.",
            f"kubectl describe pvc {claim.name} -n {cluster.view.picture.namespace}",
        )
    full = [
        (member.name, member.volume_used_percent)
        for component in cluster.view.components
        for member in component.members
        if member.volume_used_percent is not None
    ]
    known = max((percent for _, percent in full), default=None)
    told = "" if known is None else f", the fullest is {known} % full"
    if known is not None and known >= 85:
        fullest = ", ".join(f"{name} {percent} %" for name, percent in full if percent >= 85)
        yield Finding(
            check,
            Level.ERROR if known >= 95 else Level.WARNING,
            f"nearly full: {fullest}",
            "Raise spec.postgres.storage.size or spec.redis.storage.size; no pod restarts.",
            f"kubectl edit rhc {cluster.view.picture.name} -n {cluster.view.picture.namespace}",
        )
    elif claims and not bad:
        yield Finding(check, Level.OK, f"{len(claims)} are bound{told}")


def check_events(facts: Facts, cluster: ClusterFacts) -> Iterator[Finding]:
    """What Kubernetes and the operator warned of lately; each is told, none is judged."""
    events = cluster.events
    if isinstance(events, Unknown):
        yield _unknown("Events", events)
        return
    for event in sorted(events, key=lambda item: item.last, reverse=True)[:5]:
        times = f", {event.count} times" if event.count > 1 else ""
        yield Finding(
            "Events",
            Level.NOTE,
            f"{age(event.last, facts.now)} ago{times}, {event.about}: {event.reason}: {' '.join(event.message.split())}",
        )


_CLUSTER_CHECKS: Final[tuple[Callable[[Facts, ClusterFacts], Iterator[Finding]], ...]] = (
    check_accepted,
    check_components,
    check_pods,
    check_spread,
    check_capacity,
    check_claims,
    check_secrets,
    check_events,
)
