"""Reading Patroni's answers."""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runnerhub_operator.errors import ProbeError
from runnerhub_operator.probes.patroni import (
    PatroniCluster,
    parse_cluster,
    parse_lag_seconds,
    parse_version,
    preferred_view,
)


def answer(
    leader: str | None = "hub-postgres-0", timeline: int = 1, **changes: dict[str, Any]
) -> dict[str, Any]:
    """An answer of GET /cluster as Patroni 4.1 gives it; `changes` by the last digit of the member's name."""
    members = []
    for ordinal in range(3):
        name = f"hub-postgres-{ordinal}"
        member: dict[str, Any] = {
            "name": name,
            "role": "leader" if name == leader else "quorum_standby",
            "state": "running" if name == leader else "streaming",
            "api_url": f"http://10.0.0.{ordinal}:8008/patroni",
            "host": f"10.0.0.{ordinal}",
            "port": 5432,
            "timeline": timeline,
        }
        if name != leader:
            member |= {
                "receive_lag": 0,
                "receive_lsn": "0/5000060",
                "replay_lag": 0,
                "replay_lsn": "0/5000060",
                "lag": 0,
                "lsn": "0/5000060",
            }
        members.append({**member, **changes.get(f"m{ordinal}", {})})
    return {"members": members, "scope": "hub-postgres"}


def test_a_healthy_cluster() -> None:
    cluster = parse_cluster(answer(timeline=4))
    assert (cluster.leader, cluster.timeline, cluster.paused) == ("hub-postgres-0", 4, False)
    assert [m.role for m in cluster.members] == ["primary", "quorum_standby", "quorum_standby"]
    assert [m.lag_bytes for m in cluster.members] == [None, 0, 0]
    assert cluster.synchronous == ("hub-postgres-1", "hub-postgres-2")
    assert all(cluster.in_step(m.name) for m in cluster.members)


@pytest.mark.parametrize(
    ("fields", "lag"),
    [
        ({"lag": 10, "receive_lag": 0, "replay_lag": 20}, 20),
        ({"lag": "unknown", "receive_lag": "unknown", "replay_lag": "unknown"}, None),
        ({"lag": "unknown", "receive_lag": 7, "replay_lag": "unknown"}, 7),
        ({"lag": True, "receive_lag": None, "replay_lag": 1.5}, None),
    ],
)
def test_lag_is_the_furthest_known(fields: dict[str, Any], lag: int | None) -> None:
    member = parse_cluster(answer(m1=fields)).member("hub-postgres-1")
    assert member is not None
    assert member.lag_bytes == lag


@pytest.mark.parametrize(
    ("told", "replayed"),
    [
        ("0/5000060", 0x5000060),
        ("16/B374D848", 0x16B374D848),
        ("unknown", None),
        ("", None),
        ("0/", None),
        (7, None),
        (None, None),
    ],
)
def test_how_far_a_replica_has_replayed_the_log(told: Any, replayed: int | None) -> None:
    cluster = parse_cluster(answer(m1={"replay_lsn": told}))
    assert [m.replayed for m in cluster.members] == [None, replayed, 0x5000060]


@pytest.mark.parametrize(
    ("told", "seconds"),
    [
        ("2026-01-01 11:59:17.654321+00:00", 42),
        ("2026-01-01 14:00:00+02:00", 0),
        ("2026-01-01 12:00:09+00:00", 0),
        ("2026-01-01 11:59:17", None),
        ("yesterday", None),
        (None, None),
        (17, None),
    ],
)
def test_lag_in_seconds_is_the_age_of_the_last_replayed_transaction(
    told: object, seconds: int | None
) -> None:
    noon = datetime(2026, 1, 1, 12, tzinfo=UTC)
    assert parse_lag_seconds({"xlog": {"replayed_timestamp": told}}, noon) == seconds


def test_a_member_without_a_position_tells_no_lag() -> None:
    assert parse_lag_seconds({"xlog": []}, datetime.now(UTC)) is None
    assert parse_lag_seconds({}, datetime.now(UTC)) is None


@pytest.mark.parametrize(
    ("number", "version"), [(170006, "17.6"), (180000, "18.0"), (90624, None), ("17", None), (None, None)]
)
def test_version(number: object, version: str | None) -> None:
    assert parse_version({"server_version": number}) == version


def test_nobody_leads() -> None:
    cluster = parse_cluster(answer(leader=None))
    assert (cluster.leader, cluster.timeline) == (None, None)
    assert not any(cluster.in_step(m.name) for m in cluster.members)


def test_a_replica_on_another_timeline_is_not_in_step_although_it_streams() -> None:
    cluster = parse_cluster(answer(timeline=5, m2={"timeline": 4}))
    assert cluster.in_step("hub-postgres-1")
    assert not cluster.in_step("hub-postgres-2")


def test_a_stopped_primary_is_not_in_step() -> None:
    assert not parse_cluster(answer(m0={"state": "stopped"})).in_step("hub-postgres-0")


def test_pending_restart_and_pause() -> None:
    body = {**answer(m1={"pending_restart": True, "pending_restart_reason": {}}), "pause": True}
    cluster = parse_cluster(body)
    assert [m.pending_restart for m in cluster.members] == [False, True, False]
    assert cluster.paused


def test_parameters_that_wait_for_a_restart_and_those_that_a_server_refuses() -> None:
    waits = {"max_connections": {"old_value": "100", "new_value": "200"}, "huge_pages": {}}
    cluster = parse_cluster(
        answer(
            m1={"pending_restart": True, "pending_restart_reason": waits},
            m2={"tags": {"refused_parameters": "log_timezone, work_mem"}},
        )
    )
    assert [m.pending_parameters for m in cluster.members] == [(), ("huge_pages", "max_connections"), ()]
    assert cluster.refused_parameters == ("log_timezone", "work_mem")
    stopped = answer(m2={"tags": {"refused_parameters": "log_timezone"}, "state": "start failed"})
    assert parse_cluster(stopped).refused_parameters == ()


def test_a_member_that_is_being_made_has_neither_timeline_nor_lag() -> None:
    body = answer()
    body["members"][2] = {
        "name": "hub-postgres-2",
        "role": "replica",
        "state": "creating replica",
        "api_url": "x",
    }
    member = parse_cluster(body).member("hub-postgres-2")
    assert member is not None
    assert (member.timeline, member.lag_bytes, member.host) == (None, None, None)


def test_the_primarys_own_view_is_preferred() -> None:
    own = parse_cluster(answer(m1={"lag": 5}))
    other = parse_cluster(answer(m1={"lag": 9}))
    assert preferred_view([("10.0.0.1", other), ("10.0.0.0", own)]) is own


def test_a_primary_that_just_woke_up_does_not_outvote_the_next_timeline() -> None:
    stale = parse_cluster(answer(leader="hub-postgres-0", timeline=1))
    current = parse_cluster(answer(leader="hub-postgres-1", timeline=2))
    assert preferred_view([("10.0.0.0", stale), ("10.0.0.2", current)]) is current


def test_no_view_at_all() -> None:
    assert preferred_view([]) is None


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["members", "name", "role", "lag", "timeline", "state"]), inner, max_size=4
        )
    ),
    max_leaves=12,
)


@given(_JSON)
def test_any_answer_is_read_or_refused(body: Any) -> None:
    with contextlib.suppress(ProbeError):
        assert isinstance(parse_cluster(body), PatroniCluster)
