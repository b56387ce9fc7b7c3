"""The summary of a cluster: its screens are golden files (see tests/generate), here is what follows from what."""

from __future__ import annotations

import copy
import json
from datetime import UTC, datetime

import pytest
import yaml

from runnerhub_cli.errors import CliError, Exit
from runnerhub_cli.output import Format, data_text
from runnerhub_cli.reading import choose
from runnerhub_cli.status import summarise
from runnerhub_cli.times import age, span, with_ages
from runnerhub_operator.api import ConditionReason
from runnerhub_operator.api.meanings import REASONS
from tests.unit.cli.scenes import SCENES, picture_of, recorded, scene, set_condition


@pytest.mark.parametrize(
    ("name", "level"),
    [
        ("healthy", Exit.OK),
        ("newer-spec", Exit.OK),
        ("rolling", Exit.WARNING),
        ("operator-gone", Exit.WARNING),
        ("nearly-full", Exit.WARNING),
        ("paused", Exit.WARNING),
        ("migration-failed", Exit.WARNING),
        ("parameters-refused", Exit.WARNING),
        ("runners-refused", Exit.WARNING),
        ("no-primary", Exit.CRITICAL),
        ("writes-refused", Exit.CRITICAL),
        ("not-observed", Exit.CRITICAL),
    ],
)
def test_the_exit_code_follows_what_the_cluster_does_for_its_clients(name: str, level: Exit) -> None:
    assert summarise(scene(name)).level is level


@pytest.mark.parametrize("name", SCENES)
def test_there_is_always_a_next_step_and_it_names_the_cluster(name: str) -> None:
    steps = summarise(scene(name)).next_steps
    assert steps
    for step in steps:
        assert step.text
        if step.command:
            assert "runnerhub" in step.command


def test_nothing_is_to_be_done_for_a_healthy_cluster() -> None:
    assert [step.text for step in summarise(scene("healthy")).next_steps] == ["Nothing."]


def test_runners_that_nobody_asked_for_are_not_missing() -> None:
    rows = {row.type: row for row in summarise(scene("healthy")).conditions}
    assert rows["RunnersReady"].reason == "NotRequested", "or the test would prove nothing"
    assert rows["Ready"].text == "all components serve"


def test_a_volume_that_may_not_grow_needs_somebody() -> None:
    made = recorded("healthy")
    set_condition(made, "Progressing", "False", "VolumeGrowthRefused", "the API server refuses it")
    summary = summarise(picture_of(made))
    assert summary.level is Exit.WARNING
    assert summary.next_steps[0].text.startswith("The API server refuses it. Set allowVolumeExpansion")


@pytest.mark.parametrize(
    ("kind", "status", "reason"),
    [
        ("PostgresReady", "True", "PatroniPaused"),
        ("PostgresReady", "True", "ParametersRefused"),
        ("PostgresReady", "True", "ReducedRedundancy"),
        ("PostgresReady", "False", "CredentialsMissing"),
        ("RedisReady", "True", "WorkersDeaf"),
        ("OrchestratorsReady", "True", "ChecksFail"),
        ("RedisReady", "False", "WritesRefused"),
        ("RedisReady", "False", "Unavailable"),
        ("LoadBalancerReady", "True", "ReducedRedundancy"),
        ("LoadBalancerReady", "False", "Unavailable"),
    ],
)
def test_what_is_the_matter_although_all_pods_are_ready_is_a_next_step(
    kind: str, status: str, reason: str
) -> None:
    made = recorded("healthy")
    set_condition(made, kind, status, reason, "told by the operator; since 2026-11-26T09:05:04Z")
    summary = summarise(picture_of(made))
    (step,) = summary.next_steps
    assert step.text == f"Told by the operator; for 5m. {REASONS[ConditionReason(reason)].remedy}"
    assert {row.type: row.good for row in summary.conditions}[kind] is False


def test_what_passes_with_a_change_under_way_is_waited_for_and_what_does_not_serve_is_told() -> None:
    made = recorded("healthy")
    set_condition(made, "Progressing", "True", "RollingChange", "rolling change of haproxy")
    set_condition(made, "LoadBalancerReady", "True", "ReducedRedundancy", "1 of 2 ready")
    assert [step.text for step in summarise(picture_of(made)).next_steps] == ["Wait until it is done."]
    set_condition(made, "LoadBalancerReady", "False", "Unavailable", "no request is served")
    (step,) = summarise(picture_of(made)).next_steps
    assert step.text.startswith("No request is served.")


def test_a_missing_primary_is_told_once() -> None:
    made = recorded("healthy")
    del made["cluster"]["status"]["postgres"]["primary"]
    set_condition(made, "PostgresReady", "False", "Unavailable", "no primary, 3 of 3 members ready")
    (step,) = summarise(picture_of(made)).next_steps
    assert step.text.startswith("No Postgres primary")


@pytest.mark.parametrize(("redis", "steps"), [(45, 1), (97, 2)])
def test_a_full_volume_is_told_once(redis: int, steps: int) -> None:
    made = recorded("healthy")
    status = made["cluster"]["status"]
    status["postgres"]["instances"][1]["volumeUsedPercent"] = 96
    status["redis"]["instances"][0]["volumeUsedPercent"] = redis
    full = (
        "3 of 3 members ready; volumes nearly full: hub-postgres-1 (96 %); raise spec.postgres.storage.size"
    )
    set_condition(made, "PostgresReady", "True", "ReducedRedundancy", full)
    told = [step.text for step in summarise(picture_of(made)).next_steps]
    assert len(told) == steps
    assert sum("hub-postgres-1" in text and "spec.postgres.storage.size" in text for text in told) == 1


def test_a_full_volume_is_told_with_its_own_component_s_field_whatever_the_cluster_is_called() -> None:
    made = json.loads(json.dumps(recorded("healthy")).replace("hub-", "my-redis-app-"))
    made["cluster"]["status"]["postgres"]["instances"][1]["volumeUsedPercent"] = 92
    (step,) = summarise(picture_of(made)).next_steps
    assert step.text.startswith("The volume of my-redis-app-postgres-1 is 92 % full.")
    assert "spec.postgres.storage.size" in step.text


def test_a_member_that_does_not_start_with_its_parameters_is_not_said_to_come_back() -> None:
    (step,) = summarise(scene("parameters-refused")).next_steps
    assert "repairing" not in step.text
    assert "Correct or remove them in spec.postgres.parameters" in step.text


def test_runners_that_are_just_being_made_need_nobody() -> None:
    made = recorded("healthy")
    set_condition(made, "RunnersReady", "False", "Creating", "linux: 0 ready")
    summary = summarise(picture_of(made))
    assert summary.level is Exit.OK
    assert [step.text for step in summary.next_steps] == ["Nothing."]


@pytest.mark.parametrize(
    ("reason", "command"),
    [
        ("DemandUnknown", "kubectl runnerhub logs orchestrator --since 10m -n runnerhub"),
        ("Unavailable", "kubectl runnerhub logs runner --since 10m -n runnerhub"),
        ("OfANewerOperator", "kubectl runnerhub logs runner --since 10m -n runnerhub"),
    ],
)
def test_what_keeps_pools_of_runners_from_their_size_is_a_next_step(reason: str, command: str) -> None:
    made = recorded("healthy")
    set_condition(made, "RunnersReady", "False", reason, "linux: 0 ready")
    summary = summarise(picture_of(made))
    assert summary.level is Exit.WARNING
    (step,) = summary.next_steps
    assert step.text.startswith("Runners: linux: 0 ready.")
    assert step.command == command


def test_a_member_that_is_missing_during_a_rolling_change_is_waited_for() -> None:
    (step,) = summarise(scene("rolling")).next_steps
    assert step.text.startswith("Wait: hub-postgres-1")


def test_a_member_that_is_missing_for_no_known_reason_is_a_case_for_the_doctor() -> None:
    made = recorded("rolling")
    set_condition(made, "Progressing", "False", "Settled", "the spec is in effect")
    (step,) = summarise(picture_of(made)).next_steps
    assert "hub-postgres-1 not ready" in step.text
    assert step.command == "kubectl runnerhub doctor hub -n runnerhub"


def test_a_member_whose_pod_is_gone_is_shown_all_the_same() -> None:
    made = recorded("healthy")
    made["pods"] = [pod for pod in made["pods"] if pod["metadata"]["name"] != "hub-redis-1"]
    redis = next(item for item in summarise(picture_of(made)).components if item.name == "redis")
    assert redis.ready == 2
    assert {member.name: member.state for member in redis.members}["hub-redis-1"] == "no pod"


def test_a_member_on_another_timeline_is_told() -> None:
    made = recorded("healthy")
    instance = made["cluster"]["status"]["postgres"]["instances"][2]
    instance["timeline"] = 3
    postgres = summarise(picture_of(made)).components[0]
    assert postgres.members[2].state == f"{instance['state']}, timeline 3"


def test_the_holder_of_the_disruption_lease_is_told() -> None:
    made = recorded("healthy")
    for lease in made["leases"]:
        if lease["metadata"]["name"] == "hub-disruption":
            lease["spec"] |= {"holderIdentity": "alice/rescue", "acquireTime": "2026-11-26T09:00:04.000000Z"}
    told = summarise(picture_of(made)).going_on
    assert told == ("the right to disrupt (hub-disruption) is held by alice/rescue, for 10m",)


def test_json_and_yaml_say_the_same_with_names_as_in_the_api() -> None:
    summary = summarise(scene("nearly-full"))
    found = json.loads(data_text(summary, Format.JSON))
    assert found == yaml.safe_load(data_text(summary, Format.YAML))
    assert found["level"] == "warning"
    assert found["components"][0]["members"][1]["volumeUsedPercent"] == 92
    assert found["failovers"][0]["from"].startswith("hub-postgres-")
    assert found["nextSteps"][0]["command"]


def _cluster(name: str) -> dict:
    return {"metadata": {"name": name, "namespace": "here"}}


def test_the_only_cluster_of_a_namespace_is_meant_when_none_is_named() -> None:
    assert choose([_cluster("hub")], None, "here")["metadata"]["name"] == "hub"


@pytest.mark.parametrize(
    ("there", "name", "sentence"),
    [
        ([], None, "there is no RunnerHubCluster in the namespace here"),
        (["a", "b"], None, "the namespace here has several RunnerHubClusters, name one of: a, b"),
        (["a", "b"], "c", "there is no RunnerHubCluster c in the namespace here; there are: a, b"),
        ([], "c", "there is no RunnerHubCluster c in the namespace here; there is none at all"),
    ],
)
def test_which_cluster_is_meant_is_never_guessed(there: list[str], name: str | None, sentence: str) -> None:
    with pytest.raises(CliError) as caught:
        choose([_cluster(item) for item in there], name, "here")
    assert str(caught.value).startswith(sentence)
    assert caught.value.code is Exit.UNKNOWN


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-5, "0s"),
        (119, "119s"),
        (120, "2m"),
        (209, "3m29s"),
        (2700, "45m"),
        (11_100, "3h5m"),
        (108_000, "30h"),
        (432_000, "5d"),
    ],
)
def test_spans_are_told_as_kubectl_tells_them(seconds: float, text: str) -> None:
    assert span(seconds) == text


def test_times_of_day_in_messages_become_spans() -> None:
    now = datetime(2026, 11, 26, 9, 0, 0, tzinfo=UTC)
    assert with_ages("2 of 3 ready; since 2026-11-26T08:59:00Z", now) == "2 of 3 ready; for 60s"
    assert age("no time", now) == "-"


def test_reading_changes_nothing_of_what_was_read() -> None:
    made = recorded("healthy")
    before = copy.deepcopy(made)
    summarise(picture_of(made))
    assert made == before


def test_runners_and_jobs_are_shown_where_there_are_pools() -> None:
    made = recorded("healthy")
    shown = [item.name for item in summarise(picture_of(made)).components]
    assert "runner" not in shown
    status = made["cluster"]["status"]
    status["runners"] = {
        "desired": 4, "ready": 0, "busy": 3, "queued": 7,
        "pools": [{"name": "linux", "desired": 4, "ready": 0, "busy": 3, "queued": 7}],
    }  # fmt: skip
    status["redis"]["queue"] = {"waiting": 7, "active": 3, "delayed": 0, "failed": 1, "at": made["now"]}
    found = {item.name: item for item in summarise(picture_of(made)).components}
    assert found["runner"].wanted == 4
    assert found["runner"].facts == ("3 busy", "7 jobs wait")
    assert "jobs: 7 waiting, 3 active, 0 delayed, 1 failed" in found["redis"].facts
