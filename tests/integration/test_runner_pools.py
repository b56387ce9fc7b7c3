"""Pools of runners: a real operator and a real API server; orchestrators and runners are played."""

from __future__ import annotations

import json
import time
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
import yaml

from e2e.lab.kubectl import Kubectl, KubectlError, wait_for
from e2e.stage import Stage
from runnerhub_operator import names
from tests.integration.conftest import PATIENT, denial, wait_until_time_passed

LINUX: dict[str, Any] = {
    "name": "linux",
    "labels": ["self-hosted", "linux"],
    "minReplicas": 1,
    "maxReplicas": 6,
    "coolDownSeconds": 3,
}
# No node of the stage has the label.
GPU: dict[str, Any] = {
    "name": "gpu",
    "labels": ["self-hosted", "gpu"],
    "maxReplicas": 4,
    "coolDownSeconds": 0,
    "nodeSelector": {"example.com/gpu": "true"},
}
# More than a node has: the kubelets of the stage reject such runners.
LARGE: dict[str, Any] = {
    "name": "large",
    "labels": ["self-hosted", "linux", "large"],
    "maxReplicas": 4,
    "coolDownSeconds": 0,
    "resources": {"requests": {"cpu": "2000"}},
}
OTHER = "example.test/runner:2"


def apply(kubectl: Kubectl, *pools: dict[str, Any]) -> None:
    body = {
        "apiVersion": f"{names.API_GROUP}/{names.API_VERSION}",
        "kind": names.KIND,
        "metadata": {"name": "hub"},
        "spec": {"postgres": {"instances": 2}, "runnerPools": list(pools)},
    }
    kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", stdin=yaml.safe_dump(body))


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    with Stage() as running:
        running.create_namespaces("pools")
        running.start_operator("operator-0", probe_interval_seconds="1", **PATIENT)
        yield running


@pytest.fixture
def hub(stage: Stage) -> Kubectl:
    """kubectl in the namespace of a cluster that is Ready, with one idle runner."""
    kubectl = stage.kubectl.in_namespace("pools")
    apply(kubectl, LINUX, GPU)
    wait_for("the cluster to be Ready", lambda: status(kubectl).get("phase") == "Ready", 240)
    tell(kubectl)
    # One of another image, left by another test, would be replaced in the middle of this one.
    wait_for(
        "one runner, as the spec says", lambda: len(pods(kubectl)) == 1 and OTHER not in images(kubectl), 60
    )
    return kubectl


def status(hub: Kubectl) -> dict[str, Any]:
    found: dict[str, Any] = (hub.get("runnerhubcluster", "hub") or {}).get("status", {})
    return found


def condition(hub: Kubectl) -> dict[str, Any]:
    return next(item for item in status(hub)["conditions"] if item["type"] == "RunnersReady")


def pods(hub: Kubectl, pool: str = "") -> list[dict[str, Any]]:
    found = hub.items("pod", f"{names.LABEL_COMPONENT}={names.RUNNER}")
    found = [pod for pod in found if "deletionTimestamp" not in pod["metadata"]]
    return [pod for pod in found if not pool or pod["metadata"]["labels"][names.LABEL_POOL] == pool]


def runners(hub: Kubectl, pool: str = "") -> set[str]:
    return {pod["metadata"]["name"] for pod in pods(hub, pool)}


def images(hub: Kubectl) -> list[str]:
    return [pod["spec"]["containers"][0]["image"] for pod in pods(hub)]


def marked(hub: Kubectl) -> set[str]:
    return {pod["metadata"]["name"] for pod in pods(hub) if names.LABEL_BUSY in pod["metadata"]["labels"]}


def tell(hub: Kubectl, *busy: str, known: bool = True, silent: str = "", **waiting: int) -> None:
    """Have the played orchestrators tell a demand, or not know the question. A `silent` runner answers nothing."""
    demand = {
        "waiting": [{"labels": ["self-hosted", label], "jobs": count} for label, count in waiting.items()],
        "running": [{"runnerId": name, "jobId": number} for number, name in enumerate(busy, start=1)],
        "complete": True,
        "silent": [silent],
    }
    body = json.dumps(demand if known else None).encode()

    def told() -> bool:
        """Whether one of them took it; in a rolling change some have no address yet, or nobody at it any more."""
        for pod in hub.items("pod", f"{names.LABEL_COMPONENT}={names.ORCHESTRATOR}"):
            url = f"http://{pod['status'].get('podIP', '')}:{names.PORT_ORCHESTRATOR}/demand"
            with (
                suppress(OSError),
                urllib.request.urlopen(urllib.request.Request(url, body, method="PUT"), timeout=5),
            ):
                return True
        return False

    wait_for("an orchestrator to take the demand", told, 20)


def test_a_pool_follows_the_jobs_and_one_that_cannot_be_scheduled_holds_no_other_up(hub: Kubectl) -> None:
    assert condition(hub)["status"] == "True"
    tell(hub, gpu=3, linux=4)
    wait_for("runners for all jobs", lambda: len(runners(hub, "linux")) == 4, 60)
    wait_for("the trouble to be told", lambda: condition(hub)["reason"] == "Unschedulable", 60)
    assert "no node matches" in condition(hub)["message"]
    assert len(runners(hub, "gpu")) <= 3
    tell(hub, gpu=30, linux=60)
    wait_for("the greatest number", lambda: len(runners(hub, "linux")) == 6, 60)
    wait_until_time_passed(3)
    assert len(runners(hub, "gpu")) <= 3, "no more is made while these wait for a node"
    assert len(runners(hub, "linux")) == 6
    told = status(hub)["runners"]
    assert (told["queued"], told["pools"][0]["ready"], told["pools"][0]["desired"]) == (90, 6, 6)
    assert status(hub)["phase"] == "Ready", "pools do not gate the rest"
    tell(hub)
    wait_for("pools at their least number", lambda: len(runners(hub)) == 1, 60)
    assert condition(hub)["status"] == "True"


def test_runners_that_kubelets_reject_are_not_made_anew_all_the_time_and_others_take_their_jobs(
    hub: Kubectl,
) -> None:
    apply(hub, LINUX, LARGE)
    tell(hub, large=2)
    wait_for("it to be told", lambda: condition(hub)["reason"] == "RejectedByKubelet", 60)
    assert "OutOfcpu: Pod was rejected" in condition(hub)["message"]
    made: set[str] = set()
    # Two at once, after 0, 10, 20, 40 and 80 seconds.
    end = time.monotonic() + 35
    while time.monotonic() < end:
        made |= {pod["metadata"]["uid"] for pod in pods(hub, "large")}
        assert condition(hub)["reason"] == "RejectedByKubelet", "also while others are tried"
        wait_until_time_passed(1)
    assert 2 < len(made) <= 8
    tell(hub, large=2, linux=4)
    wait_for("runners for the others", lambda: len(runners(hub, "linux")) == 4, 60)
    tell(hub)
    wait_for("pools at their least number", lambda: len(runners(hub)) == 1, 60)
    wait_for("nothing to be told", lambda: condition(hub)["status"] == "True", 60)


def test_busy_runners_are_protected_and_only_idle_ones_are_stopped(hub: Kubectl) -> None:
    tell(hub, linux=5)
    wait_for("five runners", lambda: len(runners(hub)) == 5, 60)
    busy = {"hub-runner-linux-2", "hub-runner-linux-4"}
    before = {pod["metadata"]["name"]: pod["metadata"]["uid"] for pod in pods(hub)}
    tell(hub, *busy)
    wait_for("the marks", lambda: marked(hub) == busy, 60)
    wait_for("idle runners to go", lambda: runners(hub) == busy, 60)
    eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "hub-runner-linux-2"}}
    with pytest.raises(KubectlError, match="disruption budget"):
        hub(
            "create", "--raw", "/api/v1/namespaces/pools/pods/hub-runner-linux-2/eviction", "-f", "-",
            stdin=json.dumps(eviction),
        )  # fmt: skip
    wait_until_time_passed(5)
    assert {pod["metadata"]["name"]: pod["metadata"]["uid"] for pod in pods(hub)} == {
        name: before[name] for name in busy
    }
    tell(hub)
    wait_for("the marks to go", lambda: not marked(hub), 60)
    wait_for("one runner", lambda: len(runners(hub)) == 1, 60)
    tell(hub, linux=1)
    hub("delete", "pod", *runners(hub), "--wait=false")
    wait_for("another one", lambda: len(runners(hub)) == 1 and not marked(hub), 60)


def test_nothing_is_stopped_while_no_orchestrator_tells_the_demand(hub: Kubectl) -> None:
    tell(hub, linux=4)
    wait_for("four runners", lambda: len(runners(hub)) == 4, 60)
    tell(hub, known=False)
    wait_for("it to be told", lambda: condition(hub)["reason"] == "DemandUnknown", 60)
    assert "no orchestrator tells which jobs wait and run" in condition(hub)["message"]
    wait_until_time_passed(6)
    assert len(runners(hub)) == 4
    tell(hub)
    wait_for("one runner", lambda: len(runners(hub)) == 1, 60)


def test_a_new_template_replaces_idle_runners_and_leaves_busy_ones_until_their_job_ends(hub: Kubectl) -> None:
    tell(hub, linux=2)
    wait_for("two runners", lambda: len(runners(hub)) == 2, 60)
    name = max(runners(hub))
    tell(hub, name)
    wait_for("the mark", lambda: marked(hub) == {name}, 60)
    old = {pod["metadata"]["name"]: pod["metadata"]["uid"] for pod in pods(hub)}
    apply(hub, {**LINUX, "minReplicas": 2, "image": OTHER})
    wait_for("the idle one to be replaced", lambda: images(hub).count(OTHER) == 1, 40)
    wait_until_time_passed(5)
    busy = next(pod for pod in pods(hub) if pod["metadata"]["name"] == name)
    assert busy["metadata"]["uid"] == old[name]
    tell(hub)
    wait_for("all to be new", lambda: set(images(hub)) == {OTHER}, 60)
    wait_for("the least number", lambda: len(runners(hub)) == 2, 60)


def test_pools_that_are_taken_away_go_with_all_that_they_shared(hub: Kubectl) -> None:
    assert hub.get("secret", "hub-runner-token") is not None
    (busy,) = runners(hub)
    tell(hub, busy)
    wait_for("the mark", lambda: marked(hub) == {busy}, 60)
    apply(hub)
    wait_for("it to be told", lambda: condition(hub)["reason"] == "NotRequested", 60)
    wait_until_time_passed(4)
    assert runners(hub) == {busy}, "it has a job"
    tell(hub)
    wait_for("no runner", lambda: not runners(hub), 60)
    for kind, name in (
        ("secret", "hub-runner-token"),
        ("pdb", "hub-runner"),
        ("serviceaccount", "hub-runner"),
    ):
        wait_for(f"the {kind} to go", lambda of=(kind, name): hub.get(*of) is None, 60)  # type: ignore[misc]


# The last two: who did not answer, and what was refused, is not tried again soon, and others would wait for that.
def test_a_runner_that_cannot_be_asked_keeps_no_other_one_from_going(hub: Kubectl) -> None:
    tell(hub, linux=3)
    wait_for("three runners", lambda: len(runners(hub)) == 3, 60)
    # The last one is asked first.
    quiet = max(runners(hub))
    tell(hub, silent=quiet)
    wait_for("the others to go", lambda: runners(hub) == {quiet}, 60)
    told = [event["message"] for event in hub.items("event") if event["reason"] == "RunnerSilent"]
    assert told == [f"{quiet} cannot be asked whether there is a job, so it stays; asked again every minute"]


RUNNERS_STAY = denial(
    "runners-stay", f"!('{names.LABEL_POOL}' in oldObject.metadata.labels)", "runners stay as they are"
)


def test_runners_that_nobody_may_change_hold_no_rolling_change_up(hub: Kubectl) -> None:
    tell(hub, linux=3)
    wait_for("three runners", lambda: len(runners(hub)) == 3, 60)
    hub("apply", "-f", "-", stdin=yaml.safe_dump_all(RUNNERS_STAY))
    (pod, *_) = sorted(runners(hub))

    def denied() -> bool:
        try:
            hub("label", "pod", pod, "example.com/try=1", "--overwrite")
        except KubectlError as error:
            return "runners stay as they are" in str(error)
        return False

    try:
        wait_for("the policy to be in effect", denied, 60)
        tell(hub, pod)
        wait_until_time_passed(5)
        assert len(runners(hub)) == 3, "the surplus should go, and may not"
        more = {"spec": {"orchestrator": {"resources": {"requests": {"cpu": "77m"}}}}}
        hub("patch", "runnerhubcluster", "hub", "--type=merge", "-p", json.dumps(more))

        def requested() -> str:
            body = hub.get("deployment", "hub-orchestrator") or {}
            return str(body["spec"]["template"]["spec"]["containers"][0]["resources"]["requests"]["cpu"])

        wait_for("the orchestrators to be renewed", lambda: requested() == "77m", 90)
        assert pod not in marked(hub)
        assert len(runners(hub)) == 3
    finally:
        hub("delete", "--ignore-not-found", "-f", "-", stdin=yaml.safe_dump_all(RUNNERS_STAY))
    tell(hub)
    wait_for("one runner", lambda: len(runners(hub)) == 1, 60)
