"""The launcher of Patroni in the image: it loads, and what it changes is what this Patroni reads."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kindbed.paths import REPOSITORY
from runnerhub_operator.act.postgres import REINITIALIZE_DEADLINE_SECONDS

LAUNCHER = REPOSITORY / "images" / "postgres" / "bin" / "patroni-daemon"
# In a process of its own: Patroni changes the umask of whoever imports it.
_LOOK = """
import contextlib, http.server, inspect, json, runpy, socket, sys, threading, time, types
from unittest import mock
launcher = runpy.run_path(sys.argv[1])
modules = launcher["patroni"]
from patroni.dcs import Cluster, Member
with mock.patch("time.sleep") as sleep:
    for seconds in (1, 0.25):
        launcher["Clock"](None).sleep(seconds)

def stop(looks):
    # What Patroni hears of a server that has written its last checkpoint and is gone at the so-manieth look.
    from patroni.postgresql import Postgresql

    def is_running():
        nonlocal looks
        looks -= 1
        return object() if looks > 0 else None

    def stop_as_patroni(server, mode, on_shutdown=None):
        if on_shutdown:
            on_shutdown(2, 1)
        return True

    heard = []
    with mock.patch.object(Postgresql, "stop", stop_as_patroni):
        launcher["give_the_lock_away_when_the_server_has_ended"]()
        began = time.monotonic()
        server = types.SimpleNamespace(is_running=is_running)
        done = Postgresql.stop(server, "fast", on_shutdown=lambda *locations: heard.append(locations))
        done = done and Postgresql.stop(server, "fast") and Postgresql.stop(server, "fast", on_shutdown=None)
    return done, heard, time.monotonic() - began

def follow(changes, leader):
    # What a replica does of what Patroni would change, for this leader.
    from patroni.postgresql.config import ConfigHandler

    with mock.patch.object(ConfigHandler, "check_recovery_conf", lambda *_: changes):
        launcher["follow_a_leader_whose_pod_is_gone"]()
        return ConfigHandler.check_recovery_conf(None, leader)

def take_over(me, candidate, leader="a", healthy=True, paused=False, synchronous=True):
    # Whether a member takes the lock in a switchover, whom it compared itself with, and whether nobody is named then.
    from patroni.dcs import Failover
    from patroni.ha import Ha

    compared, named = [], []

    def compare(members, check_replication_lag):
        compared.extend(member.name for member in members)
        return healthy and not check_replication_lag

    ha = types.SimpleNamespace(
        cluster=types.SimpleNamespace(
            failover=Failover("7", leader, candidate, None),
            members=[Member(0, name, None, {}) for name in "abcd"],
            sync=types.SimpleNamespace(matches=lambda name, leader=False: name in "abc"),
            get_member=lambda name, **__: Member(0, name, None, {}),
        ),
        state_handler=types.SimpleNamespace(name=me),
        fetch_node_status=lambda member: types.SimpleNamespace(member=member, failover_limitation=lambda: None),
        wakeup=lambda: named.append("again"),
        dcs=types.SimpleNamespace(manual_failover=lambda *words, version: named.append([*words, version]) or True),
        is_paused=lambda: paused,
        is_synchronous_mode=lambda: synchronous,
        is_quorum_commit_mode=lambda: synchronous,
        sync_mode_is_active=lambda: synchronous,
        _get_failover_action_name=lambda: "switchover",
        _is_healthiest_node=compare,
    )
    return Ha.manual_failover_process_no_leader(ha), compared, named

def give_up(answers, quorum=1, candidate="b", paused=False, voters="bc"):
    # Whether a primary gives its role up, when these of the members that confirm commits, `b` and `c`, answer.
    from patroni.dcs import Failover
    from patroni.ha import Ha

    asked = []

    def ask(members):
        asked.append([member.name for member in members])
        return [
            types.SimpleNamespace(
                member=member, failover_limitation=lambda name=member.name: None if name in answers else "silent"
            )
            for member in members
        ]

    def is_possible(ha, **_):
        named = [member for member in ha.cluster.members if member.name == (candidate or "b")]
        return all(status.failover_limitation() is None for status in ha.fetch_nodes_statuses(named))

    ha = types.SimpleNamespace(
        cluster=types.SimpleNamespace(
            failover=Failover("7", "a", candidate, None),
            members=[Member(0, name, None, {}) for name in "abcd"],
            sync=types.SimpleNamespace(matches=lambda name: name in voters, quorum=quorum),
        ),
        state_handler=types.SimpleNamespace(name="a"),
        is_paused=lambda: paused,
        quorum_commit_mode_is_active=lambda: True,
        fetch_nodes_statuses=ask,
    )
    with mock.patch.object(Ha, "is_failover_possible", is_possible):
        launcher["take_over_with_the_quorum"]()
        return Ha.is_failover_possible(ha, cluster_lsn=1), asked

patronis_process = modules.ha.Ha.manual_failover_process_no_leader
given_up = [
    give_up("bc"), give_up("b"), give_up("b", quorum=0), give_up("c"), give_up("b", candidate=None),
    give_up("b", paused=True), give_up("ab", voters="ab"),
]
modules.ha.Ha.manual_failover_process_no_leader = patronis_process
patronis_word = take_over("b", "b", healthy=False)
patronis_wait = take_over("c", "d")
launcher["take_over_with_the_quorum"]()
taken_over = [
    take_over("b", "b"), take_over("b", "b", healthy=False), take_over("b", "b", healthy=False, paused=True),
    take_over("b", "b", leader="", healthy=False), take_over("b", "b", healthy=False, synchronous=False),
]
waited = [take_over("c", "b"), take_over("c", "d"), take_over("d", "d"), take_over("c", "d", paused=True)]
gone = types.SimpleNamespace(conn_url=None)
known = types.SimpleNamespace(conn_url="postgres://10.0.0.1:5432/postgres")
followed = [
    follow((True, False), gone), follow((True, True), gone), follow((False, False), gone),
    follow((True, False), known), follow((True, False), None),
]

from patroni.__main__ import Patroni
from patroni.ha import Failsafe
from patroni.request import PatroniRequest

def leader(now):
    # Whom a primary called `me` takes for the leader when the lock has expired.
    failsafe = Failsafe(types.SimpleNamespace(ttl=20, _name="me"))
    failsafe.set_is_active(now)
    return failsafe.update_cluster(Cluster.empty()).leader_name

def start_beside(address):
    # How long Patroni looks for another one of its name at an address, and whether it starts.
    member = Member(0, "me", None, {"api_url": f"http://{address[0]}:{address[1]}/patroni"})
    cluster = types.SimpleNamespace(get_member=lambda *_: member)
    starting = types.SimpleNamespace(
        config={"name": "me"},
        request=PatroniRequest({}),
        logger=types.SimpleNamespace(update_loggers=lambda _: None),
    )
    began = time.monotonic()
    try:
        Patroni.ensure_unique_name(starting, cluster)
    except SystemExit:
        return time.monotonic() - began, False
    return time.monotonic() - began, True

def tags_over_time():
    # What a member tells while its server refuses a parameter, does not run, runs again, and cannot be asked.
    from patroni.exceptions import PostgresConnectionException
    from patroni.ha import Ha

    asked, told, answers = [], [], {"rows": [("log_timezone",), ("work_mem",)]}

    def query(sql):
        asked.append(sql)
        if answers["rows"] is None:
            raise PostgresConnectionException("gone")
        return answers["rows"]

    pool = {"parameters": types.SimpleNamespace(query=query)}
    server = types.SimpleNamespace(state="running", connection_pool=pool)
    ha = types.SimpleNamespace(patroni=types.SimpleNamespace(tags={"a": 1}), _disable_sync=0, state_handler=server)
    launcher["tell_refused_parameters"]()
    thread = threading.Thread(target=lambda: told.append(Ha.get_effective_tags(ha)))
    thread.start()
    thread.join()
    later = 0.0
    for state, rows in (("running", answers["rows"]), ("start failed", []), ("running", None), ("running", [])):
        server.state, answers["rows"] = state, rows
        later += launcher["PARAMETERS_SECONDS"] + 1
        with mock.patch("time.monotonic", return_value=time.time() + later):
            told += [Ha.get_effective_tags(ha)]
            Ha.get_effective_tags(ha)
    return {"told": told, "asked": len(asked)}

refused = tags_over_time()
launcher["look_briefly_for_a_namesake"]()
with contextlib.ExitStack() as stack:
    # Its backlog is full, so that nobody answers, as at the address of a pod that is gone.
    silent = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
    for _ in range(3):
        waiting = stack.enter_context(socket.socket())
        waiting.setblocking(False)
        waiting.connect_ex(silent.getsockname())
    beside_nobody = start_beside(silent.getsockname())
class Alive(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()
    def log_message(self, *_):
        pass
with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Alive) as server:
    threading.Thread(target=server.serve_forever, daemon=True).start()
    beside_namesake = start_beside(server.server_address)
    server.shutdown()
patronis_leader = leader(time.time())
launcher["stay_leader_in_failsafe_mode"]()
print(json.dumps({
    "refused": refused,
    "refused_query": launcher["REFUSED_PARAMETERS"],
    "beside_nobody": beside_nobody,
    "beside_namesake": beside_namesake,
    "patronis_leader": patronis_leader,
    "leader": leader(time.time()),
    "leader_who_asked_long_ago": leader(time.time() - 30),
    "leader_not_agreed_to": leader(0),
    "taken": [call.args[0] for call in sleep.call_args_list],
    "stopped": [stop(3), stop(10**6)],
    "followed": followed,
    "patronis_word": patronis_word,
    "taken_over": taken_over,
    "given_up": given_up,
    "patronis_wait": patronis_wait,
    "waited": waited,
    "catch_ups": inspect.getsource(modules.ha).count("time.sleep(1)  # give replicas some more time to catch up"),
    "polling": launcher["STOP_POLLING_SECONDS"],
    "patronis_polling": modules.postgresql.STOP_POLLING_INTERVAL,
    "breaks": inspect.getsource(modules.ha).count(
        f"time.sleep({launcher['PATRONIS_LOCK_SECONDS']})  # Give a time to somebody to take the leader lock"
    ),
}))
"""


def said_by(program: str, *words: str) -> Any:
    """What a program prints that loads the launcher; Patroni can be imported there, and nothing is started."""
    done = subprocess.run(
        [sys.executable, "-c", program, str(LAUNCHER), *words],
        env={**os.environ, "PYTHONPATH": str(LAUNCHER.parents[1])},
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def seen() -> dict[str, Any]:
    """What the launcher has, and what Patroni has; nothing is started."""
    found: dict[str, Any] = said_by(_LOOK)
    return found


def test_patroni_still_takes_the_breaks_that_are_made_shorter(seen: dict[str, Any]) -> None:
    assert seen["polling"] < seen["patronis_polling"]
    assert seen["breaks"] == 2
    assert seen["catch_ups"] == 2


def test_nobody_is_asked_whether_replicas_have_everything_when_the_server_has_ended(
    seen: dict[str, Any],
) -> None:
    (done, heard, seconds), (lingered, asked, patience) = seen["stopped"]
    assert done
    assert not heard
    assert seconds < 0.5
    assert lingered
    assert asked == [[2, 1]]
    assert 1 <= patience < 1.5


def test_replicas_stay_with_a_leader_whose_pod_is_gone(seen: dict[str, Any]) -> None:
    assert seen["followed"] == [[False, False], [True, True], [False, False], [True, False], [True, False]]


def test_whom_a_switchover_names_takes_over_only_with_what_was_confirmed(seen: dict[str, Any]) -> None:
    assert seen["patronis_word"] == [True, [], []], "Patroni compares members by itself now"
    able, behind, paused, failover, asynchronous = seen["taken_over"]
    assert able == [True, ["b", "c"], []]
    # Nobody is named any more, so that all elect, at once.
    assert behind == [False, ["b", "c"], [["", "", "7"], "again"]]
    # As Patroni has it: somebody's own decision, or nothing was confirmed by anybody.
    assert paused == failover == asynchronous == [True, [], []]


def test_nobody_waits_for_a_named_member_that_may_not_take_over(seen: dict[str, Any]) -> None:
    assert seen["patronis_wait"] == [False, [], []], "Patroni does not wait any more"
    for_a_voter, for_another, that_one_itself, paused = seen["waited"]
    assert for_a_voter == paused == [False, [], []]
    assert for_another == that_one_itself == [False, [], [["", "", "7"], "again"]]


def test_a_primary_gives_its_role_up_only_for_one_that_finds_the_quorum(seen: dict[str, Any]) -> None:
    both, alone, enough, silent, nobody_named, paused, just_promoted = seen["given_up"]
    # Everybody is asked once.
    assert both == [True, [["b", "c"]]]
    assert alone == [False, [["b", "c"]]]
    assert enough == [True, [["b", "c"]]]
    assert silent == [False, [["b", "c"]]]
    # As Patroni has it.
    assert nobody_named == paused == [True, [["b"]]]
    # It is no voter for itself.
    assert just_promoted == [False, [["b"]]]


def test_other_breaks_stay(seen: dict[str, Any]) -> None:
    assert seen["taken"] == [1, 0.25]


def test_a_primary_in_failsafe_mode_takes_itself_for_the_leader(seen: dict[str, Any]) -> None:
    assert not seen["patronis_leader"], "Patroni has mended it, and the launcher need not any more"
    assert seen["leader"] == "me"


def test_but_only_as_long_as_the_others_agree(seen: dict[str, Any]) -> None:
    assert not seen["leader_who_asked_long_ago"]
    assert not seen["leader_not_agreed_to"]


def test_a_predecessor_that_is_gone_keeps_nobody_waiting(seen: dict[str, Any]) -> None:
    """Patroni's own check takes twelve seconds here, in which a primary whose pod was replaced fails over to nobody."""
    seconds, starts = seen["beside_nobody"]
    assert starts
    assert 0.5 < seconds < 8


def test_but_a_namesake_that_lives_is_seen(seen: dict[str, Any]) -> None:
    assert not seen["beside_namesake"][1]


def test_a_member_tells_what_its_server_refuses_also_when_it_did_not_start_with_it(
    seen: dict[str, Any],
) -> None:
    refuses = {"a": 1, "refused_parameters": "log_timezone, work_mem"}
    in_a_thread, running, stopped, silent, corrected = seen["refused"]["told"]
    assert in_a_thread == {"a": 1}, "the threads of the REST API ask nobody"
    assert running == stopped == silent == refuses
    assert corrected == {"a": 1}
    assert seen["refused"]["asked"] == 3, "once in a while only, and only a server that runs"


class Server:
    """A Postgres in a folder of its own, which everybody at its socket is let into."""

    def __init__(self, home: str, programs: Path) -> None:
        self.home, self.data, self._programs = home, Path(home) / "data", programs
        self._user: dict[str, Any] = {"user": "postgres"} if os.geteuid() == 0 else {}
        self.run("initdb", "-D", str(self.data), "-U", "postgres", "-A", "trust", "--no-sync")

    def run(self, program: str, *words: str) -> str:
        done = subprocess.run(
            [str(self._programs / program), *words],
            capture_output=True,
            text=True,
            check=True,
            cwd=self.home,
            **self._user,
        )
        said: str = done.stdout
        return said

    def ask(self, sql: str) -> str:
        return self.run("psql", "-h", self.home, "-U", "postgres", "-Atc", sql)

    def listen(self) -> int:
        """Start at a free port of loopback; that port."""
        with socket.create_server(("127.0.0.1", 0)) as free:
            port: int = free.getsockname()[1]
        (self.data / "postgresql.conf").write_text(
            f"listen_addresses = '127.0.0.1'\nport = {port}\nunix_socket_directories = '{self.home}'\n",
            encoding="utf-8",
        )
        self.control("start")
        return port

    def control(self, *words: str) -> None:
        self.run("pg_ctl", "-D", str(self.data), "-w", "-l", f"{self.home}/log", *words)


@pytest.fixture
def server() -> Iterator[Server]:
    """One that does not run yet."""
    folder = max(Path("/usr/lib/postgresql").glob("*/bin"), default=None)
    if folder is None:
        pytest.skip("no PostgreSQL server on this machine (make servers)")
    with tempfile.TemporaryDirectory(prefix="postgres-") as home:
        Path(home).chmod(0o777)
        found = Server(home, folder)
        try:
            yield found
        finally:
            if (found.data / "postmaster.pid").exists():
                found.control("-m", "immediate", "stop")


def test_a_real_server_tells_what_it_refuses_and_not_what_waits_for_a_restart(
    seen: dict[str, Any], server: Server
) -> None:
    settings = server.data / "postgresql.conf"
    mine = f"listen_addresses = ''\nunix_socket_directories = '{server.home}'\n"
    settings.write_text(mine, encoding="utf-8")
    server.control("-o", "--max_worker_processes=9", "start")
    changed = "log_timezone = 'Mars'\nmax_connections = 50\nmax_worker_processes = 8\nwork_mem = '8MB'\n"
    settings.write_text(mine + changed, encoding="utf-8")
    server.control("reload")
    waits = "select pending_restart from pg_settings where name = 'max_connections'"
    for _ in range(100):
        if server.ask(waits).strip() == "t":
            break
        time.sleep(0.1)
    assert server.ask(seen["refused_query"]).split() == ["log_timezone"]


# The first word is the launcher; of each address and password that follow, what becomes of a copy.
_COPY = """
import json, runpy, sys, time, types

launcher = runpy.run_path(sys.argv[1])
from patroni.dcs import Cluster, Leader, Member
from patroni.ha import Ha
from patroni.postgresql import Postgresql

begun = []
Ha.reinitialize = lambda ha, force, from_leader: begun.append((force, from_leader))
launcher["keep_data_that_cannot_be_copied"]()


def ask(address, password):
    replication = {"username": "replicator", "password": password}
    server = types.SimpleNamespace(config=types.SimpleNamespace(replication=replication))
    server.get_replication_connection_cursor = types.MethodType(
        Postgresql.get_replication_connection_cursor, server
    )
    primary = Member(0, "hub-postgres-0", None, {"conn_url": f"postgres://{address}/postgres"})
    cluster = Cluster(None, None, Leader(0, None, primary), None, [primary], None, None, None, None)
    ha = types.SimpleNamespace(state_handler=server, dcs=types.SimpleNamespace(cluster=cluster))
    begun.clear()
    start = time.monotonic()
    answer = Ha.reinitialize(ha, False, True)
    return {"answer": answer, "begun": list(begun), "seconds": time.monotonic() - start}


words = sys.argv[2:]
print(json.dumps([ask(*pair) for pair in zip(words[::2], words[1::2])]))
"""


def test_no_data_is_thrown_away_while_the_primary_lets_nobody_in(server: Server) -> None:
    (server.data / "pg_hba.conf").write_text(
        "local all all trust\nhost replication replicator all scram-sha-256\n", encoding="utf-8"
    )
    port = server.listen()
    server.run(
        "psql", "-h", server.home, "-p", str(port), "-U", "postgres",
        "-c", "create role replicator login replication password 'right'",
    )  # fmt: skip
    with socket.create_server(("127.0.0.1", 0)) as silent, socket.create_server(("127.0.0.1", 0)) as closed:
        nobody = closed.getsockname()[1]
        closed.close()
        pairs = [f"127.0.0.1:{port}", "right", f"127.0.0.1:{port}", "wrong"]
        pairs += [f"127.0.0.1:{nobody}", "right", f"127.0.0.1:{silent.getsockname()[1]}", "right"]
        told = said_by(_COPY, *pairs)
    let_in, *refused = told
    assert (let_in["answer"], let_in["begun"]) == (None, [[False, True]])
    for found, why in zip(refused, ("password", "refused", "timeout"), strict=True):
        assert found["answer"].startswith("hub-postgres-0 does not let it in for a copy: ")
        assert why in found["answer"]
        assert not found["begun"]
        assert found["seconds"] < REINITIALIZE_DEADLINE_SECONDS


# The first word is the launcher; of each address that follows, what is heard of the leader there.
_COMPARE = """
import json, runpy, sys, time

launcher = runpy.run_path(sys.argv[1])
from patroni.postgresql.rewind import Rewind

launcher["log_in_to_leaders_that_answer"]()


def ask(address):
    host, _, port = address.partition(":")
    leader = {"host": host, "port": port, "user": "postgres", "dbname": "postgres"}
    start = time.monotonic()
    return Rewind.check_leader_is_not_in_recovery(leader), time.monotonic() - start


print(json.dumps([ask(address) for address in sys.argv[2:]]))
"""


def test_a_leader_that_is_gone_or_frozen_keeps_no_member_from_the_election(server: Server) -> None:
    with contextlib.ExitStack() as stack:
        frozen = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        # Its backlog is full, so that not even the kernel answers.
        gone = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(3):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(gone.getsockname())
        ports = (server.listen(), frozen.getsockname()[1], gone.getsockname()[1])
        told = said_by(_COMPARE, *(f"127.0.0.1:{number}" for number in ports))
        assert "startup packet" not in (Path(server.home) / "log").read_text(encoding="utf-8")
    (lives, _), *others = told
    assert lives is True
    # Patroni itself waits for three seconds.
    assert all(heard is None and seconds < 2 for heard, seconds in others), others


# The first word is the launcher. For how long two threads wait for both watches, by Patroni and by the launcher.
_WATCHES = """
import json, runpy, sys, threading, time, types

launcher = runpy.run_path(sys.argv[1])
import patroni.dcs.kubernetes as module


def wait():
    dcs = module.Kubernetes.__new__(module.Kubernetes)
    dcs._condition = module.Condition()
    ready = {"_pods": False, "_kinds": False}
    for name in ready:
        setattr(dcs, name, types.SimpleNamespace(is_ready=lambda name=name: ready[name]))
    waited = []

    def until_ready():
        start = time.monotonic()
        with dcs._condition:
            try:
                dcs._wait_caches(time.time() + 6)
            except Exception:
                pass
        waited.append(time.monotonic() - start)

    threads = [threading.Thread(target=until_ready) for _ in range(2)]
    for thread in threads:
        thread.start()
    for name in ready:
        time.sleep(0.5)
        with dcs._condition:
            # As a watch does that has begun.
            ready[name] = True
            dcs._condition.notify()
    for thread in threads:
        thread.join()
    return waited


patronis = wait()
launcher["wake_all_who_wait_for_watches"]()
print(json.dumps([patronis, wait()]))
"""


def test_whoever_waits_for_the_watches_goes_on_when_they_work() -> None:
    told = said_by(_WATCHES)
    patronis, ours = told
    assert max(patronis) > 5, "Patroni wakes all by itself now"
    assert max(ours) < 4


# The first word is the launcher. How long Patroni's API takes to stop while it answers, by Patroni and by the launcher.
_STOPS = """
import json, os, runpy, sys, threading, time, types, urllib.request

launcher = runpy.run_path(sys.argv[1])
from patroni.api import RestApiHandler, RestApiServer
from patroni.async_executor import AsyncExecutor

asked = threading.Semaphore(0)


def answer_slowly(handler):
    asked.release()
    time.sleep(3)


RestApiHandler.do_GET_slow = answer_slowly


def stop():
    executor = AsyncExecutor(None, None)
    ha = types.SimpleNamespace(_async_executor=executor)
    api = RestApiServer(types.SimpleNamespace(ha=ha), {"listen": "127.0.0.1:0"})
    threading.Thread(target=api.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{api.server_address[1]}/slow"
    threading.Thread(target=urllib.request.urlopen, args=(url,), daemon=True).start()
    asked.acquire()
    start = time.monotonic()
    api.shutdown()
    return time.monotonic() - start, executor.schedule("restart") is None


patronis = stop()
launcher["stop_whatever_is_asked"]()
print(json.dumps([patronis, stop()]), flush=True)
os._exit(0)
"""


def test_a_patroni_that_stops_does_not_wait_for_the_questions_that_it_answers() -> None:
    (patronis, _), (ours, begins) = said_by(_STOPS)
    assert patronis > 2, "Patroni does not wait for them by itself any more"
    assert ours < 0.5
    assert not begins, "a server that has stopped is not restarted"
