"""A primary whose own Patroni says nothing: how long its failover took, and when the status names it no longer."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from runnerhub_operator.actions import RestartPod, RestartPostgres, SwitchPostgres
from runnerhub_operator.plan import LastStep
from runnerhub_operator.plan.planner import Plan, make_plan
from runnerhub_operator.probes.patroni import PatroniCluster
from runnerhub_operator.snapshot import LeaderKey
from tests.unit.plan.builders import IMAGES, NOW, cluster, patroni, pods, snapshot

OLD, NEW = "hub-postgres-0", "hub-postgres-1"
ALONE = {f"hub_postgres_{i}": {"state": "running"} for i in (1, 2)}
OUTDATED = {"revision": "old"}


def last_words(**members: Any) -> PatroniCluster:
    """What the others know of a primary that says nothing itself."""
    return replace(patroni(**members), by_leader=False)


def visit(seconds: float, before: Plan | None, view: PatroniCluster | None, **changes: Any) -> Plan:
    known = cluster()
    if before is not None:
        known = replace(known, status=before.status)
    seen = snapshot(now=NOW + timedelta(seconds=seconds), patroni=view, **changes)
    return make_plan(known, seen, IMAGES, before.memory if before is not None else None)


def settled() -> Plan:
    plan = visit(-10, None, patroni())
    for seconds in (-5, 0):
        plan = visit(seconds, plan, patroni())
    return plan


def ready(plan: Plan) -> str:
    return next(item.status for item in plan.status.conditions if item.type == "PostgresReady")


def test_a_frozen_primary_is_timed_from_its_own_last_word_and_named_no_more_when_nobody_follows_it() -> None:
    plan = settled()
    for seconds in (4, 6, 8, 10):
        plan = visit(seconds, plan, last_words())
        assert (plan.status.postgres.primary, plan.settled) == (OLD, False)
    plan = visit(12, plan, last_words(**ALONE))
    assert (plan.status.postgres.primary, ready(plan)) == (None, "False")
    plan = visit(20, plan, last_words(leader=None, **ALONE))
    plan = visit(22, plan, patroni(NEW, timeline=2))
    (found,) = plan.failovers
    assert (found.from_, found.to, found.duration_seconds, found.cause) == (OLD, NEW, 22.0, "RoleLost")


def test_an_operator_that_comes_when_the_primary_is_silent_already_does_not_know_how_long_it_took() -> None:
    """The node that froze had the leading operator as well."""
    plan = replace(settled(), memory=None)
    for seconds in (14, 16, 18):
        plan = visit(seconds, plan, last_words())
    for seconds in (20, 21):
        plan = visit(seconds, plan, last_words(leader=None, **ALONE))
    plan = visit(22, plan, patroni(NEW, timeline=2))
    (found,) = plan.failovers
    assert (found.from_, found.to, found.duration_seconds, found.cause) == (OLD, NEW, None, "RoleLost")


@pytest.mark.parametrize(
    ("holder", "renewed", "seconds"),
    [(OLD, -1.5, 23.5), (OLD, 3600.0, 8.0), (OLD, -3600.0, None), (NEW, -1.5, None)],
    ids=["as Patroni tells", "its clock is ahead", "its clock is behind", "of another one"],
)
def test_it_knows_that_from_the_leader_key(holder: str, renewed: float, seconds: float | None) -> None:
    key = LeaderKey(holder, NOW + timedelta(seconds=renewed))
    plan = visit(14, replace(settled(), memory=None), last_words(), leader_key=key)
    for after in (16, 18):
        plan = visit(after, plan, last_words())
    plan = visit(20, plan, last_words(leader=None, **ALONE))
    (found,) = visit(22, plan, patroni(NEW, timeline=2)).failovers
    assert (found.from_, found.to, found.duration_seconds) == (OLD, NEW, seconds)


def test_the_leader_key_of_one_that_is_back_counts_no_more() -> None:
    plan = visit(14, replace(settled(), memory=None), last_words(), leader_key=LeaderKey(OLD, NOW))
    for seconds in (16, 30):
        plan = visit(seconds, plan, patroni())
    (found,) = visit(34, plan, patroni(NEW, timeline=2)).failovers
    assert found.duration_seconds == 4.0


def test_one_whose_failure_no_look_shows_is_timed_as_well() -> None:
    (found,) = visit(4, settled(), patroni(NEW, timeline=2)).failovers
    assert (found.duration_seconds, found.cause) == (4.0, "Elected")


def test_a_few_silent_looks_of_a_primary_that_nobody_follows_are_no_outage() -> None:
    plan = settled()
    for seconds in (1, 2):
        plan = visit(seconds, plan, last_words(**ALONE))
        assert plan.status.postgres.primary == OLD
    plan = visit(3, plan, patroni())
    assert visit(4, plan, last_words(**ALONE)).status.postgres.primary == OLD


def test_busy_visits_do_not_make_a_short_silence_a_long_one() -> None:
    plan = settled()
    for seconds in (1, 2, 3, 4, 5):
        plan = visit(seconds, plan, last_words(**ALONE))
        assert plan.status.postgres.primary == OLD
    assert visit(6, plan, last_words(**ALONE)).status.postgres.primary is None


def test_one_that_is_only_slower_than_the_others_is_not_silent() -> None:
    plan = settled()
    for seconds in range(1, 12):
        plan = visit(seconds, plan, last_words(**ALONE), alive=frozenset({OLD}))
        assert plan.status.postgres.primary == OLD


def test_one_that_only_the_operator_does_not_reach_stays_the_primary_and_gets_no_wrong_duration() -> None:
    plan = settled()
    for seconds in range(1, 121):
        before = plan
        plan = visit(seconds, plan, last_words())
        assert (plan.status, plan.settled) == (before.status, False)
    (found,) = visit(121, plan, patroni(NEW, timeline=2)).failovers
    assert found.duration_seconds is None


def test_a_database_without_replicas_is_not_judged_by_them() -> None:
    single = last_words()
    single = replace(single, members=single.members[:1])
    plan = settled()
    for seconds in range(1, 6):
        plan = visit(seconds, plan, single)
        assert plan.status.postgres.primary == OLD


@pytest.mark.parametrize(
    ("step", "seconds", "cause"),
    [
        (SwitchPostgres(OLD, "rolling change", "hub-postgres-1"), 2, "RollingChange"),
        (RestartPostgres(OLD, "changed parameters"), 2, "RollingChange"),
        (RestartPod(OLD, f"uid-{OLD}", "new pod template"), 2, "RollingChange"),
        (SwitchPostgres(OLD, "rolling change", "hub-postgres-1"), 61, "NodeLost"),
        (RestartPod("hub-postgres-2", "uid-hub-postgres-2", "new pod template"), 2, "NodeLost"),
        (None, 2, "NodeLost"),
    ],
)
def test_a_failover_is_a_rolling_change_only_when_its_step_moved_the_role(
    step: Any, seconds: float, cause: str
) -> None:
    # A rolling change is due all the time, and waits for a member.
    waiting = {"hub_postgres_1": OUTDATED | {"ready": False}, "hub_postgres_0": OUTDATED}
    plan = visit(0, settled(), patroni(), pods=pods(**waiting))
    assert plan.rollout is not None
    if step is not None:
        stepped = LastStep.done(step, NOW + timedelta(seconds=4 - seconds), None)
        plan = replace(plan, memory=replace(plan.memory, last_step=stepped))
    dead = waiting | {"hub_postgres_0": OUTDATED | {"ready": False, "node_silent": True}}
    (found,) = visit(4, plan, patroni("hub-postgres-2", timeline=2), pods=pods(**dead)).failovers
    assert (found.from_, found.cause) == (OLD, cause)
