"""Noticing elections: who held a role, since when its holder looked broken, who holds it now."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime

from .. import names
from ..api import Failover, RunnerHubClusterStatus
from ..snapshot import Pod, Snapshot

MAX_FAILOVERS = 10


@dataclass(frozen=True, slots=True)
class Role:
    """A role that exactly one pod has: its holder and the first sign of the holder's failure."""

    holder: str | None = None
    holder_uid: str | None = None
    failing_since: datetime | None = None
    cause: str | None = None


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
    if pod.ready_unknown:
        return "NodeLost"
    if not pod.ready:
        return "PodNotReady"
    return None


def track(
    component: str, role: Role, holder: str | None, snapshot: Snapshot, announced_cause: str | None
) -> tuple[Role, Failover | None]:
    """Next memory of a role, and the failover if the role moved.

    `holder` is who has the role now, None when nobody was seen with it. `announced_cause` is set while the operator
    itself moves the role.
    """
    now = snapshot.now
    pod = snapshot.pod(role.holder)
    sign = _sign_of_failure(role, pod) if role.holder is not None else None
    if sign is None and holder is None and role.holder is not None:
        sign = "RoleLost"
    if sign is not None and role.failing_since is None:
        role = replace(role, failing_since=now, cause=sign)
    if holder is None:
        return role, None
    holder_pod = snapshot.pod(holder)
    uid = holder_pod.uid if holder_pod is not None else None
    if holder == role.holder:
        kept_by_a_new_pod = sign == "PodReplaced" and holder_pod is not None and holder_pod.ready
        if sign is None or kept_by_a_new_pod:
            return Role(holder=holder, holder_uid=uid), None
        return role, None
    current = Role(holder=holder, holder_uid=uid)
    if role.holder is None:
        return current, None
    duration = None
    if role.failing_since is not None and role.holder_uid is not None:
        duration = round((now - role.failing_since).total_seconds(), 1)
    return current, Failover(
        component=component,
        from_=role.holder,
        to=holder,
        at=now.strftime("%Y-%m-%dT%H:%M:%SZ"),
        duration_seconds=duration,
        cause=announced_cause or role.cause or "Elected",
    )
