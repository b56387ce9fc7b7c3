"""Judging one cluster. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Final

from runnerhub_operator import names
from runnerhub_operator.api import (
    FULL_PERCENT,
    NEARLY_FULL_PERCENT,
    ConditionReason,
    ConditionType,
    RunnerHubClusterSpec,
)
from runnerhub_operator.resources.credentials import CREDENTIAL_KEYS

from ..kubectl import Unknown
from ..objects import Pod
from ..picture import is_paused, stuck
from ..steps import remedy
from ..times import age, seconds_since, span, with_ages
from .facts import Amounts, ClusterFacts, Facts, Node, Wanted
from .findings import Finding, Level, pod_finding, unknown

# An image is pulled, a claim is bound, a pod becomes ready within this time, or it is worth a word.
PATIENCE_SECONDS: Final = 120
# What the product's images are built for.
_ARCHITECTURE: Final = "amd64"
# A restart is told for an hour.
RECENT_SECONDS: Final = 3600


def check_accepted(_facts: Facts, cluster: ClusterFacts) -> Iterator[Finding]:
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
    elif (progressing := stuck(view)) is not None:
        yield Finding(
            check,
            Level.WARNING,
            f"{progressing.reason}: {progressing.message}",
            remedy(progressing.reason),
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
        ConditionType.RUNNERS,
    ):
        condition = cluster.view.condition(kind)
        if condition is None:
            continue
        check = kind.removesuffix("Ready").lower()
        message = with_ages(condition.message, now)
        if condition.reason in (ConditionReason.AVAILABLE, ConditionReason.NOT_REQUESTED):
            # A certificate that ends soon takes nothing from the component yet; the message says what to do.
            ends = kind is ConditionType.LOAD_BALANCER and "the certificate in Secret" in message
            yield Finding(check, Level.WARNING if ends else Level.OK, message)
            continue
        serves = condition.status == "True" or kind in (ConditionType.INGRESS, ConditionType.RUNNERS)
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
            yield pod_finding(
                check, pod, facts, f"kubectl describe pod {pod.name} -n {cluster.view.picture.namespace}"
            )
    restarted = list(_restarts(facts, cluster))
    yield from restarted
    if not bad and not restarted and pods:
        yield Finding(
            check, Level.OK, f"{sum(pod.ready for pod in pods)} of {len(pods)} ready, none in trouble"
        )


def _restarts(facts: Facts, cluster: ClusterFacts) -> Iterator[Finding]:
    """One finding for each component with restarts, because one cause mostly hits several pods."""
    lately: dict[str, list[tuple[float, Pod]]] = {}
    for pod in cluster.view.picture.pods:
        ended = seconds_since(pod.last_end_at, facts.now)
        if pod.restarts and ended is not None and ended < RECENT_SECONDS:
            lately.setdefault(pod.component, []).append((ended, pod))
    for component, found in lately.items():
        ended, last = min(found, key=lambda entry: entry[0])
        listed = ", ".join(f"{pod.name} ({pod.restarts} in all)" for _, pod in found)
        out_of_memory = any("OOMKilled" in pod.last_end for _, pod in found)
        yield Finding(
            "pods",
            Level.WARNING,
            f"restarted within the last hour: {listed}; the last one {span(ended)} ago: {last.last_end}",
            "Raise the memory limit of the component in the spec."
            if out_of_memory
            else "Read the last words.",
            f"kubectl runnerhub logs {component} --previous --tail 50 -n {cluster.view.picture.namespace}",
        )


def check_spread(_facts: Facts, cluster: ClusterFacts) -> Iterator[Finding]:
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
                "When other nodes have room again, delete a replica's pod there; it is made elsewhere unless "
                "its volume is bound to the node.",
                f"kubectl get pods -o wide -l {names.LABEL_CLUSTER}={cluster.view.picture.name} "
                f"-n {cluster.view.picture.namespace}",
            )


def check_capacity(facts: Facts, cluster: ClusterFacts) -> Iterator[Finding]:
    """What the spec asks for and has no node yet fits onto the nodes."""
    check = "capacity"
    if isinstance(facts.nodes, Unknown):
        yield unknown(check, facts.nodes)
        return
    if isinstance(facts.reserved, Unknown):
        yield unknown(check, facts.reserved)
        return
    if not cluster.wanted:
        return
    # Also of pods that are there: when they are made anew, they find no node.
    nowhere = [item for item in cluster.wanted if not any(node.suits(item) for node in facts.nodes)]
    if nowhere and facts.nodes:
        yield Finding(
            check,
            Level.ERROR,
            f"no node for {_counted(nowhere)}: none has the labels of the nodeSelector and only taints that are "
            "tolerated",
            "Correct nodeSelector and tolerations in the spec, or label nodes or add some.",
            "kubectl get nodes --show-labels",
        )
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
    largest = max(homeless, key=lambda item: (item.requests.memory, item.requests.cpu)).requests
    yield Finding(
        check,
        Level.ERROR,
        f"no room for {_counted(homeless)}: a pod asks for up to {largest}, and the most that is free on a node is "
        f"{most}",
        "Add nodes, free some, or ask for less in the spec's resources.",
        "kubectl describe nodes",
    )


def _counted(pods: list[Wanted]) -> str:
    by_component = Counter(item.component for item in pods)
    return ", ".join(f"{count} of {component}" for component, count in by_component.items())


def place(
    missing: list[Wanted], nodes: tuple[Node, ...], reserved: Mapping[str, Amounts]
) -> tuple[list[Wanted], dict[str, Amounts]]:
    """Put pods onto the emptiest node each, as the scheduler likes it; gives who found none, and what is left free."""
    free = {
        node.name: node.allocatable - reserved.get(node.name, Amounts())
        for node in nodes
        if any(node.takes(pod) for pod in missing)
    }
    by_name = {node.name: node for node in nodes}
    homeless = []
    for pod in sorted(missing, key=lambda item: (item.requests.memory, item.requests.cpu), reverse=True):
        fitting = [
            name
            for name, room in free.items()
            if by_name[name].takes(pod) and room.has_room_for(pod.requests)
        ]
        if not fitting:
            homeless.append(pod)
            continue
        emptiest = max(fitting, key=lambda name: (free[name].memory, free[name].cpu))
        free[emptiest] -= pod.requests
    return homeless, free


def check_architecture(facts: Facts, cluster: ClusterFacts) -> Iterator[Finding]:
    """No pod comes onto a node whose processor its image may not be for; one that runs there shows that it is."""
    if isinstance(facts.nodes, Unknown):
        return
    others = {node.name: node for node in facts.nodes if node.architecture not in ("", _ARCHITECTURE)}
    proven = {
        (pod.component, others[pod.node].architecture)
        for pod in cluster.view.picture.pods
        if pod.ready and pod.node in others
    }
    found = [
        (item.component, node)
        for node in others.values()
        for item in cluster.wanted
        if node.takes(item) and (item.component, node.architecture) not in proven
    ]
    if found:
        components = ", ".join(dict.fromkeys(component for component, _ in found))
        nodes = ", ".join(dict.fromkeys(f"{node.name} ({node.architecture})" for _, node in found))
        yield Finding(
            "architecture",
            Level.WARNING,
            f"pods of {components} may come onto {nodes}; the product's images are for {_ARCHITECTURE}",
            f"Set nodeSelector to kubernetes.io/arch: {_ARCHITECTURE} in the podTemplate of these components, of "
            "runners in their pool, or use images for both.",
            "kubectl get nodes -L kubernetes.io/arch",
        )


def check_secrets(_facts: Facts, cluster: ClusterFacts) -> Iterator[Finding]:
    """The Secrets that pods use are there, with all their keys."""
    check, secrets = "Secrets", cluster.secrets
    if not cluster.live:
        return
    if isinstance(secrets, Unknown):
        yield unknown(check, secrets)
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
    found: dict[str, tuple[str, ...]] = {}
    if spec is None:
        return found
    for item in (*spec.image_pull_secrets, *spec.orchestrator.pod_template.image_pull_secrets):
        found[item.name] = (".dockerconfigjson",)
    if spec.github.token_secret_name is not None and (spec.runner_pools or spec.orchestrator.image):
        found[spec.github.token_secret_name] = ("token",)
    if spec.load_balancer.tls is not None:
        found[spec.load_balancer.tls.secret_name] = ("tls.crt", "tls.key")
    if spec.ingress is not None and spec.ingress.tls_secret_name is not None:
        found[spec.ingress.tls_secret_name] = ("tls.crt", "tls.key")
    bucket = None if spec.shared_storage is None else spec.shared_storage.s3
    if bucket is not None and bucket.credentials_secret_name is not None:
        found[bucket.credentials_secret_name] = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
    return found


def check_claims(_facts: Facts, cluster: ClusterFacts) -> Iterator[Finding]:
    """The volumes are bound, and none failed to grow."""
    check, claims = "volumes", cluster.claims
    if isinstance(claims, Unknown):
        yield unknown(check, claims)
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
    if known is not None and known >= NEARLY_FULL_PERCENT:
        fullest = ", ".join(f"{name} {percent} %" for name, percent in full if percent >= NEARLY_FULL_PERCENT)
        yield Finding(
            check,
            Level.ERROR if known >= FULL_PERCENT else Level.WARNING,
            f"nearly full: {fullest}",
            "Raise spec.postgres.storage.size or spec.redis.storage.size; no pod restarts.",
            f"kubectl edit rhc {cluster.view.picture.name} -n {cluster.view.picture.namespace}",
        )
    elif claims and not bad:
        yield Finding(check, Level.OK, f"{len(claims)} are bound{told}")


def check_memory(_facts: Facts, cluster: ClusterFacts) -> Iterator[Finding]:
    """The queue has room for jobs."""
    percent = cluster.view.status.redis.memory_used_percent or 0
    if percent >= NEARLY_FULL_PERCENT:
        yield Finding(
            "redis",
            Level.ERROR if percent >= FULL_PERCENT else Level.WARNING,
            f"the queue's memory is {percent} % full; when it is full the master refuses new jobs",
            "Raise spec.redis.resources.limits.memory, where that is not set spec.redis.storage.size, or let jobs be "
            "worked off.",
            f"kubectl edit rhc {cluster.view.picture.name} -n {cluster.view.picture.namespace}",
        )


def check_events(facts: Facts, cluster: ClusterFacts) -> Iterator[Finding]:
    """What Kubernetes and the operator warned of lately; each is told, none is judged."""
    events = cluster.events
    if isinstance(events, Unknown):
        yield unknown("Events", events)
        return
    for event in sorted(events, key=lambda item: item.last, reverse=True)[:5]:
        times = f", {event.count} times" if event.count > 1 else ""
        yield Finding(
            "Events",
            Level.NOTE,
            f"{age(event.last, facts.now)} ago{times}, {event.about}: {event.reason}: "
            + with_ages(" ".join(event.message.split()), facts.now),
        )
