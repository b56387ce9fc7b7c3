"""What a person should do next, from what the status says. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from runnerhub_operator import names
from runnerhub_operator.api import (
    FULL_PERCENT,
    NEARLY_FULL_PERCENT,
    Condition,
    ConditionReason,
    ConditionType,
)
from runnerhub_operator.api.meanings import REASONS

from .picture import (
    Component,
    View,
    fullest_volume,
    is_paused,
    lacking_runners,
    operator_is_away,
    stuck,
)
from .times import with_ages


@dataclass(frozen=True, slots=True)
class Step:
    """What a person can do next, and the command for it."""

    text: str
    command: str = ""


_NO_MASTER = (
    "No Redis master: a majority of Sentinels must run and agree. See what they say, and bring missing pods and "
    "nodes back."
)
_NO_PRIMARY = (
    "No Postgres primary: Patroni has elected nobody; a majority of the members must run. See its own view."
)
# A pod that starts waits with none of these; with them it waits for a person.
_BLOCKED = tuple(
    str(reason)
    for reason in (
        ConditionReason.UNSCHEDULABLE,
        ConditionReason.INVALID_IMAGE_NAME,
        ConditionReason.ERR_IMAGE_PULL,
        ConditionReason.IMAGE_PULL_BACK_OFF,
        ConditionReason.CREATE_CONTAINER_CONFIG_ERROR,
        ConditionReason.CRASH_LOOP_BACK_OFF,
    )
)

# What is the matter with a component that neither Kubernetes nor the operator mends.
_FOR_A_PERSON = (
    ConditionReason.WRITES_REFUSED,
    ConditionReason.CREDENTIALS_MISSING,
    ConditionReason.PARAMETERS_REFUSED,
    ConditionReason.PATRONI_PAUSED,
    ConditionReason.WORKERS_DEAF,
    ConditionReason.CHECKS_FAIL,
)
_PODS_OF = {
    ConditionType.POSTGRES: (names.POSTGRES, names.POOLER),
    ConditionType.REDIS: (names.REDIS,),
    ConditionType.ORCHESTRATORS: (names.ORCHESTRATOR,),
    ConditionType.LOAD_BALANCER: (names.LOAD_BALANCER,),
}


def next_steps(view: View) -> tuple[Step, ...]:
    """What to do, most urgent first; never empty."""
    found = [
        *_refused(view),
        *_operator(view),
        *_for_a_person(view),
        *_blocked_pods(view),
        *_elections(view),
        *_missing(view),
        *_unexplained(view),
        *_fullness(view),
        *_paused(view),
        *_stuck(view),
        *_runners(view),
    ]
    if found:
        return tuple(found)
    if view.holds(ConditionType.PROGRESSING):
        return (Step("Wait until it is done.", f"kubectl runnerhub status {_target(view)} --watch"),)
    return (Step("Nothing."),)


def _target(view: View) -> str:
    return f"{view.picture.name} -n {view.picture.namespace}"


def _doctor(view: View) -> str:
    return f"kubectl runnerhub doctor {_target(view)}"


def remedy(reason: str) -> str:
    """What the reference says about a reason; "" for one that this version does not know."""
    try:
        return REASONS[ConditionReason(reason)].remedy
    except ValueError:
        return ""


def _refused(view: View) -> Iterator[Step]:
    accepted = view.condition(ConditionType.ACCEPTED)
    if accepted is not None and accepted.status == "False":
        yield Step(
            f"{accepted.message}. {remedy(accepted.reason)}",
            f"kubectl edit rhc {_target(view)}",
        )


def _operator(view: View) -> Iterator[Step]:
    if operator_is_away(view.picture):
        yield Step(
            "No operator is at work: elections and routing go on without it, repairs and changes wait, and what is "
            "shown here may be old. Find out why it does not run.",
            _doctor(view),
        )


def _for_a_person(view: View) -> Iterator[Step]:
    for kind in _PODS_OF:
        condition = view.condition(kind)
        if condition is not None and condition.reason in _FOR_A_PERSON:
            yield _told(view, condition)


def _unexplained(view: View) -> Iterator[Step]:
    """What the operator says of components that lack something although all their pods are ready."""
    passing = view.holds(ConditionType.PROGRESSING)
    reasons = (ConditionReason.UNAVAILABLE, *(() if passing else (ConditionReason.REDUCED_REDUNDANCY,)))
    fullest = fullest_volume(view.components)
    for kind, pods in _PODS_OF.items():
        condition = view.condition(kind)
        members = [
            member for component in view.components if component.name in pods for member in component.members
        ]
        if condition is None or condition.reason not in reasons or _is_leaderless(view, kind):
            continue
        lacks_room = fullest.used_percent >= FULL_PERCENT and fullest.component in pods
        if lacks_room and condition.reason == ConditionReason.REDUCED_REDUNDANCY:
            # Told with what mends it, by `_fullness`.
            continue
        if all(member.ready for member in members):
            yield _told(view, condition)


def _told(view: View, condition: Condition) -> Step:
    message = _sentence(with_ages(condition.message, view.picture.now))
    return Step(f"{message}. {remedy(condition.reason)}", _doctor(view))


def _blocked_pods(view: View) -> Iterator[Step]:
    told = set()
    for component in view.components:
        for member in component.members:
            if member.state not in _BLOCKED or (component.name, member.state) in told:
                continue
            told.add((component.name, member.state))
            command = f"kubectl describe pod {member.name} -n {view.picture.namespace}"
            if member.state == ConditionReason.CRASH_LOOP_BACK_OFF:
                command = f"kubectl runnerhub logs {component.name} --previous -n {view.picture.namespace}"
            said = f": {member.message}" if member.message else ""
            yield Step(f"{member.name} cannot start, {member.state}{said}. {remedy(member.state)}", command)


def _is_leaderless(view: View, kind: ConditionType) -> bool:
    """Whether Postgres has no primary, or Redis no master, and does not serve for that."""
    holders = {
        ConditionType.POSTGRES: view.status.postgres.primary,
        ConditionType.REDIS: view.status.redis.master,
    }
    condition = view.condition(kind)
    return kind in holders and holders[kind] is None and condition is not None and condition.status == "False"


def _elections(view: View) -> Iterator[Step]:
    if _is_leaderless(view, ConditionType.POSTGRES):
        running = (pod.name for pod in view.picture.pods if pod.component == names.POSTGRES and pod.ready)
        member = next(running, names.member(view.picture.name, names.POSTGRES, 0))
        yield Step(_NO_PRIMARY, f"kubectl exec {member} -n {view.picture.namespace} -- patronictl list")
    if _is_leaderless(view, ConditionType.REDIS):
        yield Step(
            _NO_MASTER, f"kubectl runnerhub logs redis -c sentinel --since 10m -n {view.picture.namespace}"
        )


def _missing(view: View) -> Iterator[Step]:
    """Members that are not ready without a reason that Kubernetes gives."""
    postgres = view.condition(ConditionType.POSTGRES)
    refused = postgres is not None and postgres.reason == ConditionReason.PARAMETERS_REFUSED
    absent = [
        (component, member.name)
        for component in view.components
        for member in component.members
        if not member.ready
        and member.state not in _BLOCKED
        # Nothing but other parameters brings that one back.
        and not (refused and component.name == names.POSTGRES)
    ]
    if not absent:
        return
    listed = ", ".join(name for _, name in absent)
    if view.holds(ConditionType.PROGRESSING):
        yield Step(
            f"Wait: {listed} not ready, which belongs to what is going on.",
            f"kubectl runnerhub status {_target(view)} --watch",
        )
        return
    node_names = sorted({node for component, name in absent for node in _nodes(component, name)})
    where = f" (on {', '.join(node_names)})" if node_names else ""
    yield Step(
        f"{listed} not ready{where}: Kubernetes and the operator go on repairing. If it lasts longer than two minutes, "
        "look for the cause.",
        _doctor(view),
    )


def _nodes(component: Component, name: str) -> list[str]:
    return [member.node for member in component.members if member.name == name and member.node]


def _fullness(view: View) -> Iterator[Step]:
    fullest = fullest_volume(view.components)
    if fullest.used_percent >= NEARLY_FULL_PERCENT:
        yield Step(
            f"The volume of {fullest.member} is {fullest.used_percent} % full. Raise "
            f"spec.{fullest.component}.storage.size; no pod restarts.",
            f"kubectl edit rhc {_target(view)}",
        )
    memory = view.status.redis.memory_used_percent or 0
    if memory >= NEARLY_FULL_PERCENT:
        yield Step(
            f"The queue's memory is {memory} % full; when it is full the master refuses new jobs. Raise "
            "spec.redis.resources.limits.memory, where that is not set spec.redis.storage.size, or let jobs be "
            "worked off.",
            f"kubectl edit rhc {_target(view)}",
        )


def _paused(view: View) -> Iterator[Step]:
    if is_paused(view):
        patch = '\'{"spec":{"paused":false}}\''
        yield Step(
            "It is paused: nothing is changed or repaired until somebody ends that.",
            f"kubectl patch rhc {_target(view)} --type=merge -p {patch}",
        )


def _stuck(view: View) -> Iterator[Step]:
    progressing = stuck(view)
    if progressing is None:
        return
    if progressing.reason == ConditionReason.MIGRATION_FAILED:
        # Its message says what to do by itself.
        yield Step(f"{_sentence(progressing.message)}.", f"kubectl edit rhc {_target(view)}")
    else:
        yield Step(
            f"{_sentence(progressing.message)}. {remedy(progressing.reason)}", "kubectl get storageclass"
        )


def _runners(view: View) -> Iterator[Step]:
    """What keeps pools of runners from their size, unless it is told of their pods already."""
    runners = lacking_runners(view)
    if runners is None or runners.reason in _BLOCKED:
        return
    commands: Mapping[str, str] = {
        ConditionReason.REFUSED_BY_API_SERVER: "kubectl describe resourcequota",
        ConditionReason.REJECTED_BY_KUBELET: "kubectl describe nodes",
        ConditionReason.DEMAND_UNKNOWN: "kubectl runnerhub logs orchestrator --since 10m",
    }
    command = commands.get(runners.reason, "kubectl runnerhub logs runner --since 10m")
    yield Step(
        f"Runners: {runners.message}. {remedy(runners.reason)}", f"{command} -n {view.picture.namespace}"
    )


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]
