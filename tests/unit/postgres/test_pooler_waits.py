"""How long who waits for whom around a pause: the hook of a Postgres pod, the operator, and the agent of a pooler.

They are programs of three images, so each has the numbers for itself.
"""

from __future__ import annotations

import runpy
from pathlib import Path
from types import SimpleNamespace

from images.pooler.runnerhub_pooler import console, database, gate, readers
from runnerhub_operator.act.postgres import ROUTED_SECONDS
from runnerhub_operator.probes import pgbouncer
from runnerhub_operator.resources import postgres

IMAGES = Path(__file__).parents[3] / "images"
HOOK = SimpleNamespace(**runpy.run_path(str(IMAGES / "postgres" / "bin" / "postgres-prestop")))
LONGEST_PAUSE_SECONDS = console.PREPARE_SECONDS + max(gate.PATIENCE_SECONDS)
# There and back, and for the agent to look who is who.
ON_THE_WAY_SECONDS = 1.0


def test_hook_and_operator_hold_clients_back_equally_long() -> None:
    assert HOOK.HELD_BACK_SECONDS == pgbouncer.HELD_BACK_SECONDS
    assert pgbouncer.HELD_BACK_SECONDS < pgbouncer.LONGEST_HELD_BACK_SECONDS == gate.MAX_PAUSE_SECONDS
    assert LONGEST_PAUSE_SECONDS < HOOK.HELD_BACK_SECONDS


def test_the_hook_knows_the_answer_of_a_pooler_that_serves_nobody() -> None:
    assert HOOK.NOBODY == gate.NOBODY
    assert len({gate.BUSY, gate.NOBODY, gate.UNKNOWN}) == 3


def test_an_agent_answers_before_it_is_given_up() -> None:
    for given, taken in (
        (HOOK.PAUSE_SECONDS, LONGEST_PAUSE_SECONDS + ON_THE_WAY_SECONDS),
        # Also the time to let everybody go on again.
        (pgbouncer.PAUSE_DEADLINE_SECONDS, LONGEST_PAUSE_SECONDS + console.RESUME_SECONDS),
        (HOOK.RESUME_SECONDS, console.RESUME_SECONDS),
        (pgbouncer.RESUME_DEADLINE_SECONDS, console.RESUME_SECONDS + ON_THE_WAY_SECONDS),
        (HOOK.LEAVE_SECONDS, readers.PATIENCE_SECONDS + ON_THE_WAY_SECONDS),
        (pgbouncer.LEAVE_DEADLINE_SECONDS, readers.PATIENCE_SECONDS + ON_THE_WAY_SECONDS),
        # The hook has less time, and a checkpoint goes on without it.
        (pgbouncer.CHECKPOINT_DEADLINE_SECONDS, database.CHECKPOINT_SECONDS + ON_THE_WAY_SECONDS),
    ):
        assert given >= taken


def test_a_replica_is_left_until_it_is_seen_to_stop_or_to_be_the_primary() -> None:
    stops = pgbouncer.LEAVE_DEADLINE_SECONDS + ROUTED_SECONDS
    assert max(HOOK.LEAVE_SECONDS + ROUTED_SECONDS, stops) <= readers.STOPPED_SECONDS
    takes_over = (
        pgbouncer.LEAVE_DEADLINE_SECONDS
        + pgbouncer.HEALTH_DEADLINE_SECONDS
        + pgbouncer.CHECKPOINT_DEADLINE_SECONDS
        + pgbouncer.PAUSE_DEADLINE_SECONDS
        + pgbouncer.HELD_BACK_SECONDS
    )
    assert takes_over <= readers.AVOIDED_SECONDS


def test_the_hook_ends_long_before_the_pod_must() -> None:
    assert HOOK.SHORTEST_TRY_SECONDS < HOOK.LAST_TRY_SECONDS < HOOK.BUDGET_SECONDS
    assert 2 * HOOK.BUDGET_SECONDS < postgres._GRACE_SECONDS
