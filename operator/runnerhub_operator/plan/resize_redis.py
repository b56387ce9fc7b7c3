"""More or fewer Redis pods: one at a time, and those that are there can always elect a master, and never two.

More: the pods that count make the majorities, of replicas that a master needs to take writes and of Sentinels that find
it dead. A new pod counts once it follows the master, and the next one comes when all work with that. One that cannot
run takes nothing away. Sentinels elect by the majority of all that they know, so that a new one has a vote at once;
with one more than count, a master that is cut off with as many replicas as it needs still leaves the others too few.

Fewer: the highest first. A Sentinel counts those that have gone among the voters until it forgets them, which it does
when its pod is renewed for the new number. With four of seven gone at once the three that stay need four votes. A
master that is to go hands its role over before it stops, and whatever replicas have confirmed reaches those that stay
in between.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace

from .. import names
from ..actions import GrowRedis, Rollout, ShrinkRedis
from ..api import MIN_REDIS_REPLICAS, RedisStatus, RunnerHubCluster
from ..probes.sentinel import can_fail_over
from ..resources.redis import MAJORITY_OF
from ..snapshot import Snapshot
from . import settings_in_use, shrink


def replicas(cluster: RunnerHubCluster, snapshot: Snapshot) -> int:
    """How many pods there are to be now: as many as there are, or have counted; as the spec says at the beginning."""
    least = wanted = cluster.spec.redis.replicas
    if (before := _counted_before(cluster, snapshot)) is not None:
        least = min(wanted, before)
    elif snapshot.child("StatefulSet", names.child(cluster.name, names.REDIS)) is not None:
        least = MIN_REDIS_REPLICAS
    return shrink.pod_count(cluster, snapshot, names.REDIS, least)


def counted(cluster: RunnerHubCluster, snapshot: Snapshot, redis: RedisStatus | None = None) -> int:
    """Of how many pods the majorities are; with a reading of the queue, of how many they can be.

    It never falls because pods are away: the one that is away may be the master.
    """
    now, before = replicas(cluster, snapshot), _counted_before(cluster, snapshot)
    if before is None:
        return now
    following = 0
    if redis is not None and redis.master is not None:
        members = names.members(cluster.name, names.REDIS, now)
        following = sum(replica.link == "ok" and replica.name in members for replica in redis.replicas)
    return min(now, max(before, 1 + following))


def of_now(cluster: RunnerHubCluster, snapshot: Snapshot) -> RunnerHubCluster:
    """The cluster with all Redis pods that there are to be, those that have yet to go among them."""
    now = replicas(cluster, snapshot)
    if now <= cluster.spec.redis.replicas:
        return cluster
    redis = cluster.spec.redis.model_copy(update={"replicas": now})
    return replace(cluster, spec=cluster.spec.model_copy(update={"redis": redis}))


def look(
    cluster: RunnerHubCluster,
    snapshot: Snapshot,
    redis: RedisStatus,
    unsettled: Sequence[str],
    *,
    renewing: bool,
) -> Rollout | None:
    """The next step towards as many pods as the spec says; None when there are, or others are renewed before.

    `unsettled`: pods that stay and are not well. `renewing`: pods that stay are to be renewed, and forget then.
    """
    wanted, now = cluster.spec.redis.replicas, replicas(cluster, snapshot)
    if (going := shrink.still_going(cluster, snapshot, names.REDIS, now)) is not None:
        return going
    if now <= wanted:
        return _more(cluster, snapshot, redis, unsettled, now)
    last = names.member(cluster.name, names.REDIS, now - 1)
    step = Rollout(names.REDIS, ShrinkRedis(last, now - 1), f"{last} to go")
    pod = snapshot.pod(last)
    if pod is not None and pod.cannot_start:
        return step
    can_go = not unsettled and redis.master is not None and can_fail_over(snapshot.sentinels, now)
    if can_go and _can_spare(cluster, snapshot, wanted, now):
        return step
    if renewing:
        # That waits for the same, and holds up what else is to be renewed meanwhile.
        return None
    if unsettled or redis.master is None:
        obstacle = f"{', '.join(unsettled) or 'a master'} to become healthy"
    elif not can_go:
        obstacle = "a majority of Sentinels that can take part in a failover"
    else:
        obstacle = "the Sentinels to forget those that have gone"
    return Rollout(names.REDIS, None, f"{obstacle}, before {last} can go", holds_up=False)


def _can_spare(cluster: RunnerHubCluster, snapshot: Snapshot, wanted: int, now: int) -> bool:
    """Whether without the highest pod the others still are a majority of those that their Sentinels count.

    One more than that, so that another may fail; which cannot be had where three are left, whatever they count.
    """
    staying = names.members(cluster.name, names.REDIS, wanted)
    known = max(
        (view.sentinels_count for view in snapshot.sentinels if view.sentinel in staying), default=now
    )
    left, majority = now - 1, max(known, now) // 2 + 1
    return left > majority or left == majority == MIN_REDIS_REPLICAS


def _more(
    cluster: RunnerHubCluster, snapshot: Snapshot, redis: RedisStatus, unsettled: Sequence[str], now: int
) -> Rollout | None:
    """The next pod, when all that there are follow the master, count, and know it."""
    count = counted(cluster, snapshot)
    if now == cluster.spec.redis.replicas:
        new = [name for name in unsettled if name in names.members(cluster.name, names.REDIS, now)[count:]]
        if not new or new != list(unsettled):
            return None
        return Rollout(names.REDIS, None, f"{', '.join(new)} to become healthy", holds_up=False)
    following = names.member(cluster.name, names.REDIS, now)
    if unsettled or redis.master is None:
        obstacle = f"{', '.join(unsettled) or 'a master'} to become healthy"
    elif count < now:
        obstacle = f"the majority to be of {now} pods"
    elif late := _with_other_settings(cluster, snapshot, now):
        obstacle = f"new settings to take effect in {', '.join(late)}"
    elif not _are_acquainted(cluster, snapshot, now):
        obstacle = "the Sentinels to know each other"
    else:
        return Rollout(names.REDIS, GrowRedis(following, now + 1), f"{following} to come")
    # As a pod that nothing has room for.
    counting = names.members(cluster.name, names.REDIS, count)
    holds_up = redis.master is None or any(name in counting for name in unsettled)
    return Rollout(names.REDIS, None, f"{obstacle}, before {following} can come", holds_up=holds_up)


def _with_other_settings(cluster: RunnerHubCluster, snapshot: Snapshot, now: int) -> list[str]:
    """Pods that do not tell that they work with the settings of now."""
    wanted = settings_in_use.wanted(cluster, snapshot)
    told = {pod.pod: pod.configuration for pod in snapshot.redis_pods}
    # An older image does not tell.
    return sorted(
        name for name in names.members(cluster.name, names.REDIS, now) if told.get(name) not in ("", wanted)
    )


def _are_acquainted(cluster: RunnerHubCluster, snapshot: Snapshot, now: int) -> bool:
    """Whether all Sentinels answer, can take part in a failover, and know all others."""
    members = names.members(cluster.name, names.REDIS, now)
    views = [view for view in snapshot.sentinels if view.sentinel in members]
    return len(views) == now and all(view.sentinels_count >= now and not view.tilt for view in views)


def _counted_before(cluster: RunnerHubCluster, snapshot: Snapshot) -> int | None:
    """Of how many pods the majorities are by the settings that the pods read; None where none are told."""
    live = snapshot.child("ConfigMap", names.child(cluster.name, names.REDIS)) or {}
    try:
        settings = json.loads(live["data"]["settings.json"])
        # Earlier operators told the quorum alone.
        return max(MIN_REDIS_REPLICAS, int(settings.get(MAJORITY_OF) or 2 * settings["quorum"] - 1))
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
