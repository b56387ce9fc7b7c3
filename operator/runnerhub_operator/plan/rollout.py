"""Rolling changes of the stateful components: replicas first, hand over, old primary last, one step at a time."""

from __future__ import annotations

from .. import names
from ..actions import RestartPod, RestartPostgres, Rollout, SwitchPostgres
from ..api import RedisStatus, RunnerHubCluster
from ..snapshot import Pod, Snapshot


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
    cluster: RunnerHubCluster, snapshot: Snapshot, redis: RedisStatus, last_deleted_uid: str | None
) -> Rollout | None:
    """The deliberate disruption that is due, at most one in the whole cluster.

    `last_deleted_uid`: the pod deleted last; while the cache still shows it as alive nothing else is done.
    """
    rollout = _postgres(cluster, snapshot) or _redis(cluster, snapshot, redis)
    if rollout is None or rollout.step is None:
        return rollout
    if any(pod.uid == last_deleted_uid and not pod.terminating for pod in snapshot.pods):
        return Rollout(rollout.component, None, "the deleted pod to go")
    return rollout


def _postgres(cluster: RunnerHubCluster, snapshot: Snapshot) -> Rollout | None:
    outdated = _outdated(snapshot, cluster.name, names.POSTGRES)
    if outdated is None or snapshot.patroni is None:
        return None
    patroni = snapshot.patroni
    pending_restart = {member.name for member in patroni.members if member.pending_restart}
    due = {pod.name for pod in outdated} | pending_restart
    if not due:
        return None
    unsettled = [
        name
        for name in (
            names.member(cluster.name, names.POSTGRES, i) for i in range(cluster.spec.postgres.instances)
        )
        if not _postgres_member_healthy(snapshot, name)
    ]
    broken_and_outdated = [pod for pod in outdated if pod.name in unsettled and pod.name != patroni.leader]
    if unsettled and broken_and_outdated and unsettled == [broken_and_outdated[0].name]:
        # The only broken member is one that the new template may mend (an image that cannot be pulled).
        pod = broken_and_outdated[0]
        if pod.terminating:
            return Rollout(names.POSTGRES, None, f"{pod.name} to terminate")
        return Rollout(names.POSTGRES, RestartPod(pod.name, pod.uid, "new pod template"), pod.name)
    if unsettled or patroni.leader is None:
        return Rollout(names.POSTGRES, None, f"{', '.join(unsettled) or 'a primary'} to become healthy")
    by_name = {pod.name: pod for pod in outdated}
    for name in sorted(due, reverse=True):
        if name != patroni.leader:
            if name in by_name:
                return Rollout(names.POSTGRES, RestartPod(name, by_name[name].uid, "new pod template"), name)
            return Rollout(names.POSTGRES, RestartPostgres(name, "changed parameters"), name)
    if len(patroni.members) > 1:
        return Rollout(names.POSTGRES, SwitchPostgres(patroni.leader, "rolling change"), "another primary")
    if patroni.leader in by_name:
        pod = by_name[patroni.leader]
        return Rollout(names.POSTGRES, RestartPod(pod.name, pod.uid, "new pod template"), pod.name)
    return Rollout(names.POSTGRES, RestartPostgres(patroni.leader, "changed parameters"), patroni.leader)


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
    broken = [pod for pod in outdated if pod.name in unsettled and pod.name != master]
    if broken and unsettled == [broken[0].name] and not broken[0].terminating:
        return Rollout(
            names.REDIS, RestartPod(broken[0].name, broken[0].uid, "new pod template"), broken[0].name
        )
    if unsettled or master is None:
        return Rollout(names.REDIS, None, f"{', '.join(unsettled) or 'a master'} to become healthy")
    # The master last, so that its role moves once, to a pod that has been renewed already.
    pod = min(outdated, key=lambda pod: (pod.name == master, pod.name))
    return Rollout(names.REDIS, RestartPod(pod.name, pod.uid, "new pod template"), pod.name)
