"""Deliberate acts: nothing is broken, and clients with a timeout of 5 s must not see an error."""

from __future__ import annotations

from contextlib import contextmanager

from ...lab.hub import Hub
from ...lab.kubectl import KubectlError, wait_for
from .. import planned
from ..arena import Before
from ..fault import Break
from .arena import PostgresArena

SWITCH_ANNOTATION = "runnerhub.io/switch-primary-to"
FORGET_SECONDS = 20
MOVED_SECONDS = 180
# Each run takes the value that is not in effect. Both change the pods, or need a restart, and nothing else.
_MEMORY_REQUESTS = ("260Mi", "264Mi")
_SHARED_BUFFERS = ("136MB", "144MB")
_POOLER_MEMORY_REQUESTS = ("33Mi", "34Mi")


@contextmanager
def switchover(arena: PostgresArena, before: Before) -> Break:
    """Ask the operator to move the role to a member that confirms commits."""
    with _asked_for(arena.hub, before.replicas[0].name):
        yield


def beside_a_pooler(arena: PostgresArena) -> None:
    """Have the primary on a node that has a pooler too."""
    nodes = set(arena.pooler_nodes())
    before = arena.before()
    if before.primary.node in nodes:
        return
    wanted = next(member.name for member in before.replicas if member.node in nodes)
    with _asked_for(arena.hub, wanted):
        wait_for(
            f"{wanted} to be primary", lambda: arena.leader() == wanted and arena.is_whole(), MOVED_SECONDS
        )


@contextmanager
def _asked_for(hub: Hub, member: str) -> Break:
    # A value that has been honoured once is not honoured again before it was gone.
    hub.kubectl("annotate", "rhc", hub.name, f"{SWITCH_ANNOTATION}-")
    wait_for("an earlier request to be forgotten", lambda: _no_request(hub), FORGET_SECONDS)
    try:
        hub.kubectl("annotate", "rhc", hub.name, f"{SWITCH_ANNOTATION}={member}", "--overwrite")
        yield
    finally:
        hub.kubectl("annotate", "rhc", hub.name, f"{SWITCH_ANNOTATION}-")


def _no_request(hub: Hub) -> bool:
    return "switchover" not in hub.status().get("postgres", {})


def switched_as_asked(arena: PostgresArena, before: Before) -> bool:
    """Whether the member that was asked for has the role."""
    return arena.leader() == before.replicas[0].name


@contextmanager
def rolling_update(arena: PostgresArena, _before: Before) -> Break:
    """Change the pod template of the database."""
    planned.renew_pods(arena.hub, "postgres", _MEMORY_REQUESTS)
    yield


@contextmanager
def pooler_update(arena: PostgresArena, _before: Before) -> Break:
    """Change the pod template of the pooler."""
    resources = planned.section(arena.hub, "postgres").get("pooler", {}).get("resources", {})
    memory = planned.other(_POOLER_MEMORY_REQUESTS, resources.get("requests", {}).get("memory"))
    planned.patch(arena.hub, "postgres", {"pooler": {"resources": {"requests": {"memory": memory}}}})
    yield


@contextmanager
def parameter_restart(arena: PostgresArena, _before: Before) -> Break:
    """Change a parameter that is only read when Postgres starts."""
    buffers = planned.other(_SHARED_BUFFERS, _wanted_buffers(arena))
    planned.patch(arena.hub, "postgres", {"parameters": {"shared_buffers": buffers}})
    yield


def parameter_in_effect(arena: PostgresArena, before: Before) -> bool:
    """Whether every member runs with the parameter of the spec."""
    try:
        values = {arena.sql(member.name, "SHOW shared_buffers") for member in before.members}
    except KubectlError:
        return False  # a member that restarts does not answer
    return values == {_wanted_buffers(arena)}


def _wanted_buffers(arena: PostgresArena) -> str | None:
    wanted: str | None = planned.section(arena.hub, "postgres").get("parameters", {}).get("shared_buffers")
    return wanted
