"""Elections are noticed, timed from the first sign of failure, and explained."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from runnerhub_operator.plan.failovers import Role, track
from tests.unit.plan.builders import NOW, pods, snapshot

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
    assert role == Role(holder=OLD, holder_uid=f"uid-{OLD}")


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        ({"terminating": True, "ready": False}, "PodDeleted"),
        ({"ready": False, "ready_unknown": True}, "NodeLost"),
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
