"""Damage to what the members keep: a data directory that no server starts from, a volume, all members at once."""

from __future__ import annotations

from contextlib import contextmanager

from ...lab.bed import OPERATOR_NAMESPACE
from ...lab.kubectl import wait_for
from .. import mend, processes
from ..arena import Before, Member
from ..fault import Break
from .arena import PostgresArena

# The operator gives Patroni two minutes; then the member is copied.
ANEW_SECONDS = 300

# The server reads this file when it starts and writes it never, so the damage lasts. What was in it is put aside, in
# a directory that goes as a whole when the member is made anew.
_DAMAGE = 'cp "$PGDATA/PG_VERSION" "$PGDATA/PG_VERSION.whole" && : >"$PGDATA/PG_VERSION"'
_UNDO = 'mv -f "$PGDATA/PG_VERSION.whole" "$PGDATA/PG_VERSION" 2>/dev/null; exit 0'
_LOOK = 'if [ -s "$PGDATA/PG_VERSION" ] && [ ! -e "$PGDATA/PG_VERSION.whole" ]; then echo anew; fi'


@contextmanager
def corrupt(arena: PostgresArena, before: Before) -> Break:
    """Damage the data of a replica that confirms commits and kill its server; the operator must make it anew.

    Healed it is when the operator has done that. When it has not, the damage is undone.
    """
    victim = before.replicas[0]
    _forget_repairs(arena)
    try:
        _inside(arena, victim, _DAMAGE)
        found = processes.of_container(arena.bed, victim.node, victim.container)
        processes.send(arena.bed, victim.node, "KILL", [processes.postmaster(found)])
        yield
        wait_for(
            f"{victim.name} to be made anew",
            lambda: _inside(arena, victim, _LOOK) == "anew",
            ANEW_SECONDS,
            every=1,
        )
    finally:
        _inside(arena, victim, _UNDO)


def _forget_repairs(arena: PostgresArena) -> None:
    """Renew the operators: they leave a member alone that they made anew in the last ten minutes, in an earlier run."""
    operator = arena.bed.kubectl.in_namespace(OPERATOR_NAMESPACE)
    operator("delete", "pod", "-l", "app.kubernetes.io/name=runnerhub-operator", "--wait=true", timeout=60)
    operator("rollout", "status", mend.OPERATOR, "--timeout=120s", timeout=130)


def _inside(arena: PostgresArena, member: Member, script: str) -> str:
    command = ("exec", member.name, "-c", "postgres", "--", "sh", "-c", script)
    return arena.hub.kubectl(*command, timeout=20).strip()
