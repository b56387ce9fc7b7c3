"""Elections are noticed, timed from the first sign of failure, and explained."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from runnerhub_operator.plan.failovers import AWAY_SECONDS, Role, last_heard, track
from tests.unit.plan.builders import NOW, pods, sentinels, snapshot

OLD = "hub-postgres-0"
NEW = "hub-postgres-1"


def seen(role: Role, holder: str | None, seconds: float, **changes: dict[str, Any]) -> Any:
    return track(
        "postgres", role, holder, snapshot(now=NOW + timedelta(seconds=seconds), pods=pods(**changes)), None
    )


def test_a_steady_holder_is_no_failover() -> None:
    role, failover = seen(Role(), OLD, 0)
    role, failover = seen(role, OLD, 5)
    assert failover is None
    assert role == Role(holder=OLD, holder_uid=f"uid-{OLD}", looked_at=NOW + timedelta(seconds=5))


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        ({"terminating": True, "ready": False}, "PodDeleted"),
        ({"ready": False, "node_silent": True}, "NodeLost"),
        ({"ready": False}, "PodNotReady"),
        ({"uid": "another", "ready": False}, "PodReplaced"),
    ],
)
def test_the_duration_counts_from_the_first_sign(change: dict[str, Any], cause: str) -> None:
    role, _ = seen(Role(), OLD, 0)
    role, none = seen(role, OLD, 10, hub_postgres_0=change)
    assert none is None
    role, none = seen(role, None, 12, hub_postgres_0=change)
    assert none is None
    role, failover = seen(role, NEW, 17.5)
    assert (failover.from_, failover.to, failover.cause, failover.duration_seconds) == (OLD, NEW, cause, 7.5)
    assert role.holder == NEW
    assert role.failing_since is None


def test_a_failure_that_shows_together_with_the_next_holder_is_as_old_as_the_look_before() -> None:
    role, _ = seen(Role(), OLD, 0)
    role, _ = seen(role, OLD, 5)
    _, failover = seen(role, NEW, 9.5, hub_postgres_0={"ready": False})
    assert (failover.duration_seconds, failover.cause) == (4.5, "PodNotReady")


def test_who_did_not_look_for_long_knows_no_duration() -> None:
    role, _ = seen(Role(), OLD, 0)
    away = AWAY_SECONDS + 1
    _, failover = seen(role, NEW, away, hub_postgres_0={"ready": False})
    assert (failover.from_, failover.duration_seconds) == (OLD, None)
    unanswered = snapshot(now=NOW + timedelta(seconds=away), pods=pods())
    role, none = track("postgres", role, OLD, unanswered, None, answered=False)
    assert none is None
    _, failover = seen(role, NEW, away + 1, hub_postgres_0={"ready": False})
    assert failover.duration_seconds is None


MASTER, NEXT = "hub-redis-0", "hub-redis-1"


def redis(role: Role, seconds: float, *silent: float, master: int = 0, **changes: Any) -> Any:
    """A look at which each Sentinel has heard nothing from its master for so long."""
    now = NOW + timedelta(seconds=seconds)
    views = tuple(
        replace(view, heard_at=now - timedelta(seconds=quiet))
        for view, quiet in zip(sentinels(master), silent, strict=True)
    )
    found = snapshot(now=now, sentinels=views, pods=pods(**changes))
    heard = last_heard(found, role.holder)
    return track("redis", role, f"hub-redis-{master}", found, None, answered=bool(views), heard=heard)


def test_a_failover_of_the_queue_is_timed_from_when_the_sentinels_last_heard_from_the_master() -> None:
    role, _ = redis(Role(), 0, 0.2, 0.3, 0.4)
    role, _ = redis(role, 5, 4.4, 4.5, 4.6)
    _, failover = redis(role, 8, 0.1, 0.1, 0.1, master=1)
    assert (failover.from_, failover.to, failover.duration_seconds) == (MASTER, NEXT, 7.5)


def test_a_master_that_goes_in_good_order_counts_for_as_long_as_it_answers() -> None:
    going = {"hub_redis_0": {"terminating": True, "ready": False}}
    role, _ = redis(Role(), 0, 0.2, 0.3, 0.4)
    role, _ = redis(role, 1, 0.2, 0.3, 0.4, **going)
    role, _ = redis(role, 8, 0.2, 0.3, 0.4, **going)
    _, failover = redis(role, 9, 0.1, 0.1, 0.1, master=1, **going)
    assert (failover.duration_seconds, failover.cause) == (1.3, "PodDeleted")


@pytest.mark.parametrize("skewed", [(600.0, 4.0, 4.2), (0.0, 4.0, 4.2)])
def test_a_sentinel_that_was_away_itself_is_not_believed(skewed: tuple[float, ...]) -> None:
    role, _ = redis(Role(), 0, 0.2, 0.3, 0.4)
    role, _ = redis(role, 5, *skewed)
    _, failover = redis(role, 8, 0.1, 0.1, 0.1, master=1)
    assert 7.0 <= failover.duration_seconds <= 7.2


def test_after_a_restart_of_the_operator_the_sentinels_still_know_when_the_master_fell_silent() -> None:
    role, none = redis(Role(holder=MASTER), 0, 3.0, 3.0, 3.0)
    assert none is None
    _, failover = redis(role, 4, 0.1, 0.1, 0.1, master=1)
    assert failover.duration_seconds == 7.0
    _, failover = redis(Role(holder=MASTER), 4, 0.1, 0.1, 0.1, master=1)
    assert failover.duration_seconds is None


def test_a_sign_that_passes_is_forgotten() -> None:
    role, _ = seen(Role(), OLD, 0)
    role, _ = seen(role, OLD, 10, hub_postgres_0={"ready": False})
    role, _ = seen(role, OLD, 20)
    role, failover = seen(role, NEW, 50)
    assert failover.duration_seconds is None
    assert failover.cause == "Elected"


def test_a_move_while_the_operator_was_away_has_no_duration() -> None:
    _, failover = seen(Role(holder=OLD), NEW, 0)
    assert failover.from_ == OLD
    assert failover.duration_seconds is None


def test_the_first_holder_is_no_failover() -> None:
    assert seen(Role(), NEW, 0)[1] is None


def test_a_new_pod_that_kept_the_role_starts_afresh() -> None:
    role, _ = seen(Role(), OLD, 0)
    role, none = seen(role, OLD, 10, hub_postgres_0={"uid": "another"})
    assert none is None
    _, failover = seen(role, NEW, 40000, hub_postgres_0={"uid": "another"})
    assert failover.duration_seconds is None
