"""The course of a run, and that each fault heals, on a stage of recorded commands."""

import json
from contextlib import contextmanager
from types import SimpleNamespace

import pytest

from e2e.faults import arena as arenas
from e2e.faults import mend, processes, watchers
from e2e.faults import run as runs
from e2e.faults.arena import Before, Member
from e2e.faults.fault import Fault, Primary
from e2e.faults.postgres import volume
from e2e.faults.postgres.arena import PostgresArena
from e2e.faults.postgres.suite import PostgresSuite
from e2e.faults.redis import catalogue as queue_catalogue
from e2e.faults.redis.arena import RedisArena
from e2e.faults.redis.suite import RedisSuite
from e2e.lab.bed import Bed
from e2e.lab.hub import Hub
from e2e.lab.kubectl import KubectlError, WaitTimeoutError
from kindbed.console import TestBedError

PRIMARY = Member("hub-postgres-0", "u0", "node-0", "c0")
REPLICAS = (Member("hub-postgres-1", "u1", "node-1", "c1"), Member("hub-postgres-2", "u2", "node-2", "c2"))
BEFORE = Before(PRIMARY, REPLICAS, {"hub-pooler-a": "pa", "hub-pooler-b": "pb"}, frozenset({"node-1"}))
QUEUE = tuple(Member(f"hub-redis-{n}", f"r{n}", f"node-{n}", f"q{n}") for n in range(3))
BEFORE_QUEUE = Before(QUEUE[0], QUEUE[1:])


class FakeArena:
    """Whole and writing unless told otherwise; a leader that the test sets."""

    STORE = "postgres"
    ERRORS_OF = ""
    ONCE = True
    WRITERS = ("rows", "transactions")

    def __init__(self):
        self.now_leader = PRIMARY.name
        self.lost = 0
        self.whole_again = True
        self.told = {}
        self.lost_beside = 0
        self.silent = ""
        self.load = SimpleNamespace(measure=self._measure, verify=self._verify)

    def _measure(self, since, until):
        assert since <= until
        return {
            "stores": {"postgres": {"gap_seconds": 1.5, "errors": 2, "error_classes": {"57P01": 2}}},
            "probes": {"reads": {"gap_seconds": 0.2, "errors": 0, "acknowledged": 7}, "rows": {}},
        }

    def _verify(self, _since, _until):
        return {
            "acknowledged": 50,
            "lost": self.lost,
            "partial": 0,
            "phantoms": 0,
            "duplicates": 0,
            "probes": {"rows": {}, "reads": {"lost": self.lost_beside} if self.lost_beside else {}},
        }

    def wait_whole(self, seconds):
        pass

    def wait_writing(self, seconds):
        pass

    def wait_through(self, _seconds):
        if self.silent:
            raise WaitTimeoutError(f"{self.silent} to be acknowledged")

    def prepare(self, seconds):
        pass

    def before(self):
        return BEFORE

    def leader(self):
        return self.now_leader

    def is_whole(self):
        return self.whole_again

    def settle(self):
        pass

    def figures(self, _result, _measured):
        return self.told

    def broken_rule(self, figures):
        return figures.get("rule")


def fault(arena, log, *, leader=REPLICAS[0].name, primary=Primary.MOVES, **more):
    @contextmanager
    def inject(_arena, _before):
        log.append("broken")
        try:
            arena.now_leader = leader
            yield
        finally:
            log.append("healed")

    return Fault("f", "a fault", inject, primary, **more)


def test_a_run_tells_gap_errors_and_the_time_until_whole():
    arena, log = FakeArena(), []
    result = runs.run_once(arena, fault(arena, log, aftermath=lambda _: {"seconds": 1.0}))
    assert log == ["broken", "healed"]
    assert (result.gap_seconds, result.errors, result.error_classes) == (1.5, 2, {"57P01": 2})
    assert (result.primary, result.new_primary) == (PRIMARY.name, REPLICAS[0].name)
    assert (result.problem, result.pooler_on_node, result.notes) == (None, False, {"seconds": 1.0})
    assert result.redundancy_seconds is not None
    assert result.beside == {"reads": {"gap_seconds": 0.2, "errors": 0, "acknowledged": 7}}


def test_what_does_not_come_is_told_after_healing_and_the_oracle_is_asked_all_the_same(monkeypatch):
    monkeypatch.setattr(runs, "SUCCESSOR_SECONDS", 0)
    arena, log = FakeArena(), []
    arena.lost = 3
    result = runs.run_once(arena, fault(arena, log, leader=PRIMARY.name))
    assert log == ["broken", "healed"]
    assert "another primary: not within 0 s" in result.problem
    assert (result.lost, result.redundancy_seconds) == (3, None)


def test_a_cluster_that_stays_reduced_is_a_problem(monkeypatch):
    monkeypatch.setattr(runs, "WHOLE_AGAIN_SECONDS", 0)
    arena = FakeArena()
    arena.whole_again = False
    assert "to be whole again" in runs.run_once(arena, fault(arena, [])).problem


def test_a_primary_that_should_have_stayed_is_a_problem():
    arena = FakeArena()
    assert "should have stayed" in runs.run_once(arena, fault(arena, [], primary=Primary.STAYS)).problem


def test_a_failover_that_the_status_tells_wrongly_is_a_problem():
    arena = FakeArena()
    for told, problem in (
        (1.0, None),
        (9.4, None),
        (22.0, "took 22.0 s, and clients could not write for 1.5 s"),
    ):
        found = runs.run_once(arena, fault(arena, [], aftermath=lambda _, told=told: {"told_seconds": told}))
        assert (found.problem is None) if problem is None else problem in found.problem


def test_a_failover_whose_duration_the_status_does_not_tell_is_a_problem():
    failovers = [{"component": "postgres", "to": "hub-postgres-1", "durationSeconds": 2.5}]
    hub = SimpleNamespace(
        status=lambda: {"failovers": failovers}, role_holder=lambda _component: "hub-postgres-1"
    )
    arena = SimpleNamespace(COMPONENT="postgres", hub=hub, leader=lambda: "hub-postgres-1")
    assert watchers.failover_told(arena) == {"told_seconds": 2.5}
    del failovers[0]["durationSeconds"]
    with pytest.raises(WaitTimeoutError, match="tells no duration of the failover to hub-postgres-1"):
        watchers.failover_told(arena)


def test_what_a_tier_measures_is_told_and_may_be_a_problem():
    arena = FakeArena()
    arena.told = {"requests": 7, "rule": "two leaders"}
    result = runs.run_once(arena, fault(arena, []))
    assert (result.figures["requests"], result.problem) == (7, "two leaders")


def test_a_probe_that_gets_through_no_more_is_a_problem():
    """As a worker that is there and works on nothing."""
    arena = FakeArena()
    arena.silent = "bullmq-node-worker"
    result = runs.run_once(arena, fault(arena, []))
    assert result.problem == "WaitTimeoutError: bullmq-node-worker to be acknowledged"
    assert result.redundancy_seconds is not None


def test_what_was_acknowledged_without_a_promise_may_be_lost_in_some_faults_only():
    arena = FakeArena()
    arena.lost_beside = 2
    crash = runs.run_once(arena, fault(arena, []))
    assert (crash.problem, crash.broken_promises, crash.beside["reads"]["lost"]) == (None, 0, 2)
    deliberate = runs.run_once(arena, fault(arena, [], loses_nothing=True))
    assert deliberate.problem == "lost, where nothing may be: 2 of reads"


def test_every_probe_of_the_queue_is_waited_for_and_deliberate_acts_lose_nothing():
    told = {probe: {"acknowledged": 9} for probe in RedisArena.PROBES}
    arena = RedisArena(None, SimpleNamespace(name="hub"), SimpleNamespace(gaps=lambda *_: told))
    arena.wait_through(0.1)
    told["bullmq-python-worker"] = {"acknowledged": 0}
    with pytest.raises(WaitTimeoutError, match="bullmq-python-worker"):
        arena.wait_through(0)
    assert {found.name for found in queue_catalogue.SHARED if found.loses_nothing} == {
        "rolling-update",
        "graceful-delete",
        "node-drain",
        "password-rotation",
        "sentinels-killed",
        "sentinels-stopped",
    }


def test_where_things_may_be_done_twice_that_breaks_no_promise():
    arena = FakeArena()
    arena.ONCE = False
    arena.load.verify = lambda *_: {**arena._verify(*_), "duplicates": 3}
    result = runs.run_once(arena, fault(arena, []))
    assert (result.duplicates, result.broken_promises) == (3, 0)


def test_a_verdict_that_cannot_be_had_is_a_problem():
    arena = FakeArena()

    def undecided(_since, _until):
        raise KubectlError("undecided")

    arena.load.verify = undecided
    assert "no verdict: KubectlError: undecided" in runs.run_once(arena, fault(arena, [])).problem


def test_nothing_is_broken_in_a_cluster_that_is_not_whole():
    arena, log = FakeArena(), []

    def never(_seconds):
        raise WaitTimeoutError("hub to be whole: not within 300 s")

    arena.wait_whole = never
    result = runs.run_once(arena, fault(arena, log))
    assert log == []
    assert result.problem.startswith("before the fault: WaitTimeoutError")


# --- Each fault of the catalogue ---


class Recorder:
    """Takes commands and answers those that somebody reads."""

    namespace = "ns"

    def __init__(self, log):
        self.log = log

    def __call__(self, *words, **_):
        self.log.append(" ".join(words))
        return "ok"

    def in_namespace(self, _name):
        return self

    def delete_pod_now(self, name):
        self.log.append(f"delete now {name}")

    def items(self, kind, _selector=""):
        return [{"metadata": {"name": "control-plane"}}] if kind == "node" else []

    def get(self, kind, _name):
        found = {
            "runnerhubcluster": {"spec": {"postgres": {}}},
            "pod": {"spec": {"nodeName": "node-0"}, "status": {"podIP": "10.0.0.7"}},
            "persistentvolumeclaim": {"metadata": {"uid": "claim"}},
        }
        return found.get(kind)


class FakeEngine:
    def __init__(self, log):
        self.log = log

    def output(self, *words, **_):
        self.log.append(" ".join(words))
        text = " ".join(words)
        if processes._LIST in text:
            names = {
                1: ("tini", 0), 2: ("patroni-daemon", 1), 3: ("postgres", 1), 4: ("postgres", 3), 5: ("redis-server", 1)
            }  # fmt: skip
            return "\n".join(
                f"/proc/{pid}/status:Name:\t{name}\n/proc/{pid}/status:PPid:\t{parent}"
                for pid, (name, parent) in names.items()
            )
        return "0" if "df -B1" in text else ""


class FakeCluster:
    def __init__(self, log):
        self.engine = FakeEngine(log)

    def nodes(self, state):
        return [PRIMARY.node] if state == "paused" else []


@pytest.fixture
def stage():
    log = []
    kubectl = Recorder(log)
    return PostgresArena(Bed(FakeCluster(log), kubectl), Hub(kubectl, "hub"), SimpleNamespace()), log


HEALED_BY = {
    "planned-switchover": "annotate rhc hub runnerhub.io/switch-primary-to-",
    "node-drain": "uncordon node-0",
    "force-delete-cordoned": "uncordon node-0",
    "postgres-stopped": "CONT 1 2 3 4 5",
    "node-frozen": "unpause node-0",
    "node-killed": "start node-0",
    "node-partitioned": "iptables-save",
    "replicas-lost": "CONT 1 2 3 4 5",
    "majority-lost": "CONT 1 2 3 4 5",
    "data-corrupt": "exec hub-postgres-1 -c postgres -- sh -c mv -f",
    "api-server-away": "pkill -CONT -x kube-apiserver; systemctl start kubelet",
    "control-plane-restarted": "pgrep -x $name",
    "operator-away": "scale deployment/runnerhub-operator --replicas=2",
    "volume-full": f"rm -f {volume.FILLER}",
}
BROKEN_BY = {
    "postmaster-killed": "sh KILL 3",
    "control-plane-restarted": "pkill -KILL -x $name || exit 1",
    "patroni-killed": "sh KILL 2",
    "postgres-stopped": "sh STOP 3 4",
    "replicas-lost": "exec node-2 sh -c",
    "pooler-killed": "delete now hub-pooler-a",
    "pooler-update": '"pooler": {"resources"',
    "force-delete": f"delete now {PRIMARY.name}",
    "force-delete-cordoned": f"cordon node-0\ndelete now {PRIMARY.name}",
    "operator-away": f"delete now {PRIMARY.name}",
    "data-corrupt": "sh KILL 3",
    "volume-lost": f"delete now {REPLICAS[0].name}",
    "all-members-lost": "delete pod hub-postgres-0 hub-postgres-1 hub-postgres-2 --force",
    "node-partitioned": "iptables-restore",
    "planned-switchover": f"runnerhub.io/switch-primary-to={REPLICAS[0].name}",
}


# New passwords break nothing, and split-brain is node-partitioned with another client.
@pytest.mark.parametrize(
    "name",
    [
        fault.name
        for fault in PostgresSuite.faults()
        if fault.name not in ("password-rotation", "split-brain")
    ],
)
def test_each_fault_breaks_and_heals_whatever_happens_in_between(stage, name):
    arena, log = stage
    broken = break_and_interrupt(PostgresSuite.fault(name), arena, BEFORE, log)
    assert BROKEN_BY.get(name, "") in "\n".join(broken)
    healed = log[len(broken) :]
    assert HEALED_BY.get(name, "") in "\n".join(healed)
    assert name in HEALED_BY or not healed


QUEUE_HEALED_BY = {
    "node-drain": "uncordon node-0",
    "sentinels-stopped": "exec hub-redis-2 -c sentinel",
    "redis-stopped": "CONT 1 2 3 4 5",
    "node-frozen": "unpause node-0",
    "node-killed": "start node-0",
    "power-off": "start node-1 node-2 node-0",
    "master-cut-off": "iptables-save",
    "node-partitioned": "iptables-save",
    "replicas-lost": "CONT 1 2 3 4 5",
    "api-server-away": "pkill -CONT -x kube-apiserver; systemctl start kubelet",
    "control-plane-restarted": "pgrep -x $name",
    "operator-away": "scale deployment/runnerhub-operator --replicas=2",
}
QUEUE_BROKEN_BY = {
    "graceful-delete": "delete pod hub-redis-0 --wait=false",
    "sentinels-killed": "exec hub-redis-2 -c sentinel",
    "redis-killed": "sh KILL 5",
    "volume-empty": "rm -rf /data/redis/*",
    "redis-stopped": "sh STOP 5",
    "master-cut-off": "-I FORWARD -d 10.0.0.7 -p tcp --dport 6379",
    "replicas-lost": "exec node-2 sh -c",
    "volume-lost": "delete now hub-redis-1",
    "all-pods-lost": "delete pod hub-redis-0 hub-redis-1 hub-redis-2 --force",
    "power-off": "kill node-0 node-1 node-2\nstart node-1 node-2",
}


# New passwords break nothing.
@pytest.mark.parametrize(
    "name", [fault.name for fault in queue_catalogue.SHARED if fault.name != "password-rotation"]
)
def test_each_fault_of_the_queue_breaks_and_heals_whatever_happens_in_between(stage, name):
    of_database, log = stage
    arena = RedisArena(of_database.bed, of_database.hub, of_database.load)
    broken = break_and_interrupt(RedisSuite.fault(name), arena, BEFORE_QUEUE, log)
    assert QUEUE_BROKEN_BY.get(name, "") in "\n".join(broken)
    healed = log[len(broken) :]
    assert QUEUE_HEALED_BY.get(name, "") in "\n".join(healed)
    assert name in QUEUE_HEALED_BY or not healed


def break_and_interrupt(fault, arena, before, log):
    """What was done to break something before somebody pressed Ctrl-C."""
    broken = []

    def interrupted():
        with fault.inject(arena, before):
            broken.extend(log)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert broken
    return broken


def test_damaged_data_stays_damaged_until_the_operator_has_made_the_member_anew(stage):
    arena, log = stage
    looks = iter(["", "anew"])

    def answer(*words, **_):
        log.append(" ".join(words))
        return next(looks) if "echo anew" in words[-1] else "ok"

    arena = PostgresArena(arena.bed, Hub(answer, "hub"), arena.load)
    with PostgresSuite.fault("data-corrupt").inject(arena, BEFORE):
        pass
    assert next(looks, None) is None
    assert "mv -f" in log[-1]


def test_a_member_without_a_claim_has_no_volume_to_lose(stage):
    arena, log = stage
    arena.hub.kubectl.get = lambda *_: None
    with (
        pytest.raises(TestBedError, match="no claim data-hub-postgres-1"),
        PostgresSuite.fault("volume-lost").inject(arena, BEFORE),
    ):
        pass
    assert not log


def test_a_volume_that_is_not_full_is_no_fault(stage):
    arena, log = stage
    arena.bed.cluster.engine.output = lambda *words, **_: log.append(" ".join(words)) or "4096000"
    with (
        pytest.raises(TestBedError, match="4096000 bytes left and is not full"),
        PostgresSuite.fault("volume-full").inject(arena, BEFORE),
    ):
        pass
    assert log[-1].endswith(f"rm -f {volume.FILLER}")


def test_a_rolling_change_always_changes_something(stage):
    arena, log = stage
    values = []
    for request in (None, "260Mi", "264Mi", "1Gi"):
        spec = {"postgres": {"resources": {"requests": {"memory": request}}}}
        arena.hub.kubectl.get = lambda *_, spec=spec: {"spec": spec}
        with PostgresSuite.fault("rolling-update").inject(arena, BEFORE):
            patch = json.loads(log[-1].split(" -p ")[1])
        values.append(patch["spec"]["postgres"]["resources"]["requests"]["memory"])
        assert values[-1] != request


def test_the_rules_of_a_partition_are_set_at_once_and_taken_back_by_their_comment(stage):
    arena, log = stage
    mend.cut_off(arena.bed, "node-0")
    mend.connect_again(arena.bed, "node-0")
    assert log[0].count("-j DROP") == log[0].count("--comment runnerhub-fault ") == 4
    assert "--comment runnerhub-fault /s/^-A/-D/p" in log[1]
    assert "--noflush" in log[0]


def test_a_pod_whose_container_has_not_started_is_no_member_yet():
    pod = {"metadata": {"name": "p", "uid": "u"}, "spec": {}, "status": {}}
    assert arenas._member(pod, "postgres") is None
