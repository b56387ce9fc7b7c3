"""The status sections from what was observed."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from .. import names
from ..api import (
    Endpoints,
    OrchestratorStatus,
    PostgresInstanceStatus,
    PostgresStatus,
    QueueStatus,
    RedisInstanceStatus,
    RedisReplicaStatus,
    RedisStatus,
    RunnerHubCluster,
)
from ..probes.patroni import PatroniCluster, PatroniMember
from ..probes.redis_pod import ReplicaLag
from ..probes.sentinel import agreed_master
from ..resources.loadbalancer import inside_url
from ..resources.patroni import MAX_REPLICA_LAG_BYTES
from ..snapshot import Snapshot
from . import fullness, resize_redis
from .conditions import stamp
from .failovers import Silence

# Less is the ordinary ebb and flow, and would change the status at every visit.
LAG_STEP_BYTES = 1024 * 1024
MEMORY_STEP_PERCENT = 5
MEMORY_EBB_PERCENT = 2
# A replica confirms once a second, and on a busy node a moment late.
SILENCE_STEP_SECONDS = 5
# The jobs are counted anew no sooner than this.
QUEUE_SECONDS = 30.0
_NO_SILENCE = Silence()


def postgres_status(
    cluster: RunnerHubCluster, snapshot: Snapshot, silence: Silence = _NO_SILENCE
) -> PostgresStatus:
    """The database; without an answer from Patroni, the last known members but no primary.

    `silence`: of the primary's own Patroni.
    """
    patroni, pool_size = snapshot.patroni, cluster.spec.postgres.pool_size
    if patroni is None:
        return cluster.status.postgres.model_copy(update={"primary": None, "pool_size": pool_size})
    leader = next((member for member in patroni.members if member.name == patroni.leader), None)
    # Until it runs out, Patroni's key names a primary that is gone or, under the same name, starts anew.
    pod = snapshot.pod(leader.name) if leader is not None else None
    alive = (
        leader is not None
        and leader.state == "running"
        and pod is not None
        # Its kubelet may be dead and it alive.
        and (pod.ready or pod.terminating or pod.name in snapshot.alive)
        and not (silence.is_long(snapshot.now) and _nobody_follows(patroni))
    )
    before = {member.name: member.volume_used_percent for member in cluster.status.postgres.instances}
    return PostgresStatus(
        primary=patroni.leader if alive else None,
        timeline=patroni.timeline if patroni.timeline is not None else cluster.status.postgres.timeline,
        version=patroni.version or cluster.status.postgres.version,
        pool_size=pool_size,
        instances=tuple(
            PostgresInstanceStatus(
                name=member.name,
                role=member.role,
                state=member.state,
                timeline=member.timeline,
                lag_bytes=_coarse(member.lag_bytes),
                lag_seconds=_lag_seconds(member),
                volume_used_percent=fullness.calm(before.get(member.name), member.volume_used_percent),
            )
            for member in sorted(patroni.members, key=lambda member: member.name)
        ),
    )


def _nobody_follows(patroni: PatroniCluster) -> bool:
    """Whether there are replicas and none is connected to the primary, which would be so for ten seconds after its end.

    As long as one is, it may be only the operator that does not reach the primary.
    """
    replicas = [member for member in patroni.members if member.name != patroni.leader]
    return bool(replicas) and not any(patroni.in_step(member.name) for member in replicas)


def _coarse(lag_bytes: int | None) -> int | None:
    """In steps of one WAL segment: less is the ordinary ebb and flow, and would change the status at every visit."""
    return None if lag_bytes is None else lag_bytes - lag_bytes % MAX_REPLICA_LAG_BYTES


def _lag_seconds(member: PatroniMember) -> int | None:
    """Seconds for a replica that lags by a segment or more; less is told as 0, as the bytes are."""
    if member.lag_bytes is None or member.lag_bytes < MAX_REPLICA_LAG_BYTES:
        return _coarse(member.lag_bytes)
    return member.lag_seconds


def redis_status(cluster: RunnerHubCluster, snapshot: Snapshot) -> RedisStatus:
    """The queue; without an agreement of the Sentinels there is no master."""
    before = cluster.status.redis
    agreed = agreed_master(snapshot.sentinels, resize_redis.counted(cluster, snapshot))
    if agreed is None or not agreed.majority:
        return before.model_copy(update={"master": None, "sentinels": agreed.votes if agreed else 0})
    views = [view for view in snapshot.sentinels if view.master_ip == agreed.ip]
    taken_for_dead = sum(view.master_down for view in views) * 2 > len(views)
    master = None if taken_for_dead else snapshot.redis_member(agreed.ip)
    view = max(views, key=lambda view: (view.epoch, len(view.replicas)))
    told = next((pod for pod in snapshot.redis_pods if pod.pod == master), None)
    known = {replica.name: replica for replica in before.replicas} if master == before.master else {}
    replicas = []
    for replica in view.replicas:
        name = snapshot.redis_member(replica.ip)
        if name is not None and replica.ip != agreed.ip:
            linked = replica.link_ok and not replica.down
            link = "ok" if linked else "err"
            if told is None and name in known:
                replicas.append(known[name].model_copy(update={"link": link}))
            else:
                replicas.append(_replica(name, link, told.lags.get(replica.ip) if told else None))
    return RedisStatus(
        master=master,
        epoch=agreed.epoch,
        sentinels=agreed.votes,
        bootstrapped=before.bootstrapped or (master is not None and any(r.link == "ok" for r in replicas)),
        replicas=tuple(sorted(replicas, key=lambda replica: replica.name)),
        instances=_redis_instances(cluster, snapshot),
        memory_used_percent=_memory(snapshot, master, before),
        deaf_queues=before.deaf_queues,
        queue=_queue(snapshot, master, before.queue),
    )


def _replica(name: str, link: str, lag: ReplicaLag | None) -> RedisReplicaStatus:
    if lag is None:
        return RedisReplicaStatus(name=name, link=link)
    return RedisReplicaStatus(
        name=name,
        link=link,
        lag_bytes=lag.lag_bytes - lag.lag_bytes % LAG_STEP_BYTES,
        silent_seconds=lag.silent_seconds - lag.silent_seconds % SILENCE_STEP_SECONDS or None,
    )


def _redis_instances(cluster: RunnerHubCluster, snapshot: Snapshot) -> tuple[RedisInstanceStatus, ...]:
    """The pods by their own word; one that does not answer is told as it was."""
    told = {pod.pod: pod for pod in snapshot.redis_pods}
    before = {pod.name: pod for pod in cluster.status.redis.instances}
    found = []
    for pod in snapshot.pods_of(names.REDIS):
        state, last = told.get(pod.name), before.get(pod.name, RedisInstanceStatus(name=pod.name))
        if state is not None:
            used = fullness.calm(last.volume_used_percent, state.volume_used_percent)
            found.append(
                RedisInstanceStatus(name=pod.name, volume_used_percent=used, snapshots=state.snapshots)
            )
        else:
            found.append(last)
    return tuple(found)


def _queue(snapshot: Snapshot, master: str | None, before: QueueStatus | None) -> QueueStatus | None:
    """The jobs by the master's word; a busy queue changes all the time, and the status does not."""
    depth = next((pod.depth for pod in snapshot.redis_pods if pod.pod == master), None)
    if depth is None:
        return before
    now = stamp(snapshot.now)
    told = QueueStatus(
        waiting=depth.waiting, active=depth.active, delayed=depth.delayed, failed=depth.failed, at=now
    )
    if before is not None:
        age = (snapshot.now - datetime.fromisoformat(before.at)).total_seconds()
        if age < QUEUE_SECONDS or before == told.model_copy(update={"at": before.at}):
            return before
    return told


def _memory(snapshot: Snapshot, master: str | None, before: RedisStatus) -> int | None:
    """The master's, in steps; as it was while it does not answer."""
    state = next((pod for pod in snapshot.redis_pods if pod.pod == master), None)
    if state is None:
        return before.memory_used_percent
    percent, last = state.memory_used_percent, before.memory_used_percent
    if percent is None:
        return None
    # What comes and goes with clients must not carry it to and fro over a step.
    if last is not None and last - MEMORY_EBB_PERCENT <= percent < last:
        return last
    return percent - percent % MEMORY_STEP_PERCENT


def orchestrator_status(cluster: RunnerHubCluster, snapshot: Snapshot) -> OrchestratorStatus:
    """The orchestrators; the leader is the pod that its agent labelled."""
    pods = snapshot.pods_of(names.ORCHESTRATOR)
    leaders = [pod for pod in pods if pod.leads and not pod.terminating and pod.ip]
    leader = leaders[0].name if len(leaders) == 1 else None
    before = cluster.status.orchestrator
    if leader is None and any(pod.name == before.leader for pod in leaders):
        leader = before.leader  # two labels for the moment of a takeover
    since = before.since if leader == before.leader else stamp(snapshot.now)
    labels = names.selector_labels(cluster.name, names.ORCHESTRATOR)
    return OrchestratorStatus(
        leader=leader,
        since=since if leader is not None else None,
        ready=sum(pod.ready for pod in pods),
        replicas=sum(not pod.terminating for pod in pods),
        selector=",".join(f"{name}={value}" for name, value in labels.items()),
    )


def endpoints(cluster: RunnerHubCluster, outside: Sequence[str] | None) -> Endpoints:
    """Addresses inside Kubernetes, and those of the load balancer's Service from `outside` if there are any."""
    domain = f"{cluster.namespace}.svc"
    database = f"{names.child(cluster.name, names.POSTGRES)}.{domain}"
    return Endpoints(
        api=inside_url(cluster, f"{names.load_balancer_service(cluster.name)}.{domain}"),
        database=f"{database}:{names.PORT_POSTGRES}",
        database_read_only=f"{database}:{names.PORT_POSTGRES_READ_ONLY}",
        sentinels=",".join(
            f"{pod}.{domain}:{names.PORT_SENTINEL}"
            for pod in names.members(cluster.name, names.REDIS, cluster.spec.redis.replicas)
        ),
        queue=f"{names.redis_master_service(cluster.name)}.{domain}:{names.PORT_REDIS}",
        external=", ".join(outside or ()) or None,
    )
