"""The switchover that somebody asks for by an annotation: each request is followed once, and not for ever.

The annotation stays on the cluster, so what became of it is kept in the status: a primary that moves on later, in a
failover, is not moved back. Taking the annotation away forgets the request, and the same one counts anew.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Final

from .. import names
from ..actions import Rollout, SwitchPostgres
from ..api import FULL_PERCENT, RunnerHubCluster, SwitchoverResult, SwitchoverStatus, Synchronous
from ..kube.events import EventNote
from ..probes.patroni import SYNCHRONOUS
from ..resources.patroni import MAX_REPLICA_LAG_BYTES
from ..snapshot import Snapshot
from . import leases
from .conditions import stamp
from .fullness import fullest

# A request that could not be followed for so long is out of date.
PATIENCE_SECONDS: Final = 600.0
_WAITS: Final = "it waits for "


@dataclass(frozen=True, slots=True)
class Request:
    """What became of a request, and what is still to be done for it."""

    status: SwitchoverStatus | None = None
    rollout: Rollout | None = None
    events: tuple[EventNote, ...] = ()


def follow(cluster: RunnerHubCluster, snapshot: Snapshot, primary: str | None, refused: str = "") -> Request:
    """Look at the request; `primary` is the member that was seen to accept writes.

    `refused`: why the last try was.
    """
    wanted, before = cluster.switch_primary_to, cluster.status.postgres.switchover
    if wanted is None:
        return Request()
    known = before if before is not None and before.request == wanted else None
    if cluster.spec.paused or (known is not None and known.result is not SwitchoverResult.PENDING):
        return Request(known)
    now = snapshot.now
    since = _first_seen(known, now)
    if primary == wanted:
        message = f"{wanted} is the primary"
        return Request(_status(wanted, SwitchoverResult.DONE, message, now))
    if wanted not in names.members(cluster.name, names.POSTGRES, cluster.spec.postgres.instances):
        return _refused(wanted, f"the cluster has no Postgres member {wanted!r}", now)
    leader = snapshot.patroni.leader if snapshot.patroni is not None else None
    if leader == wanted:
        message = f"{wanted} is taking over"
        return Request(
            _status(wanted, SwitchoverResult.PENDING, message, since),
            Rollout(names.POSTGRES, None, f"{wanted} to accept writes"),
        )
    obstacle = _obstacle(cluster, snapshot, wanted)
    if (now - since).total_seconds() > PATIENCE_SECONDS:
        minutes = int(PATIENCE_SECONDS // 60)
        waited = known.message if known is not None and known.message.startswith(_WAITS) else ""
        why = obstacle or refused or waited or "the switchover did not take place"
        return _refused(wanted, f"given up after {minutes} minutes: {why}", now)
    rollout = Rollout(names.POSTGRES, None, f"{wanted} to be able to become primary: {obstacle}")
    if obstacle is None and leader is not None:
        step = SwitchPostgres(leader, "asked for by an annotation", candidate=wanted)
        rollout = Rollout(names.POSTGRES, step, f"{wanted} to become primary", requested=True)
    message = obstacle or refused or f"{wanted} is to become primary"
    events = []
    if obstacle is not None and (known is None or known.message != message):
        events.append(
            EventNote("Warning", "SwitchoverWaits", f"{wanted} cannot become primary now: {obstacle}")
        )
    return Request(_status(wanted, SwitchoverResult.PENDING, message, since), rollout, tuple(events))


def behind(request: Request, rollout: Rollout | None) -> Request:
    """The same request, telling what it waits for when another disruption is due before it."""
    asked, status = request.rollout, request.status
    if asked is None or asked.step is None or status is None or rollout is None or rollout.requested:
        return request
    message = f"{_WAITS}the {rollout.kind} of {rollout.component}, which waits for {rollout.waiting_for}"
    return replace(request, status=status.model_copy(update={"message": message}))


def is_followed(before: SwitchoverStatus | None, now: SwitchoverStatus | None) -> bool:
    """Whether a request that was pending has just been done."""
    if before is None or now is None or before.request != now.request:
        return False
    return before.result is SwitchoverResult.PENDING and now.result is SwitchoverResult.DONE


def _status(request: str, result: SwitchoverResult, message: str, at: datetime) -> SwitchoverStatus:
    return SwitchoverStatus(request=request, result=result, message=message, at=stamp(at))


def _first_seen(known: SwitchoverStatus | None, now: datetime) -> datetime:
    """Since when a request has been waiting; a time that cannot be is taken for now."""
    if known is None:
        return now
    try:
        return min(datetime.fromisoformat(known.at).astimezone(UTC), now)
    except (ValueError, OverflowError):
        return now


def _refused(request: str, message: str, now: datetime) -> Request:
    status = _status(request, SwitchoverResult.REFUSED, message, now)
    return Request(status, events=(EventNote("Warning", "SwitchoverRefused", message),))


def _obstacle(cluster: RunnerHubCluster, snapshot: Snapshot, wanted: str) -> str | None:
    """Why a member cannot become primary now, as a clause; None when it can."""
    patroni, pod = snapshot.patroni, snapshot.pod(wanted)
    if other := leases.held_by_other(cluster, snapshot):
        return f"{other} holds {names.disruption_lease(cluster.name)}"
    if patroni is None:
        return "Patroni does not answer"
    if patroni.leader is None or not patroni.in_step(patroni.leader):
        return "there is no running primary to take over from"
    if patroni.refused_parameters:
        return (
            f"the primary would not start again, as Postgres refuses {', '.join(patroni.refused_parameters)}"
        )
    member = patroni.member(wanted)
    if pod is None or not pod.ready or member is None:
        return "its pod is not ready"
    if wanted in fullest(patroni.members, FULL_PERCENT):
        return f"its volume is {member.volume_used_percent} % full"
    if not patroni.in_step(wanted):
        return f"it does not stream from the primary ({member.state or 'state unknown'})"
    if member.lag_bytes is None or member.lag_bytes > MAX_REPLICA_LAG_BYTES:
        return "it is too far behind the primary"
    if cluster.spec.postgres.synchronous is not Synchronous.DISABLED and member.role not in SYNCHRONOUS:
        return "it is no synchronous replica, so commits could be lost"
    return None
