"""Rolling changes, one step at a time in the whole cluster.

The stateful components come first: replicas, hand over, old primary. Then Deployments, one after the other; what
happens inside each is Kubernetes' own rolling update.

Who needs a repair or asks for a switchover must not wait for something that never ends. A repair takes nothing away
that works, so it goes first. A switchover rests on the other members of the database and on the poolers that hold
clients back, so it waits for the database's own change, as long as that gets on, and for poolers that stop. What
others do meanwhile takes neither a quorum nor the service away with it: a drained node switches over at any time too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Any, Final

from .. import names
from ..actions import (
    Disruption,
    RenewDeployment,
    RestartPod,
    RestartPostgres,
    Rollout,
    ShrinkPostgres,
    ShrinkRedis,
    SwitchPostgres,
)
from ..api import FULL_PERCENT, RedisStatus, RunnerHubCluster
from ..probes.sentinel import can_fail_over
from ..resources.common import Manifest
from ..snapshot import LiveObject, Pod, Snapshot
from . import resize_redis, shrink
from .fullness import fullest

# Patroni tells the end of a restart at its next loop, two seconds later.
SETTLE_SECONDS: Final = 4.0
# Clients that could not be held back, as while a long transaction runs, are given this time before the next try;
# after so many tries the switchover takes place without holding them back.
POSTPONED_SECONDS: Final = 15.0
MAX_POSTPONEMENTS: Final = 3
# What Patroni refuses it may allow a moment later, when it has counted its synchronous replicas anew.
REFUSED_SECONDS: Final = 10.0
# A role that a step moves has moved by then; what happens to its holder later has another cause.
SHOWN_SECONDS: Final = 60.0
# Tries of another occasion do not count.
FORGOTTEN_SECONDS: Final = 300.0
# Who was stopped by a step is back by then, a fetched image included, or something else is wrong with it.
BACK_SECONDS: Final = 300.0


class Outcome(StrEnum):
    """What became of a step: done; put off because clients could not be held back; refused by Patroni."""

    DONE = "done"
    POSTPONED = "postponed"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class LastStep:
    """The disruption tried last: when, and the uid of the pod if one was deleted.

    While the cache still shows that pod as alive, or a restart may not show yet, nothing else is done.
    `postponements`: how often in a row a disruption of the Postgres primary was put off. `why`: what refused a step.
    `stopped`: the pod that a step took away or whose role it moved.
    """

    at: datetime | None = None
    deleted_uid: str | None = None
    outcome: Outcome = Outcome.DONE
    postponements: int = 0
    why: str = ""
    stopped: str | None = None

    @classmethod
    def done(cls, step: Disruption, now: datetime, deleted_uid: str | None) -> LastStep:
        """As it is after a step."""
        return cls(now, deleted_uid, stopped=_stopped_by(step))

    def has_moved(self, holder: str | None, now: datetime) -> bool:
        """Whether a role that its holder has just lost was lost by this step."""
        return holder is not None and holder == self.stopped and self.is_recent(now, SHOWN_SECONDS)

    def is_recent(self, now: datetime, seconds: float) -> bool:
        """Whether it was less than so many seconds ago."""
        return self.at is not None and (now - self.at).total_seconds() < seconds

    def postponed(self, now: datetime) -> LastStep:
        """As it is after a disruption of the primary was put off."""
        return LastStep(now, outcome=Outcome.POSTPONED, postponements=self.postponed_before(now) + 1)

    def refused(self, now: datetime, why: str) -> LastStep:
        """As it is after a step was refused, by Patroni or because a member that it rests on is not well."""
        return LastStep(now, outcome=Outcome.REFUSED, postponements=self.postponed_before(now), why=why)

    def postponed_before(self, now: datetime) -> int:
        """How often the disruption of the primary that is due was put off already."""
        return self.postponements if self.is_recent(now, FORGOTTEN_SECONDS) else 0

    def refusal(self, now: datetime) -> str:
        """Why the step that is due was refused, "" when it was not."""
        # What is still due is tried again before that.
        refused = self.outcome is Outcome.REFUSED and self.is_recent(now, 2 * REFUSED_SECONDS)
        return self.why if refused else ""


def _stopped_by(step: Disruption) -> str | None:
    match step:
        case SwitchPostgres():
            return step.primary
        case RestartPod() | ShrinkRedis():
            return step.pod
        case RestartPostgres() | ShrinkPostgres():
            return step.member
    return None


def _seen(snapshot: Snapshot, cluster: str, component: str) -> LiveObject | None:
    """The StatefulSet, once its controller has looked at what was written last.

    One that is going, as before it is made anew, would not bring a pod back.
    """
    live = snapshot.children.live("StatefulSet", names.child(cluster, component))
    return live if live is not None and not live.terminating and live.is_observed() else None


def _outdated(snapshot: Snapshot, cluster: str, component: str) -> tuple[Pod, ...] | None:
    """Pods made from an older template; None while the StatefulSet controller has not looked yet."""
    live = _seen(snapshot, cluster, component)
    if live is None:
        return None
    revision = live.status().get("updateRevision")
    return tuple(pod for pod in snapshot.pods_of(component) if pod.revision != revision)


def plan_rollout(
    cluster: RunnerHubCluster,
    snapshot: Snapshot,
    redis: RedisStatus,
    last: LastStep,
    renewals: Sequence[Manifest] = (),
    requested: Rollout | None = None,
    repair: Rollout | None = None,
) -> Rollout | None:
    """The deliberate disruption that is due, at most one in the whole cluster.

    `renewals` are the Deployments whose pod template is to change, in order. `requested` is the switchover that
    somebody asks for, `repair` that of a broken member of the database.
    """
    rollout = _due(cluster, snapshot, redis, last, renewals, requested, repair)
    if rollout is None or rollout.step is None:
        return rollout
    if any(pod.uid == last.deleted_uid and not pod.terminating for pod in snapshot.pods):
        return replace(rollout, step=None, waiting_for="the deleted pod to go")
    if last.is_recent(snapshot.now, SETTLE_SECONDS):
        return replace(rollout, step=None, waiting_for="the last step to show")
    if refusal := last.refusal(snapshot.now):
        # Also told while it is tried again, which then changes no status.
        rollout = replace(rollout, waiting_for=f"{rollout.waiting_for}: {refusal}")
        if last.is_recent(snapshot.now, REFUSED_SECONDS):
            return replace(rollout, step=None)
    if isinstance(rollout.step, (SwitchPostgres, RestartPostgres, RestartPod)) and rollout.step.pause:
        return _behind_pause(rollout, rollout.step, snapshot.now, last)
    return rollout


def _behind_pause(
    rollout: Rollout, step: SwitchPostgres | RestartPostgres | RestartPod, now: datetime, last: LastStep
) -> Rollout:
    """What disturbs the primary, at its time: not at once after a try that was put off, and not put off for ever."""
    if last.outcome is Outcome.POSTPONED and last.is_recent(now, POSTPONED_SECONDS):
        what = "switchover" if isinstance(step, SwitchPostgres) else "restart of the primary"
        tries = f"{last.postponements} of {MAX_POSTPONEMENTS} tries"
        return replace(
            rollout, step=None, waiting_for=f"transactions to end before the {what}, after {tries}"
        )
    return replace(rollout, step=replace(step, pause=last.postponed_before(now) < MAX_POSTPONEMENTS))


def _due(
    cluster: RunnerHubCluster,
    snapshot: Snapshot,
    redis: RedisStatus,
    last: LastStep,
    renewals: Sequence[Manifest],
    requested: Rollout | None,
    repair: Rollout | None,
) -> Rollout | None:
    stateful = [
        found
        for found in (_postgres(cluster, snapshot, requested), _redis(cluster, snapshot, redis))
        if found is not None
    ]
    mending = next((found for found in stateful if found.mends), None)
    if mending is not None:
        return mending
    moving, stuck = _deployments_under_way(cluster, snapshot)
    if any(_seen(snapshot, cluster.name, component) is None for component in (names.POSTGRES, names.REDIS)):
        # Whether its pods are due is not known yet, and they come first.
        renewals = ()
    superseded = {manifest["metadata"]["labels"][names.LABEL_COMPONENT] for manifest in renewals}
    # A template that is wrong is replaced without waiting for it.
    moving = [found for found in moving if found.component not in superseded]
    repairing = [repair] if repair is not None and repair.step is not None else []
    # One that cannot take place now, or is under way for long, holds nothing else up.
    waiting = [found for found in (repair, requested) if found is not None and found.step is None]
    waiting += [found for found in stateful if not found.holds_up]
    changing = [*moving, *(found for found in stateful if found.holds_up)]
    asked = [requested] if requested is not None and requested.step is not None else []
    if _hold_switchover_up(cluster, snapshot, changing, last):
        asked = []
    renewing = [_renew_deployment(item) for item in renewals]
    return next(iter([*repairing, *asked, *changing, *renewing, *stuck, *waiting]), None)


def _hold_switchover_up(
    cluster: RunnerHubCluster, snapshot: Snapshot, changing: Sequence[Rollout], last: LastStep
) -> bool:
    """Whether a switchover that is asked for waits for what is changed now, the first of which goes on."""
    if any(found.component == names.POSTGRES for found in changing) and _comes_back(cluster, snapshot, last):
        return True
    first = changing[0] if changing else None
    if first is not None and first.component == names.POSTGRES:
        # At its end it takes the request along.
        return first.step is not None
    # The transactions that they wait for would be cut off.
    return (
        first is not None
        and first.component == names.POOLER
        and any(
            pod.terminating and not pod.is_overdue(snapshot.now) for pod in snapshot.pods_of(names.POOLER)
        )
    )


def _comes_back(cluster: RunnerHubCluster, snapshot: Snapshot, last: LastStep) -> bool:
    """Whether a member of the database is away for the last step; one that is for another reason may be for ever."""
    members = names.members(cluster.name, names.POSTGRES, cluster.spec.postgres.instances)
    if last.stopped not in members or not last.is_recent(snapshot.now, BACK_SECONDS):
        return False
    return not shrink.is_healthy(cluster, snapshot, last.stopped)


def _renew_deployment(manifest: Manifest) -> Rollout:
    component = manifest["metadata"]["labels"][names.LABEL_COMPONENT]
    return Rollout(component, RenewDeployment(manifest, "new pod template"), "the first new pod")


def _deployments_under_way(
    cluster: RunnerHubCluster, snapshot: Snapshot
) -> tuple[list[Rollout], list[Rollout]]:
    """Deployments on their way to a new template: those that get on, and those whose new pods cannot start."""
    moving: list[Rollout] = []
    stuck: list[Rollout] = []
    for component in (names.POOLER, names.ORCHESTRATOR, names.LOAD_BALANCER):
        live = snapshot.children.live("Deployment", names.child(cluster.name, component))
        if live is None:
            continue
        if not has_old_pods(live):
            continue
        status = live.status()
        updated, total = status.get("updatedReplicas", 0), status.get("replicas", 0)
        found = Rollout(component, None, f"its new pods: {updated} of {total} are there")
        (stuck if _is_stuck(component, status, snapshot) else moving).append(found)
    return moving, stuck


def has_old_pods(live: LiveObject) -> bool:
    """Whether a Deployment has, or may have, pods of an older template; one that is missing is no change under way."""
    status = live.status()
    return status.get("updatedReplicas", 0) < status.get("replicas", 0) or not live.is_observed()


def _is_stuck(component: str, status: Mapping[str, Any], snapshot: Snapshot) -> bool:
    late = any(item.get("reason") == "ProgressDeadlineExceeded" for item in status.get("conditions", ()))
    return late or any(
        pod.cannot_start or (not pod.ready and pod.waiting_reason == "CrashLoopBackOff")
        for pod in snapshot.pods_of(component)
    )


def _renew(component: str, pod: Pod, *, mends: bool = False) -> Rollout:
    if pod.terminating:
        return Rollout(component, None, f"{pod.name} to terminate")
    return Rollout(component, RestartPod(pod.name, pod.uid, "new pod template"), pod.name, mends)


def _mendable(outdated: tuple[Pod, ...], unsettled: list[str], holder: str | None) -> Pod | None:
    """A broken pod that the new template may mend and whose renewal takes nothing away."""
    stuck = next((pod for pod in outdated if pod.cannot_start), None)
    if stuck is not None:
        return stuck
    broken = [pod for pod in outdated if pod.name in unsettled and pod.name != holder]
    return broken[0] if broken and unsettled == [broken[0].name] else None


def _postgres(cluster: RunnerHubCluster, snapshot: Snapshot, requested: Rollout | None) -> Rollout | None:
    found = _outdated(snapshot, cluster.name, names.POSTGRES)
    if found is None:
        return None
    patroni = snapshot.patroni
    leader = patroni.leader if patroni is not None else None
    expected = names.members(cluster.name, names.POSTGRES, cluster.spec.postgres.instances)
    # Those that are to go are not renewed first.
    outdated = tuple(pod for pod in found if pod.name in expected)
    members = [member for member in patroni.members if member.name in expected] if patroni is not None else []
    pending = [member for member in members if member.pending_restart]
    due = {pod.name for pod in outdated} | {member.name for member in pending}
    unsettled = [name for name in expected if not shrink.is_healthy(cluster, snapshot, name)]
    mendable = _mendable(outdated, unsettled, leader)
    if mendable is not None:
        renewal = _renew(names.POSTGRES, mendable, mends=True)
        # One that has never run takes nothing away from anybody.
        return renewal if mendable.cannot_start else _resting_on(renewal, _others(expected, mendable.name))
    fewer = shrink.look(cluster, snapshot)
    if (fewer is not None or due) and patroni is not None and patroni.paused:
        # It starts no server meanwhile, so a member would not come back.
        return Rollout(names.POSTGRES, None, "Patroni to be resumed (patronictl resume)", holds_up=False)
    if due and patroni is not None and patroni.refused_parameters:
        refused = ", ".join(patroni.refused_parameters)
        waiting_for = f"parameters that Postgres starts with: it refuses {refused}"
        return Rollout(names.POSTGRES, None, waiting_for, holds_up=False)
    if fewer is not None or not due:
        return fewer
    if patroni is None:
        return Rollout(names.POSTGRES, None, "Patroni to answer")
    if unsettled or leader is None:
        return Rollout(names.POSTGRES, None, f"{', '.join(unsettled) or 'a primary'} to become healthy")
    if crowded := fullest(members, FULL_PERCENT):
        return Rollout(names.POSTGRES, None, f"room on the volume of {', '.join(crowded)}", holds_up=False)
    if any(member.name == leader and member.restart_primary_first for member in pending):
        return _restart(leader, expected, pause=True)
    replicas = sorted(due - {leader}, reverse=True)
    if not replicas and len(members) > 1:
        asked = requested.step if requested is not None else None
        if isinstance(asked, SwitchPostgres):
            step = SwitchPostgres(leader, "rolling change", asked.candidate)
        else:
            nearest, *others = shrink.by_nearness(patroni, _others(expected, leader))
            step = SwitchPostgres(leader, "rolling change", nearest, tuple(others))
        return Rollout(names.POSTGRES, step, "another primary")
    name = replicas[0] if replicas else leader
    pod = next((pod for pod in outdated if pod.name == name), None)
    if pod is None:
        return _restart(name, expected, pause=name == leader)
    renewal = _resting_on(_renew(names.POSTGRES, pod), _others(expected, name))
    if name == leader and isinstance(renewal.step, RestartPod):
        # Nobody can take over.
        return replace(renewal, step=replace(renewal.step, pause=True))
    return renewal


def _restart(member: str, expected: Sequence[str], *, pause: bool) -> Rollout:
    step = RestartPostgres(member, "changed parameters", pause)
    return Rollout(names.POSTGRES, step, member, rests_on=_others(expected, member))


def _resting_on(rollout: Rollout, members: tuple[str, ...]) -> Rollout:
    return replace(rollout, rests_on=members) if rollout.step is not None else rollout


def _others(expected: Sequence[str], name: str) -> tuple[str, ...]:
    return tuple(other for other in expected if other != name)


def _redis(cluster: RunnerHubCluster, snapshot: Snapshot, redis: RedisStatus) -> Rollout | None:
    found = _outdated(snapshot, cluster.name, names.REDIS)
    if found is None:
        return None
    master = redis.master
    replicas = {replica.name: replica for replica in redis.replicas}
    staying = min(cluster.spec.redis.replicas, resize_redis.replicas(cluster, snapshot))
    expected = names.members(cluster.name, names.REDIS, staying)
    # Those that are to go are not renewed first.
    outdated = tuple(pod for pod in found if pod.name in expected)
    unsettled = []
    for name in expected:
        pod = snapshot.pod(name)
        linked = name == master or (name in replicas and replicas[name].link == "ok")
        if pod is None or not pod.ready or pod.terminating or not linked:
            unsettled.append(name)
    mendable = _mendable(outdated, unsettled, master)
    if mendable is not None:
        return _renew(names.REDIS, mendable, mends=True)
    resizing = resize_redis.look(cluster, snapshot, redis, unsettled, renewing=bool(outdated))
    if resizing is not None or not outdated:
        return resizing
    if unsettled or master is None:
        return Rollout(names.REDIS, None, f"{', '.join(unsettled) or 'a master'} to become healthy")
    # Nobody stops beside one whose copy of the data is in memory only; that one itself may.
    copies = {pod.pod for pod in snapshot.redis_pods if pod.pod in expected and not pod.on_disk}
    outdated = tuple(pod for pod in outdated if copies <= {pod.name})
    if not outdated:
        waiting_for = f"the data of {', '.join(sorted(copies))} to be on the volume"
        return Rollout(names.REDIS, None, waiting_for, holds_up=False)
    # Sentinels that do nothing take no role over from a master that stops.
    if not can_fail_over(snapshot.sentinels, resize_redis.replicas(cluster, snapshot)):
        return Rollout(names.REDIS, None, "a majority of Sentinels that can take part in a failover")
    if crowded := fullest(redis.instances, FULL_PERCENT):
        return Rollout(names.REDIS, None, f"room on the volume of {', '.join(crowded)}", holds_up=False)
    # The master last, so that its role moves once, to a pod that has been renewed already.
    return _renew(names.REDIS, min(outdated, key=lambda pod: (pod.name == master, pod.name)))
