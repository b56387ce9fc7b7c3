"""Patroni's leader lock on a real API server.

Who asks a member for the cluster does not help it to a lock: with three members, of which the primary has given the
lock back, two reach for it. The slower one is asked for GET /cluster between the moment when it saw the lock free and
the moment when it takes it. A member whose pod was deleted has another one free its lock. And a member writes down when
it renewed its lock.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from apiserver import ApiServer
from e2e.lab.kubectl import Kubectl
from kindbed.paths import REPOSITORY

LAUNCHER = REPOSITORY / "images" / "postgres" / "bin" / "patroni-daemon"
# In a process of its own: Patroni changes the umask of whoever imports it.
_MEMBERS = """
import json, pathlib, runpy, sys, threading, time, types

launcher = runpy.run_path(sys.argv[1])
if sys.argv[3] == "apart":
    launcher["keep_elections_apart"]()
from patroni.dcs import get_dcs


def member(name):
    return get_dcs({
        "name": name, "scope": "hub-postgres", "ttl": 20, "loop_wait": 2, "retry_timeout": 8,
        "kubernetes": {"namespace": sys.argv[2], "labels": {"a": "b"}, "context": None, "use_endpoints": False},
    })


def until(true):
    deadline = time.monotonic() + 20
    while not true():
        assert time.monotonic() < deadline, "the watch told nothing within 20 s"
        time.sleep(0.02)


def leader(dcs):
    return dcs.get_cluster().leader_name
"""
_BREAKS = """
launcher["Clock"].sleep.__globals__["LOCK_SECONDS"] = most = 3.0


def taken(dcs, before=lambda: None):
    # As Patroni waits: in its main thread, and in another one when it gives the role up.
    def wait():
        launcher["Clock"](dcs).sleep(launcher["PATRONIS_LOCK_SECONDS"])

    times = []
    for run in (wait, lambda: in_thread(wait)):
        began = time.monotonic()
        before()
        run()
        times.append(time.monotonic() - began)
    return times


def in_thread(do):
    thread = threading.Thread(target=do)
    thread.start()
    thread.join()


def free():
    assert one.delete_leader(one.get_cluster().leader)
    until(lambda: not leader(one) and not leader(other))


def freed_and_taken_again():
    free()
    threading.Timer(0.3, one.attempt_to_acquire_leader).start()


one, other = member("one"), member("other")
one.get_cluster()
assert one.attempt_to_acquire_leader()
until(lambda: leader(one) == leader(other) == "one")
locked, own = taken(other), taken(one)
soon = taken(other, freed_and_taken_again)
free()
nobody = taken(other)
print(json.dumps({"own": own, "nobody": nobody, "locked": locked, "soon": soon, "most": most}))
"""
_RENEWALS = """
file = pathlib.Path(sys.argv[3])
launcher["tell_supervisor"](file)
primary, other = member("primary"), member("other")
primary.get_cluster()
assert primary.attempt_to_acquire_leader()
before = file.exists()
began = time.monotonic()
renewed = primary.update_leader(primary.get_cluster(), None)
told, ended = float(file.read_text()), time.monotonic()
file.unlink()
refused = other.update_leader(other.get_cluster(), None)
print(json.dumps({
    "before": before, "renewed": renewed, "in between": began - 0.001 <= told <= ended,
    "refused": refused, "then": file.exists(),
}))
"""
_RACE = """
primary, quick, slow = member("primary"), member("quick"), member("slow")
primary.get_cluster()
assert primary.attempt_to_acquire_leader()
assert primary.delete_leader(primary.get_cluster().leader)
for candidate in quick, slow:
    until(lambda: candidate.get_cluster().leader and not leader(candidate))
won = quick.attempt_to_acquire_leader()
# What Patroni's REST API does for GET /cluster, in a thread of its own. The main thread does not look again.
asked = []
question = threading.Thread(target=lambda: until(lambda: asked.append(leader(slow)) or asked[-1] == "quick"))
question.start()
question.join()
stolen = slow.attempt_to_acquire_leader()
print(json.dumps({"won": won, "asked": asked[-1], "stolen": stolen, "leader": leader(member("witness"))}))
"""
_RELEASE = """
from patroni.api import RestApiServer
from patroni.dcs import Member
from patroni.ha import Ha
from patroni.request import PatroniRequest


def begin(ha, member):
    ha.dcs, ha.patroni, ha.cluster = member.dcs, member, types.SimpleNamespace(members=[])


def serve(dcs):
    api = RestApiServer(types.SimpleNamespace(dcs=dcs), {"listen": "127.0.0.1:0", "auth": "patroni:secret"})
    threading.Thread(target=api.serve_forever, daemon=True).start()
    return Member(0, dcs._name, None, {"api_url": f"http://127.0.0.1:{api.server_address[1]}/patroni"})


def refuse(*_, **__):
    # As the API server does when the pod that the token is for is gone.
    raise ApiException(status=401, reason="Unauthorized")


def known(name):
    request = PatroniRequest({"restapi": {"auth": "patroni:secret"}})
    return types.SimpleNamespace(dcs=name, request=request)


def ask(request, lock):
    return request(others[-1], "post", "release", lock).status


ApiException = sys.modules["patroni.dcs.kubernetes"].K8sClient.rest.ApiException
Ha.__init__ = begin
launcher["give_the_lock_away_by_others"]()
primary, other = member("primary"), member("other")
primary.get_cluster()
assert primary.attempt_to_acquire_leader()
until(lambda: leader(other) == "primary")
primary._api.patch_namespaced_kind = refuse
alone = primary.delete_leader(primary.get_cluster().leader, 123)
# Another process of this name, as in the pod that comes after this one: the lock is not of its writing.
namesake = member("primary")
until(lambda: leader(namesake) == "primary")
# One that is gone, and one that lives.
others = [Member(0, "gone", None, {"api_url": "http://127.0.0.1:1/patroni"}), serve(other)]
ha = Ha(known(primary))
record = launcher["lock_record"](primary)[1]
lock = {"name": "primary", "renewTime": record["renewTime"], "lsn": 123}
refused = [
    ask(PatroniRequest({}), lock),
    ask(ha.patroni.request, lock | {"renewTime": "2026-01-01T00:00:00.000000+00:00"}),
    ask(ha.patroni.request, lock | {"name": "other"}),
    ask(ha.patroni.request, None),
]
# One that does not know the last word.
known_version = other._kinds.get(other.leader_path)
assert other.patch_or_create(other.leader_path, {"touched": "1"}, None, True)
get, other._kinds.get = other._kinds.get, lambda _: known_version
refused.append(ask(ha.patroni.request, lock))
other._kinds.get = get
kept = leader(other)
nobody = ha.dcs.delete_leader(primary.get_cluster().leader, 123)
ha.cluster.members = others
by_namesake = launcher["have_others_free_the_lock"](
    types.SimpleNamespace(dcs=namesake, patroni=ha.patroni, cluster=ha.cluster), 123
)
other.event.clear()
freed = ha.dcs.delete_leader(primary.get_cluster().leader, 123)
woken = other.event.is_set()
until(lambda: not leader(other))
lsn = other.get_cluster().status.last_lsn
taken = other.attempt_to_acquire_leader()
until(lambda: leader(primary) == "other")
again = ha.dcs.delete_leader(primary.get_cluster().leader, 123)
print(json.dumps({
    "alone": alone, "nobody": nobody, "refused": refused, "kept": kept, "freed": freed, "lsn": lsn, "taken": taken,
    "again": again, "leader": leader(member("witness")), "woken": woken, "by namesake": by_namesake,
}))
"""


def result(server: ApiServer, namespace: str, program: str, argument: str) -> dict[str, Any]:
    """What members in one process say of what they did."""
    done = subprocess.run(
        [sys.executable, "-c", _MEMBERS + program, str(LAUNCHER), namespace, argument],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={
            **os.environ,
            "KUBECONFIG": str(server.kubeconfig),
            "PYTHONPATH": str(REPOSITORY / "images" / "postgres"),
        },
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_a_member_that_is_asked_during_an_election_does_not_steal_the_lock(
    server: ApiServer, namespace: Kubectl
) -> None:
    assert result(server, namespace.namespace, _RACE, "apart") == {
        "won": True,
        "asked": "quick",
        "stolen": False,
        "leader": "quick",
    }


def test_patroni_alone_still_needs_that(server: ApiServer, namespace: Kubectl) -> None:
    """When this fails, Patroni has mended it, and the launcher need not any more."""
    assert result(server, namespace.namespace, _RACE, "as it is")["stolen"] is True


def test_a_member_waits_for_another_one_to_take_the_lock_and_no_longer(
    server: ApiServer, namespace: Kubectl
) -> None:
    seen = result(server, namespace.namespace, _BREAKS, "apart")
    assert min(*seen["own"], *seen["nobody"]) >= seen["most"]
    assert max(seen["locked"]) < 0.3
    assert 0.3 <= min(seen["soon"]) <= max(seen["soon"]) < seen["most"]


def test_a_member_whose_token_is_void_has_another_one_free_its_lock(
    server: ApiServer, namespace: Kubectl
) -> None:
    assert result(server, namespace.namespace, _RELEASE, "as it is") == {
        "alone": False,
        "nobody": False,
        "refused": [401, 409, 409, 400, 503],
        "kept": "primary",
        "freed": True,
        "lsn": 123,
        "taken": True,
        "again": False,
        "leader": "other",
        "woken": True,
        "by namesake": False,
    }


def test_a_member_tells_when_it_renewed_its_lock_and_only_then(
    server: ApiServer, namespace: Kubectl, tmp_path: Path
) -> None:
    assert result(server, namespace.namespace, _RENEWALS, str(tmp_path / "renewed")) == {
        "before": False,
        "renewed": True,
        "in between": True,
        "refused": False,
        "then": False,
    }
