"""Noticing elections: who held a role, since when its holder looked broken, who holds it now."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime

from .. import names
from ..api import Failover, RunnerHubClusterStatus
from ..snapshot import Pod, Snapshot
from .conditions import stamp

MAX_FAILOVERS = 10
# Who has not looked for so long does not know how long it took.
AWAY_SECONDS = 60.0
# A primary that says nothing so often in a row and for so long, and that no replica follows any more, is none.
SILENT_LOOKS = 3
SILENT_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Silence:
    """At how many looks in a row, and since which one, a primary has said nothing, while others did."""

    looks: int = 0
    since: datetime | None = None

    def is_long(self, now: datetime) -> bool:
        """Whether it is more than a slow answer."""
        return (
            self.since is not None
            and self.looks >= SILENT_LOOKS
            and _seconds(now, self.since) >= SILENT_SECONDS
        )


@dataclass(frozen=True, slots=True)
class Role:
    """A role that exactly one pod has: its holder and the first sign of the holder's failure.

    `heard_at`: when others last heard from the holder, of a master of Redis; when the operator itself did, of a primary
    of Postgres, or before its first look Patroni. `looked_at`: when it was last looked at.
    """

    holder: str | None = None
    holder_uid: str | None = None
    failing_since: datetime | None = None
    cause: str | None = None
    heard_at: datetime | None = None
    looked_at: datetime | None = None
    silence: Silence = Silence()


Memory = Mapping[str, Role]


def initial_memory(status: RunnerHubClusterStatus) -> Memory:
    """Roles as last written to the status: what is known after a restart of the operator."""
    return {
        names.POSTGRES: Role(holder=status.postgres.primary),
        names.REDIS: Role(holder=status.redis.master),
        names.ORCHESTRATOR: Role(holder=status.orchestrator.leader),
    }


def _sign_of_failure(role: Role, pod: Pod | None) -> str | None:
    if pod is None:
        return "PodGone"
    if role.holder_uid is not None and pod.uid != role.holder_uid:
        return "PodReplaced"
    if pod.terminating:
        return "PodDeleted"
    if pod.node_silent:
        return "NodeLost"
    if not pod.ready:
        return "PodNotReady"
    return None


def _seconds(now: datetime, since: datetime) -> float:
    return (now - since).total_seconds()


def last_heard(snapshot: Snapshot, master: str | None) -> datetime | None:
    """When the Sentinels last heard from a Redis master; None when none of them follows it any more.

    A Sentinel that was away itself has heard nothing for long, or begins anew; so the one in the middle is believed.
    """
    told = sorted(
        view.heard_at
        for view in snapshot.sentinels
        if view.heard_at is not None and not view.tilt and snapshot.redis_member(view.master_ip) == master
    )
    return told[len(told) // 2] if told else None


def silence(role: Role, snapshot: Snapshot) -> Silence:
    """Of the primary's own Patroni, this look included."""
    patroni, before = snapshot.patroni, role.silence
    if patroni is None:
        return before
    speaks = patroni.by_leader or patroni.leader in snapshot.alive
    if speaks or patroni.leader is None or role.holder not in (None, patroni.leader):
        return Silence()
    return Silence(before.looks + 1, before.since or snapshot.now)


def track(
    component: str,
    role: Role,
    holder: str | None,
    snapshot: Snapshot,
    announced_cause: str | None,
    *,
    answered: bool = True,
    heard: datetime | None = None,
) -> tuple[Role, Failover | None]:
    """Next memory of a role, and the failover if the role moved.

    `holder` is who has the role now, None when nobody was seen with it. `announced_cause` is set while the operator
    itself moves the role. `answered`: whether anybody told who has it. `heard`: when the former holder was last heard
    from, where somebody listens to it; None when it was not heard now.
    """
    now = snapshot.now
    if role.looked_at is not None and _seconds(now, role.looked_at) > AWAY_SECONDS:
        role = Role(holder=role.holder)
    if role.heard_at is not None and holder == role.holder and _seconds(now, role.heard_at) > AWAY_SECONDS:
        # It has its role all the same: only the way to it is cut.
        role = replace(role, heard_at=None)
    pod = snapshot.pod(role.holder)
    sign = _sign_of_failure(role, pod) if role.holder is not None else None
    looked_before = role.looked_at
    if answered or sign is not None:
        role = replace(role, looked_at=now, heard_at=heard or role.heard_at)
    if sign is None and holder is None and role.holder is not None:
        sign = "RoleLost"
    if sign is not None and role.failing_since is None:
        # One whose failure is seen together with the next one has failed since the look before.
        since = now if holder in (None, role.holder) else looked_before
        role = replace(role, failing_since=since, cause=sign)
    if holder is None:
        return role, None
    holder_pod = snapshot.pod(holder)
    uid = holder_pod.uid if holder_pod is not None else None
    if holder == role.holder:
        kept_by_a_new_pod = sign == "PodReplaced" and holder_pod is not None and holder_pod.ready
        if sign is None or kept_by_a_new_pod:
            if role.silence.looks and role.heard_at is None:
                # Who comes when it is silent already does not know since when.
                uid = role.holder_uid
            return replace(role, holder_uid=uid, failing_since=None, cause=None), None
        return role, None
    current = Role(holder=holder, holder_uid=uid, looked_at=now)
    if role.holder is None:
        return current, None
    since = role.heard_at or (role.failing_since if role.holder_uid is not None else None)
    duration = round(_seconds(now, since), 1) if since is not None else None
    return current, Failover(
        component=component,
        from_=role.holder,
        to=holder,
        at=stamp(now),
        duration_seconds=duration,
        cause=announced_cause or role.cause or "Elected",
    )
