"""Broken members are made anew: late enough, one at a time, never the last good copy, not for ever."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runnerhub_operator import names
from runnerhub_operator.actions import ReinitializePostgres, RestartPod
from runnerhub_operator.api import ConditionType
from runnerhub_operator.plan import ClusterMemory, Plan, make_plan, repair
from runnerhub_operator.snapshot import Children, Snapshot
from tests.generate import IMAGES
from tests.unit.plan.builders import NOW, children, cluster, patroni, pods, snapshot

BROKEN = "hub-postgres-2"
FAILS = {"state": "start failed", "role": "replica", "timeline": None, "lag_bytes": None}
STARTS = FAILS | {"state": "starting"}
COPIES = FAILS | {"state": "creating replica"}
STREAMLESS = {"state": "running", "role": "replica"}
FIRST = patroni(hub_postgres_2=FAILS)
PODS, WELL = pods(), patroni()
PATIENCE = repair.PATIENCE_SECONDS


class Watch:
    """Visits of one cluster, one after the other."""

    def __init__(self, spec: dict[str, Any] | None = None) -> None:
        self.hub = cluster(spec)
        self.now = NOW
        self.memory: ClusterMemory | None = None
        self.repair = repair.Memory()
        self.found: Plan

    def visit(self, seconds: float = 0.0, **changes: Any) -> Plan:
        """A visit so many seconds after the last one."""
        self.now += timedelta(seconds=seconds)
        hub, memory = self.hub, None
        if self.memory is not None:
            hub = replace(hub, status=self.found.status)
            memory = replace(self.memory, repair=self.repair)
        self.found = make_plan(hub, snapshot(now=self.now, **changes), IMAGES, memory)
        self.memory, self.repair = self.found.memory, self.found.memory.repair
        return self.found

    def look(self, seconds: float = 0.0, **changes: Any) -> repair.Repair:
        """What a visit does for the members, and nothing else of it."""
        self.now += timedelta(seconds=seconds)
        children = Children.of(changes.pop("children", {}).values())
        seen = Snapshot(self.now, children, **{"pods": PODS, "patroni": WELL} | changes)
        found = repair.look(self.hub, seen, self.repair)
        self.repair = found.memory
        return found

    def stay(self, seconds: float, every: float = 5.0, **changes: Any) -> Plan:
        """Visits for a time in which nothing changes."""
        for _ in range(int(seconds // every)):
            self.look(every, **changes)
        return self.visit(seconds % every, **changes)

    def carry_out(self) -> str:
        """Let the step take place; the member that is made anew."""
        step = step_of(self.found)
        assert isinstance(step, ReinitializePostgres)
        self.repair = self.repair.tried(step.member, self.now)
        return step.member

    def refuse(self, why: str) -> None:
        """Let Patroni refuse the step."""
        self.repair = self.repair.refused(BROKEN, why, self.now)


def step_of(found: Plan) -> Any:
    return found.rollout.step if found.rollout is not None else None


def message(found: Plan, kind: ConditionType = ConditionType.POSTGRES) -> str:
    return next(item.message for item in found.status.conditions if item.type == kind)


def reasons(found: Plan) -> set[str]:
    return {note.reason for note in found.events}


def broken_for(seconds: float, **changes: Any) -> Watch:
    watch = Watch()
    watch.visit(**{"patroni": FIRST} | changes)
    watch.stay(seconds, **{"patroni": FIRST} | changes)
    return watch


# --- When ---


def test_a_replica_that_does_not_start_is_made_anew_after_a_while_and_under_the_lease() -> None:
    watch = broken_for(PATIENCE - 5)
    assert step_of(watch.found) is None
    found = watch.visit(5, patroni=FIRST)
    assert step_of(found).member == BROKEN
    assert found.disruption_lease is not None
    assert found.disruption_lease["spec"]["holderIdentity"] == "operator/repair-postgres"
    assert found.writes


@pytest.mark.parametrize("state", ["crashed", "restart failed", "start failed", "stopped"])
def test_each_way_not_to_run_counts(state: str) -> None:
    view = patroni(hub_postgres_2=FAILS | {"state": state})
    assert step_of(broken_for(PATIENCE, patroni=view).found).member == BROKEN


def test_between_two_failed_starts_the_time_goes_on() -> None:
    watch = Watch()
    watch.visit()
    for _ in range(int(PATIENCE // 4) + 1):
        watch.look(2, patroni=FIRST)
        watch.look(2, patroni=patroni(hub_postgres_2=STARTS))
    assert step_of(watch.visit(patroni=FIRST)).member == BROKEN


def test_a_long_start_is_waited_for_and_its_first_failure_is_given_time() -> None:
    starting = patroni(hub_postgres_2=STARTS)
    watch = broken_for(repair.START_PATIENCE_SECONDS - 60, patroni=starting)
    assert step_of(watch.found) is None
    assert step_of(watch.stay(PATIENCE - 5, patroni=FIRST)) is None
    assert step_of(broken_for(repair.START_PATIENCE_SECONDS, patroni=starting).found).member == BROKEN


@pytest.mark.parametrize("state", ["running", "streaming"])
def test_a_replica_on_another_timeline_is_made_anew(state: str) -> None:
    view = patroni(timeline=2, hub_postgres_2={"state": state, "timeline": 1})
    found = broken_for(PATIENCE, patroni=view).found
    assert "is not on the primary's timeline" in step_of(found).reason


def test_a_replica_that_shows_as_streaming_only_for_moments_is_made_anew() -> None:
    view = patroni(hub_postgres_2=STREAMLESS)
    watch = Watch()
    watch.visit()
    for _ in range(int(PATIENCE // 12) + 1):
        watch.look(11, patroni=view)
        watch.look(1)
    assert "does not stream" in step_of(watch.visit(1, patroni=view)).reason


def test_when_nobody_streams_the_primary_may_be_the_cause_and_more_time_is_given() -> None:
    view = patroni(hub_postgres_1=STREAMLESS, hub_postgres_2=STREAMLESS)
    watch = broken_for(repair.LONE_PATIENCE_SECONDS - 5, patroni=view)
    assert step_of(watch.found) is None
    assert step_of(watch.visit(5, patroni=view)).member == "hub-postgres-1"


@pytest.mark.parametrize(
    "between",
    [
        {},  # in step again
        {"patroni": patroni(hub_postgres_2=COPIES)},
        {"patroni": None},
        {"patroni": patroni(leader=None, hub_postgres_2=FAILS)},
        {"patroni": patroni("hub-postgres-0", hub_postgres_0={"state": "stopped"}, hub_postgres_2=FAILS)},
        {"patroni": replace(FIRST, paused=True)},
        {"patroni": FIRST, "pods": pods(hub_postgres_0={"ready": False})},
        {"patroni": FIRST, "pods": pods(hub_postgres_2={"ready": False})},
        {"patroni": FIRST, "pods": pods(hub_postgres_2={"terminating": True})},
        {"patroni": FIRST, "pods": pods(hub_postgres_2={"uid": "another"})},
    ],
    ids=[
        "in step", "being copied", "Patroni silent", "no leader", "primary stopped", "Patroni paused",
        "primary's pod not ready", "the member hangs", "pod goes", "new pod",
    ],
)  # fmt: skip
def test_the_time_begins_anew_after_anything_that_gives_hope_or_takes_sight(between: dict[str, Any]) -> None:
    watch = broken_for(PATIENCE - 5)
    watch.stay(repair.DOUBT_SECONDS + 1, every=1, **between)
    assert step_of(watch.found) is None
    assert step_of(watch.stay(PATIENCE - 5, patroni=FIRST)) is None
    assert step_of(watch.visit(10, patroni=FIRST)).member == BROKEN


def test_a_member_that_is_not_ready_must_answer_itself() -> None:
    unready = {"pods": pods(hub_postgres_2={"ready": False})}
    assert step_of(broken_for(PATIENCE, **unready).found) is None
    assert step_of(broken_for(PATIENCE, alive=frozenset({BROKEN}), **unready).found).member == BROKEN


def test_a_moment_without_sight_costs_nothing_but_in_it_nothing_is_done() -> None:
    watch = broken_for(PATIENCE)
    assert step_of(watch.visit(1, patroni=None)) is None
    assert step_of(watch.visit(1, patroni=FIRST)).member == BROKEN


# --- Replay ---


def behind(replayed: int | None, **fields: Any) -> Any:
    """A replica that does not stream, and how far it has replayed the log."""
    return patroni(timeline=2, hub_postgres_2=STREAMLESS | {"replayed": replayed} | fields)


@pytest.mark.parametrize("fields", [{}, {"timeline": 1}, {"timeline": 1, "state": "streaming"}])
def test_a_replica_that_replays_what_it_has_is_left_alone_until_that_stands_still(
    fields: dict[str, Any],
) -> None:
    watch = Watch()
    watch.hub = cluster(status={"phase": "Ready"})
    found = watch.visit(patroni=behind(0, **fields))
    for replayed in range(1, 360):
        # Patroni tells a new position less often than it is asked.
        found = watch.look(5, patroni=behind(replayed // 2, **fields))
        assert found.rollout is None
    expected = "it replays its log, and is made anew when that stands still for 120 s"
    told = message(watch.visit(5, patroni=behind(200, **fields)))
    assert expected in told
    assert message(watch.visit(5, patroni=behind(201, **fields))) == told, "else each visit writes the status"
    assert step_of(watch.stay(PATIENCE - 5, patroni=behind(201, **fields))) is None
    assert step_of(watch.visit(5, patroni=behind(201, **fields))).member == BROKEN


def test_one_that_replays_the_same_again_and_again_is_made_anew() -> None:
    """It crashes at a damaged piece of the log, and is started from the beginning each time."""
    watch = Watch()
    watch.visit()
    for _ in range(int(PATIENCE // 10) + 3):
        for replayed in (10, 20, 30):
            watch.look(3, patroni=behind(replayed))
        watch.look(1, patroni=FIRST)
    assert step_of(watch.visit(patroni=FIRST)).member == BROKEN


def test_one_that_crashes_at_the_end_of_a_long_replay_is_given_time() -> None:
    watch = Watch()
    watch.visit(patroni=behind(0))
    for replayed in range(1, 120):
        watch.look(5, patroni=behind(replayed))
    found = watch.visit(5, patroni=FIRST)
    assert step_of(found) is None
    assert "it is made anew from the primary at" in message(found)
    assert step_of(watch.stay(PATIENCE, patroni=FIRST)).member == BROKEN


# --- The last good copy ---


def test_never_two_at_a_time_and_the_primary_never() -> None:
    both = patroni(hub_postgres_1=FAILS, hub_postgres_2=FAILS)
    watch = broken_for(PATIENCE, patroni=both)
    assert watch.carry_out() == "hub-postgres-1"
    one = patroni(hub_postgres_1=COPIES, hub_postgres_2=FAILS)
    found = watch.stay(3600, patroni=one)
    assert step_of(found) is None
    assert "its repair waits for hub-postgres-1, which was made anew and is not back" in message(found)
    failed = watch.stay(30, patroni=both)
    assert step_of(failed) is None, "its copy failed, and the other may be the last beside the primary's"
    assert step_of(watch.visit(5, patroni=FIRST)) is None, "it may stream for a moment only"
    healed = watch.visit(repair.DOUBT_SECONDS, patroni=FIRST)
    assert step_of(healed).member == BROKEN
    assert "MemberRecovered" in reasons(healed)


@pytest.mark.parametrize("state", ["creating replica", "restarting", "stopping"])
def test_it_waits_for_a_member_that_is_on_its_way(state: str) -> None:
    view = patroni(hub_postgres_1={"state": state}, hub_postgres_2=FAILS)
    found = broken_for(PATIENCE, patroni=view).found
    assert step_of(found) is None
    assert "hub-postgres-1, which is on its way" in message(found)


def test_a_member_that_is_lost_with_its_node_holds_nobody_up() -> None:
    view = patroni(hub_postgres_1=COPIES, hub_postgres_2=FAILS)
    gone = pods(hub_postgres_1={"ready": False, "node_silent": True})
    assert step_of(broken_for(PATIENCE, patroni=view, pods=gone).found).member == BROKEN


# --- Together with other disruptions ---


def test_a_rolling_change_of_the_database_waits_and_does_not_hold_the_repair_up() -> None:
    outdated = pods(hub_postgres_0={"revision": "old"}, hub_postgres_1={"revision": "old"})
    assert step_of(broken_for(PATIENCE, pods=outdated).found).member == BROKEN


@pytest.mark.parametrize("component", [names.POOLER, names.ORCHESTRATOR, names.LOAD_BALANCER])
def test_a_deployment_that_does_not_get_on_holds_no_repair_up_and_is_told_all_the_while(
    component: str,
) -> None:
    status = {"observedGeneration": 1, "replicas": 3, "updatedReplicas": 1}
    renewing = {"kind": "Deployment", "metadata": {"name": f"hub-{component}"}, "status": status}
    changes: dict[str, Any] = {"patroni": FIRST, "children": children(renewing)}
    watch = Watch()
    watch.visit()
    watch.visit(**changes)
    found = watch.stay(PATIENCE, **changes)
    assert step_of(found).member == BROKEN
    assert message(found, ConditionType.PROGRESSING).startswith(f"rolling change of {component}")


def test_a_new_template_goes_first_because_it_may_mend_the_member() -> None:
    outdated = pods(hub_postgres_2={"revision": "old"})
    step = step_of(broken_for(PATIENCE, patroni=FIRST, pods=outdated).found)
    assert isinstance(step, RestartPod)


def test_while_it_is_copied_the_lease_is_kept_and_other_changes_go_on() -> None:
    watch = broken_for(PATIENCE)
    watch.carry_out()
    copying = {"patroni": patroni(hub_postgres_2=COPIES)}
    held = {
        "kind": "Lease",
        "metadata": {"name": "hub-disruption"},
        "spec": {"holderIdentity": "operator/repair-postgres"},
    }
    found = watch.visit(5, children=children(held), **copying)
    assert found.rollout is not None
    assert found.rollout.waiting_for == "hub-postgres-2 to be copied from hub-postgres-0"
    assert found.disruption_lease is None
    changing = watch.visit(5, pods=pods(hub_redis_2={"revision": "old"}), children=children(held), **copying)
    assert step_of(changing).pod == "hub-redis-2"
    back = watch.visit(5, children=children(held))
    assert back.disruption_lease is not None
    assert back.disruption_lease["spec"]["holderIdentity"] == ""


def test_the_lease_of_a_person_is_respected() -> None:
    lease = {
        "kind": "Lease",
        "metadata": {"name": "hub-disruption"},
        "spec": {"holderIdentity": "alice/drill"},
    }
    found = broken_for(PATIENCE, children=children(lease)).found
    assert step_of(found) is None
    assert found.rollout is not None
    assert "alice/drill" in found.rollout.waiting_for


def test_a_paused_cluster_is_left_alone_and_says_so() -> None:
    watch = Watch({"paused": True})
    watch.visit(patroni=FIRST)
    found = watch.stay(PATIENCE, patroni=FIRST)
    assert found.rollout is None
    assert "spec.paused holds its repair back" in message(found)
    assert "a repair of postgres is due" in message(found, ConditionType.PROGRESSING)


# --- Not for ever ---


def test_a_hopeless_member_is_tried_ever_less_often() -> None:
    watch = broken_for(PATIENCE)
    gaps: list[float] = []
    last: datetime | None = None
    for _ in range(8):
        while (due := watch.look(60, patroni=FIRST).rollout) is None or due.step is None:
            pass
        watch.visit(patroni=FIRST)
        watch.carry_out()
        if last is not None:
            gaps.append((watch.now - last).total_seconds())
        last = watch.now
    assert gaps == sorted(gaps)
    assert gaps[0] >= repair.FIRST_PAUSE_SECONDS
    assert gaps[1] >= 2 * repair.FIRST_PAUSE_SECONDS
    assert repair.LONGEST_PAUSE_SECONDS <= gaps[-1] <= repair.LONGEST_PAUSE_SECONDS + 120


def test_a_member_that_was_well_for_a_day_is_tried_as_if_for_the_first_time() -> None:
    watch = broken_for(PATIENCE)
    watch.carry_out()
    watch.look(30)
    assert watch.repair.tries[BROKEN].back
    watch.look(repair.FORGOTTEN_SECONDS)
    assert not watch.repair.tries


def test_a_refusal_is_told_and_tried_again_soon() -> None:
    watch = broken_for(PATIENCE)
    watch.refuse("running pg_rewind already in progress")
    found = watch.visit(2, patroni=FIRST)
    assert step_of(found) is None
    assert "running pg_rewind already in progress" in message(found)
    again = watch.visit(repair.REFUSED_SECONDS, patroni=FIRST)
    assert step_of(again).member == BROKEN
    assert message(again) == message(found), "a status that says the same is not written"


def test_a_change_that_waits_behind_a_refused_repair_is_told_all_the_while() -> None:
    """A member that cannot be copied refuses for hours, and is asked again every few seconds."""
    changes = {"patroni": FIRST, "pods": pods(hub_postgres_1={"revision": "old"})}
    watch = Watch()
    watch.hub = cluster(status={"phase": "Ready"})
    watch.visit(**changes)
    watch.stay(PATIENCE, **changes)
    told = set()
    for _ in range(20):
        found = watch.visit(2, **changes)
        if isinstance(step_of(found), ReinitializePostgres):
            watch.refuse("hub-postgres-0 does not let it in for a copy: timeout expired")
        told.add((found.status.phase, message(found, ConditionType.PROGRESSING)))
    expected = f"rolling change of postgres, waiting for {BROKEN} to become healthy"
    assert told == {("Updating", expected)}


def test_so_is_a_switchover_that_waits_for_this_very_member() -> None:
    watch = Watch()
    watch.hub = replace(cluster(status={"phase": "Ready"}), switch_primary_to=BROKEN)
    watch.visit(patroni=FIRST)
    watch.stay(PATIENCE, patroni=FIRST)
    told = set()
    for _ in range(20):
        found = watch.visit(2, patroni=FIRST)
        if isinstance(step_of(found), ReinitializePostgres):
            watch.refuse("hub-postgres-0 does not let it in for a copy: timeout expired")
        told.add((found.status.phase, message(found, ConditionType.PROGRESSING)))
    assert len(told) == 1


# --- Telling ---


def test_people_are_told_what_is_wrong_since_when_and_what_is_done() -> None:
    watch = broken_for(20)
    assert BROKEN not in message(watch.found)
    found = watch.visit(20, patroni=FIRST)
    expected = (
        f"{BROKEN} does not start since 2026-01-01T12:00:00Z, "
        "it is made anew from the primary at 2026-01-01T12:02:00Z unless Patroni mends it"
    )
    assert expected in message(found)
    assert message(watch.visit(20, patroni=FIRST)) == message(found)
    assert found.status.phase in ("Creating", "Degraded")
    watch.visit(PATIENCE, patroni=FIRST)
    watch.carry_out()
    copied = watch.visit(5, patroni=patroni(hub_postgres_2=COPIES))
    assert f"{BROKEN} is being copied from hub-postgres-0 since" in message(copied)
    assert BROKEN not in message(watch.visit(5))


def test_a_repair_is_no_change_of_the_spec() -> None:
    watch = Watch()
    watch.visit()
    watch.visit(5, patroni=FIRST)
    found = watch.stay(PATIENCE, patroni=FIRST)
    assert step_of(found) is not None
    assert found.status.phase == "Degraded"
    assert message(found, ConditionType.PROGRESSING) == "the spec is in effect"


# --- Whatever happens ---

STATES = (
    "running",
    "streaming",
    "starting",
    "start failed",
    "crashed",
    "stopped",
    "creating replica",
    "stopping",
)
views = st.builds(
    lambda leader, states, timelines: patroni(
        leader,
        timeline=2,
        **{
            f"hub_postgres_{i}": {"state": state, "timeline": line}
            for i, (state, line) in enumerate(zip(states, timelines, strict=True))
        },
    ),
    st.sampled_from(("hub-postgres-0", "hub-postgres-1", None)),
    st.tuples(*[st.sampled_from(STATES)] * 3),
    st.tuples(*[st.sampled_from((1, 2, None))] * 3),
)


@given(st.lists(st.tuples(st.one_of(st.none(), views), st.sampled_from((1.0, 60.0, 700.0))), max_size=12))
def test_there_is_always_a_running_primary_and_no_other_copy_under_way(
    visits: list[tuple[Any, float]],
) -> None:
    watch = Watch()
    for view, seconds in visits:
        found = watch.look(seconds, patroni=view)
        step = found.rollout.step if found.rollout is not None else None
        if not isinstance(step, ReinitializePostgres):
            continue
        assert view.leader is not None
        assert view.in_step(view.leader)
        assert step.member != view.leader
        assert not view.in_step(step.member)
        assert all(member.state != "creating replica" for member in view.members)
        assert not [n for n, tries in watch.repair.tries.items() if n != step.member and not tries.back]
        watch.repair = watch.repair.tried(step.member, watch.now)


def test_a_member_on_a_dead_node_holds_no_repair_up() -> None:
    """Its pod terminates for ever, and its last words are that it runs as the primary that it was."""
    last_words = {"state": "running", "role": "replica", "timeline": 1}
    view = replace(patroni("hub-postgres-0", timeline=2, hub_postgres_1=last_words, hub_postgres_2=FAILS))
    dead = {"terminating": True, "ready": False, "gone_by": (NOW + timedelta(seconds=90)).isoformat()}
    changes = {"patroni": view, "pods": pods(hub_postgres_1=dead)}
    watch = Watch()
    watch.visit(**changes)
    held = watch.stay(repair.LONE_PATIENCE_SECONDS + 5, 60, **changes)
    assert step_of(held).member == BROKEN
    stopping = {**dead, "gone_by": (NOW + timedelta(days=1)).isoformat()}
    assert step_of(watch.visit(1, patroni=view, pods=pods(hub_postgres_1=stopping))) is None


# --- What Postgres refuses is no damage ---

CHANGED = {"pending_restart": True, "pending_parameters": ("shared_buffers",)}


def changed(broken: dict[str, Any] = FAILS) -> Any:
    """A parameter changed that the primary and one replica still wait for; the third member has restarted."""
    return patroni(hub_postgres_0=CHANGED, hub_postgres_1=CHANGED, hub_postgres_2=broken)


def verdict(found: Plan) -> Any:
    return next(item for item in found.status.conditions if item.type == ConditionType.POSTGRES)


@pytest.mark.parametrize("broken", [FAILS, STARTS])
def test_a_member_that_does_not_start_since_a_parameter_changed_keeps_its_data(
    broken: dict[str, Any],
) -> None:
    watch = Watch()
    watch.hub = cluster(status={"phase": "Ready"})
    watch.visit(patroni=changed(broken), pods=pods(hub_postgres_2={"ready": False}))
    hour = {
        "patroni": changed(broken),
        "pods": pods(hub_postgres_2={"ready": False}),
        "alive": frozenset([BROKEN]),
    }
    found = watch.stay(3600, 30, **hour)
    assert step_of(found) is None, "neither made anew, nor is another one restarted"
    assert verdict(found).reason == "ParametersRefused"
    assert "since parameters changed (shared_buffers)" in verdict(found).message
    assert f"kubectl logs {BROKEN}" in verdict(found).message
    assert "data is kept" in verdict(found).message
    assert "delete its claim and its pod" in verdict(found).message, "the way out when it is damaged"
    # As soon as it is taken back, what does not start then is damaged.
    taken_back = {**hour, "patroni": patroni(hub_postgres_2=broken)}
    assert step_of(watch.visit(5, **taken_back)).member == BROKEN


def test_a_member_that_was_broken_before_a_parameter_changed_is_made_anew_all_the_same() -> None:
    watch = broken_for(30)
    # Its pod is made anew, Patroni is silent and then without a primary: none of that changes what was the cause.
    watch.look(5, patroni=replace(changed(), members=changed().members[:2]))
    watch.look(5, patroni=None)
    watch.look(5, patroni=replace(changed(), leader=None))
    found = watch.stay(PATIENCE + 5, patroni=changed())
    assert step_of(found).member == BROKEN, (
        "else the restart of the others would wait for it, and it for that"
    )
    assert "parameters changed" not in message(found)
    # Its copy does not start with them either.
    watch.carry_out()
    kept = watch.stay(repair.FIRST_PAUSE_SECONDS + PATIENCE, patroni=changed())
    assert step_of(kept) is None
    assert "since parameters changed (shared_buffers)" in verdict(kept).message


def test_parameters_that_changed_while_a_member_was_copied_may_keep_it_from_starting() -> None:
    watch = broken_for(PATIENCE)
    watch.carry_out()
    watch.look(1, patroni=FIRST)
    watch.look(5, patroni=patroni(hub_postgres_2=COPIES))
    assert step_of(watch.stay(repair.FIRST_PAUSE_SECONDS + PATIENCE, patroni=changed())) is None


def test_without_a_primary_nobody_knows_what_was_changed() -> None:
    watch = Watch()
    watch.visit(patroni=changed())
    watch.look(1, patroni=replace(changed(), leader=None))
    assert step_of(watch.stay(3600, 30, patroni=changed())) is None


def test_a_member_that_restarts_with_another_parameter_is_no_alarm() -> None:
    watch = Watch()
    watch.hub = cluster(status={"phase": "Ready"})
    watch.visit(patroni=changed(STARTS))
    assert verdict(watch.visit(10, patroni=changed(STARTS))).reason != "ParametersRefused"


def test_what_running_servers_would_not_start_with_is_told_before_one_stops() -> None:
    refuses = {"refused_parameters": ("log_timezone",)}
    everywhere = patroni(**{f"hub_postgres_{i}": refuses for i in range(3)})
    watch = Watch()
    watch.hub = cluster(status={"phase": "Ready"})
    old = pods(hub_postgres_1={"revision": "old"})
    found = watch.visit(patroni=everywhere, pods=old)
    assert step_of(found) is None
    assert found.rollout is not None
    assert "it refuses log_timezone" in found.rollout.waiting_for
    assert (verdict(found).status, verdict(found).reason) == ("True", "ParametersRefused")
    assert "log_timezone" in verdict(found).message
    silent = watch.visit(1, patroni=None, pods=old)
    assert verdict(silent).message == verdict(found).message, "a moment without an answer changes nothing"
    # One that stopped meanwhile does not start, and its data is kept.
    stopped = patroni(hub_postgres_0=refuses, hub_postgres_1=refuses, hub_postgres_2=FAILS)
    assert step_of(watch.stay(600, patroni=stopped)) is None
    assert step_of(watch.visit(1, pods=old)) is not None


def test_parameters_can_be_corrected_when_no_server_starts() -> None:
    down = patroni(None, **{f"hub_postgres_{i}": FAILS for i in range(3)})
    found = make_plan(cluster(), snapshot(patroni=down, patroni_config={"ttl": 1}), IMAGES, None)
    assert found.patroni_patch is not None


# --- Patroni paused ---


def test_a_paused_patroni_is_told_with_the_remedy_and_without_going_back_and_forth() -> None:
    watch = Watch()
    watch.hub = cluster(status={"phase": "Ready"})
    paused = replace(WELL, paused=True)
    found = watch.visit(patroni=paused)
    assert (verdict(found).status, verdict(found).reason) == ("True", "PatroniPaused")
    assert "kubectl exec hub-postgres-0 -- patronictl resume" in verdict(found).message
    degraded = next(item for item in found.status.conditions if item.type == ConditionType.DEGRADED)
    assert degraded.status == "True"
    assert verdict(watch.visit(1, patroni=None)).message == verdict(found).message
    assert verdict(watch.visit(1)).reason == "Available"
