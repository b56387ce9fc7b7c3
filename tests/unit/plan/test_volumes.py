"""Volumes grow one after the other, the StatefulSet around them is made anew, and no pod is touched for it."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from runnerhub_operator import names
from runnerhub_operator.actions import GrowVolume
from runnerhub_operator.api import Condition
from runnerhub_operator.plan import ClusterMemory, Plan, failovers, make_plan, refusal_of, refusal_text
from runnerhub_operator.plan.preview import Change, preview
from runnerhub_operator.plan.volumes import RETRY_SECONDS, smallest_postgres_volume
from runnerhub_operator.resources.common import Images
from runnerhub_operator.snapshot import Volume
from tests.generate import IMAGES
from tests.unit.plan.builders import NOW, children, cluster, patroni, pods, snapshot

GI = 2**30
GROWN = {"postgres": {"storage": {"size": "20Gi"}}}
RESIZE_REFUSED = (
    'patch PersistentVolumeClaim d/x: persistentvolumeclaims "x" is forbidden: only dynamically provisioned pvc can be '
    "resized and the storageclass that provisions the pvc must support resize"
)


def volume(component: str, ordinal: int, size: int, **changes: Any) -> Volume:
    """A volume that is as large as its claim asks for."""
    values: dict[str, Any] = {
        "name": f"data-hub-{component}-{ordinal}",
        "uid": f"claim-{component}-{ordinal}",
        "component": component,
        "storage_class": "standard",
        "bound": True,
        "requested": size * GI,
        "capacity": size * GI,
        "resize": "",
        "message": "",
    }
    return Volume(**(values | changes))


def volumes(**changes: dict[str, Any]) -> tuple[Volume, ...]:
    """All volumes of the default cluster; `postgres_0={"requested": 1}` changes one."""
    return tuple(
        volume(component, ordinal, size, **changes.get(f"{component}_{ordinal}", {}))
        for component, size in ((names.POSTGRES, 10), (names.REDIS, 5))
        for ordinal in range(3)
    )


GROWING = {"requested": 20 * GI}
DONE = {"requested": 20 * GI, "capacity": 20 * GI}


def plan(
    spec: dict[str, Any] | None = None,
    memory: ClusterMemory | None = None,
    used: tuple[int, ...] = (),
    **changes: Any,
) -> Plan:
    """`used`: how full the volumes of the database are, in percent."""
    # The cluster has been Ready before: creation has words of its own.
    ready = {"type": "Ready", "status": "True", "reason": "Available"}
    ready["lastTransitionTime"] = "2026-01-01T00:00:00Z"
    return make_plan(
        cluster(
            spec,
            {
                "phase": "Ready",
                "conditions": [ready],
                "postgres": {
                    "instances": [
                        {"name": f"hub-postgres-{i}", "role": "", "state": "", "volumeUsedPercent": percent}
                        for i, percent in enumerate(used)
                    ]
                },
            },
        ),
        snapshot(**({"volumes": volumes()} | changes)),
        IMAGES,
        memory,
    )


def progressing(found: Plan) -> Condition:
    return next(item for item in found.status.conditions if item.type == "Progressing")


def next_pod(found: Plan) -> str | None:
    assert len(found.growth) <= 1
    return found.growth[0].pod if found.growth else None


def test_volumes_of_the_wanted_size_stay() -> None:
    found = plan()
    assert (found.growth, found.orphan) == ((), ())
    assert found.settled


def test_larger_volumes_than_wanted_stay() -> None:
    """As when a cluster is made again, with smaller volumes, on those of an earlier one."""
    assert plan(volumes=volumes(postgres_0=DONE)).growth == ()


def test_replicas_come_first_one_at_a_time_and_the_primary_last() -> None:
    primary = patroni("hub-postgres-0")
    assert next_pod(plan(GROWN, patroni=primary)) == "hub-postgres-1"
    under_way = plan(GROWN, patroni=primary, volumes=volumes(postgres_1=GROWING))
    assert next_pod(under_way) is None
    then = plan(GROWN, patroni=primary, volumes=volumes(postgres_1=DONE))
    assert next_pod(then) == "hub-postgres-2"
    last = plan(GROWN, patroni=primary, volumes=volumes(postgres_1=DONE, postgres_2=DONE))
    assert next_pod(last) == "hub-postgres-0"
    assert last.growth == (
        GrowVolume("hub-postgres-0", "data-hub-postgres-0", "claim-postgres-0", "20Gi", "standard"),
    )


def test_the_queue_grows_like_the_database_beside_it() -> None:
    both = {**GROWN, "redis": {"storage": {"size": "6Gi"}}}
    found = plan(both)
    assert [step.pod for step in found.growth] == ["hub-postgres-1", "hub-redis-1"]
    assert [action.component for action in found.orphan] == [names.POSTGRES, names.REDIS]


def test_a_volume_that_no_node_has_holds_no_other_up() -> None:
    away = pods(hub_postgres_1={"ready": False, "node": ""})
    found = plan(
        GROWN, pods=away, volumes=volumes(postgres_1=GROWING | {"resize": "FileSystemResizePending"})
    )
    assert next_pod(found) == "hub-postgres-2"
    assert "hub-postgres-1 waits for its pod to run on a node that lives" in progressing(found).message


@pytest.mark.parametrize(
    "dead",
    [
        {"ready": False, "node_silent": True},
        {"ready": False, "terminating": True, "gone_by": (NOW - timedelta(seconds=40)).isoformat()},
    ],
)
def test_one_on_a_dead_node_holds_no_other_up(dead: dict[str, Any]) -> None:
    hangs = volumes(postgres_1=GROWING | {"resize": "FileSystemResizePending"})
    found = plan(GROWN, pods=pods(hub_postgres_1=dead), volumes=hangs)
    assert next_pod(found) == "hub-postgres-2"
    assert "hub-postgres-1 waits for its pod to run on a node that lives" in progressing(found).message


def test_the_fullest_comes_first_also_the_primary() -> None:
    assert next_pod(plan(GROWN, used=(96, 95, 50))) == "hub-postgres-0"
    assert next_pod(plan(GROWN, used=(96, 99, 50))) == "hub-postgres-1"
    assert next_pod(plan(GROWN, used=(94, 90, 90))) == "hub-postgres-1"


@pytest.mark.parametrize(
    ("changes", "state"),
    [
        ({}, {"resize": "ControllerResizeError", "message": "quota of the cloud"}),
        ({}, {"resize": "NodeResizeError", "message": "no such device"}),
        ({"hub_postgres_1": {"ready": False}}, {"resize": "FileSystemResizePending"}),
    ],
)
def test_a_full_one_waits_for_none_that_hangs_and_others_do(
    changes: dict[str, Any], state: dict[str, Any]
) -> None:
    hangs = {"volumes": volumes(postgres_1=GROWING | state), "pods": pods(**changes)}
    assert next_pod(plan(GROWN, used=(96, 80, 80), **hangs)) == "hub-postgres-0"
    assert next_pod(plan(GROWN, used=(80, 80, 80), **hangs)) is None
    # What gets on is waited for.
    assert next_pod(plan(GROWN, used=(96, 80, 80), volumes=volumes(postgres_1=GROWING))) is None


def test_a_claim_without_a_volume_is_not_asked() -> None:
    pending = {"bound": False, "capacity": None}
    found = plan(GROWN, volumes=volumes(postgres_1=pending))
    assert next_pod(found) == "hub-postgres-2"
    assert "hub-postgres-1 has no volume yet" in progressing(found).message


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ({}, "hub-postgres-1 is being enlarged"),
        ({"resize": "Resizing"}, "hub-postgres-1 is being enlarged"),
        ({"resize": "FileSystemResizePending"}, "hub-postgres-1 waits for its node to enlarge"),
        (
            {"resize": "ControllerResizeError", "message": "quota of the cloud"},
            "hub-postgres-1 does not grow (ControllerResizeError: quota of the cloud)",
        ),
    ],
)
def test_who_grows_and_how_far_is_told(state: dict[str, Any], words: str) -> None:
    found = plan(GROWN, volumes=volumes(postgres_1=GROWING | state, postgres_2=DONE))
    told = progressing(found)
    assert (told.status, told.reason) == ("True", "VolumesGrowing")
    assert "the volumes of postgres grow to 20Gi: 1 of 3 done" in told.message
    assert words in told.message


def refused(seconds_ago: float = 0.0, answer: str = RESIZE_REFUSED) -> ClusterMemory:
    step = GrowVolume("hub-postgres-1", "data-hub-postgres-1", "c", "20Gi", "standard")
    refusal = refusal_of(step, answer, NOW - timedelta(seconds=seconds_ago))
    return ClusterMemory(failovers.initial_memory(cluster().status), refusals={step.claim: refusal})


def with_the_new_template() -> dict[str, Any]:
    """The StatefulSet has been made anew; whatever follows the volumes themselves has not moved."""
    key = "StatefulSet", "hub-postgres"
    return {"children": {**children(), key: children(spec=GROWN)[key]}}


def test_a_refusal_is_told_and_holds_nothing_else_up() -> None:
    spec = {**GROWN, "redis": {"replicas": 5}}
    found = plan(spec, refused(), **with_the_new_template())
    assert found.growth == ()
    assert "hub-redis" in {item["metadata"]["name"] for item in found.objects}
    quiet = plan(GROWN, refused(), **with_the_new_template())
    told = progressing(quiet)
    assert (told.status, told.reason) == ("False", "VolumeGrowthRefused")
    assert told.message == (
        "the volume of hub-postgres-1 cannot grow to 20Gi: StorageClass standard does not let volumes grow; set "
        "allowVolumeExpansion: true in it if its driver can enlarge volumes, or replace the volumes one at a time"
    )
    assert quiet.status.phase == "Ready"
    assert quiet.settled


def test_what_was_refused_is_tried_again_and_told_meanwhile() -> None:
    found = plan(GROWN, refused(RETRY_SECONDS), **with_the_new_template())
    assert next_pod(found) == "hub-postgres-1"
    assert progressing(found).reason == "VolumeGrowthRefused"
    assert found.memory.refusals.keys() == {"data-hub-postgres-1"}


def test_a_refusal_of_another_size_or_of_a_volume_that_has_grown_is_forgotten() -> None:
    larger = plan({"postgres": {"storage": {"size": "30Gi"}}}, refused())
    assert next_pod(larger) == "hub-postgres-1"
    assert larger.memory.refusals == {}
    grown = plan(GROWN, refused(), volumes=volumes(postgres_0=DONE, postgres_1=DONE, postgres_2=DONE))
    assert grown.memory.refusals == {}


def test_any_other_refusal_is_told_in_the_words_of_the_api_server() -> None:
    step = GrowVolume("hub-redis-0", "data-hub-redis-0", "c", "6Gi", "standard")
    text = refusal_text("hub-redis-0", refusal_of(step, "exceeded quota: disk", NOW))
    assert (
        text
        == "the volume of hub-redis-0 cannot grow to 6Gi: the API server refused it: exceeded quota: disk"
    )


def test_a_paused_cluster_only_tells_it() -> None:
    found = plan({**GROWN, "paused": True})
    assert (found.growth, found.orphan) == ((), ())
    assert {item["kind"] for item in found.objects} == {"Lease"}
    assert "the volumes of postgres grow to 20Gi" in progressing(found).message


# --- The StatefulSet around the volumes ---


def written(found: Plan) -> dict[tuple[str, str], Any]:
    return {(item["kind"], item["metadata"]["name"]): item for item in found.objects}


def test_a_statefulset_that_cannot_be_changed_is_orphaned_and_not_written() -> None:
    found = plan(GROWN)
    (action,) = found.orphan
    assert action.stateful_set["metadata"]["uid"] == "sts-postgres"
    assert action.component == names.POSTGRES
    assert ("StatefulSet", "hub-postgres") not in written(found)
    assert "StatefulSetReplaced" in {note.reason for note in found.events}
    assert found.rollout is None
    assert not found.settled


def test_one_of_somebody_else_is_never_deleted() -> None:
    foreign = {"kind": "StatefulSet", "metadata": {"name": "hub-postgres", "ownerReferences": []}}
    found = plan(GROWN, children=children(foreign))
    assert found.orphan == ()
    assert ("StatefulSet", "hub-postgres") in written(found), "who writes it finds that it is somebody else's"


def test_one_that_is_going_is_left_alone_until_it_is_gone() -> None:
    going = {
        "kind": "StatefulSet",
        "metadata": {"name": "hub-postgres", "deletionTimestamp": "2026-01-01T00:00:00Z"},
    }
    outdated = pods(hub_postgres_1={"revision": "old"})
    found = plan(GROWN, children=children(going), pods=outdated)
    assert found.orphan == ()
    assert ("StatefulSet", "hub-postgres") not in written(found)
    assert found.rollout is None, "nobody would make the pod again"
    assert not found.settled


def without_statefulset(spec: dict[str, Any] | None = None) -> dict[str, Any]:
    found = children(spec=spec)
    del found["StatefulSet", "hub-postgres"]
    return {"children": found}


def test_one_that_is_gone_is_made_with_the_new_size_and_the_same_pods() -> None:
    before = children()["StatefulSet", "hub-postgres"]
    made = written(plan(GROWN, **without_statefulset()))["StatefulSet", "hub-postgres"]
    claim = made["spec"]["volumeClaimTemplates"][0]["spec"]
    assert claim["resources"]["requests"]["storage"] == "20Gi"
    assert made["spec"]["template"] == before["spec"]["template"]


def test_one_that_is_gone_keeps_the_layout_of_its_pods_in_a_newer_operator() -> None:
    newer = Images(**{name: f"example.test/{name}:2" for name in Images.__slots__})
    found = make_plan(cluster(GROWN), snapshot(volumes=volumes(), **without_statefulset()), newer, None)
    made = written(found)["StatefulSet", "hub-postgres"]
    assert made["spec"]["template"]["spec"]["containers"][0]["image"] == IMAGES.postgres
    assert names.POSTGRES in found.status.pending_updates


def test_passwords_of_pods_without_a_statefulset_are_not_made_anew() -> None:
    found = without_statefulset()
    del found["children"]["Secret", "hub-postgres-credentials"]
    told = plan(GROWN, **found)
    assert told.secrets == ()
    postgres = next(item for item in told.status.conditions if item.type == "PostgresReady")
    assert postgres.reason == "CredentialsMissing"


def test_an_amount_written_in_another_way_is_no_growth() -> None:
    found = plan({"postgres": {"storage": {"size": "10240Mi"}}})
    assert (found.growth, found.orphan) == ((), ())


# --- What follows the size, and what is told beforehand ---


def test_the_smallest_volume_counts_for_the_write_ahead_log() -> None:
    asked = cluster(GROWN)
    assert smallest_postgres_volume(asked, snapshot()) is None
    some = snapshot(volumes=volumes(postgres_0=DONE, postgres_2={"capacity": None}))
    assert smallest_postgres_volume(asked, some) == 10 * GI


def test_patroni_hears_of_the_new_size_when_the_last_volume_has_grown() -> None:
    config = dict(plan(patroni_config={}).patroni_patch.patch)  # type: ignore[union-attr]
    seen: dict[str, Any] = {"patroni_config": config, **with_the_new_template()}
    assert plan(GROWN, volumes=volumes(postgres_0=DONE, postgres_1=DONE), **seen).patroni_patch is None
    patch = plan(
        GROWN, volumes=volumes(postgres_0=DONE, postgres_1=DONE, postgres_2=DONE), **seen
    ).patroni_patch
    assert patch is not None
    assert set(patch.patch["postgresql"]["parameters"]) == {
        "wal_keep_size",
        "max_wal_size",
        "max_slot_wal_keep_size",
    }


def test_a_visit_notices_a_volume_that_grew_although_no_object_changed() -> None:
    first = plan(GROWN, patroni_config={}, **with_the_new_template())
    memory = first.memory
    done = volumes(postgres_0=DONE, postgres_1=DONE, postgres_2=DONE)
    then = plan(GROWN, memory, volumes=done, patroni_config={}, **with_the_new_template())
    assert first.patroni_patch is not None
    assert then.patroni_patch is not None
    parameters = [
        item.patch["postgresql"]["parameters"]["max_wal_size"]
        for item in (first.patroni_patch, then.patroni_patch)
    ]
    assert parameters == ["1024MB", "2048MB"]


def test_redis_uses_more_memory_when_the_last_volume_has_grown() -> None:
    """Not before, as where the StorageClass refuses: what does not fit on a volume cannot be taken back."""
    asked, done = {"redis": {"storage": {"size": "40Gi"}}}, {"requested": 40 * GI, "capacity": 40 * GI}
    key = "ConfigMap", "hub-redis"

    def bounds(found: Plan) -> list[str]:
        written = [item for item in found.objects if (item["kind"], item["metadata"]["name"]) == key]
        lines = "".join(item["data"]["redis.conf"] for item in written).splitlines()
        names_ = ("maxmemory ", "auto-aof-rewrite-min-size ", "repl-backlog-size ")
        return [line for line in lines if line.startswith(names_) and str(64 * 2**20) not in line]

    small = plan(asked, children=children(spec=asked), volumes=volumes(redis_0=done, redis_1=done))
    assert bounds(small) == [f"maxmemory {5 * GI // 2}"]
    # Nor is it overlooked when no object has changed.
    there = {**children(spec=asked), key: next(item for item in small.objects if item["kind"] == key[0])}
    settled = plan(asked, children=there, volumes=volumes(redis_0=done, redis_1=done))
    assert (bounds(settled), settled.memory.unchanged is None) == ([], False)
    grown = volumes(redis_0=done, redis_1=done, redis_2=done)
    assert bounds(plan(asked, settled.memory, children=there, volumes=grown)) == [f"maxmemory {20 * GI}"]


def test_a_plan_tells_the_claims_and_that_no_pod_restarts() -> None:
    found = preview(cluster(GROWN), snapshot(volumes=volumes(postgres_0=DONE)), IMAGES)
    claims = [change for change in found.changes if change.kind == "PersistentVolumeClaim"]
    path = ("spec.resources.requests.storage",)
    assert claims == [
        Change("change", "PersistentVolumeClaim", f"data-hub-postgres-{i}", path) for i in (1, 2)
    ]
    (anew,) = [change for change in found.changes if change.kind == "StatefulSet"]
    assert (anew.verb, anew.name) == ("replace", "hub-postgres")
    assert found.restarts == ()


def claim(**status: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": "data-hub-redis-0", "uid": "c", "labels": {names.LABEL_COMPONENT: "redis"}},
        "spec": {"storageClassName": "fast", "resources": {"requests": {"storage": "5Gi"}}},
        "status": status,
    }


def test_a_claim_is_read_as_the_api_server_sends_it() -> None:
    fresh = Volume.of(claim(phase="Pending"))
    assert (fresh.requested, fresh.capacity, fresh.bound, fresh.resize) == (5 * GI, None, False, "")
    conditions = [
        {"type": "FileSystemResizePending", "status": "True"},
        {"type": "NodeResizeError", "status": "True", "message": "no space"},
        {"type": "ControllerResizeError", "status": "False", "message": "before"},
    ]
    failed = Volume.of(claim(phase="Bound", capacity={"storage": "4Gi"}, conditions=conditions))
    assert (failed.capacity, failed.resize, failed.message) == (4 * GI, "NodeResizeError", "no space")
    going = claim(phase="Bound")
    going["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    assert not Volume.of(going).bound
