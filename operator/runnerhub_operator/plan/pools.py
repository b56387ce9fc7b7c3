"""The runner pools in the plan of a visit: what `runners` decides, as steps, status and condition; and their token."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Any, Final

from .. import names
from ..actions import RunnerSteps
from ..api import (
    ConditionReason,
    ConditionType,
    RunnerHubCluster,
    RunnerPoolSpec,
    RunnerPoolStatus,
    RunnersStatus,
    UpdatePolicy,
)
from ..resources.common import BuildContext, Manifest
from ..resources.runners import TOKEN_KEY, is_outdated, runner_pod, template_hash, token_secret
from ..resources.token_keys import known_keys
from ..snapshot import Pod, Snapshot
from ..tokens import RUNNER_TOKEN_LIFETIME, control_key, holds_until, mint
from .conditions import Verdict, blocked_by, stamp
from .runners import Decision, Memory, PoolState, plan_pools

# The API server takes no longer lists into the status than the schema says.
_MAX_POOLS: Final = 64
_LABELS_TOLD: Final = 200
# Numbers that follow the jobs are told no sooner than this after the last time.
COUNT_SECONDS: Final = 30.0


@dataclass(frozen=True, slots=True)
class Crew:
    """`secrets`: the Secret with the runners' token as it should be; `waiting`: names of components that keep an
    older layout for now.
    """

    decision: Decision
    steps: RunnerSteps
    secrets: tuple[Manifest, ...]
    prune: tuple[Manifest, ...]
    waiting: tuple[str, ...]

    @property
    def memory(self) -> Memory:
        """What to remember."""
        return self.decision.memory

    @property
    def moving(self) -> bool:
        """Whether runners are on their way."""
        return self.decision.moving


def look(context: BuildContext, snapshot: Snapshot, memory: Memory) -> Crew:
    """Decide one step of all pools."""
    cluster, pods = context.cluster, snapshot.pods_of(names.RUNNER)
    pools = {pool.name: pool for pool in cluster.spec.runner_pools}
    outdated, waits = _outdated(context, pools, pods)
    decision = plan_pools(cluster.spec.runner_pools, pods, outdated, snapshot.demand, memory, snapshot.now)
    create = tuple((pool, runner_pod(context, pools[pool], slot)) for pool, slot in decision.create)
    used = bool(pools or pods)
    live = snapshot.child("Secret", names.runner_token(cluster.name))
    surplus = live is not None and not used and _is_ours(cluster, live)
    return Crew(
        decision,
        RunnerSteps(create, decision.stop, decision.mark),
        secrets=_token(context, snapshot) if used else (),
        prune=(dict(live),) if surplus and live is not None else (),
        waiting=(names.RUNNER,) if waits else (),
    )


def _outdated(
    context: BuildContext, pools: Mapping[str, RunnerPoolSpec], pods: tuple[Pod, ...]
) -> tuple[frozenset[str], bool]:
    """Uids of runners that the spec wants to be others; and whether some only wait for a newer operator's layout."""

    @cache
    def today(pool: str) -> str:
        return template_hash(context, pools[pool])

    @cache
    def differs(pool: str, template: str, layout: str) -> bool:
        return is_outdated(context, pools[pool], template, layout)

    behind = [pod for pod in pods if pod.pool in pools and pod.template != today(pod.pool)]
    if context.cluster.spec.update_policy is UpdatePolicy.IMMEDIATE:
        return frozenset(pod.uid for pod in behind), False
    outdated = frozenset(pod.uid for pod in behind if differs(pod.pool, pod.template, pod.layout))
    return outdated, len(outdated) < len(behind)


def _is_ours(cluster: RunnerHubCluster, live: Mapping[str, Any]) -> bool:
    owners = live["metadata"].get("ownerReferences", ())
    return "deletionTimestamp" not in live["metadata"] and any(
        owner.get("uid") == cluster.uid for owner in owners
    )


def runner_token(context: BuildContext, snapshot: Snapshot) -> str:
    """The token by which runners log in, "" while there is none."""
    return snapshot.children.secret_value(names.runner_token(context.name), TOKEN_KEY) or ""


def _token(context: BuildContext, snapshot: Snapshot) -> tuple[Manifest, ...]:
    """The Secret with a token that holds for long enough; none while no key is known that makes tokens."""
    keys = known_keys(snapshot.children.secret_value, context.name)
    if keys is None:
        return ()
    key, token = keys.for_signing(snapshot.now), runner_token(context, snapshot)
    if holds_until(token, key) < (snapshot.now + RUNNER_TOKEN_LIFETIME / 2).timestamp():
        token = mint(key, "runner", snapshot.now, RUNNER_TOKEN_LIFETIME)
    return (token_secret(context, token, control_key(key)),)


def status(before: RunnersStatus, crew: Crew, now: datetime, *, jobs_known: bool) -> RunnersStatus:
    """The section of the status; numbers that follow the jobs move it only now and then, and stay while unknown."""
    found = _counted(crew, stamp(now) if crew.decision.pools else None)
    if before.at is None or _ready(found) != _ready(before):
        return found
    age = (now - datetime.fromisoformat(before.at)).total_seconds()
    unchanged = found.model_copy(update={"at": before.at}) == before
    return before if age < COUNT_SECONDS or unchanged or not jobs_known else found


def _ready(status: RunnersStatus) -> tuple[tuple[str, int], ...]:
    return tuple((pool.name, pool.ready) for pool in status.pools)


def _counted(crew: Crew, at: str | None) -> RunnersStatus:
    pools = crew.decision.pools
    return RunnersStatus(
        at=at,
        desired=sum(pool.desired for pool in pools),
        ready=sum(pool.ready for pool in pools),
        busy=sum(pool.busy for pool in pools),
        queued=crew.decision.waiting,
        pools=tuple(
            RunnerPoolStatus(
                name=pool.name, desired=pool.desired, ready=pool.ready, busy=pool.busy, queued=pool.queued
            )
            for pool in pools[:_MAX_POOLS]
        ),
    )


def verdict(
    cluster: RunnerHubCluster, snapshot: Snapshot, crew: Crew, *, demand_lost: bool = True
) -> Verdict:
    """RunnersReady: what keeps pools from their size. It does not gate Ready.

    `demand_lost`: whether a demand that is not known has been so for long enough to be told.
    """
    kind, pools = ConditionType.RUNNERS, crew.decision.pools
    if not cluster.spec.runner_pools:
        left = len(snapshot.pods_of(names.RUNNER))
        told = f"spec.runnerPools is empty; {left} runners are left" if left else "spec.runnerPools is empty"
        return Verdict(kind, "True", ConditionReason.NOT_REQUESTED, told)
    # No numbers that follow the jobs: the status has them, and a message is written whenever it changes.
    detail = "; ".join(f"{pool.name}: {pool.ready} ready" for pool in pools)
    if crew.decision.unserved:
        labels = ", ".join(crew.decision.unserved_labels)[:_LABELS_TOLD]
        detail += f"; jobs wait whose labels no pool has, the oldest for {labels}"
    for pool in pools:
        if pool.rejected and not _is_held_up_by_kubelets(pool):
            detail += f"; {pool.name}: {pool.rejected}"
        if pool.silent:
            detail += f"; {pool.name}: {pool.silent[0]} cannot be asked whether it has a job, so it stays"
    trouble = [(pool, *found) for pool in pools if (found := _trouble(pool)) is not None]
    if trouble:
        told = "; ".join(f"{pool.name}: {text}" for pool, _, text in trouble)
        return Verdict(kind, "False", trouble[0][1], f"{told}; {detail}", full=False)
    if snapshot.demand is None and demand_lost:
        told = f"{snapshot.demand_error}: pools keep their size or grow to their least number, no runner is stopped"
        return Verdict(kind, "False", ConditionReason.DEMAND_UNKNOWN, f"{told}; {detail}", full=False)
    if any(pool.ready < pool.least for pool in pools):
        return Verdict(kind, "False", ConditionReason.CREATING, detail, full=False)
    return Verdict(kind, "True", ConditionReason.AVAILABLE, detail)


def _trouble(pool: PoolState) -> tuple[ConditionReason, str] | None:
    """Why a pool does not grow."""
    if pool.refused:
        return ConditionReason.REFUSED_BY_API_SERVER, pool.refused[:500]
    if _is_held_up_by_kubelets(pool):
        return ConditionReason.REJECTED_BY_KUBELET, pool.rejected
    if pool.blocked is None:
        return None
    return blocked_by((pool.blocked,)) or (
        ConditionReason.UNAVAILABLE,
        f"pod {pool.blocked.name} is not ready for too long: read its last words with kubectl logs",
    )


def _is_held_up_by_kubelets(pool: PoolState) -> bool:
    """Also while others are tried in the place of those that were rejected."""
    held_up = bool(pool.blocked.rejected) if pool.blocked is not None else not pool.ready
    return bool(pool.rejected) and held_up
