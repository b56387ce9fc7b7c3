"""Rolling changes of the stateful components: replicas first, hand over, old primary last, one step at a time."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from .. import names
from ..actions import RestartPod, RestartPostgres, Rollout, SwitchPostgres
from ..api import RedisStatus, RunnerHubCluster
from ..snapshot import Pod, Snapshot

# Patroni tells the end of a restart at its next loop, two seconds later.
SETTLE_SECONDS: Final = 4.0


@dataclass(frozen=True, slots=True)
class LastStep:
    """The disruption carried out last: when, and the uid of the pod if one was deleted.

    While the cache still shows that pod as alive, or a restart may not show yet, nothing else is done.
    """

    at: datetime | None = None
    deleted_uid: str | None = None


def _outdated(snapshot: Snapshot, cluster: str, component: str) -> tuple[Pod, ...] | None:
    """Pods made from an older template; None while the StatefulSet controller has not looked yet."""
    stateful_set = snapshot.child("StatefulSet", names.child(cluster, component))
    if stateful_set is None:
        return None
    status = stateful_set.get("status", {})
    if status.get("observedGeneration") != stateful_set["metadata"].get("generation"):
        return None
    revision = status.get("updateRevision")
    return tuple(pod for pod in snapshot.pods_of(component) if pod.revision != revision)


def plan_rollout(
    cluster: RunnerHubCluster, snapshot: Snapshot, redis: RedisStatus, last: LastStep
) -> Rollout | None:
    """The deliberate disruption that is due, at most one in the whole cluster."""
    rollout = _postgres(cluster, snapshot) or _redis(cluster, snapshot, redis)
    if rollout is None or rollout.step is None:
        return rollout
    if any(pod.uid == last.deleted_uid and not pod.terminating for pod in snapshot.pods):
        return Rollout(rollout.component, None, "the deleted pod to go")
    if last.at is not None and (snapshot.now - last.at).total_seconds() < SETTLE_SECONDS:
        return Rollout(rollout.component, None, "the last step to show")
    return rollout


def _renew(component: str, pod: Pod) -> Rollout:
    if pod.terminating:
        return Rollout(component, None, f"{pod.name} to terminate")
    return Rollout(component, RestartPod(pod.name, pod.uid, "new pod template"), pod.name)


def _mendable(outdated: tuple[Pod, ...], unsettled: list[str], holder: str | None) -> Pod | None:
    """A broken pod that the new template may mend and whose renewal takes nothing away."""
    stuck = next((pod for pod in outdated if pod.cannot_start), None)
    if stuck is not None:
        return stuck
    broken = [pod for pod in outdated if pod.name in unsettled and pod.name != holder]
    return broken[0] if broken and unsettled == [broken[0].name] else None


def _postgres(cluster: RunnerHubCluster, snapshot: Snapshot) -> Rollout | None:
    outdated = _outdated(snapshot, cluster.name, names.POSTGRES)
    if outdated is None:
        return None
    patroni = snapshot.patroni
    members = patroni.members if patroni is not None else ()
    leader = patroni.leader if patroni is not None else None
    pending = [member for member in members if member.pending_restart]
    due = {pod.name for pod in outdated} | {member.name for member in pending}
    if not due:
        return None
    expected = (names.member(cluster.name, names.POSTGRES, i) for i in range(cluster.spec.postgres.instances))
    unsettled = [name for name in expected if not _postgres_member_healthy(snapshot, name)]
    mendable = _mendable(outdated, unsettled, leader)
    if mendable is not None:
        return _renew(names.POSTGRES, mendable)
    if patroni is None:
        return Rollout(names.POSTGRES, None, "Patroni to answer")
    if unsettled or leader is None:
        return Rollout(names.POSTGRES, None, f"{', '.join(unsettled) or 'a primary'} to become healthy")
    by_name = {pod.name: pod for pod in outdated}
    if any(member.name == leader and member.restart_primary_first for member in pending):
        return Rollout(names.POSTGRES, RestartPostgres(leader, "changed parameters"), leader)
    replicas = sorted(due - {leader}, reverse=True)
    if not replicas and len(members) > 1:
        return Rollout(names.POSTGRES, SwitchPostgres(leader, "rolling change"), "another primary")
    name = replicas[0] if replicas else leader
    if name in by_name:
        return _renew(names.POSTGRES, by_name[name])
    return Rollout(names.POSTGRES, RestartPostgres(name, "changed parameters"), name)


def _postgres_member_healthy(snapshot: Snapshot, name: str) -> bool:
    pod = snapshot.pod(name)
    if pod is None or not pod.ready or pod.terminating or snapshot.patroni is None:
        return False
    return snapshot.patroni.in_step(name)


def _redis(cluster: RunnerHubCluster, snapshot: Snapshot, redis: RedisStatus) -> Rollout | None:
    outdated = _outdated(snapshot, cluster.name, names.REDIS)
    if not outdated:
        return None
    master = redis.master
    replicas = {replica.name: replica for replica in redis.replicas}
    expected = [names.member(cluster.name, names.REDIS, i) for i in range(cluster.spec.redis.replicas)]
    unsettled = []
    for name in expected:
        pod = snapshot.pod(name)
        linked = name == master or (name in replicas and replicas[name].link == "ok")
        if pod is None or not pod.ready or pod.terminating or not linked:
            unsettled.append(name)
    mendable = _mendable(outdated, unsettled, master)
    if mendable is not None:
        return _renew(names.REDIS, mendable)
    if unsettled or master is None:
        return Rollout(names.REDIS, None, f"{', '.join(unsettled) or 'a master'} to become healthy")
    # The master last, so that its role moves once, to a pod that has been renewed already.
    return _renew(names.REDIS, min(outdated, key=lambda pod: (pod.name == master, pod.name)))
