"""Rolling changes: replicas first, one at a time, never while something is broken, the role moves once."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any, get_args

from hypothesis import given
from hypothesis import strategies as st

from runnerhub_operator.actions import (
    Disruption,
    GrowRedis,
    ReinitializePostgres,
    RenewDeployment,
    RestartPod,
    RestartPostgres,
    ShrinkPostgres,
    ShrinkRedis,
    SwitchPostgres,
)
from runnerhub_operator.plan import LastStep, make_plan
from runnerhub_operator.plan.rollout import plan_rollout
from runnerhub_operator.plan.status import redis_status
from runnerhub_operator.probes.redis_pod import RedisPodState
from tests.generate import IMAGES
from tests.unit.plan.builders import NOW, children, cluster, patroni, pods, sentinels, snapshot, stateful_set

OLD = {"revision": "old"}


def rollout(snap: Any, deleted: str | None = None) -> Any:
    return plan_rollout(cluster(), snap, redis_status(cluster(), snap), LastStep(deleted_uid=deleted))


def test_nothing_is_due_when_all_pods_are_new() -> None:
    assert rollout(snapshot()) is None


def test_replicas_come_before_the_primary() -> None:
    snap = snapshot(pods=pods(hub_postgres_0=OLD, hub_postgres_1=OLD, hub_postgres_2=OLD))
    assert rollout(snap).step == RestartPod("hub-postgres-2", "uid-hub-postgres-2", "new pod template")


def test_the_primary_hands_over_before_it_is_renewed() -> None:
    step = rollout(snapshot(pods=pods(hub_postgres_0=OLD))).step
    assert isinstance(step, SwitchPostgres)
    assert step.primary == "hub-postgres-0"


def test_nothing_is_done_while_a_member_is_not_back() -> None:
    lagging = patroni(hub_postgres_2={"state": "starting"})
    found = rollout(snapshot(pods=pods(hub_postgres_1=OLD), patroni=lagging))
    assert found.step is None
    assert "hub-postgres-2" in found.waiting_for


def test_a_broken_pod_of_the_old_template_is_renewed_when_it_is_the_only_broken_one() -> None:
    broken = pods(hub_postgres_0=OLD, hub_postgres_2=OLD | {"ready": False})
    assert rollout(snapshot(pods=broken)).step == RestartPod(
        "hub-postgres-2", "uid-hub-postgres-2", "new pod template"
    )


def test_nothing_is_done_while_the_deleted_pod_still_shows_as_alive() -> None:
    snap = snapshot(pods=pods(hub_postgres_1=OLD, hub_postgres_2=OLD))
    assert rollout(snap, deleted="uid-hub-postgres-2").step is None


def test_nothing_is_done_before_the_stateful_set_controller_has_looked() -> None:
    stale = children(stateful_set("postgres", generation=2, observed=1))
    assert rollout(snapshot(children=stale, pods=pods(hub_postgres_1=OLD))) is None


def test_a_parameter_that_needs_a_restart_restarts_replicas_first() -> None:
    pending = {name: {"pending_restart": True} for name in ("hub_postgres_0", "hub_postgres_1")}
    assert rollout(snapshot(patroni=patroni(**pending))).step == RestartPostgres(
        "hub-postgres-1", "changed parameters"
    )


def test_a_parameter_that_shrinks_restarts_the_primary_first() -> None:
    pending = {"pending_restart": True, "restart_primary_first": True}
    everywhere = patroni(**{f"hub_postgres_{i}": pending for i in range(3)})
    assert rollout(snapshot(patroni=everywhere)).step == RestartPostgres(
        "hub-postgres-0", "changed parameters", pause=True
    )


def test_no_other_member_goes_while_the_primary_does_not_count_one_among_those_that_confirm() -> None:
    """As soon as a node stands still: the pod says that it is ready, and its last words are that it streams."""
    silent = patroni(hub_postgres_2={"role": "replica"})
    for changes in ({"pods": pods(hub_postgres_1=OLD)}, {"pods": pods(hub_postgres_0=OLD)}):
        found = rollout(snapshot(patroni=silent, **changes))
        assert (found.step, found.waiting_for) == (None, "hub-postgres-2 to become healthy")
    asynchronous = cluster({"postgres": {"synchronous": "disabled"}})
    snap = snapshot(patroni=silent, pods=pods(hub_postgres_1=OLD))
    assert plan_rollout(asynchronous, snap, redis_status(cluster(), snap), LastStep()).step is not None


def test_a_step_names_the_members_that_it_rests_on() -> None:
    assert rollout(snapshot(pods=pods(hub_postgres_2=OLD))).rests_on == ("hub-postgres-0", "hub-postgres-1")
    pending = patroni(hub_postgres_1={"pending_restart": True})
    assert rollout(snapshot(patroni=pending)).rests_on == ("hub-postgres-0", "hub-postgres-2")


def test_what_was_refused_is_told_with_the_reason_and_tried_again_soon() -> None:
    snap = snapshot(pods=pods(hub_postgres_2=OLD))
    for seconds, tried in ((5, False), (11, True)):
        last = LastStep().refused(NOW - timedelta(seconds=seconds), "hub-postgres-1 does not answer")
        found = plan_rollout(cluster(), snap, redis_status(cluster(), snap), last)
        assert (found.step is not None) is tried
        assert found.waiting_for == "hub-postgres-2: hub-postgres-1 does not answer"


def alone(**changes: Any) -> Any:
    """A cluster with one member."""
    one = [pod for pod in pods(**changes) if pod.name not in ("hub-postgres-1", "hub-postgres-2")]
    views = patroni(hub_postgres_0={"pending_restart": True, "role": "primary"})
    view = replace(views, members=views.members[:1])
    spec = {"postgres": {"instances": 1}}
    snap = snapshot(children=children(spec=spec), pods=tuple(one), patroni=view)
    single = cluster(spec)
    return single, snap


def test_clients_of_a_primary_that_nobody_can_take_over_from_are_held_back() -> None:
    for changes, kind in (({}, RestartPostgres), ({"hub_postgres_0": OLD}, RestartPod)):
        single, snap = alone(**changes)
        found = plan_rollout(single, snap, redis_status(single, snap), LastStep())
        assert isinstance(found.step, kind)
        assert found.step.pause
        assert found.rests_on == ()
        late = replace(LastStep().postponed(NOW - timedelta(seconds=5)), postponements=1)
        assert plan_rollout(single, snap, redis_status(single, snap), late).step is None
        often = replace(LastStep().postponed(NOW - timedelta(seconds=20)), postponements=3)
        assert plan_rollout(single, snap, redis_status(single, snap), often).step.pause is False


def test_a_paused_patroni_is_not_relied_on_and_holds_nothing_else_up() -> None:
    paused = replace(patroni(), paused=True)
    found = rollout(snapshot(pods=pods(hub_postgres_2=OLD), patroni=paused))
    assert (found.step, found.waiting_for) == (None, "Patroni to be resumed (patronictl resume)")
    assert rollout(snapshot(pods=pods(hub_postgres_2=OLD, hub_redis_2=OLD), patroni=paused)).step is not None


def test_a_step_is_given_time_to_show() -> None:
    snap = snapshot(pods=pods(hub_postgres_2=OLD))
    just_now = LastStep(at=NOW - timedelta(seconds=1))
    assert plan_rollout(cluster(), snap, redis_status(cluster(), snap), just_now).step is None


def test_a_cluster_that_never_started_follows_a_corrected_spec() -> None:
    stuck = OLD | {"ready": False, "waiting_reason": "ImagePullBackOff"}
    everywhere = {f"hub_{kind}_{i}": stuck for kind in ("postgres", "redis") for i in range(3)}
    snap = snapshot(pods=pods(**everywhere), patroni=None, sentinels=())
    assert rollout(snap).step.pod == "hub-postgres-0"


def test_silence_of_patroni_does_not_end_a_rolling_change() -> None:
    found = rollout(snapshot(pods=pods(hub_postgres_2=OLD, hub_redis_2=OLD), patroni=None))
    assert found.component == "postgres"
    assert found.step is None


def test_redis_replicas_come_before_the_master() -> None:
    snap = snapshot(pods=pods(hub_redis_0=OLD, hub_redis_1=OLD))
    assert rollout(snap).step.pod == "hub-redis-1"
    assert rollout(snapshot(pods=pods(hub_redis_0=OLD))).step.pod == "hub-redis-0"


def test_redis_waits_for_a_replica_that_is_not_linked() -> None:
    snap = snapshot(pods=pods(hub_redis_1=OLD, hub_redis_2={"ready": False}))
    assert rollout(snap).step is None


def test_no_redis_pod_is_renewed_beside_one_whose_copy_is_in_memory_only() -> None:
    def found(*outdated: str) -> Any:
        told = tuple(RedisPodState(f"hub-redis-{i}", on_disk=i != 2) for i in range(3))
        return rollout(snapshot(pods=pods(**dict.fromkeys(outdated, OLD)), redis_pods=told))

    held = found("hub_redis_1")
    assert (held.step, held.waiting_for) == (None, "the data of hub-redis-2 to be on the volume")
    assert not held.holds_up
    # It may be the change that makes it possible.
    assert found("hub_redis_1", "hub_redis_2").step.pod == "hub-redis-2"


def test_redis_waits_for_sentinels_that_can_elect_another_master() -> None:
    views = sentinels()
    old = pods(hub_redis_1=OLD)
    tilted = [replace(view, tilt=True) for view in views]
    assert rollout(snapshot(pods=old, sentinels=(tilted[0], *views[1:]))).step is not None
    held = rollout(snapshot(pods=old, sentinels=(*tilted[:2], views[2])))
    assert (held.step, held.waiting_for) == (None, "a majority of Sentinels that can take part in a failover")
    blind = tuple(replace(view, quorum_ok=False) for view in views)
    assert rollout(snapshot(pods=old, sentinels=blind)).step is None
    # They forget those that were taken away when they start, which must not wait for itself.
    shrunk = tuple(replace(view, sentinels_count=7) for view in blind)
    assert rollout(snapshot(pods=old, sentinels=shrunk)).step is not None


def test_postgres_goes_before_redis() -> None:
    snap = snapshot(pods=pods(hub_redis_1=OLD, hub_postgres_1=OLD))
    assert rollout(snap).component == "postgres"


def lease(holder: str) -> dict[str, Any]:
    return {"kind": "Lease", "metadata": {"name": "hub-disruption"}, "spec": {"holderIdentity": holder}}


def planned(holder: str, **changes: Any) -> Any:
    snap = snapshot(children=children(lease(holder)), pods=pods(**changes))
    return make_plan(cluster(), snap, IMAGES, None)


def test_a_rolling_change_that_follows_another_takes_the_lease_over() -> None:
    done = planned("operator/rolling-change-postgres", hub_redis_2=OLD)
    assert done.rollout.step.pod == "hub-redis-2"
    assert done.disruption_lease["spec"]["holderIdentity"] == "operator/rolling-change-redis"


def test_the_lease_of_a_person_is_respected() -> None:
    done = planned("alice/drill", hub_redis_2=OLD)
    assert done.rollout.step is None
    assert "alice/drill" in done.rollout.waiting_for
    assert done.disruption_lease is None


def test_the_lease_is_given_back_after_the_last_step_and_a_persons_is_not() -> None:
    assert planned("operator/rolling-change-redis").disruption_lease["spec"]["holderIdentity"] == ""
    assert planned("alice/drill").disruption_lease is None


states = st.fixed_dictionaries(
    {},
    optional={
        "revision": st.just("old"),
        "ready": st.just(False),
        "terminating": st.just(True),
    },
)


@given(
    st.dictionaries(
        st.sampled_from([f"hub_{c}_{i}" for c in ("postgres", "redis") for i in range(3)]), states
    ),
    st.sampled_from(["hub-postgres-0", "hub-postgres-1", None]),
    st.integers(0, 2),
)
def test_a_healthy_member_is_never_taken_away_while_another_is_broken(
    changes: dict[str, Any], leader: str | None, master: int
) -> None:
    all_pods = pods(**changes)
    snap = snapshot(pods=all_pods, patroni=patroni(leader), sentinels=sentinels(master))
    found = rollout(snap)
    if found is None or not isinstance(found.step, RestartPod):
        return
    victim = next(p for p in all_pods if p.name == found.step.pod)
    assert victim.revision == "old"
    peers = [p for p in all_pods if p.component == victim.component and p.name != victim.name]
    broken = [p for p in peers if not p.ready or p.terminating]
    assert not broken
    if victim.component == "postgres":
        assert victim.name != leader


def test_the_role_of_whom_a_step_stops_was_moved_by_that_step() -> None:
    stops: dict[Disruption, str | None] = {
        RestartPod("hub-redis-0", "uid", "new pod template"): "hub-redis-0",
        SwitchPostgres("hub-postgres-0", "rolling change", "hub-postgres-1"): "hub-postgres-0",
        RestartPostgres("hub-postgres-0", "changed parameters"): "hub-postgres-0",
        ShrinkPostgres("hub-postgres-2", 2): "hub-postgres-2",
        ShrinkRedis("hub-redis-4", 4): "hub-redis-4",
    }
    others = (
        GrowRedis("hub-redis-3", 4),
        ReinitializePostgres("hub-postgres-1", "broken"),
        RenewDeployment({}, "new pod template"),
    )
    assert {type(step) for step in (*stops, *others)} == set(get_args(Disruption))
    for step, holder in stops.items():
        assert LastStep.done(step, NOW, None).has_moved(holder, NOW)
    for other in others:
        assert LastStep.done(other, NOW, None).stopped is None
