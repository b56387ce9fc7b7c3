"""The schema comes before the pods that need it; a migration that fails costs no pod that serves."""

from __future__ import annotations

import base64
from dataclasses import replace
from typing import Any

import pytest

from runnerhub_operator import names
from runnerhub_operator.actions import RenewDeployment
from runnerhub_operator.api import ConditionReason
from runnerhub_operator.plan import ClusterMemory, Plan, make_plan
from runnerhub_operator.plan.preview import preview
from runnerhub_operator.resources.credentials import CREDENTIAL_KEYS
from tests.generate import IMAGES
from tests.unit.plan.builders import children, cluster, patroni, pod, pods, snapshot

COMMAND = ["migrate", "--all"]
EXPLICIT = {"orchestrator": {"image": "example.test/other:2", "migrations": {"command": COMMAND}}}
NEWER = replace(IMAGES, orchestrator="example.test/orchestrator:2")
ENDED = {"type": "Complete", "status": "True"}
FAILED = {"type": "Failed", "status": "True", "reason": "BackoffLimitExceeded", "message": "too often"}


def plan(
    spec: dict[str, Any] | None = None,
    memory: ClusterMemory | None = None,
    images: Any = IMAGES,
    **changes: Any,
) -> Plan:
    return make_plan(cluster(spec), snapshot(**changes), images, memory)


def jobs(found: Plan) -> list[dict[str, Any]]:
    return [item for item in found.objects if item["kind"] == "Job"]


def live_job(found: Plan, *conditions: dict[str, str]) -> dict[str, Any]:
    """The Job of a plan as the API server has it."""
    (job,) = jobs(found)
    return {
        **job,
        "metadata": {**job["metadata"], "uid": "job", "generation": 1},
        "status": {"conditions": [*conditions]},
    }


def with_job(job: dict[str, Any], *more: dict[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
    found = children(*more)
    return {**found, ("Job", job["metadata"]["name"]): job}


def condition(found: Plan, kind: str) -> Any:
    return next(item for item in found.status.conditions if item.type == kind)


def renewed(found: Plan) -> str | None:
    step = found.rollout.step if found.rollout is not None else None
    return step.manifest["metadata"]["name"] if isinstance(step, RenewDeployment) else None


def migration_pod(job: dict[str, Any], name: str = "-abc", **changes: Any) -> Any:
    return pod(f"{job['metadata']['name']}{name}", names.MIGRATION, ready=False, **changes)


def test_another_image_is_migrated_to_before_its_pods_start() -> None:
    first = plan(EXPLICIT)
    (job,) = jobs(first)
    container = job["spec"]["template"]["spec"]["containers"][0]
    assert container["image"] == "example.test/other:2"
    assert container["command"] == COMMAND
    assert renewed(first) is None
    running = plan(EXPLICIT, children=with_job(live_job(first)))
    assert jobs(running) == []
    assert renewed(running) is None
    assert condition(running, "Progressing").reason == ConditionReason.MIGRATING
    assert condition(running, "Ready").status == "True"
    done = plan(EXPLICIT, children=with_job(live_job(first, ENDED)))
    assert jobs(done) == []
    assert done.prune == ()
    assert renewed(done) == "hub-orchestrator"


def test_a_failed_migration_stops_the_rollout_and_tells_the_end_of_its_log() -> None:
    first = plan(EXPLICIT)
    job = live_job(first, FAILED)
    words = 'starting\ncolumn "x" exists\nof postgresql://app:sesame@hub-postgres\n'
    secret = {
        "kind": "Secret",
        "metadata": {"name": "hub-postgres-credentials"},
        "data": dict.fromkeys(CREDENTIAL_KEYS["postgres"], base64.b64encode(b"sesame").decode()),
    }
    there = with_job(job, secret)
    found = plan(EXPLICIT, children=there, pods=(*pods(), migration_pod(job, ended=True, last_words=words)))
    assert renewed(found) is None
    progressing = condition(found, "Progressing")
    assert (progressing.status, progressing.reason) == ("False", ConditionReason.MIGRATION_FAILED)
    assert 'starting | column "x" exists' in progressing.message
    assert f"delete Job {job['metadata']['name']}" in progressing.message
    assert "sesame" not in str(found.status)
    assert condition(found, "Ready").status == "True"
    assert condition(found, "OrchestratorsReady").status == "True"
    assert [note.reason for note in found.events].count("MigrationFailed") == 1
    again = plan(EXPLICIT, found.memory, children=there)
    assert "MigrationFailed" not in [note.reason for note in again.events]
    assert "BackoffLimitExceeded: too often" in condition(again, "Progressing").message


def test_other_changes_go_on_while_a_migration_has_failed() -> None:
    failed = live_job(plan(EXPLICIT), FAILED)
    both = {**EXPLICIT, "loadBalancer": {"image": "example.test/proxy:2"}}
    assert renewed(plan(both, children=with_job(failed))) == "hub-loadbalancer"


def test_another_command_is_another_try() -> None:
    failed = live_job(plan(EXPLICIT), FAILED)
    corrected = {"orchestrator": {**EXPLICIT["orchestrator"], "migrations": {"command": ["migrate"]}}}
    (job,) = jobs(found := plan(corrected, children=with_job(failed)))
    assert job["metadata"]["name"] != failed["metadata"]["name"]
    assert [item["metadata"]["name"] for item in found.prune] == [failed["metadata"]["name"]]


def test_a_running_migration_is_neither_cut_off_nor_joined_by_another() -> None:
    running = live_job(plan(EXPLICIT))
    other = {"orchestrator": {**EXPLICIT["orchestrator"], "image": "example.test/other:3"}}
    found = plan(other, children=with_job(running))
    assert jobs(found) == []
    assert found.prune == ()
    assert "waits for Job" in condition(found, "Progressing").message
    # The Job ended, a pod of it on a lost node has not.
    ended = live_job(plan(EXPLICIT), FAILED)
    found = plan(other, children=with_job(ended), pods=(*pods(), migration_pod(ended)))
    assert jobs(found) == []
    found = plan(other, children=with_job(ended), pods=(*pods(), migration_pod(ended, ended=True)))
    assert len(jobs(found)) == 1


def test_a_superseded_migration_whose_image_is_missing_goes_and_the_next_one_follows() -> None:
    stuck = live_job(plan(EXPLICIT))
    other = {"orchestrator": {**EXPLICIT["orchestrator"], "image": "example.test/other:3"}}
    waiting = migration_pod(stuck, waiting_reason="ImagePullBackOff")
    found = plan(other, children=with_job(stuck), pods=(*pods(), waiting))
    assert [item["metadata"]["name"] for item in found.prune] == [stuck["metadata"]["name"]]
    assert jobs(found) == [], "it may have started just now, so the next one comes when it is gone"
    assert len(jobs(plan(other))) == 1
    # Another try of it runs, or its own try is what is asked for.
    both = (*pods(), waiting, migration_pod(stuck, name="-other"))
    assert plan(other, children=with_job(stuck), pods=both).prune == ()
    assert plan(EXPLICIT, children=with_job(stuck), pods=(*pods(), waiting)).prune == ()


def test_going_back_from_a_failed_migration_runs_none() -> None:
    done = live_job(plan(EXPLICIT), ENDED)
    newer = {"orchestrator": {**EXPLICIT["orchestrator"], "image": "example.test/other:3"}}
    failed = live_job(plan(newer, children=with_job(done)), FAILED)
    for there in (with_job(done), {**with_job(done), ("Job", failed["metadata"]["name"]): failed}):
        found = plan(newer, children=there)
        assert found.prune == ()
        assert not found.settled
    back = plan(EXPLICIT, children=there)
    assert jobs(back) == []
    assert [item["metadata"]["name"] for item in back.prune] == [failed["metadata"]["name"]]
    assert renewed(back) == "hub-orchestrator"
    # The record of a version that was left for good goes.
    succeeded = {**failed, "status": {"conditions": [ENDED]}}
    found = plan(newer, children={**with_job(done), ("Job", failed["metadata"]["name"]): succeeded})
    assert [item["metadata"]["name"] for item in found.prune] == [done["metadata"]["name"]]


def test_a_migration_waits_for_a_database_that_takes_writes() -> None:
    found = plan(EXPLICIT, patroni=patroni(leader=None))
    assert jobs(found) == []
    assert renewed(found) is None


@pytest.mark.parametrize(
    "orchestrator",
    [
        {"image": "example.test/other:2"},
        {"image": "example.test/other:2", "migrations": {"command": []}},
        {"migrations": {"command": []}, "resources": {"requests": {"cpu": "1"}}},
    ],
)
def test_an_image_without_migrations_has_no_job(orchestrator: dict[str, Any]) -> None:
    found = plan({"orchestrator": orchestrator})
    assert jobs(found) == []
    assert renewed(found) == "hub-orchestrator"


def test_a_new_cluster_with_our_own_image_has_no_job_and_a_later_image_has() -> None:
    assert jobs(plan()) == []
    found = plan({"updatePolicy": "Immediate"}, images=NEWER)
    (job,) = jobs(found)
    container = job["spec"]["template"]["spec"]["containers"][0]
    assert container["image"] == NEWER.orchestrator
    assert container["command"][-1] == "runnerhub_orchestrator.migrate"
    assert renewed(found) is None


def test_a_newer_operator_alone_migrates_nothing() -> None:
    assert jobs(plan(images=NEWER)) == []


def test_nothing_is_migrated_while_the_cluster_is_paused() -> None:
    assert jobs(plan({**EXPLICIT, "paused": True})) == []


def test_one_pod_at_a_time_without_the_token_of_the_agent() -> None:
    (job,) = jobs(plan(EXPLICIT))
    assert job["spec"]["podReplacementPolicy"] == "Failed"
    pod_spec = job["spec"]["template"]["spec"]
    assert pod_spec["automountServiceAccountToken"] is False
    assert pod_spec["restartPolicy"] == "Never"
    labels = job["spec"]["template"]["metadata"]["labels"]
    assert labels[names.LABEL_COMPONENT] == names.MIGRATION, (
        "no Service and no PodDisruptionBudget selects it"
    )


def test_a_migration_of_another_image_finds_what_its_orchestrators_find() -> None:
    additions = {
        "volumes": [{"name": "trust", "emptyDir": {}}],
        "initContainers": [{"name": "fetch", "volumeMounts": [{"name": "trust", "mountPath": "/trust"}]}],
    }
    storage = {"sharedStorage": {"nfs": {"server": "10.0.0.9", "path": "/exports"}}}
    (job,) = jobs(plan({"orchestrator": {**EXPLICIT["orchestrator"], **additions}, **storage}))
    spec = job["spec"]["template"]["spec"]
    (migrates,) = spec["containers"]
    assert [item["name"] for item in spec["initContainers"]] == ["fetch"]
    assert {"SHARED_STORAGE_PATH", "NFS_SERVER"} <= {item["name"] for item in migrates["env"]}
    assert "/mnt/shared/runnerhub" in {mount["mountPath"] for mount in migrates["volumeMounts"]}
    mounted = {
        mount["name"] for item in (migrates, *spec["initContainers"]) for mount in item["volumeMounts"]
    }
    assert mounted == {volume["name"] for volume in spec["volumes"]}
    ours = {"migrations": {"command": COMMAND}}
    (job,) = jobs(plan({"orchestrator": ours, **storage}))
    volumes = {volume["name"] for volume in job["spec"]["template"]["spec"]["volumes"]}
    assert "shared-storage" not in volumes, "our own needs none, and migrates while the share is away"


def test_a_preview_tells_the_migration() -> None:
    found = preview(cluster(EXPLICIT), snapshot(), IMAGES)
    assert [change.name for change in found.changes if change.kind == "Job"] == [
        jobs(plan(EXPLICIT))[0]["metadata"]["name"]
    ]
    assert [restart.component for restart in found.restarts] == [names.ORCHESTRATOR]
