"""The operator behind an API server that is away, cuts watches, forgets, throttles and tells late.

The pods are played (e2e/stage), everything else is real. Most tests share one operator, whose Lease outlasts what is
done to it; that it survives what the others did is part of the test.
"""

from __future__ import annotations

import itertools
import json
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import pytest

from e2e.lab.hub import Hub
from e2e.lab.kubectl import Kubectl, wait_for
from e2e.stage import Stage
from kindbed.paths import BUILD_DIR
from runnerhub_operator import names
from runnerhub_operator.runtime import KOPF_PROVEN_SECONDS
from tests.integration.behind import Pod, QuickKubectl, Server, Witness
from tests.integration.chaos import Call, ChaosProxy, reads, work
from tests.integration.conftest import wait_until_time_passed
from tests.integration.test_reconcile import manifest

SMALL: Final = {"postgres": {"instances": 2}, "orchestrator": {"replicas": 2}}
# Longer than any short fault, so that what is tested is not the election.
LONG_LEASE: Final = {
    "RUNNERHUB_LEASE_DURATION_SECONDS": "180",
    "RUNNERHUB_RENEW_DEADLINE_SECONDS": "120",
    "RUNNERHUB_RETRY_PERIOD_SECONDS": "2",
}
SHORT_LEASE: Final = {
    "RUNNERHUB_LEASE_DURATION_SECONDS": "10",
    "RUNNERHUB_RENEW_DEADLINE_SECONDS": "8",
    "RUNNERHUB_RETRY_PERIOD_SECONDS": "1",
}
FEW_SECONDS: Final = 10.0
# Of an operator that starts anew, or whose watches do, on a busy machine.
RECOVERY_SECONDS: Final = 40.0


@dataclass(frozen=True, slots=True)
class Bench:
    """A stage, a proxy and the operator behind it."""

    stage: Stage
    proxy: ChaosProxy
    pod: Pod


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    with Stage() as running:
        yield running


@pytest.fixture(scope="module")
def proxy(stage: Stage) -> Iterator[ChaosProxy]:
    with ChaosProxy(stage.kubeconfig) as running:
        yield running


@pytest.fixture(scope="module")
def server(stage: Stage) -> Iterator[Server]:
    with Server(stage.kubeconfig) as connected:
        yield connected


@pytest.fixture(scope="module")
def namespace(stage: Stage, server: Server) -> Kubectl:
    """kubectl in the namespace of the cluster that most tests use."""
    return new_namespace(stage, server, "shared")


@pytest.fixture
def shared(bench: Bench, namespace: Kubectl) -> Hub:
    """A cluster that most tests change a little; Ready."""
    return ready(Hub(namespace, "hub"), SMALL)


@pytest.fixture(scope="module")
def figures() -> Iterator[dict[str, Any]]:
    """What was measured, by test; becomes build/reports/api-faults.json."""
    found: dict[str, Any] = {}
    yield found
    folder = BUILD_DIR / "reports"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "api-faults.json"
    earlier = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps({**earlier, **found}, indent=2) + "\n")


@pytest.fixture(scope="module")
def bench(stage: Stage, proxy: ChaosProxy) -> Iterator[Bench]:
    pod = Pod(stage, proxy, "operator-shared", **LONG_LEASE)
    pod.wait_leading(120)
    yield Bench(stage, proxy, pod)
    assert pod.stop() == 0
    assert pod.restarts == 0
    assert "Traceback" not in pod.log()


def new_namespace(stage: Stage, server: Server, name: str) -> Kubectl:
    """kubectl in a namespace that is made."""
    stage.kubectl("create", "namespace", name)
    return QuickKubectl.of(stage.kubectl, server, name)


def ready(hub: Hub, spec: dict[str, Any], seconds: float = 240) -> Hub:
    """The cluster, Ready and settled."""
    hub.kubectl.apply(manifest(hub.name, spec))
    wait_for(f"{hub.name} to be Ready", hub.is_settled, seconds)
    return hub


def edit(hub: Hub, spec: dict[str, Any]) -> None:
    hub.kubectl("patch", "rhc", hub.name, "--type=merge", "-p", json.dumps({"spec": spec}))


def size(hub: Hub) -> int:
    """Replicas that the orchestrators' Deployment asks for; 0: there is none."""
    found = hub.kubectl.get("deployment", f"{hub.name}-orchestrator") or {}
    replicas: int = found.get("spec", {}).get("replicas", 0)
    return replicas


def an_edit_arrives(hub: Hub, replicas: int, seconds: float = FEW_SECONDS) -> float:
    """Edit the spec and wait for the child to follow; the seconds that it took."""
    edit(hub, {"orchestrator": {"replicas": replicas}})
    return elapsed("the edit to arrive", lambda: size(hub) == replicas, seconds)


def a_deleted_child_returns(hub: Hub, name: str, seconds: float = FEW_SECONDS) -> float:
    """Delete a Service and wait for it to be back; the seconds that it took."""
    hub.kubectl("delete", "service", name)
    return elapsed("the Service", lambda: hub.kubectl.get("service", name) is not None, seconds)


def elapsed(what: str, look: Callable[[], bool], seconds: float) -> float:
    """Wait; the time it took in seconds."""
    started = time.monotonic()
    wait_for(what, look, seconds, every=0.1)
    return time.monotonic() - started


# --- 1. The API server is away ---


def outage(proxy: ChaosProxy, pod: Pod, seconds: float) -> int:
    """Half of the time nobody listens, half of it nobody answers; the kubelet does its work meanwhile.

    Gives the number of the operator's own requests that were refused; the proxy counts those without answer.
    """
    with proxy.refusing():
        before, restarts = pod.metric("runnerhub_operator_api_calls_total", status="0"), pod.restarts
        _serve(pod, seconds / 2)
        refused = pod.metric("runnerhub_operator_api_calls_total", status="0")
        # A new process counts from 0.
        refused -= before if pod.restarts == restarts else 0
    with proxy.silent():
        _serve(pod, seconds / 2)
    return int(refused)


def _serve(pod: Pod, seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pod.kubelet()
        wait_until_time_passed(min(1.0, max(0.0, end - time.monotonic())))


def writes_once(proxy: ChaosProxy, mark: int) -> Counter[str]:
    """Successful writes after a mark by object; what is written often on purpose is left out."""
    return Counter(
        str(call)
        for call in proxy.since(mark, work)
        if call.status < 300 and call.resource not in ("events", "runnerhubclusters/status")
    )


def survives_an_outage(proxy: ChaosProxy, pod: Pod, hub: Hub, seconds: float) -> dict[str, Any]:
    """The API server is away; then an edit and a deleted child are noticed soon and written once."""

    def served(look: Callable[[], bool]) -> Callable[[], bool]:
        def both() -> bool:
            pod.kubelet()
            return look()

        return both

    mark, restarts = proxy.mark(), pod.restarts
    attempts = outage(proxy, pod, seconds)
    after = proxy.mark()
    service, replicas = f"{hub.name}-redis-1", 5 - size(hub)
    hub.kubectl("delete", "service", service)
    edit(hub, {"orchestrator": {"replicas": replicas}})
    edited = elapsed("the edit to arrive", served(lambda: size(hub) == replicas), 90)
    returned = elapsed("the Service", served(lambda: hub.kubectl.get("service", service) is not None), 90)
    wait_for("it to settle", served(hub.is_settled), 90)
    events = proxy.since(after, lambda call: call.resource == "events" and call.writes)
    return {
        "seconds": seconds,
        "restarts": pod.restarts - restarts,
        "exit_codes": pod.exit_codes,
        "edit_seconds": round(edited, 1),
        "child_seconds": round(returned, 1),
        "requests_without_answer": attempts + after - mark,
        "events_after": len(events),
        "written": writes_once(proxy, after),
    }


def test_an_outage_that_costs_the_lease_ends_the_operator_and_the_next_one_goes_on(
    stage: Stage, proxy: ChaosProxy, namespace: Kubectl, figures: dict[str, Any]
) -> None:
    report = outlived(stage, proxy, namespace, 20, SHORT_LEASE)
    figures["outage of 20 s, Lease of 10 s"] = report
    # Whoever did not write the Lease itself has to see it unchanged for as long as it lasts.
    assert report["edit_seconds"] < 10 + RECOVERY_SECONDS


@pytest.mark.full
def test_an_outage_of_ten_minutes_with_the_usual_lease(
    stage: Stage, proxy: ChaosProxy, namespace: Kubectl, figures: dict[str, Any]
) -> None:
    report = outlived(stage, proxy, namespace, 600, {})
    figures["outage of 600 s, Lease of 15 s"] = report
    assert report["edit_seconds"] < 15 + RECOVERY_SECONDS


def outlived(
    stage: Stage, proxy: ChaosProxy, namespace: Kubectl, seconds: float, lease: dict[str, str]
) -> dict[str, Any]:
    """An outage that is longer than the Lease."""
    pod = Pod(stage, proxy, f"operator-{seconds}", **lease)
    try:
        pod.wait_leading(120)
        report = survives_an_outage(proxy, pod, ready(Hub(namespace, "hub"), SMALL), seconds)
    finally:
        pod.stop()
    assert report["restarts"] >= 1
    assert set(report["exit_codes"]) == {1}
    assert_quiet(report)
    assert "Traceback" not in pod.log()
    return report


def assert_quiet(report: dict[str, Any]) -> None:
    """Few requests meanwhile, each child written once and few Events afterwards."""
    assert max(report["written"].values()) == 1
    assert report["events_after"] <= 5
    # Two looks at the Lease per retry period, and each watch with doubling breaks.
    assert report["requests_without_answer"] <= 14 * 10 + 2 * report["seconds"]


def test_an_error_in_the_middle_of_a_watch_is_survived(
    stage: Stage, proxy: ChaosProxy, server: Server
) -> None:
    pod = Pod(stage, proxy, "operator-error", **LONG_LEASE)
    try:
        pod.wait_leading(120)
        hub = ready(Hub(new_namespace(stage, server, "error"), "hub"), SMALL)
        wait_for("all watches", lambda: proxy.open_watches().total() >= 15, 60, every=0.2)
        wait_until_time_passed(KOPF_PROVEN_SECONDS)
        mark = proxy.mark()
        assert proxy.fail_watches(500) >= 15
        wait_for(
            "the watches again, or the end",
            lambda: len(proxy.since(mark, is_watch)) >= 13 or not pod.process.running,
            60,
            every=0.1,
        )
        an_edit_arrives(hub, 3, RECOVERY_SECONDS)
        assert pod.restarts == 0
        assert pod.process.running
    finally:
        pod.stop()


def is_watch(call: Call) -> bool:
    """Matches new watches."""
    return call.verb == "watch"


def test_an_outage_within_the_lease_is_survived_by_the_same_process(
    bench: Bench, shared: Hub, figures: dict[str, Any]
) -> None:
    report = survives_an_outage(bench.proxy, bench.pod, shared, 8)
    figures["outage of 8 s within the Lease"] = report
    assert report["restarts"] == 0
    assert_quiet(report)


def test_a_write_that_the_watch_has_not_told_of_yet_is_not_made_again(bench: Bench, shared: Hub) -> None:
    mark = bench.proxy.mark()
    with bench.proxy.lagging(3.0, lambda call: call.resource == "deployments"):
        an_edit_arrives(shared, 5 - size(shared), 30)
        # Other news, so that the operator looks again.
        a_deleted_child_returns(shared, "hub-redis-1", 30)
        wait_until_time_passed(2)
    wait_for("it to settle", shared.is_settled, 30)
    assert max(writes_once(bench.proxy, mark).values()) == 1


@pytest.mark.full
def test_watches_that_have_died_without_a_word_are_replaced(
    bench: Bench, shared: Hub, figures: dict[str, Any]
) -> None:
    """A firewall that forgot the connections: no reset ever comes."""
    with bench.proxy.silent(half_open=True):
        wait_until_time_passed(5)
    edited = an_edit_arrives(shared, 5 - size(shared), 120)
    returned = a_deleted_child_returns(shared, "hub-redis-1", 240)
    figures["half-open watches"] = {"edit_seconds": edited, "child_seconds": returned}


# --- 2. Watches are cut ---


def test_watches_that_are_cut_go_on_without_listing(
    bench: Bench, shared: Hub, figures: dict[str, Any]
) -> None:
    mark = bench.proxy.mark()
    edits, children = [], []
    for number in range(10):
        bench.proxy.cut_watches(abruptly=number % 2 == 0)
        edits.append(round(an_edit_arrives(shared, 3 - number % 2, 40), 2))
        bench.proxy.cut_watches(abruptly=number % 2 == 1)
        children.append(round(a_deleted_child_returns(shared, f"hub-redis-{number % 3}", 40), 2))
    lists = bench.proxy.since(mark, lambda call: call.verb == "list")
    figures["20 cuts"] = {
        "edit_seconds": edits,
        "child_seconds": children,
        "calls": bench.proxy.summary(mark),
    }
    assert [str(call) for call in lists] == []
    assert max(edits + children) < FEW_SECONDS


# --- 3. Objects vanish while nobody watches ---


def test_what_vanished_before_a_410_is_noticed(
    bench: Bench, stage: Stage, server: Server, figures: dict[str, Any]
) -> None:
    kubectl = new_namespace(stage, server, "gap")
    ghost, reborn, kept = (Hub(kubectl, name) for name in ("ghost", "reborn", "kept"))
    kubectl.apply(*(manifest(hub.name, SMALL) for hub in (ghost, reborn, kept)))
    for hub in (ghost, reborn, kept):
        wait_for(f"{hub.name} to be Ready", hub.is_settled, 240)
    proxy = bench.proxy
    with proxy.short_pages(2, expired=3):
        with proxy.muted():
            kubectl("delete", "rhc", "ghost", "reborn")
            wait_for("their children to go", lambda: size(ghost) == size(reborn) == 0, 30)
            kubectl.apply(manifest("reborn", {**SMALL, "orchestrator": {"replicas": 3}}))
            kubectl("delete", "service", "kept-redis-1")
            mark = proxy.mark()
            assert len(proxy.expire()) >= 13
        seconds = {
            "child of kept": elapsed("it", lambda: kubectl.get("service", "kept-redis-1") is not None, 60),
            "first child of reborn": elapsed("it", lambda: size(reborn) == 3, 60),
            "reborn Ready": elapsed("it", reborn.is_settled, 60),
            "ghost forgotten": elapsed("it", lambda: forgotten(bench, "ghost"), 60),
        }
    wait_until_time_passed(2)
    figures["410"] = {
        "seconds": seconds,
        "calls": proxy.summary(mark),
        "clusters": len(json.loads(stage.kubectl("get", "rhc", "-A", "-o", "json"))["items"]),
        "clusters_known": bench.pod.metric("runnerhub_operator_clusters", state="known"),
    }
    of_ghost = [
        str(call) for call in proxy.since(mark, work) if call.name.startswith("ghost") and call.status < 300
    ]
    assert of_ghost == []
    assert not [item for item in kubectl.items("deployment,service") if "ghost" in item["metadata"]["name"]]
    assert len([call for call in proxy.since(mark) if call.verb == "list" and call.status == 410]) == 3
    # Far less than the life of a watch, on a slow machine too.
    assert max(seconds.values()) < 45
    kubectl("delete", "rhc", "--all")


def forgotten(bench: Bench, name: str) -> bool:
    """Whether the operator tells nothing of a cluster any more."""
    samples = bench.pod.process.metrics()
    return bool(samples) and not any(labels.get("name") == name for _, labels, _ in samples)


# --- 4. Throttling and errors ---

BURSTS: Final = {
    "429 for everything": (429, 2, lambda _: True),
    "500 for everything": (500, None, lambda _: True),
    "503 for writes": (503, None, work),
    "429 for reads": (429, 2, reads),
}


def no_lease(call: Call) -> bool:
    """Matches all but the operator's own Lease, which may be asked for as often as its timing says."""
    return call.name != names.OPERATOR_LEASE


def retries_too_early(calls: list[Call], retry_after: float) -> list[str]:
    """Repetitions of the same call before the time that the server asked for has passed."""
    last: dict[tuple[str, str, str, str], float] = {}
    early = []
    for call in calls:
        key = call.verb, call.resource, call.namespace, call.name
        if key in last and call.at - last[key] < retry_after - 0.1:
            early.append(f"{call} after {call.at - last[key]:.1f} s")
        last[key] = call.at
    return early


@pytest.mark.parametrize("burst", ["429 for everything", "503 for writes"])
def test_a_burst_of_errors_is_waited_out_without_a_storm(
    bench: Bench, shared: Hub, burst: str, figures: dict[str, Any]
) -> None:
    weathers(bench, shared, burst, 8, figures)


def test_an_error_of_one_kind_that_lasts_is_told_in_the_status(bench: Bench, shared: Hub) -> None:
    """As of a webhook whose pods are gone."""
    with bench.proxy.answering(500, matches=lambda call: call.resource == "services" and call.writes):
        shared.kubectl("delete", "service", "hub-redis-1")
        wait_for("it to be told", lambda: shared.condition("Accepted")["status"] == "False", 40)
        accepted = shared.condition("Accepted")
        assert accepted["reason"] == "RefusedByApiServer"
        assert "Service shared/hub-redis-1" in accepted["message"]
    an_edit_arrives(shared, 5 - size(shared), 10)
    wait_for("the Service", lambda: shared.kubectl.get("service", "hub-redis-1") is not None, 10)
    wait_for("it to settle", shared.is_settled, 30)
    assert shared.condition("Accepted")["status"] == "True"


@pytest.mark.full
@pytest.mark.parametrize("seconds", [15, 60])
@pytest.mark.parametrize("burst", BURSTS)
def test_each_burst_of_errors_is_waited_out(
    bench: Bench, shared: Hub, burst: str, seconds: float, figures: dict[str, Any]
) -> None:
    weathers(bench, shared, burst, seconds, figures)


def weathers(bench: Bench, hub: Hub, burst: str, seconds: float, figures: dict[str, Any]) -> None:
    """Errors while there is work: few requests, counted errors, no traceback, and soon the right state."""
    status, retry_after, matches = BURSTS[burst]
    proxy, pod = bench.proxy, bench.pod
    log, mark, replicas = len(pod.log()), proxy.mark(), 5 - size(hub)
    # The next try may be as far away as the burst was long: the breaks double.
    limit = FEW_SECONDS + 1.5 * seconds
    answered = pod.metric("runnerhub_operator_api_calls_total", status=str(status))
    failed = pod.metric("runnerhub_operator_reconcile_errors_total", reason="ApiServerUnavailable")
    with proxy.answering(status, retry_after=retry_after, matches=matches):
        edit(hub, {"orchestrator": {"replicas": replicas}})
        wait_until_time_passed(2)
        hub.kubectl("delete", "service", "hub-redis-1")
        proxy.cut_watches()
        wait_until_time_passed(seconds - 2)
        during = proxy.since(mark, no_lease)
    after = elapsed(
        "the right state",
        lambda: size(hub) == replicas and hub.kubectl.get("service", "hub-redis-1") is not None,
        limit,
    )
    refused = [call for call in during if call.status == status]
    figures[f"burst, {burst}, {seconds} s"] = {
        "seconds_until_right": round(after, 1),
        "requests": len(during),
        "refused": Counter(f"{call.verb} {call.resource}" for call in refused),
        "too_early": retries_too_early(refused, retry_after or 0),
    }
    assert refused
    # Fifteen watches and one cluster: at most the doubling tries of each.
    assert len(refused) <= 16 * 8 + seconds
    if retry_after:
        assert retries_too_early(refused, retry_after) == []
    assert pod.metric("runnerhub_operator_api_calls_total", status=str(status)) > answered
    if matches is not reads:
        assert pod.metric("runnerhub_operator_reconcile_errors_total", reason="ApiServerUnavailable") > failed
    assert "Traceback" not in pod.log()[log:]
    wait_for("it to settle", hub.is_settled, 30 + limit)


@pytest.mark.full
def test_writes_whose_answers_are_lost_are_not_done_twice(
    bench: Bench, stage: Stage, server: Server, figures: dict[str, Any]
) -> None:
    proxy, hub = bench.proxy, Hub(new_namespace(stage, server, "lost"), "hub")
    mark, lost = proxy.mark(), itertools.cycle([False] * 7 + [True])
    with proxy.losing_answers(lambda call: work(call) and next(lost)):
        hub.kubectl.apply(manifest("hub", SMALL))
        seconds = elapsed("the cluster to be Ready", hub.is_settled, 120)
    took_effect = [call for call in proxy.since(mark, work) if call.reached and call.status in (0, 200, 201)]
    unanswered = [call for call in took_effect if call.status == 0]
    figures["lost answers"] = {
        "seconds_until_ready": round(seconds, 1),
        "lost": len(unanswered),
        "writes": len(took_effect),
    }
    assert len(unanswered) >= 3
    # Nothing but a second write could have changed a password.
    assert {call.verb for call in took_effect if call.resource == "secrets"} == {"create"}
    hub.kubectl("delete", "rhc", "hub")


# --- 5. Watches that tell late ---

LATE: Final = {
    "everything": lambda _: True,
    "children": lambda call: call.resource != names.PLURAL,
    "clusters": lambda call: call.resource == names.PLURAL,
    "pods": lambda call: call.resource == "pods",
}
LAG_SECONDS: Final = 3.0
INGRESS: Final = {"host": "hub.example.com"}


def test_late_news_never_lead_to_a_wrong_deletion(bench: Bench, shared: Hub, figures: dict[str, Any]) -> None:
    copes_with_late_news(bench, shared, "everything", figures)


@pytest.mark.full
@pytest.mark.parametrize("late", [late for late in LATE if late != "everything"])
def test_late_news_of_some_never_lead_to_a_wrong_deletion(
    bench: Bench, shared: Hub, late: str, figures: dict[str, Any]
) -> None:
    copes_with_late_news(bench, shared, late, figures)


def copes_with_late_news(bench: Bench, shared: Hub, late: str, figures: dict[str, Any]) -> None:
    """There and back, gone and wanted again, and a rolling change, all before the operator has heard of it."""
    proxy, image = bench.proxy, f"example.test/redis:{late}"
    ready(shared, {**SMALL, "ingress": INGRESS})
    mark = proxy.mark()
    with Witness(bench.stage.kubeconfig, shared.kubectl.namespace) as witness:
        with proxy.lagging(LAG_SECONDS, LATE[late]):
            for replicas in (4, 2, 4, 2):
                edit(shared, {"orchestrator": {"replicas": replicas}})
                wait_until_time_passed(0.4)
            edit(shared, {"ingress": None})
            wait_until_time_passed(0.6)
            edit(shared, {"ingress": INGRESS, "redis": {"image": image}})
            wanted_again = time.monotonic()
            started = time.monotonic()
            wait_for("the new image everywhere", lambda: images(shared) == {image}, 90)
            renewed = time.monotonic() - started
        wait_for("it to settle", shared.is_settled, 30)
    deleted = [change for change in witness.changes if change.what == "DELETED"]
    pods_deleted = Counter(
        call.name for call in proxy.since(mark) if call.verb == "delete" and call.resource == "pods"
    )
    figures[f"late news of {late}"] = {
        "renewal_seconds": round(renewed, 1),
        "deleted": Counter(f"{change.kind} {change.name}" for change in deleted if change.kind != "Pod"),
        "pods_deleted": pods_deleted,
        "fewest_ready": witness.fewest_ready,
    }
    wanted_but_deleted = [
        change
        for change in deleted
        if change.kind != "Pod" and (change.kind != "Ingress" or change.at > wanted_again + 1)
    ]
    assert wanted_but_deleted == []
    assert pods_deleted == Counter({"hub-redis-0": 1, "hub-redis-1": 1, "hub-redis-2": 1})
    assert witness.fewest_ready[names.REDIS] == 2
    # None of them changed, or none was missing.
    assert witness.fewest_ready.get(names.POSTGRES, 2) == 2
    assert shared.kubectl.get("ingress", "hub-ingress") is not None
    assert size(shared) == 2


def images(hub: Hub) -> set[str]:
    """Images of the ready Redis pods."""
    return {
        pod["spec"]["containers"][0]["image"]
        for pod in hub.pods(names.REDIS)
        if "deletionTimestamp" not in pod["metadata"] and pod["status"].get("phase") == "Running"
    }
