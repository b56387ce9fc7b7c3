"""The summary of one cluster, in the order in which it is shown. Pure; `screen` shows it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from runnerhub_operator import names
from runnerhub_operator.api import (
    NEARLY_FULL_PERCENT,
    Condition,
    ConditionReason,
    ConditionType,
    Failover,
    RunnerHubClusterStatus,
    SwitchoverResult,
)

from .errors import Exit
from .kubectl import Unknown
from .picture import (
    STUCK,
    Component,
    Picture,
    View,
    fullest_volume,
    is_paused,
    lacking_runners,
    look,
    operator_is_away,
    short_components,
    stuck,
)
from .steps import Step, next_steps
from .times import age, with_ages

# Of a component that serves and lacks something.
_LACKING: Final = (
    ConditionReason.REDUCED_REDUNDANCY,
    ConditionReason.PATRONI_PAUSED,
    ConditionReason.PARAMETERS_REFUSED,
    ConditionReason.WORKERS_DEAF,
    ConditionReason.CHECKS_FAIL,
)


@dataclass(frozen=True, slots=True)
class ConditionRow:
    """One condition; `good` is None when it is neither good nor bad. `text` is the message, shortened for people."""

    type: str
    status: str
    reason: str
    message: str
    since: str
    good: bool | None
    text: str


@dataclass(frozen=True, slots=True)
class Summary:
    """`level` is the exit code of `status`."""

    namespace: str
    name: str
    phase: str
    level: Exit
    headline: str
    created: str | None
    operator: str
    conditions: tuple[ConditionRow, ...]
    going_on: tuple[str, ...]
    components: tuple[Component, ...]
    failovers: tuple[Failover, ...]
    next_steps: tuple[Step, ...]


def summarise(picture: Picture) -> Summary:
    """Make the summary."""
    view = look(picture)
    status = view.status
    return Summary(
        namespace=picture.namespace,
        name=picture.name,
        phase=status.phase,
        level=level_of(view),
        headline=_headline(view),
        created=picture.body["metadata"].get("creationTimestamp"),
        operator=_operator_text(picture),
        conditions=tuple(_condition_row(condition, status, picture.now) for condition in status.conditions),
        going_on=tuple(_going_on(view)),
        components=view.components,
        failovers=status.failovers,
        next_steps=next_steps(view),
    )


def level_of(view: View) -> Exit:
    """The exit code of `status`."""
    if not view.holds(ConditionType.READY):
        return Exit.CRITICAL
    if (
        view.holds(ConditionType.DEGRADED)
        or _is_refused(view)
        or operator_is_away(view.picture)
        or is_paused(view)
        or stuck(view) is not None
        or lacking_runners(view) is not None
        or fullest_volume(view.components).used_percent >= NEARLY_FULL_PERCENT
        or (view.status.redis.memory_used_percent or 0) >= NEARLY_FULL_PERCENT
    ):
        return Exit.WARNING
    return Exit.OK


def _is_refused(view: View) -> bool:
    accepted = view.condition(ConditionType.ACCEPTED)
    return accepted is not None and accepted.status == "False"


def _headline(view: View) -> str:
    if not view.status.conditions:
        return "The operator has not looked at it yet."
    if _is_refused(view):
        serves = "It serves as before" if view.holds(ConditionType.READY) else "It does not serve"
        return f"{serves}, and what the spec asks for is not accepted."
    short = ", ".join(short_components(view.status))
    if not view.holds(ConditionType.READY):
        ready = view.condition(ConditionType.READY)
        if ready is not None and ready.reason == ConditionReason.CREATING:
            return f"It is being created; not complete yet: {short or 'nothing is known'}."
        return f"It does not serve: {short or 'the reason is not known'}."
    if view.holds(ConditionType.DEGRADED):
        return f"It serves, with less redundancy than asked for: {short}."
    if is_paused(view):
        return "All components serve. It is paused: the operator changes and repairs nothing."
    if stuck(view) is not None:
        return "All components serve, but a part of what the spec asks for stays without effect."
    if lacking_runners(view) is not None:
        return "All components serve, but the pools of runners do not follow the jobs as they should."
    return "All components serve."


def _operator_text(picture: Picture) -> str:
    lease = picture.operator
    if isinstance(lease, Unknown):
        return f"not known ({lease.why})"
    if lease is None:
        return "none: there is no Lease of it in this Kubernetes cluster"
    renewed = age(lease.renewed, picture.now)
    if not lease.holder:
        return f"none: the last one left {renewed} ago"
    if operator_is_away(picture):
        return f"{lease.holder} in {lease.namespace} is silent: its Lease was renewed {renewed} ago"
    return f"{lease.holder} in {lease.namespace}, Lease renewed {renewed} ago"


def _condition_row(condition: Condition, status: RunnerHubClusterStatus, now: datetime) -> ConditionRow:
    good: bool | None = condition.status == "True"
    if condition.type == ConditionType.DEGRADED:
        good = condition.status == "False"
    elif condition.type == ConditionType.PROGRESSING:
        good = False if condition.reason in (ConditionReason.PAUSED, *STUCK) else None
    elif condition.reason in _LACKING:
        good = False
    text = condition.message
    # These two repeat the messages of the components.
    if condition.type in (ConditionType.READY, ConditionType.DEGRADED) and (
        short := short_components(status)
    ):
        text = f"not complete: {', '.join(short)}"
    return ConditionRow(
        type=condition.type,
        status=condition.status,
        reason=condition.reason,
        message=condition.message,
        since=condition.last_transition_time,
        good=good,
        text=with_ages(text, now),
    )


def _going_on(view: View) -> Iterator[str]:
    picture, status = view.picture, view.status
    progressing = view.condition(ConditionType.PROGRESSING)
    if progressing is not None and progressing.reason != ConditionReason.SETTLED:
        lasting = age(progressing.last_transition_time, picture.now)
        yield f"{with_ages(progressing.message, picture.now)} ({progressing.reason}, for {lasting})"
    lease = picture.lease(names.disruption_lease(picture.name))
    if lease is not None and lease.holder:
        lasting = age(lease.acquired, picture.now)
        yield f"the right to disrupt ({lease.name}) is held by {lease.holder}, for {lasting}"
    request = status.postgres.switchover
    if request is not None and request.result is SwitchoverResult.PENDING:
        lasting = age(request.at, picture.now)
        yield f"a switchover to {request.request} is asked for, for {lasting}: {request.message}"
    generation = int(picture.body["metadata"].get("generation", 0))
    if status.observed_generation < generation:
        yield (
            f"the spec was edited (generation {generation}) and the operator has not acted upon that yet "
            f"(generation {status.observed_generation})"
        )
    if status.pending_updates:
        listed = ", ".join(status.pending_updates)
        yield f"pods as an older operator made them, renewed with their next change: {listed}"
