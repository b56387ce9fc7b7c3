"""Conditions mean what they say."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from runnerhub_operator.api import ConditionType, RunnerHubCluster
from runnerhub_operator.plan import make_plan, rejected_status
from runnerhub_operator.plan.conditions import Verdict, redis_verdict
from runnerhub_operator.plan.status import redis_status
from tests.generate import IMAGES
from tests.unit.plan.builders import NOW, children, cluster, patroni, pod, pods, sentinels, snapshot


def plan(hub: RunnerHubCluster, snap: Any) -> Any:
    return make_plan(hub, snap, IMAGES, None)


def ready_cluster(spec: dict[str, Any] | None = None) -> RunnerHubCluster:
    """A cluster whose last status says Ready."""
    first = plan(cluster(spec), snapshot()).status
    return cluster(spec, first.model_dump(mode="json", by_alias=True, exclude_none=True))


def by_type(status: Any) -> dict[str, Any]:
    return {item.type: item for item in status.conditions}


def test_all_conditions_are_there_from_the_first_visit() -> None:
    first = plan(cluster(), snapshot(children={}, pods=(), patroni=None, sentinels=())).status
    found = by_type(first)
    assert found["Ready"].status == "False"
    assert found["Progressing"].status == "True"
    assert found["IngressReady"].reason == "NotRequested"
    assert first.phase == "Creating"
    assert all(item.message and item.observed_generation == 3 for item in first.conditions)


def test_a_complete_cluster_is_ready_and_settled() -> None:
    done = plan(cluster(), snapshot())
    assert done.status.phase == "Ready"
    assert {item["kind"] for item in done.objects} == {"Lease"}, "nothing else is to be written"
    assert by_type(done.status)["Degraded"].status == "False"
    assert done.settled
    assert done.status.postgres.primary == "hub-postgres-0"
    assert done.status.redis.master == "hub-redis-0"
    assert done.status.redis.bootstrapped
    assert done.status.orchestrator.leader == "hub-orchestrator-0"


def test_a_replica_far_behind_is_told_in_steps_and_seconds() -> None:
    segment = 16 * 1024 * 1024
    seen = patroni(
        hub_postgres_1={"lag_bytes": 3 * segment + 5, "lag_seconds": 41},
        hub_postgres_2={"lag_bytes": segment - 1, "lag_seconds": 41},
    )
    postgres = plan(cluster(), snapshot(patroni=replace(seen, version="17.6"))).status.postgres
    assert [(item.lag_bytes, item.lag_seconds) for item in postgres.instances] == [
        (None, None),
        (3 * segment, 41),
        (0, 0),
    ]
    assert postgres.version == "17.6"
    later = cluster(None, {"postgres": postgres.model_dump(mode="json", by_alias=True, exclude_none=True)})
    assert plan(later, snapshot(patroni=seen)).status.postgres.version == "17.6", "asked once, known for good"


def test_during_creation_ready_waits_for_the_last_member() -> None:
    incomplete = snapshot(pods=pods(hub_postgres_2={"ready": False}))
    assert by_type(plan(cluster(), incomplete).status)["Ready"].status == "False"


def test_later_a_missing_member_degrades_but_the_cluster_serves() -> None:
    status = plan(ready_cluster(), snapshot(pods=pods(hub_redis_2={"ready": False}))).status
    assert by_type(status)["Ready"].status == "True"
    assert by_type(status)["Degraded"].status == "True"
    assert status.phase == "Degraded"


def test_without_a_primary_it_is_not_ready_and_says_so() -> None:
    done = plan(ready_cluster(), snapshot(patroni=patroni(leader=None)))
    assert by_type(done.status)["Ready"].status == "False"
    assert "no primary" in by_type(done.status)["PostgresReady"].message
    assert done.status.phase == "Unavailable"
    assert next(note.reason for note in done.events if note.type == "Warning") == "NotReady"


def test_a_primary_whose_pod_starts_anew_is_none_until_it_is_ready() -> None:
    new = plan(ready_cluster(), snapshot(pods=pods(hub_postgres_0={"uid": "another", "ready": False})))
    assert new.status.postgres.primary is None
    going = plan(ready_cluster(), snapshot(pods=pods(hub_postgres_0={"ready": False, "terminating": True})))
    assert going.status.postgres.primary == "hub-postgres-0"


def test_a_master_that_the_sentinels_take_for_dead_is_none() -> None:
    status = plan(ready_cluster(), snapshot(sentinels=sentinels(flags=frozenset({"s_down"})))).status
    assert status.redis.master is None
    assert by_type(status)["RedisReady"].status == "False"


def test_a_pod_that_cannot_start_names_its_trouble() -> None:
    trouble = {"ready": False, "waiting_reason": "Unschedulable", "message": "no storage class nowhere"}
    condition = by_type(plan(cluster(), snapshot(pods=pods(hub_postgres_0=trouble))).status)["PostgresReady"]
    assert condition.reason == "Unschedulable"
    assert "no storage class nowhere" in condition.message


def test_times_move_only_with_the_status() -> None:
    hub = ready_cluster()
    later = snapshot(now=NOW + timedelta(hours=1), pods=pods(hub_redis_2={"ready": False}))
    found = by_type(plan(hub, later).status)
    assert found["Ready"].last_transition_time == "2026-01-01T12:00:00Z"
    assert found["Degraded"].last_transition_time == "2026-01-01T13:00:00Z"


def test_the_same_visit_twice_changes_nothing() -> None:
    hub = ready_cluster()
    again = plan(hub, snapshot(now=NOW + timedelta(minutes=5)))
    assert again.status == hub.status
    assert again.events == ()


def test_lost_passwords_are_told_and_not_made_anew() -> None:
    kept = {key: value for key, value in children().items() if key != ("Secret", "hub-postgres-credentials")}
    done = plan(ready_cluster(), snapshot(children=kept))
    assert by_type(done.status)["PostgresReady"].reason == "CredentialsMissing"
    assert not done.secrets


def test_a_rejected_spec_keeps_what_was_observed() -> None:
    status = rejected_status(ready_cluster().status, "InvalidSpec", "spec.x: no", 4, NOW)
    assert by_type(status)["Accepted"].status == "False"
    assert by_type(status)["Ready"].status == "True"
    assert {item.observed_generation for item in status.conditions} == {4}
    assert status.phase == "Invalid"


def test_objects_of_a_removed_section_are_pruned() -> None:
    surplus = {
        "kind": "Ingress",
        "metadata": {"name": "hub-ingress", "uid": "1", "ownerReferences": [{"uid": "u"}]},
    }
    foreign = {"kind": "Ingress", "metadata": {"name": "mine", "uid": "2"}}
    found = plan(ready_cluster(), snapshot(children=children(surplus, foreign))).prune
    assert [item["metadata"]["name"] for item in found] == ["hub-ingress"]


def test_one_missed_probe_is_not_told_but_a_lasting_silence_is() -> None:
    hub = ready_cluster()
    first = make_plan(hub, snapshot(patroni=None, sentinels=()), IMAGES, None)
    assert first.status == hub.status
    assert not first.settled
    later = snapshot(now=NOW + timedelta(seconds=20), patroni=None, sentinels=())
    second = make_plan(hub, later, IMAGES, first.memory)
    assert by_type(second.status)["PostgresReady"].status == "False"
    assert by_type(second.status)["RedisReady"].status == "False"


def test_silence_of_a_member_whose_pod_is_broken_is_told_at_once() -> None:
    broken = pods(hub_postgres_1={"ready": False})
    done = plan(ready_cluster(), snapshot(patroni=None, pods=broken))
    assert by_type(done.status)["PostgresReady"].status == "False"


def test_one_silent_sentinel_is_not_told_at_once() -> None:
    done = plan(ready_cluster(), snapshot(sentinels=sentinels()[:2]))
    assert by_type(done.status)["Degraded"].status == "False"


def test_a_redis_service_is_made_again_with_its_address() -> None:
    known = {
        "kind": "ConfigMap",
        "metadata": {"name": "hub-redis-state"},
        "data": {"bootstrapped": "true", "address.hub-redis-1": "10.96.0.2"},
    }
    gone = {key: value for key, value in children().items() if key != ("Service", "hub-redis-1")}
    objects = plan(
        ready_cluster(), snapshot(children={**gone, ("ConfigMap", "hub-redis-state"): known})
    ).objects
    specs = {item["metadata"]["name"]: item["spec"] for item in objects if item["kind"] == "Service"}
    assert specs["hub-redis-1"]["clusterIP"] == "10.96.0.2"


def test_the_addresses_of_redis_are_written_down() -> None:
    bare = {"kind": "ConfigMap", "metadata": {"name": "hub-redis-state"}, "data": {}}
    objects = plan(ready_cluster(), snapshot(children=children(bare))).objects
    state = next(item for item in objects if item["metadata"]["name"] == "hub-redis-state")
    assert state["data"]["address.hub-redis-0"] == "10.96.0.1"


def test_a_change_under_way_is_told() -> None:
    edited = cluster({"loadBalancer": {"replicas": 5}})
    done = plan(edited, snapshot())
    assert by_type(done.status)["Progressing"].status == "True"
    assert [item["metadata"]["name"] for item in done.objects if item["kind"] == "Deployment"] == [
        "hub-loadbalancer"
    ]


def test_a_deployment_that_is_being_renewed_is_progress() -> None:
    half_way = {
        "kind": "Deployment",
        "metadata": {"name": "hub-pooler"},
        "status": {"updatedReplicas": 1, "replicas": 3},
    }
    status = plan(ready_cluster(), snapshot(children=children(half_way))).status
    assert by_type(status)["Progressing"].message == (
        "rolling change of pooler, waiting for its new pods: 1 of 3 are there"
    )
    assert status.phase == "Updating"


def test_a_new_pod_that_cannot_start_degrades_a_full_component() -> None:
    stuck = pod(
        "hub-pooler-new", "pooler", ready=False, waiting_reason="ImagePullBackOff", message="no such image"
    )
    status = plan(ready_cluster(), snapshot(pods=(*pods(), stuck))).status
    assert by_type(status)["Degraded"].status == "True"
    assert "no such image" in by_type(status)["Degraded"].message


def test_the_pods_wait_for_the_key_that_their_template_carries() -> None:
    first = plan(cluster(), snapshot(children={}, pods=(), patroni=None, sentinels=()))
    names = {item["metadata"]["name"] for item in first.objects if item["kind"] == "Deployment"}
    assert names == {"hub-pooler", "hub-loadbalancer"}


def test_a_refused_apply_is_told_until_one_passes() -> None:
    memory = replace(
        plan(ready_cluster(), snapshot()).memory, rejection=("NameTaken", "ConfigMap x is taken")
    )
    done = make_plan(ready_cluster(), snapshot(), IMAGES, memory)
    assert by_type(done.status)["Accepted"].reason == "NameTaken"
    assert done.status.phase == "Invalid"
    assert "NameTaken" in [note.reason for note in done.events]


@pytest.mark.parametrize(
    ("component", "kind"),
    [
        ("orchestrator", ConditionType.ORCHESTRATORS),
        ("loadbalancer", ConditionType.LOAD_BALANCER),
        ("pooler", ConditionType.POSTGRES),
    ],
)
def test_pods_that_the_api_server_refuses_are_told_although_none_exists(
    component: str, kind: ConditionType
) -> None:
    refused = {"type": "ReplicaFailure", "status": "True", "message": "exceeded quota: team"}
    status = {"observedGeneration": 1, "replicas": 2, "updatedReplicas": 2, "conditions": [refused]}
    body = {"kind": "Deployment", "metadata": {"name": f"hub-{component}"}, "status": status}
    found = make_plan(cluster(), snapshot(children=children(body)), IMAGES, None)
    told = next(item.message for item in found.status.conditions if item.type == kind)
    assert f"pods of {component} are refused: exceeded quota: team" in told


def test_sentinels_that_stood_still_are_told() -> None:
    views = tuple(replace(view, tilt=view.sentinel != "hub-redis-0") for view in sentinels())
    message = by_type(plan(cluster(), snapshot(sentinels=views)).status)["RedisReady"].message
    assert "a failover is not possible now (2 stood still and do nothing for half a minute)" in message


def test_a_primary_whose_kubelet_is_dead_is_still_the_primary() -> None:
    unready = pods(hub_postgres_0={"ready": False})
    lost = plan(cluster(), snapshot(pods=unready))
    assert lost.status.postgres.primary is None
    found = plan(cluster(), snapshot(pods=unready, alive=frozenset(["hub-postgres-0"])))
    assert found.status.postgres.primary == "hub-postgres-0"


def test_redis_is_ready_while_as_many_replicas_follow_as_the_master_wants_for_writes() -> None:
    hub = ready_cluster({"redis": {"replicas": 5}})

    def verdict(linked: int, refusal: str = "") -> Verdict:
        views = tuple(replace(view, replicas=view.replicas[:linked]) for view in sentinels())
        seen = snapshot(sentinels=views, children=children(spec={"redis": {"replicas": 5}}))
        return redis_verdict(hub, seen, redis_status(hub, seen), creating=False, refusal=refusal)

    assert (verdict(2).status, verdict(1).status) == ("True", "False")
    told = "too few replicas follow the master, so it takes no writes (it needs 2)"
    assert told in verdict(1).message
    assert told not in verdict(2).message
    assert told not in verdict(1, "NOREPLICAS").message, "or the same would be told twice"
