"""Fewer Redis pods: one at a time, the highest first, and never so many that those that stay could elect no master.

A Sentinel counts those that have gone among the voters until it forgets them, which it does when its pod is renewed for
the new number. With four of seven gone at once the three that stay need four votes. A master that is to go hands its
role over before it stops, and whatever replicas have confirmed reaches those that stay in between.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from .. import names
from ..actions import Rollout, ShrinkRedis
from ..api import RedisStatus, RunnerHubCluster
from ..probes.sentinel import can_fail_over
from ..snapshot import Snapshot
from . import shrink

# What the API allows.
FEWEST: Final = 3


def replicas(cluster: RunnerHubCluster, snapshot: Snapshot) -> int:
    """How many pods there are to be now: as the spec says, or as many as there are while some have yet to go."""
    return shrink.there(cluster, snapshot, names.REDIS, cluster.spec.redis.replicas)


def of_now(cluster: RunnerHubCluster, snapshot: Snapshot) -> RunnerHubCluster:
    """The cluster with as many Redis pods as there are to be now, an even number too: majorities are of that."""
    now = replicas(cluster, snapshot)
    if now == cluster.spec.redis.replicas:
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
    """The next step towards as few pods as the spec says; None when there are no more, or others are renewed before.

    `unsettled`: pods that stay and are not well. `renewing`: pods that stay are to be renewed, and forget then.
    """
    wanted, now = cluster.spec.redis.replicas, replicas(cluster, snapshot)
    if (going := shrink.still_going(cluster, snapshot, names.REDIS, now)) is not None:
        return going
    if now <= wanted:
        return None
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
    staying = {names.member(cluster.name, names.REDIS, ordinal) for ordinal in range(wanted)}
    counted = max(
        (view.sentinels_count for view in snapshot.sentinels if view.sentinel in staying), default=now
    )
    left, majority = now - 1, max(counted, now) // 2 + 1
    return left > majority or left == majority == FEWEST
