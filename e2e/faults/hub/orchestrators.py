"""Faults of the orchestrators and of their leader."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import contextmanager

from kindbed.console import TestBedError

from .. import planned, pods, processes
from ..arena import CONTROL_PLANE_LABEL, Before, Member
from ..fault import Break
from .arena import AGENT, HubArena

TWO_DOWN = "two-down"
# Each run takes the value that is not in effect.
_MEMORY_REQUESTS = ("130Mi", "134Mi")


@contextmanager
def rolling_update(arena: HubArena, _before: Before) -> Break:
    """Change the pod template of the orchestrators."""
    planned.renew_pods(arena.hub, "orchestrator", _MEMORY_REQUESTS)
    yield


@contextmanager
def delete_follower(arena: HubArena, before: Before) -> Break:
    """Delete an orchestrator that does not lead, with its grace period."""
    arena.hub.kubectl("delete", "pod", before.replicas[0].name, "--wait=false")
    yield


@contextmanager
def force_delete_follower(arena: HubArena, before: Before) -> Break:
    """Delete an orchestrator that does not lead, without grace."""
    arena.hub.kubectl.delete_pod_now(before.replicas[0].name)
    yield


def leader_replaced(arena: HubArena, before: Before) -> bool:
    """Whether the pod that led is gone; a whole cluster has another one instead."""
    return before.primary.uid not in arena.pod_uids().values()


def follower_replaced(arena: HubArena, before: Before) -> bool:
    """The same of the one that did not lead."""
    return before.replicas[0].uid not in arena.pod_uids().values()


@contextmanager
def kill_orchestrator(arena: HubArena, before: Before) -> Break:
    """SIGKILL to the leader's orchestrator, which kubelet starts anew; its agent stays."""
    _kill(arena, before.primary)
    yield


@contextmanager
def kill_agent(arena: HubArena, before: Before) -> Break:
    """SIGKILL to the leader's ha-agent, which is started anew and must wait as all do; the orchestrator stays."""
    _kill(arena, _agent(arena, before))
    yield


def _kill(arena: HubArena, victim: Member) -> None:
    found = processes.of_container(arena.bed, victim.node, victim.container)
    processes.send_to_those_left(arena.bed, victim.node, "KILL", found)


def orchestrator_restarted(arena: HubArena, before: Before) -> bool:
    """Whether the orchestrator that led has another container."""
    return _is_another(before.primary, arena.containers(arena.COMPONENT, arena.CONTAINER))


def _is_another(old: Member, containers: Sequence[Member]) -> bool:
    return any(found.uid == old.uid and found.container != old.container for found in containers)


@contextmanager
def stop_agent(arena: HubArena, before: Before) -> Break:
    """SIGSTOP to the leader's ha-agent: the orchestrator has nothing but the agent's last word."""
    with pods.frozen(arena, [_agent(arena, before)]):
        yield


@contextmanager
def stop_orchestrator(arena: HubArena, before: Before) -> Break:
    """SIGSTOP to the leader's orchestrator: its agent must see that it is not fit to lead."""
    with pods.frozen(arena, [before.primary]):
        yield


@contextmanager
def stop_leader(arena: HubArena, before: Before) -> Break:
    """SIGSTOP to both, SIGCONT later: it comes back as a leader that knows nothing of the other."""
    with pods.frozen(arena, arena.both_containers(before.primary.name)):
        yield


def _agent(arena: HubArena, before: Before) -> Member:
    for member in arena.containers(arena.COMPONENT, AGENT):
        if member.name == before.primary.name:
            return member
    raise TestBedError(f"{before.primary.name} has no {AGENT}")


@contextmanager
def two_down(arena: HubArena, before: Before) -> Break:
    """Delete two of three orchestrators without grace, the leader among them, where no node takes their successors."""
    workers = f"!{CONTROL_PLANE_LABEL}"
    try:
        arena.bed.kubectl("cordon", "-l", workers)
        for member in (before.primary, before.replicas[0]):
            arena.hub.kubectl.delete_pod_now(member.name)
        yield
        others = {member.name for member in arena.members()} - {before.replicas[1].name}
        if others:
            raise TestBedError(f"two should have been down, and there are {sorted(others)}")
    finally:
        arena.bed.kubectl("uncordon", "-l", workers)
