"""Faults of pods that any tier can have: deleted in one way or another, frozen, driven off, without their volume."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import contextmanager

from kindbed.console import TestBedError

from ..lab.faults import kept_away
from ..lab.kubectl import wait_for
from . import processes
from .arena import Arena, Before, Member
from .fault import Break

DRAIN_SECONDS = 180
CLAIM_SECONDS = 120


@contextmanager
def graceful_delete(arena: Arena, before: Before) -> Break:
    """Delete the primary's pod with its grace period."""
    arena.hub.kubectl("delete", "pod", before.primary.name, "--wait=false")
    yield


def primary_renewed(arena: Arena, before: Before) -> bool:
    """Whether the old primary has another pod."""
    return arena.pod_uids().get(before.primary.name) not in (None, before.primary.uid)


def all_renewed(arena: Arena, before: Before) -> bool:
    """Whether no member has the pod of before."""
    uids = set(arena.pod_uids().values())
    return len(uids) == len(before.members) and not uids & {member.uid for member in before.members}


@contextmanager
def force_delete(arena: Arena, before: Before) -> Break:
    """Delete the primary's pod without grace."""
    arena.hub.kubectl.delete_pod_now(before.primary.name)
    yield


@contextmanager
def force_delete_for_good(arena: Arena, before: Before) -> Break:
    """Delete the primary's pod without grace, and let no pod come back to its node: only its lock tells the others."""
    with kept_away(arena.hub, before.primary.name), force_delete(arena, before):
        yield


@contextmanager
def graceful_delete_pooler(arena: Arena, before: Before) -> Break:
    """Delete one of the pods that clients go through, with its grace period."""
    arena.hub.kubectl("delete", "pod", min(before.poolers), "--wait=false")
    yield


@contextmanager
def force_delete_pooler(arena: Arena, before: Before) -> Break:
    """Delete one of the pods that clients go through without grace: half of the clients' connections break."""
    arena.hub.kubectl.delete_pod_now(min(before.poolers))
    yield


def pooler_replaced(arena: Arena, before: Before) -> bool:
    """Whether another pod is there instead of that one."""
    now = arena.poolers()
    return before.poolers[min(before.poolers)] not in now.values() and len(now) == len(before.poolers)


def poolers_renewed(arena: Arena, before: Before) -> bool:
    """Whether none of the pods that clients go through is one of before, not even one that still stops."""
    now = set(arena.poolers().values())
    return len(now) == len(before.poolers) and not now & set(before.poolers.values())


@contextmanager
def drain(arena: Arena, before: Before) -> Break:
    """Empty the primary's node as an administrator does, whoever else runs there.

    The member cannot come back before the node takes pods again: its volume is there. Bare pods of the suite run on
    the control plane, so no `--force` is needed.
    """
    kubectl, node = arena.bed.kubectl, before.primary.node
    try:
        kubectl(
            "drain", node, "--ignore-daemonsets", "--delete-emptydir-data", f"--timeout={DRAIN_SECONDS}s",
            timeout=DRAIN_SECONDS + 10,
        )  # fmt: skip
        yield
    finally:
        kubectl("uncordon", node)


@contextmanager
def lose_replicas(arena: Arena, before: Before) -> Break:
    """Freeze every process of both replicas, and let them go on later."""
    with frozen(arena, before.replicas):
        yield


@contextmanager
def lose_majority(arena: Arena, before: Before) -> Break:
    """Freeze every process of the primary and of the replica that confirms its commits.

    The one that is left may not know the last commits, so it must not take over alone: writes wait, none is lost.
    """
    with frozen(arena, (before.primary, before.replicas[0])):
        yield


@contextmanager
def frozen(arena: Arena, members: Sequence[Member], right_before: Callable[[], None] = lambda: None) -> Break:
    """Stop every process of these containers, and let them go on later as if nothing had been.

    `right_before` is done when all of them have been found, so that no time passes between it and the first signal.
    """
    try:
        found = [
            (member, processes.of_container(arena.bed, member.node, member.container)) for member in members
        ]
        right_before()
        for member, listed in found:
            processes.send_to_those_left(arena.bed, member.node, "STOP", listed)
        yield
    finally:
        let_go_on(arena, members)


def let_go_on(arena: Arena, members: Sequence[Member]) -> None:
    """Let the processes of these members go on that were stopped."""
    for member in members:
        left = processes.list_container(arena.bed, member.node, member.container)
        processes.send_to_those_left(arena.bed, member.node, "CONT", left)


@contextmanager
def lose_volume(arena: Arena, before: Before) -> Break:
    """Delete the claim of a replica that confirms commits, and its pod without grace: it must come back empty.

    The claim goes when no pod uses it any more; the StatefulSet makes no new pod before that, and then a new claim.
    """
    victim = before.replicas[0]
    claim = f"data-{victim.name}"
    old = _claim_uid(arena, claim)
    if old is None:
        raise TestBedError(f"{victim.name} has no claim {claim}")
    arena.hub.kubectl("delete", "persistentvolumeclaim", claim, "--wait=false")
    arena.hub.kubectl.delete_pod_now(victim.name)
    yield
    wait_for(f"a new {claim}", lambda: _claim_uid(arena, claim) not in (None, old), CLAIM_SECONDS, every=1)


def _claim_uid(arena: Arena, claim: str) -> str | None:
    found = arena.hub.kubectl.get("persistentvolumeclaim", claim)
    return found["metadata"]["uid"] if found is not None else None


def replica_renewed(arena: Arena, before: Before) -> bool:
    """Whether the replica that was chosen has another pod."""
    victim = before.replicas[0]
    return arena.pod_uids().get(victim.name) not in (None, victim.uid)


@contextmanager
def lose_all(arena: Arena, before: Before) -> Break:
    """Delete the pods of all members at once, without grace; they come back in whatever order Kubernetes likes."""
    members = [member.name for member in before.members]
    arena.hub.kubectl("delete", "pod", *members, "--force", "--grace-period=0", "--wait=false")
    yield
