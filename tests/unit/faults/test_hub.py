"""The suite of the hub: its faults break and heal, its figures and its report, on a stage of recorded commands."""

import json
import re
from types import SimpleNamespace

import pytest

from e2e.faults import processes
from e2e.faults.__main__ import parse, plan_from
from e2e.faults.arena import Before, Member
from e2e.faults.fault import Primary, Target
from e2e.faults.hub import balancers, runners, stores
from e2e.faults.hub.arena import HubArena, HubFault, all_orchestrators, windows
from e2e.faults.hub.report import HubReport
from e2e.faults.hub.suite import HubSuite
from e2e.faults.results import RunResult
from e2e.lab.bed import Bed
from e2e.lab.hub import Hub
from e2e.lab.kubectl import KubectlError
from kindbed.console import TestBedError
from runnerhub_operator.api import GithubSpec, RunnerPoolSpec

LEADER = Member("hub-orchestrator-a", "u0", "node-0", "cid0")
FOLLOWERS = (
    Member("hub-orchestrator-b", "u1", "node-1", "cid1"),
    Member("hub-orchestrator-c", "u2", "node-2", "cid2"),
)
BEFORE = Before(LEADER, FOLLOWERS, {"hub-lb-a": "la", "hub-lb-b": "lb"}, frozenset({"node-1"}))


def pod(name, uid, node, *containers):
    return {
        "metadata": {"name": name, "uid": uid, "labels": {}},
        "spec": {"nodeName": node},
        "status": {
            "podIP": "10.0.0.7",
            "containerStatuses": [
                {"name": one, "containerID": f"containerd://{one}-{uid}"} for one in containers
            ],
        },
    }


class Stage:
    """A cluster that answers commands from what a test puts there, and remembers them."""

    namespace = "ns"

    def __init__(self):
        self.log = []
        self.holder = LEADER.name
        self.spec = {}
        self.phase = "Ready"
        self.pods = {
            "orchestrator": [
                pod(member.name, member.uid, member.node, "orchestrator", "ha-agent")
                for member in (LEADER, *FOLLOWERS)
            ],
            "loadbalancer": [
                pod("hub-lb-a", "la", "node-0", "haproxy"),
                pod("hub-lb-b", "lb", "node-1", "haproxy"),
            ],
            "postgres": [pod(f"hub-postgres-{n}", f"p{n}", f"node-{n}", "postgres") for n in range(3)],
            "redis": [pod(f"hub-redis-{n}", f"r{n}", f"node-{n}", "redis", "sentinel") for n in range(3)],
            "runner": [],
        }
        self.deployments = {
            f"hub-{name}": {
                "spec": {"replicas": size},
                "status": {"replicas": size, "updatedReplicas": size, "readyReplicas": size},
            }
            for name, size in (("orchestrator", 3), ("loadbalancer", 2))
        }
        self.loaded = iter(f"digest-{n // 2}" for n in range(100))

    def __call__(self, *words, **_):
        self.log.append(" ".join(words))
        if "burst" in words:
            count = int(words[words.index("--jobs") + 1])
            done = count if "--wait 0" not in " ".join(words) else 0
            return json.dumps({
                "jobs": count, "completed": done, "interrupted": 0, "failed_tries": 0, "runners": 3,
                "first_start_seconds": 1.0, "capacity_seconds": 2.0, "all_done_seconds": 3.0, "accepted_seconds": 0.5,
            })  # fmt: skip
        if "8405/state" in words[-1]:
            return next(self.loaded)
        if words[0] == "patch":
            self._merge(json.loads(words[-1])["spec"])
        return "ok"

    def _merge(self, patch):
        for section, content in patch.items():
            if isinstance(content, dict):
                self.spec.setdefault(section, {}).update(content)
            else:
                self.spec[section] = content

    def in_namespace(self, _name):
        return self

    def delete_pod_now(self, name):
        self.log.append(f"delete now {name}")

    def apply(self, *manifests):
        self.log.append("apply " + " ".join(item["kind"] for item in manifests))

    def items(self, kind, selector=""):
        if kind == "node":
            return [{"metadata": {"name": "control-plane"}}]
        return self.pods[re.search("component=([a-z]+)", selector).group(1)]

    def get(self, kind, name):
        body = {
            "metadata": {"generation": 1},
            "spec": self.spec,
            "status": {
                "phase": self.phase,
                "observedGeneration": 1,
                "postgres": {"primary": "hub-postgres-1"},
                "redis": {"master": "hub-redis-2"},
                "orchestrator": {"leader": self.holder},
            },
        }
        return {
            "runnerhubcluster": body,
            "lease": {"spec": {"holderIdentity": self.holder}},
            "deployment": self.deployments.get(name),
            "pod": {"status": {"conditions": [{"type": "Ready", "status": "True"}]}},
        }.get(kind)

    # -- the engine ---------------------------------------------------------------------------------------

    def output(self, *words, **_):
        self.log.append(" ".join(words))
        if processes._LIST in words:
            names = {1: ("tini", 0), 2: ("python", 1), 5: ("redis-server", 1)}
            return "\n".join(
                f"/proc/{pid}/status:Name:\t{name}\n/proc/{pid}/status:PPid:\t{parent}"
                for pid, (name, parent) in names.items()
            )
        return ""

    def nodes(self, state):
        return [LEADER.node] if state == "paused" else []


@pytest.fixture
def stage(monkeypatch):
    found = Stage()
    for module in (stores, runners):
        monkeypatch.setattr(module, "let_pass", lambda what, _seconds: found.log.append(f"wait for {what}"))
    found.engine = found
    hub = Hub(found, "hub")
    load = SimpleNamespace(pod="hub-client", run=lambda *words, **_: json.loads(found(*words)))
    found.arena = HubArena(Bed(found, found), hub, load)
    return found


HEALED_BY = {
    "agent-stopped": "CONT 1 2 5",
    "orchestrator-stopped": "CONT 1 2 5",
    "leader-stopped": "CONT 1 2 5",
    "two-down": "uncordon -l !node-role.kubernetes.io/control-plane",
    "node-drain": "uncordon node-0",
    "node-frozen": "unpause node-0",
    "node-killed": "start node-0",
    "node-partitioned": "iptables-save",
    "postgres-down": "CONT 1 2 5",
    "redis-down": "CONT 1 2 5",
    "idle-runners": "rm -f /var/log/runnerhub-client/no-jobs",
    "api-server-away": "pkill -CONT -x kube-apiserver; systemctl start kubelet",
    "control-plane-restarted": "pgrep -x $name",
}
BROKEN_BY = {
    "rolling-update": '"orchestrator": {"resources": {"requests": {"memory":',
    "leader-deleted": f"delete pod {LEADER.name} --wait=false",
    "follower-deleted": f"delete pod {FOLLOWERS[0].name} --wait=false",
    "follower-force-deleted": f"delete now {FOLLOWERS[0].name}",
    "leader-force-deleted": f"delete now {LEADER.name}",
    "orchestrator-killed": f"{processes._LIST} sh cid0",
    "agent-killed": f"{processes._LIST} sh ha-agent-u0",
    "agent-stopped": f"{processes._LIST} sh ha-agent-u0",
    "orchestrator-stopped": f"{processes._LIST} sh cid0",
    "leader-stopped": f"{processes._LIST} sh ha-agent-u0",
    "two-down": f"delete now {FOLLOWERS[0].name}",
    "balancer-reload": '"loadBalancer": {"timeouts": {"serverSeconds": 62}}',
    "balancer-update": '"loadBalancer": {"resources":',
    "balancer-deleted": "delete pod hub-lb-a --wait=false",
    "balancer-force-deleted": "delete now hub-lb-a",
    "node-drain": "drain node-0",
    "node-frozen": "pause node-0",
    "node-killed": "kill node-0",
    "node-partitioned": "iptables-restore",
    "postgres-failover": "delete now hub-postgres-1",
    "redis-failover": "delete pod hub-redis-2 --wait=false",
    "redis-killed": "sh KILL 5",
    "postgres-down": "burst --log /var/log/runnerhub-client --jobs 100",
    "redis-down": f"{processes._LIST} sh sentinel-r2",
    "idle-runners": "touch /var/log/runnerhub-client/no-jobs",
    "runner-burst": "--jobs 5 --labels nowhere",
    "api-server-away": "pkill -STOP -x kube-apiserver",
    "control-plane-restarted": "pkill -KILL -x $name",
}


@pytest.mark.parametrize("name", [fault.name for fault in HubSuite.faults()])
def test_each_fault_breaks_and_heals_whatever_happens_in_between(stage, name):
    broken = []

    def interrupted():
        with HubSuite.fault(name).inject(stage.arena, BEFORE):
            broken.extend(stage.log)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert BROKEN_BY[name] in "\n".join(broken)
    healed = stage.log[len(broken) :]
    assert HEALED_BY.get(name, "") in "\n".join(healed)
    assert name in HEALED_BY or not healed


def test_both_programs_of_the_leader_are_stopped_and_no_other_ones(stage):
    with HubSuite.fault("leader-stopped").inject(stage.arena, BEFORE):
        pass
    asked = [line for line in stage.log if processes._LIST in line]
    assert {line.rpartition(" ")[2] for line in asked} == {"orchestrator-u0", "ha-agent-u0"}


def test_all_members_of_the_stores_are_stopped(stage):
    with HubSuite.fault("redis-down").inject(stage.arena, BEFORE):
        pass
    asked = {line.rpartition(" ")[2] for line in stage.log if processes._LIST in line}
    assert asked == {f"{container}-r{n}" for container in ("redis", "sentinel") for n in range(3)}


def test_the_database_stops_right_after_its_jobs_were_accepted_and_before_they_ran(stage):
    fault = HubSuite.fault("postgres-down")
    with fault.inject(stage.arena, BEFORE):
        order = [
            line for line in stage.log if "--jobs 100" in line or processes._LIST in line or "sh STOP" in line
        ]
    kinds = ["post" if "--jobs" in line else "list" if processes._LIST in line else "stop" for line in order]
    assert kinds == ["list"] * 3 + ["post"] + ["stop"] * 3
    assert fault.aftermath(stage.arena) == {"burst_failed_tries": 0.0, "burst_open": 100.0}
    stage.arena.load.run = lambda *_, **__: {"jobs": 100, "completed": 100, "failed_tries": 0}
    with (
        pytest.raises(TestBedError, match="all jobs had run before the database was stopped"),
        fault.inject(stage.arena, BEFORE),
    ):
        pass
    assert "CONT" in stage.log[-1]


def test_two_are_down_only_as_long_as_no_third_comes_back(stage):
    with (
        pytest.raises(TestBedError, match="two should have been down, and there are"),
        HubSuite.fault("two-down").inject(stage.arena, BEFORE),
    ):
        pass
    assert stage.log[-1].startswith("uncordon")
    stage.pods["orchestrator"] = stage.pods["orchestrator"][2:]
    with HubSuite.fault("two-down").inject(stage.arena, BEFORE):
        pass


def test_a_pod_that_is_not_there_has_no_agent_to_stop(stage):
    stage.pods["orchestrator"] = stage.pods["orchestrator"][1:]
    with (
        pytest.raises(TestBedError, match=r"hub-orchestrator-a has no ha-agent"),
        HubSuite.fault("agent-stopped").inject(stage.arena, BEFORE),
    ):
        pass


def test_a_reload_waits_until_every_haproxy_has_loaded_and_changes_the_setting_each_time(stage):
    with HubSuite.fault("balancer-reload").inject(stage.arena, BEFORE):
        pass
    patches = [line for line in stage.log if line.startswith("patch")]
    assert len(patches) == balancers.RELOADS
    assert len(set(patches)) == 2
    assert balancers.same_pods(stage.arena, BEFORE)
    stage.pods["loadbalancer"][0]["metadata"]["uid"] = "new"
    assert not balancers.same_pods(stage.arena, BEFORE)


def test_idleness_ends_with_jobs_that_must_run(stage):
    fault = HubSuite.fault("idle-runners")
    with fault.inject(stage.arena, BEFORE):
        pass
    assert fault.aftermath(stage.arena) == {"all_done_seconds": 3.0}
    order = [
        line for line in stage.log if "no-jobs" in line or "--jobs 7" in line or "wait" in line.split()[:1]
    ]
    assert ["touch" in order[0], "idleness" in order[1], "--jobs 7" in order[2], "rm" in order[3]] == [
        True
    ] * 4
    stage.arena.load.run = lambda *_, **__: {"completed": 6}
    with pytest.raises(TestBedError, match="6 of 7 jobs ran"), fault.inject(stage.arena, BEFORE):
        pass
    assert "rm -f" in stage.log[-1]


def test_the_burst_works_everything_off_and_leaves_no_pool(stage):
    runners.arrange(stage.arena)
    assert stage.spec["runnerPools"][1]["nodeSelector"]
    found = runners.burst(stage.arena)
    assert (found["runners"], found["capacity_seconds"], found["interrupted"]) == (3.0, 2.0, 0.0)
    bursts = [line for line in stage.log if "burst --log" in line]
    assert len(bursts) == 1 + runners.LATE_BURSTS + 1
    assert "--labels nowhere" in bursts[-1]
    assert stage.spec["runnerPools"] == []
    assert stage.spec["github"] is None


@pytest.mark.parametrize("wrong", [{"interrupted": 2}, {"completed": 198}])
def test_a_runner_that_was_stopped_with_a_job_or_a_job_that_never_ran_is_a_problem(stage, wrong):
    run = stage.arena.load.run
    stage.arena.load.run = lambda *words, **more: {
        **run(*words, **more),
        **(wrong if str(runners.JOBS) in words else {}),
    }
    with pytest.raises(TestBedError, match="of 240 jobs"):
        runners.burst(stage.arena)
    assert stage.spec["runnerPools"] == [], "the jobs that nobody could take are worked off all the same"


@pytest.mark.parametrize("impossible", [True, False])
def test_the_pools_are_as_the_api_wants_them(impossible):
    taken, nowhere = (RunnerPoolSpec.model_validate(pool) for pool in runners.pools(impossible=impossible))
    assert (taken.min_replicas, taken.max_replicas, taken.node_selector) == (0, runners.MOST_RUNNERS, {})
    assert bool(nowhere.node_selector) == impossible
    GithubSpec.model_validate({"url": "http://hub-github.ns:8080/example", "tokenSecretName": "hub-github"})


def test_the_stand_in_for_github_is_reached_by_its_service_and_passes_the_restricted_standard():
    secret, service, found = runners.github_manifests(Hub(None, "hub"))
    assert service["spec"]["selector"].items() <= found["metadata"]["labels"].items()
    assert secret["data"]["token"]
    (container,) = found["spec"]["containers"]
    assert found["spec"]["securityContext"]["runAsNonRoot"]
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}


def test_everybody_is_asked_for_the_leader_also_who_is_not_ready():
    found = all_orchestrators(Hub(None, "hub"))
    assert found["spec"]["publishNotReadyAddresses"] is True
    assert found["spec"]["clusterIP"] == "None"
    assert found["spec"]["selector"] == {
        "runnerhub.io/cluster": "hub",
        "runnerhub.io/component": "orchestrator",
    }


def test_a_cluster_is_whole_when_nobody_comes_or_goes_and_the_operator_names_the_leader(stage):
    assert stage.arena.is_whole()
    stage.pods["loadbalancer"].append(pod("hub-lb-c", "lc", "node-2", "haproxy"))
    assert not stage.arena.is_whole(), "one that is told to stop is still there"
    stage.pods["loadbalancer"].pop()
    stage.deployments["hub-orchestrator"]["status"]["readyReplicas"] = 2
    assert not stage.arena.is_whole()
    stage.deployments["hub-orchestrator"]["status"]["readyReplicas"] = 3
    stage.holder = "hub-orchestrator-gone"
    assert not stage.arena.is_whole(), "the Lease of one that is gone"
    stage.holder = ""
    assert stage.arena.leader() is None
    assert not stage.arena.is_whole()


def test_what_it_looked_like_before_has_leader_followers_and_balancers(stage):
    found = stage.arena.before()
    assert (found.primary.name, [member.name for member in found.replicas]) == (
        LEADER.name,
        [member.name for member in FOLLOWERS],
    )
    assert (found.poolers, found.pooler_nodes) == ({"hub-lb-a": "la", "hub-lb-b": "lb"}, {"node-0", "node-1"})


def result(**more):
    return RunResult("f", "2026-01-01T00:00:20.000000Z", "2026-01-01T00:01:00.000000Z", **more)


def test_latency_is_told_of_the_time_before_until_whole_and_after():
    assert windows(result(redundancy_seconds=30.0)) == {
        "before": ("2026-01-01T00:00:10.000000Z", "2026-01-01T00:00:20.000000Z"),
        "during": ("2026-01-01T00:00:20.000000Z", "2026-01-01T00:00:50.000000Z"),
        "after": ("2026-01-01T00:00:50.000000Z", "2026-01-01T00:01:00.000000Z"),
    }


def test_a_cluster_that_never_was_whole_again_has_no_time_after():
    found = windows(result())
    assert (found["during"][1], found["after"]) == ("2026-01-01T00:01:00.000000Z", None)


MEASURED = {
    "stores": {"requests": {"acknowledged": 90, "errors": 3, "latency_seconds": {"p50": 0.01, "p99": 0.2}}},
    "websocket": {"dropped": 2, "never_back": 0, "reconnect_seconds": {"p50": 0.6, "max": 0.9}, "away_seconds": {}},
    "leaders": {
        "claims": 40, "two_leaders": 0, "told": [], "gap_seconds": 2.5, "believed_longer_seconds": 0.3,
    },
}  # fmt: skip


def test_the_figures_of_a_run_count_requests_and_take_latency_from_each_time(stage):
    asked = []

    def measure(since, until):
        asked.append((since, until))
        return MEASURED

    stage.arena.load.measure = measure
    found = stage.arena.figures(result(redundancy_seconds=30.0), MEASURED)
    assert found["requests"] == 93
    assert list(found["latency_seconds"]) == ["before", "during", "after"]
    assert len(asked) == 3
    assert found["leader"]["gap_seconds"] == 2.5


def test_two_leaders_or_nobody_who_looked_is_a_problem(stage):
    leader = MEASURED["leaders"]
    assert stage.arena.broken_rule({"leader": leader}) is None
    two = {**leader, "two_leaders": 1, "told": ["a led with 1 after b had led with 2"]}
    assert "two leaders: a led" in stage.arena.broken_rule({"leader": two})
    assert "nobody was ever seen leading" in stage.arena.broken_rule({"leader": {**leader, "claims": 0}})


def figures(gap, *, p99=0.2, dropped=1, back=0.6, two=0):
    return {
        "requests": 100,
        "latency_seconds": {"before": {"p50": 0.01, "p99": 0.05}, "during": {"p50": 0.02, "p99": p99}},
        "websockets": {
            "dropped": dropped,
            "never_back": 0,
            "reconnect_seconds": {"p50": back, "max": back} if dropped else {},
            "away_seconds": {},
        },
        "leader": {"gap_seconds": gap, "two_leaders": two, "claims": 50, "believed_longer_seconds": 0.4},
    }


LED = HubFault(
    "f", "something breaks", lambda *_: None, Primary.MOVES, Target(2.0, 2.0), leader_target=Target(3.0, 17.0)
)


def hub_report(*runs):
    report = HubReport("hub", {"haproxy": "3"})
    for run in runs:
        report.add(LED, run)
    report.control = {"fault": "c", "acknowledged": 100, "lost": 3}
    return report


def test_a_report_has_requests_latency_sockets_and_leaders(tmp_path, monkeypatch):
    monkeypatch.setattr("e2e.lab.report.REPORTS", tmp_path)
    report = hub_report(
        result(
            gap_seconds=0.5, errors=1, acknowledged=50, figures=figures(1.0), notes={"capacity_seconds": 7.0}
        ),
        result(gap_seconds=0.7, acknowledged=50, figures=figures(2.0, p99=3.5, dropped=0)),
        result(gap_seconds=0.9, acknowledged=50, figures=figures(9.0, back=1.5)),
    )
    (found,) = json.loads(report.write().read_text())["faults"]
    assert found["fault"] == "something breaks"
    assert (found["requests"], found["errors"], found["acknowledged"]) == (300, 1, 150)
    assert found["latency_seconds"]["during"] == {"p50": 0.02, "p99": 3.5}
    assert found["latency_seconds"]["after"] == {"p50": None, "p99": None}
    assert found["websockets"]["dropped"] == 2
    assert found["websockets"]["reconnect_seconds"] == {"p50": 0.6, "max": 1.5}
    assert found["leader"]["gap_seconds"] == {"p50": 2.0, "p95": 9.0, "max": 9.0}
    assert (found["leader"]["two_leaders"], found["leader"]["held"]) == (0, True)
    text = (tmp_path / "faults-hub.txt").read_text()
    for words in ("20 / 3500 ms", "- / - ms", "3 / 17 s", "capacity_seconds 7"):
        assert words in text


def test_a_run_without_figures_leaves_the_others_as_they_are():
    found = hub_report(result(problem="before the fault: x"), result(gap_seconds=0.5, figures=figures(1.0)))
    (entry,) = found.content()["faults"]
    assert (entry["runs"], entry["requests"]) == (2, 100)
    assert "before the fault: x" in found.text()
    (entry,) = hub_report(result(problem="x")).content()["faults"]
    assert (entry["requests"], entry["leader"]["gap_seconds"]["p50"], entry["leader"]["held"]) == (
        0,
        None,
        None,
    )


def test_a_time_without_leader_that_is_too_long_is_a_missed_target():
    report = hub_report(result(gap_seconds=0.5, figures=figures(18.0)))
    assert report.failures(strict=False) == []
    assert report.failures(strict=True) == ["targets missed: something breaks"]


def test_jobs_that_were_executed_twice_are_told_and_break_no_promise():
    report = hub_report(result(gap_seconds=0.5, duplicates=2, at_least_once=True, figures=figures(1.0)))
    assert report.failures(strict=True) == []
    assert report.content()["faults"][0]["duplicates"] == 2


def test_a_suite_that_was_cut_off_goes_on_with_the_figures_it_had():
    fault = HubSuite.fault("leader-stopped")
    before = HubReport("hub", {"haproxy": "3"}, control={"lost": 3})
    before.add(fault, result(gap_seconds=0.5, at_least_once=True, figures=figures(1.0)))
    again = HubReport("hub", {"haproxy": "3"})
    assert again.resume(json.loads(json.dumps(before.content())), HubSuite.faults())
    assert again.content() == before.content()


def test_two_can_be_down_for_longer():
    plan = plan_from(parse(["hub", "--two-down-seconds", "600", "--faults", "two-down,node-frozen"]))
    assert {fault.name: fault.broken_seconds for fault in plan.faults} == {"two-down": 600, "node-frozen": 60}
    assert isinstance(plan.faults[0], HubFault)
    assert plan.faults[0].leader_target is not None


def test_each_fault_has_a_name_of_its_own_and_is_found_by_it():
    names = [fault.name for fault in HubSuite.faults()]
    assert len(set(names)) == len(names)
    assert set(names) == set(BROKEN_BY)


def test_a_haproxy_that_does_not_tell_what_it_has_loaded_has_not_loaded_it(stage):
    def silent():
        raise KubectlError("container not found")
        yield

    stage.loaded = silent()
    assert balancers._loaded(stage.arena) == {}
