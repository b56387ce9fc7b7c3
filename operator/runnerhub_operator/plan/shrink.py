"""Fewer members of the database: one at a time, the highest first, and none that replication still needs.

A StatefulSet that is told a smaller number stops all pods above it at once: two that go together, the primary one of
them, may take every other copy of a commit along, and leave too few of those that confirmed it to elect anybody.
"""

from __future__ import annotations

from collections.abc import Sequence

from .. import names
from ..actions import Rollout, ShrinkPostgres, SwitchPostgres
from ..api import MAX_MEMBERS, RunnerHubCluster, Synchronous
from ..probes.patroni import PatroniCluster
from ..snapshot import Snapshot


def instances(cluster: RunnerHubCluster, snapshot: Snapshot) -> int:
    """How many members there are to be now: as the spec says, or as many as there are while some have yet to go."""
    return pod_count(cluster, snapshot, names.POSTGRES, cluster.spec.postgres.instances)


def pod_count(cluster: RunnerHubCluster, snapshot: Snapshot, component: str, wanted: int) -> int:
    """How many pods a StatefulSet is to have now, when it shall have `wanted` in the end and no fewer at once."""
    live = snapshot.child("StatefulSet", names.child(cluster.name, component))
    if live is not None:
        return max(wanted, int(live.get("spec", {}).get("replicas") or 0))
    # One that is made anew finds the pods of the one before.
    pods = (snapshot.pod(names.member(cluster.name, component, i)) for i in range(MAX_MEMBERS))
    found = [ordinal for ordinal, pod in enumerate(pods) if pod is not None and not pod.terminating]
    return max(wanted, *(ordinal + 1 for ordinal in found)) if found else wanted


def look(cluster: RunnerHubCluster, snapshot: Snapshot) -> Rollout | None:
    """The next step towards as few members as the spec says; None when there are no more."""
    wanted, now = cluster.spec.postgres.instances, instances(cluster, snapshot)
    if (going := still_going(cluster, snapshot, names.POSTGRES, now)) is not None:
        return going
    if now <= wanted:
        return None
    last = names.member(cluster.name, names.POSTGRES, now - 1)
    staying = names.members(cluster.name, names.POSTGRES, wanted)
    shrink = ShrinkPostgres(last, now - 1)
    pod, patroni = snapshot.pod(last), snapshot.patroni
    if pod is not None and pod.cannot_start:
        return Rollout(names.POSTGRES, shrink, f"{last} to go")
    obstacle = _obstacle(cluster, snapshot, staying, now - 1)
    if obstacle is not None or patroni is None:
        # As a member that is broken may be for long.
        return Rollout(names.POSTGRES, None, f"{obstacle}, before {last} can go", holds_up=False)
    if patroni.leader == last:
        # To one that stays to the end, so that the role moves once.
        switch = SwitchPostgres(last, f"{last} is to go", by_nearness(patroni, staying)[0])
        return Rollout(names.POSTGRES, switch, f"another primary, before {last} can go")
    return Rollout(names.POSTGRES, shrink, f"{last} to go", rests_on=staying)


def still_going(cluster: RunnerHubCluster, snapshot: Snapshot, component: str, now: int) -> Rollout | None:
    """Pods above the first `now` that have not gone yet; None when there are none."""
    gone = (snapshot.pod(names.member(cluster.name, component, i)) for i in range(now, MAX_MEMBERS))
    # On a node that is dead a pod terminates for ever.
    going = next((pod for pod in gone if pod is not None and not pod.is_overdue(snapshot.now)), None)
    return Rollout(component, None, f"{going.name} to terminate") if going is not None else None


def is_healthy(cluster: RunnerHubCluster, snapshot: Snapshot, name: str) -> bool:
    """Whether a member can be counted on while another one is away: it runs, is in step, and confirms commits.

    A member on a node that stands still shows as streaming and its pod as ready for most of a minute, but the primary
    soon no longer counts it among those that confirm.
    """
    pod, patroni = snapshot.pod(name), snapshot.patroni
    if pod is None or not pod.ready or pod.terminating or patroni is None or not patroni.in_step(name):
        return False
    if name == patroni.leader or cluster.spec.postgres.synchronous is Synchronous.DISABLED:
        return True
    return name in patroni.synchronous


def _obstacle(cluster: RunnerHubCluster, snapshot: Snapshot, staying: Sequence[str], left: int) -> str | None:
    """What has to be waited for until one may go, so that `left` are there; None: nothing."""
    patroni, config = snapshot.patroni, snapshot.patroni_config or {}
    if patroni is None:
        return "Patroni to answer"
    if patroni.leader is None or not patroni.in_step(patroni.leader):
        return "a primary"
    if unsettled := [name for name in staying if not is_healthy(cluster, snapshot, name)]:
        return f"{', '.join(unsettled)} to become healthy"
    # Else nobody would be left to confirm a write.
    if left == 1 and config.get("synchronous_mode_strict") is True:
        return "Patroni to confirm commits without a replica"
    return None


def by_nearness(patroni: PatroniCluster, members: Sequence[str]) -> list[str]:
    """These members, the one that is nearest to the primary first."""

    def distance(name: str) -> tuple[bool, int, str]:
        member = patroni.member(name)
        lag = member.lag_bytes if member is not None else None
        return lag is None, lag or 0, name

    return sorted(members, key=distance)
