"""Runner pools in the plan of a visit: objects, token, condition, status; and what an orchestrator tells of jobs."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from runnerhub_operator import names, tokens
from runnerhub_operator.api import RunnersStatus
from runnerhub_operator.api.runners import RUNNER_OWNED_VARIABLES
from runnerhub_operator.errors import InvalidSpecError
from runnerhub_operator.kube.compare import with_applied_hash
from runnerhub_operator.plan import Plan, make_plan, pools
from runnerhub_operator.plan.conditions import Verdict
from runnerhub_operator.plan.runners import Memory, Silence
from runnerhub_operator.probes.runners import MOST_JOBS, Demand, parse_demand
from runnerhub_operator.resources.common import BuildContext
from runnerhub_operator.resources.runners import is_outdated, runner_pod, shared_manifests, token_secret
from runnerhub_operator.snapshot import Pod
from tests.generate import IMAGES
from tests.unit.plan.builders import NOW, children, cluster, pods, snapshot

POOL: dict[str, Any] = {
    "name": "linux",
    "labels": ["self-hosted", "linux"],
    "minReplicas": 1,
    "maxReplicas": 3,
}
KEY = "k" * 32
NEWER = replace(IMAGES, runner="example.test/runner:2")
# The key in the builders' Secret is a short one.
pytestmark = pytest.mark.filterwarnings("ignore::jwt.warnings.InsecureKeyLengthWarning")
NOTHING = Demand((), frozenset())


def spec(**changes: Any) -> dict[str, Any]:
    return {"runnerPools": [POOL | changes]}


def built(wanted: dict[str, Any]) -> BuildContext:
    return BuildContext(cluster(wanted), IMAGES)


def live_runner(wanted: dict[str, Any], slot: int = 0, **changes: Any) -> Pod:
    context = built(wanted)
    body = runner_pod(context, context.cluster.spec.runner_pools[0], slot)
    body["metadata"]["uid"] = f"uid-{slot}"
    body["spec"]["nodeName"] = "n"
    body["status"] = {"podIP": "10.0.0.9", "conditions": [{"type": "Ready", "status": "True"}]}
    return replace(Pod.of(body), **changes)


def secret(wanted: dict[str, Any], token: str) -> dict[str, Any]:
    return token_secret(built(wanted), token, tokens.control_key("x"))


def plan(
    wanted: dict[str, Any],
    *runners: Pod,
    images: Any = IMAGES,
    before: RunnersStatus | None = None,
    **changes: Any,
) -> Plan:
    values: dict[str, Any] = {"pods": (*pods(), *runners), "demand": NOTHING} | changes
    known = cluster(wanted)
    if before is not None:
        known = replace(known, status=known.status.model_copy(update={"runners": before}))
    return make_plan(known, snapshot(**values), images, None)


def condition(found: Plan) -> Any:
    return next(item for item in found.status.conditions if item.type == "RunnersReady")


def test_without_pools_there_is_nothing_of_runners() -> None:
    found = plan({})
    assert not found.runners
    assert not [
        item for item in found.objects if item["metadata"]["labels"][names.LABEL_COMPONENT] == "runner"
    ]
    assert condition(found).reason == "NotRequested"
    assert found.settled


def test_a_pool_brings_its_objects_and_its_least_number_of_pods() -> None:
    found = plan(spec())
    written = {(item["kind"], item["metadata"]["name"]) for item in found.objects}
    assert {
        ("ServiceAccount", "hub-runner"),
        ("PodDisruptionBudget", "hub-runner"),
        ("Secret", "hub-runner-token"),
    } <= written
    ((pool, manifest),) = found.runners.create
    assert (pool, manifest["metadata"]["name"]) == ("linux", "hub-runner-linux-0")
    assert manifest["metadata"]["ownerReferences"][0]["controller"] is True
    assert not found.settled
    assert found.writes


def test_a_pool_that_is_full_is_settled_and_told() -> None:
    found = plan(spec(), live_runner(spec()))
    assert not found.runners
    assert (condition(found).status, condition(found).reason) == ("True", "Available")
    told = found.status.runners
    assert (told.desired, told.ready, told.pools[0].name) == (1, 1, "linux")


def test_trouble_with_a_pool_is_told_and_does_not_gate_ready() -> None:
    stuck = live_runner(spec(), node="", ready=False, waiting_reason="Unschedulable", message="0/3 nodes")
    found = plan(spec(), stuck)
    assert (condition(found).status, condition(found).reason) == ("False", "Unschedulable")
    assert "0/3 nodes" in condition(found).message
    assert next(item for item in found.status.conditions if item.type == "Ready").status == "True"
    assert found.status.phase in ("Ready", "Updating")


def test_runners_that_a_kubelet_rejects_are_told_and_also_while_others_are_tried() -> None:
    why = "UnexpectedAdmissionError: Pod was rejected: Allocate failed"
    refused = live_runner(spec(), ready=False, ended=True, ip="", node="gpu-1", rejected=why)
    wanted = spec(minReplicas=0)
    found = plan(wanted, refused)
    assert (condition(found).status, condition(found).reason) == ("False", "RejectedByKubelet")
    assert f"linux: node gpu-1 rejected pod hub-runner-linux-0: {why}" in condition(found).message
    assert next(item for item in found.status.conditions if item.type == "Ready").status == "True"

    def told(*runners: Pod, memory: Memory = found.memory.runners) -> Verdict:
        now = snapshot(pods=(*pods(), *runners), demand=NOTHING)
        return pools.verdict(cluster(wanted), now, pools.look(built(wanted), now, memory))

    assert told().reason == "RejectedByKubelet"
    taken = told(live_runner(wanted))
    assert (taken.status, why in taken.message) == ("True", True)
    assert told(memory=Memory()).status == "True"
    waiting = live_runner(wanted, 1, node="", ready=False, waiting_reason="Unschedulable")
    both = told(refused, waiting)
    assert (both.reason, why in both.message) == ("Unschedulable", True)


def test_jobs_that_no_pool_can_take_are_told() -> None:
    waiting = ((frozenset({"gpu", "big"}), 7), (frozenset({"other"}), 1))
    found = plan(spec(), live_runner(spec()), demand=Demand(waiting, frozenset()))
    assert condition(found).message.endswith("; jobs wait whose labels no pool has, the oldest for big, gpu")
    assert found.status.runners.queued == 8


def test_an_unknown_demand_is_told_with_its_reason() -> None:
    found = plan(spec(), live_runner(spec()), demand=None, demand_error="no orchestrator is ready")
    assert condition(found).reason == "DemandUnknown"
    assert condition(found).message.startswith("no orchestrator is ready: pools keep their size")


def test_a_paused_cluster_starts_and_stops_no_runner() -> None:
    found = plan(spec() | {"paused": True})
    assert not found.runners
    assert not [item for item in found.objects if item["kind"] == "Secret"]


def test_a_paused_cluster_keeps_a_token_that_holds() -> None:
    old = tokens.mint("x", "runner", NOW, timedelta(days=1))
    found = plan(spec() | {"paused": True}, children=children(secret(spec(), old)))
    (written,) = [item for item in found.objects if item["metadata"]["name"] == "hub-runner-token"]
    assert written["data"]["token"] != secret(spec(), old)["data"]["token"]


def test_a_runner_that_cannot_be_asked_is_told_without_trouble() -> None:
    found = snapshot(pods=(*pods(), live_runner(spec())), demand=NOTHING)
    silent = Memory(silent={"uid-0": Silence(NOW - timedelta(seconds=60), NOW)})
    told = pools.verdict(cluster(spec()), found, pools.look(built(spec()), found, silent))
    assert told.status == "True"
    assert "hub-runner-linux-0 cannot be asked whether it has a job" in told.message
    quiet = pools.verdict(cluster(spec()), found, pools.look(built(spec()), found, Memory()))
    assert "cannot be asked" not in quiet.message


def test_the_token_is_made_anew_in_good_time_and_when_the_key_is_another() -> None:
    def written(token: str) -> list[Any]:
        found = plan(spec(), children=children(secret(spec(), token)))
        return [item for item in found.objects if item["metadata"]["name"] == "hub-runner-token"]

    # The key of the builders' Secret.
    fresh = tokens.mint("x", "runner", NOW, tokens.RUNNER_TOKEN_LIFETIME)
    kept = written(fresh)
    assert not kept or kept[0]["data"] == secret(spec(), fresh)["data"], (
        "only the hash of what was applied is new"
    )
    for stale in (
        tokens.mint("x", "runner", NOW, tokens.RUNNER_TOKEN_LIFETIME / 2 - timedelta(seconds=1)),
        tokens.mint(KEY, "runner", NOW, tokens.RUNNER_TOKEN_LIFETIME),
        "nonsense",
    ):
        ((made),) = written(stale)
        assert made["data"] != secret(spec(), stale)["data"]


def test_what_runners_shared_goes_when_the_last_of_them_has_gone() -> None:
    shared = secret(spec(), "t")
    shared["metadata"]["uid"] = "secret"
    assert not [
        item
        for item in plan({}, live_runner(spec()), children=children(shared)).prune
        if item["kind"] == "Secret"
    ]
    assert [item["metadata"]["name"] for item in plan({}, children=children(shared)).prune] == [
        "hub-runner-token"
    ]


def test_nothing_that_was_right_before_keeps_what_the_last_runner_leaves() -> None:
    there = children(*(with_applied_hash(item) for item in shared_manifests(built({}))))
    with_runner = snapshot(pods=(*pods(), live_runner(spec())), children=there, demand=NOTHING)
    first = make_plan(cluster({}), with_runner, IMAGES, None)
    assert first.memory.unchanged is not None
    assert not first.prune
    found = make_plan(cluster({}), snapshot(children=there, demand=NOTHING), IMAGES, first.memory)
    assert {(item["kind"], item["metadata"]["name"]) for item in found.prune} == {
        (item["kind"], item["metadata"]["name"]) for item in shared_manifests(built({}))
    }


def test_a_newer_operator_replaces_no_runner_until_it_is_asked_to() -> None:
    found = plan(spec(), live_runner(spec()), images=NEWER)
    assert not found.runners.stop
    assert not found.runners.create
    assert names.RUNNER in found.status.pending_updates
    asked = plan(spec() | {"updatePolicy": "Immediate"}, live_runner(spec()), images=NEWER)
    assert [name for name, _ in asked.runners.create] == ["linux"], "another one comes first"
    assert names.RUNNER not in asked.status.pending_updates


@pytest.mark.parametrize(
    ("changes", "outdated"),
    [
        ({}, False),
        ({"minReplicas": 0, "maxReplicas": 9, "coolDownSeconds": 1}, False),
        ({"image": "example.test/other:1"}, True),
        ({"labels": ["self-hosted"]}, True),
        ({"nodeSelector": {"a": "b"}}, True),
        ({"region": "eu"}, True),
        ({"resources": {"requests": {"cpu": "2"}}}, True),
        ({"zoneSpread": "Required"}, True),
        ({"terminationGracePeriodSeconds": 60}, True),
    ],
)
def test_only_what_is_of_the_pod_makes_runners_outdated(changes: dict[str, Any], outdated: bool) -> None:
    pod, context = live_runner(spec()), built(spec(**changes))
    assert is_outdated(context, context.cluster.spec.runner_pools[0], pod.template, pod.layout) is outdated


@pytest.mark.parametrize(
    "layout", ["", "null", "{}", '{"version": 99, "images": {"runner": "x"}}', '{"version": 1e400}']
)
def test_a_record_that_cannot_be_read_makes_a_runner_outdated(layout: str) -> None:
    context = built(spec(image="example.test/other:1"))
    assert is_outdated(context, context.cluster.spec.runner_pools[0], live_runner(spec()).template, layout)


def test_the_pod_of_a_runner_is_where_and_what_the_pool_says() -> None:
    wanted = spec(
        region="eu", zoneSpread="Required", nodeSelector={"a": "b"}, image="example.test/own:1",
        tolerations=[{"key": "t", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 5}],
    ) | {"github": {"url": "https://github.com/example", "tokenSecretName": "github"}}  # fmt: skip
    context = built(wanted)
    pod = runner_pod(context, context.cluster.spec.runner_pools[0], 3)
    assert pod["metadata"]["labels"][names.LABEL_POOL] == "linux"
    assert pod["spec"]["nodeSelector"] == {"a": "b", "topology.kubernetes.io/region": "eu"}
    assert pod["spec"]["tolerations"] == [
        {"key": "t", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 5}
    ]
    (constraint,) = pod["spec"]["topologySpreadConstraints"]
    assert constraint["whenUnsatisfiable"] == "DoNotSchedule"
    environment = {item["name"]: item for item in pod["spec"]["containers"][0]["env"]}
    assert environment["ORCHESTRATOR_URL"]["value"] == "http://hub"
    assert environment["RUNNER_LABELS"]["value"] == "self-hosted,linux"
    assert environment["GITHUB_TOKEN"]["valueFrom"]["secretKeyRef"] == {"name": "github", "key": "token"}
    assert pod["spec"]["containers"][0]["securityContext"]["readOnlyRootFilesystem"] is False
    mounted = {volume["secret"]["secretName"] for volume in pod["spec"]["volumes"] if "secret" in volume}
    assert mounted == {"hub-runner-token"}, "runners do not get the key that makes tokens"


def test_tokens_hold_for_their_time_and_tell_nothing_of_the_key() -> None:
    token = tokens.mint(KEY, "runner", NOW, timedelta(hours=1))
    assert tokens.holds_until(token, KEY) == (NOW + timedelta(hours=1)).timestamp()
    assert tokens.holds_until(token, "other" * 8) == 0
    assert tokens.control_key(KEY) != tokens.control_key("other" * 8)
    assert KEY not in tokens.control_key(KEY)


def test_an_answer_of_an_orchestrator_is_read() -> None:
    found = parse_demand(
        {
            "waiting": [{"labels": ["b", "a"], "jobs": 2}, {"labels": [], "jobs": 10**30}],
            "running": [{"runnerId": "r", "jobId": 1, "leaseUntil": None}, {"runnerId": None}],
            "complete": True,
        }
    )
    assert found == Demand(((frozenset({"a", "b"}), 2), (frozenset(), MOST_JOBS)), frozenset({"r"}))


@pytest.mark.parametrize(
    "body",
    [
        None,
        [],
        {},
        {"waiting": [], "running": []},
        {"waiting": [], "running": [], "complete": False},
        {"waiting": None, "running": [], "complete": True},
        {"waiting": [{"labels": "a", "jobs": 1}], "running": [], "complete": True},
        {"waiting": [{"labels": [], "jobs": -1}], "running": [], "complete": True},
        {"waiting": [{"labels": [], "jobs": True}], "running": [], "complete": True},
    ],
)
def test_an_answer_that_is_not_whole_is_none(body: object) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        parse_demand(body)


def test_numbers_that_follow_the_jobs_are_told_now_and_then_and_ready_runners_at_once() -> None:
    def told(before: RunnersStatus, seconds: float, waiting: int, *pods: Any) -> RunnersStatus:
        return plan(
            spec(),
            *pods,
            before=before,
            now=NOW + timedelta(seconds=seconds),
            demand=Demand(((frozenset({"linux"}), waiting),), frozenset()),
        ).status.runners

    first = told(RunnersStatus(), 0, 1)
    assert first.queued == 1
    assert told(first, 29, 2) == first
    later = told(first, 31, 2)
    assert later.queued == 2
    # The same numbers move no time.
    assert told(later, 300, 2) == later
    assert told(first, 1, 2, live_runner(spec())).ready == 1


def test_jobs_move_no_message() -> None:
    messages = {
        condition(
            plan(spec(), live_runner(spec()), demand=Demand(((frozenset({"linux"}), count),), frozenset()))
        ).message
        for count in (1, 2, 3)
    }
    assert len(messages) == 1


def test_runners_reach_the_orchestrators_inside_also_when_the_way_in_is_by_tls() -> None:
    def url(more: dict[str, Any]) -> str:
        found = plan(spec() | more, demand=Demand(((frozenset({"linux"}), 1),), frozenset()))
        container = found.runners.create[0][1]["spec"]["containers"][0]
        return next(str(item["value"]) for item in container["env"] if item["name"] == "ORCHESTRATOR_URL")

    assert url({}) == "http://hub"
    assert url({"loadBalancer": {"tls": {"secretName": "hub-tls"}}}) == "http://hub:3001"


def test_a_pool_adds_variables_and_none_takes_the_place_of_the_operators() -> None:
    secret = {"name": "A_SECRET", "valueFrom": {"secretKeyRef": {"name": "mine", "key": "word"}}}
    wanted = spec(
        env=[{"name": "RUNNER_COMMAND", "value": "/bin/run"}, secret],
        envFrom=[{"configMapRef": {"name": "proxy"}}],
    )
    wanted["github"] = {"url": "https://github.com/example", "tokenSecretName": "github"}
    context = built(wanted)
    (container,) = runner_pod(context, context.cluster.spec.runner_pools[0], 0)["spec"]["containers"]
    own = [item["name"] for item in container["env"][:-2]]
    assert container["env"][-2:] == [{"name": "RUNNER_COMMAND", "value": "/bin/run"}, secret]
    assert container["envFrom"] == [{"configMapRef": {"name": "proxy"}}]
    assert sorted(own) == sorted(RUNNER_OWNED_VARIABLES)
    for name in own:
        with pytest.raises(InvalidSpecError, match="env must not set a variable that the operator owns"):
            built(spec(env=[{"name": name, "value": "x"}]))
