"""A planned change of the primary, seen by clients of a real PgBouncer: they wait, and nothing fails."""

from __future__ import annotations

import contextlib
import importlib.machinery
import importlib.util
import json
import re
import shutil
import signal
import socket
import threading
import time
from collections.abc import Mapping
from types import ModuleType
from typing import Any

import aiohttp
import psycopg
import pytest

from images.pooler.runnerhub_pooler.drain import REQUEST
from images.postgres.runnerhub_postgres.passwords import ROLE_KEYS, write_settings
from runnerhub_operator.probes import pgbouncer
from runnerhub_operator.probes.http import Login
from tests.integration.pooler.bench import (
    CLIENT_TIMEOUT_SECONDS,
    MEMBERS,
    PASSWORDS,
    REPOSITORY,
    USER,
    Bench,
    Writers,
    wait_until,
)

# Beyond the played handover itself, which takes about 1.5 s; the target for all is 2 s on a machine that is not busy.
# Far less than the 14 s of a pause that nobody ends.
MOST_MORE_SECONDS = 6
# Whether clients still wait is looked at for as long; no pause here ends by itself before.
LOOK_SECONDS = 5
# For whoever asks an agent, where it does not matter how long that takes.
PATIENT_SECONDS = 15.0


def assert_unnoticed(writers: Writers, bench: Bench) -> None:
    assert writers.errors == []
    assert writers.slowest_seconds < CLIENT_TIMEOUT_SECONDS
    assert set(writers.acknowledged) - bench.marks(bench.replica) == set()
    print(f"gap {writers.gap_seconds():.2f} s, slowest write {writers.slowest_seconds:.2f} s")  # noqa: T201
    assert writers.gap_seconds() < bench.switch_seconds + MOST_MORE_SECONDS


def test_clients_wait_while_the_primary_changes_and_see_no_error(bench: Bench) -> None:
    with Writers(bench) as writers:
        assert bench.pause() == 200
        assert bench.is_paused()
        bench.switch()
        writers.wait_for(50)
    assert not bench.is_paused(LOOK_SECONDS)
    assert_unnoticed(writers, bench)


def test_without_a_pause_clients_see_errors(bench: Bench) -> None:
    """What the pause is for, and that these writers notice; what was acknowledged is there all the same."""
    with Writers(bench) as writers:
        bench.switch()
        writers.wait_for(50)
    assert writers.errors != []
    assert set(writers.acknowledged) - bench.marks(bench.replica) == set()


async def test_the_operator_pauses_and_resumes(bench: Bench) -> None:
    login = Login("pgbouncer", PASSWORDS["restapi-password"])
    async with aiohttp.ClientSession() as http:

        async def pause(primary: str) -> str:
            held_up = await pgbouncer.pause(
                http, ["127.0.0.1"], primary, seconds=15, login=login, port=bench.agent_port,
                deadline_seconds=PATIENT_SECONDS,
            )  # fmt: skip
            return held_up.get("127.0.0.1", "")

        async def resume(login: Login) -> Mapping[str, str]:
            return await pgbouncer.resume(
                http, ["127.0.0.1"], login=login, port=bench.agent_port, deadline_seconds=PATIENT_SECONDS
            )

        bench.pause(seconds=0.1)
        wait_until("the pause to be over", lambda: not bench.is_paused())
        assert "is not the primary here but hub-postgres-0" in await pause(MEMBERS[1])
        await pgbouncer.checkpoint(http, "127.0.0.1", login=login, port=bench.agent_port)
        assert await pause(MEMBERS[0]) == ""
        assert bench.is_paused()
        assert await pause(MEMBERS[0]) == "", "the pod itself may ask too"
        assert await resume(login) == {}
        assert not bench.is_paused(LOOK_SECONDS)
        refused = await resume(Login("pgbouncer", "x"))
        assert "answered 401" in refused["127.0.0.1"]
        nobody = await pgbouncer.pause(http, ["127.0.0.1"], MEMBERS[0], seconds=10, login=login, port=1)
        assert "does not answer" in nobody["127.0.0.1"]


def test_a_long_transaction_ends_the_pause_and_not_the_other_way_round(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    call, seconds = bench.call, [0.0]

    def timed(*words: Any) -> int:
        started = time.monotonic()
        status = call(*words)
        seconds.append(time.monotonic() - started)
        return status

    monkeypatch.setattr(bench, "call", timed)
    with Writers(bench) as writers, bench.connect() as long:
        long.execute("BEGIN")
        long.execute("INSERT INTO app.marks VALUES (-1)")
        assert bench.pause(again=False) == 409
        assert seconds[-1] < 8
        assert not bench.is_paused(LOOK_SECONDS)
        writers.wait_for(20)
        long.execute("COMMIT")
        assert bench.pause() == 200, "nothing is left of the first try"
        assert bench.call("/resume") == 200
        writers.wait_for(20)
    assert writers.errors == []


def test_whoever_may_take_over_is_asked_by_one_login_that_ends_with_the_pause(bench: Bench) -> None:
    def logins() -> set[int]:
        agent = "SELECT pid FROM pg_catalog.pg_stat_activity WHERE application_name = 'pooler-agent'"
        return {pid for (pid,) in bench.replica.execute(agent)}

    def lasting() -> set[int]:
        # It asks for other things too, each time by a login that ends at once.
        first = logins()
        time.sleep(1)
        return first & logins()

    assert bench.pause(seconds=15) == 200
    kept: set[int] = set()
    wait_until("the agent to have logged in", lambda: kept.update(lasting()) or kept)
    assert len(kept) == 1
    assert bench.call("/resume") == 200
    wait_until("the login to end", lambda: not kept & logins(), LOOK_SECONDS)


def test_a_pause_ends_by_itself_when_nobody_takes_over(bench: Bench) -> None:
    with Writers(bench) as writers:
        assert bench.pause(seconds=5) == 200
        writers.wait_for(20)
    assert writers.errors == []
    # It begins with the asking, a moment before anybody is held back.
    assert 2 < writers.gap_seconds() < CLIENT_TIMEOUT_SECONDS


def test_a_pause_ends_when_the_only_member_is_back(bench: Bench) -> None:
    assert bench.pause(seconds=15) == 200
    bench.primary.leads = False
    bench.primary.control("-m", "fast", "stop")
    wait_until("HAProxy to notice", lambda: bench.up() == ())
    bench.primary.start()
    bench.primary.leads = True
    wait_until("the agent to open", lambda: not bench.is_paused())
    log = bench.home / "agent.log"
    wait_until("the agent to tell why", lambda: f"{MEMBERS[0]} is back" in log.read_text())


def test_a_former_primary_that_answers_no_checks_gets_no_connections(bench: Bench) -> None:
    """As after a crash, when nobody paused: here HAProxy itself would notice after a minute only."""
    bench.haproxy.terminate()
    bench.haproxy.wait()
    text = bench.proxy_file.read_text()
    bench.proxy_file.write_text(re.sub(r"timeout check .*", "timeout check 1m", text))
    bench.start_proxy()
    bench.primary.check_seconds = 60.0
    bench.replica.leads = True
    bench.replica.control("promote")
    wait_until("the new one to be the only one", lambda: bench.up() == (MEMBERS[1],))


def test_a_pooler_that_is_full_of_clients_is_resumed_too(bench: Bench) -> None:
    with bench.console() as console, bench.connect() as client:
        assert bench.pause(seconds=1) == 200
        console.execute("SET max_client_conn = 1")
        with pytest.raises(psycopg.OperationalError, match="no more connections"):
            bench.connect()
        started = time.monotonic()
        assert client.execute("SELECT 1").fetchone() == (1,)
        assert time.monotonic() - started < 10


def test_an_agent_that_was_killed_lets_everybody_go_on_when_it_starts_again(bench: Bench) -> None:
    with Writers(bench) as writers:
        assert bench.pause(seconds=15) == 200
        assert bench.agent is not None
        bench.agent.kill()
        bench.agent.wait()
        assert bench.is_paused()
        bench.start_agent()
        writers.wait_for(20)
    assert writers.errors == []
    assert not bench.is_paused(LOOK_SECONDS)


def test_an_agent_that_is_told_to_stop_lets_everybody_go_on(bench: Bench) -> None:
    assert bench.pause(seconds=15) == 200
    assert bench.agent is not None
    bench.agent.terminate()
    assert bench.agent.wait(20) == 0
    assert not bench.is_paused(LOOK_SECONDS)


# --- The hook of the Postgres pod ---


@pytest.fixture
def hook(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    path = str(REPOSITORY / "images" / "postgres" / "bin" / "postgres-prestop")
    loader = importlib.machinery.SourceFileLoader("postgres_prestop", path)
    spec = importlib.util.spec_from_loader("postgres_prestop", loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    module.PORT = bench.primary.patroni_port  # type: ignore[attr-defined]
    for name, seconds in {
        "BUDGET_SECONDS": 60.0,
        "EVICTIONS_SECONDS": 0.0,
        "HEALTH_SECONDS": PATIENT_SECONDS,
        "CHECKPOINT_SECONDS": PATIENT_SECONDS,
        "PAUSE_SECONDS": PATIENT_SECONDS,
        "RESUME_SECONDS": PATIENT_SECONDS,
        "LEAVE_SECONDS": PATIENT_SECONDS,
        "HELD_BACK_SECONDS": 14,
    }.items():
        assert hasattr(module, name)
        setattr(module, name, seconds)
    write_settings(
        {**dict.fromkeys(ROLE_KEYS.values(), ""), **bench.passwords}, bench.home / "20-passwords.yml"
    )
    for name, value in {
        "PATRONICTL_CONFIG_FILE": str(bench.home),
        "POOLER_PODS": "127.0.0.1",
        "POOLER_AGENT_PORT": str(bench.agent_port),
        "POOLER_AGENT_USERNAME": "pgbouncer",
    }.items():
        monkeypatch.setenv(name, value)
    return module


def but_for_haste(told: list[str]) -> list[str]:
    """What a hook reported, but for pauses that did not begin in time, as when the machine is busy."""
    return [line for line in told if not line.startswith(("/pause at ", "clients are not held back"))]


def test_a_primary_that_stops_hands_over_behind_a_pause(bench: Bench, hook: ModuleType) -> None:
    told: list[str] = []
    with Writers(bench) as writers:
        assert bench.pause(seconds=0.1) == 200, "the agent is there"
        assert "Successfully" in hook.hand_over(MEMBERS[0], told.append)
        writers.wait_for(50)
    assert but_for_haste(told) == []
    assert bench.switchovers[0] == {"leader": MEMBERS[0], "candidate": MEMBERS[1]}
    assert_unnoticed(writers, bench)


@pytest.mark.parametrize("ends", [True, False])
def test_a_handover_waits_for_a_pooler_that_sends_its_clients_elsewhere(
    bench: Bench, hook: ModuleType, monkeypatch: pytest.MonkeyPatch, *, ends: bool
) -> None:
    # The agent itself begins with it after three seconds.
    monkeypatch.setattr(hook, "MOVING_SECONDS", 30.0 if ends else 1.0)
    assert bench.pause(seconds=0.1) == 200, "the agent is there"
    request = bench.user_list(bench.pooler_port).with_name(REQUEST)
    switch, moving = bench.switch, []

    def look_and_switch() -> None:
        moving.append(request.exists())
        switch()

    monkeypatch.setattr(bench, "switch", look_and_switch)
    with Writers(bench) as writers:
        # As PgBouncer's preStop hook does it, which runs as the same user as the agent.
        request.touch()
        if USER:
            shutil.chown(request, USER)
        assert hook.MOVING in hook.call("127.0.0.1", bench.agent_port, "pgbouncer", "GET", "/healthz", 5)
        timer = threading.Timer(2.0, request.unlink)
        if ends:
            timer.start()
        assert "Successfully" in hook.hand_over(MEMBERS[0], lambda _: None)
        timer.cancel()
        request.unlink(missing_ok=True)
    assert moving == [not ends]
    assert writers.errors == []


def test_who_takes_over_is_the_nearest_of_those_that_confirm_commits(
    hook: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    me = {"name": "a", "role": "leader", "state": "running"}
    follows = {"role": "quorum_standby", "state": "streaming", "lag": 0}
    behind, near = {"name": "b", **follows, "lag": 9}, {"name": "d", **follows}
    others = [
        {"name": "c", **follows, "role": "replica"},
        {"name": "c", **follows, "state": "starting"},
        {"name": "c", **follows, "lag": "unknown"},
    ]
    cluster: dict[str, Any] = {"members": [me, behind, *others, near]}
    monkeypatch.setattr(hook, "call_patroni", lambda *_: json.dumps(cluster))
    assert hook.nearest("a") == "d"
    cluster["pause"] = True
    assert hook.nearest("a") is None
    cluster = {"members": [me, *others]}
    assert hook.nearest("a") is None


def test_a_pod_that_was_deleted_without_grace_loses_no_time(hook: ModuleType) -> None:
    """Patroni knows only pods that are there."""
    assert hook.hand_over("hub-postgres-9", lambda _: None) == hook.GONE


def test_a_replica_that_stops_has_its_readers_go_elsewhere(bench: Bench, hook: ModuleType) -> None:
    assert bench.pause(seconds=0.1) == 200, "the agent is there"

    def is_left() -> bool:
        told: list[str] = []
        assert hook.hand_over(MEMBERS[1], told.append) == hook.NOT_PRIMARY
        return told == []

    wait_until("the pooler to leave", is_left)
    with bench.connect_read_only() as client:
        assert client.execute("SELECT pg_is_in_recovery()").fetchone() == (False,)


def test_a_primary_that_stops_hands_over_without_the_poolers_too(
    bench: Bench, hook: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POOLER_PODS", "nobody.invalid")
    told: list[str] = []
    assert "Successfully" in hook.hand_over(MEMBERS[0], told.append)
    # A name server that takes long is asked twice.
    assert told
    assert all(line.startswith("lookup of the poolers: ") for line in told)


def test_a_pod_that_is_not_told_how_to_reach_the_poolers_waits_for_none(
    hook: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("POOLER_AGENT_PORT")
    told: list[str] = []
    poolers = hook.Poolers(told.append)
    poolers.find()
    assert poolers.pause(MEMBERS[0])
    assert told == ["/healthz at 127.0.0.1: 'POOLER_AGENT_PORT'"]


def test_a_handover_does_not_wait_for_a_pooler_whose_clients_have_left(
    bench: Bench, hook: ModuleType
) -> None:
    assert bench.pause(seconds=0.1) == 200, "the agent is there"
    bench.poolers[bench.pooler_port].kill()
    told: list[str] = []
    started = time.monotonic()
    assert "Successfully" in hook.hand_over(MEMBERS[0], told.append)
    assert time.monotonic() - started < hook.BUDGET_SECONDS - hook.LAST_TRY_SECONDS
    assert not any("tried again" in line for line in told)


def test_a_handover_waits_for_a_pooler_that_cannot_tell_whether_it_has_clients(
    bench: Bench, hook: ModuleType
) -> None:
    assert bench.pause(seconds=0.1) == 200, "the agent is there"
    told: list[str] = []

    def report(line: str) -> None:
        told.append(line)
        if "tried again" in line:
            bench.haproxy.send_signal(signal.SIGCONT)

    bench.haproxy.send_signal(signal.SIGSTOP)
    assert "Successfully" in hook.hand_over(MEMBERS[0], report)
    assert any("HAProxy does not answer" in line for line in told)
    assert any("tried again" in line for line in told)


def test_a_handover_waits_for_a_transaction_that_ends_soon(bench: Bench, hook: ModuleType) -> None:
    assert bench.pause(seconds=0.1) == 200, "the agent is there"
    told: list[str] = []
    with Writers(bench) as writers, bench.connect() as busy:

        def report(line: str) -> None:
            if "did not end within" in line:
                busy.execute("COMMIT")
            told.append(line)

        busy.execute("BEGIN")
        busy.execute("INSERT INTO app.marks VALUES (-1)")
        assert "Successfully" in hook.hand_over(MEMBERS[0], report)
        writers.wait_for(50)
    assert any("did not end within" in line for line in told)
    assert writers.errors == []


def test_a_handover_waits_for_a_transaction_no_longer_than_it_may(
    bench: Bench, hook: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hook, "BUDGET_SECONDS", hook.LAST_TRY_SECONDS + 3)
    assert bench.pause(seconds=0.1) == 200, "the agent is there"
    with contextlib.closing(bench.connect()) as busy:
        busy.execute("BEGIN")
        busy.execute("INSERT INTO app.marks VALUES (-1)")
        started = time.monotonic()
        assert "Successfully" in hook.hand_over(MEMBERS[0], lambda _: None)
        assert 3 < time.monotonic() - started < hook.BUDGET_SECONDS


def test_a_handover_that_was_refused_is_tried_again_and_clients_go_on_meanwhile(
    bench: Bench, hook: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    switch, paused = bench.switch, []

    def refuse_once() -> None:
        paused.append(bench.is_paused())
        if len(paused) == 1:
            raise ConnectionError("refused")
        switch()

    assert bench.pause(seconds=0.1) == 200, "the agent is there"
    monkeypatch.setattr(bench, "switch", refuse_once)
    told: list[str] = []
    with Writers(bench) as writers:
        assert "Successfully" in hook.hand_over(MEMBERS[0], told.append)
        writers.wait_for(50)
    assert paused == [True, True]
    # Whom the first try could not have take over need not be the one of the second.
    assert bench.switchovers == [{"leader": MEMBERS[0], "candidate": MEMBERS[1]}, {"leader": MEMBERS[0]}]
    assert len(but_for_haste(told)) == 1
    assert writers.errors == []


def test_the_pause_is_taken_back_when_the_handover_is_refused_to_the_end(
    bench: Bench, hook: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    paused: list[bool] = []

    def refuse() -> None:
        paused.append(bench.is_paused())
        raise ConnectionError("refused")

    assert bench.pause(seconds=0.1) == 200
    wait_until("the pause to be over", lambda: not bench.is_paused())
    monkeypatch.setattr(hook, "BUDGET_SECONDS", hook.LAST_TRY_SECONDS + 6)
    monkeypatch.setattr(bench, "switch", refuse)
    with pytest.raises(OSError, match="Remote end closed"):
        hook.hand_over(MEMBERS[0], lambda _: None)
    assert len(paused) > 1
    assert all(paused)
    assert not bench.is_paused(LOOK_SECONDS)


def test_clients_do_not_wait_for_a_pooler_on_a_dead_node(
    bench: Bench, hook: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The name leads to such a pod until that is deleted."""
    assert bench.pause(seconds=0.1) == 200, "the agent is there"
    call, look_up = hook.call, socket.getaddrinfo
    dead = "192.0.2.1"

    def look_up_both(name: Any, *words: Any, **options: Any) -> list[Any]:
        found = look_up("127.0.0.1" if name == "poolers.invalid" else name, *words, **options)
        return [*found, (*found[0][:4], (dead, 0))] if name == "poolers.invalid" else found

    def call_in_vain(
        host: str, port: int, user: str, method: str, path: str, seconds: float, *body: Any
    ) -> str:
        if host == dead:
            # Whether it is there is asked before anybody is held back; nothing else should be asked of it.
            time.sleep(min(seconds, 4) if path == "/healthz" else seconds)
            raise TimeoutError("timed out")
        return str(call(host, port, user, method, path, seconds, *body))

    monkeypatch.setattr(socket, "getaddrinfo", look_up_both)
    monkeypatch.setattr(hook, "call", call_in_vain)
    monkeypatch.setenv("POOLER_PODS", "poolers.invalid")
    told: list[str] = []
    with Writers(bench) as writers:
        assert "Successfully" in hook.hand_over(MEMBERS[0], told.append)
        writers.wait_for(50)
    assert {line.partition(":")[0] for line in but_for_haste(told)} == {f"/healthz at {dead}"}
    assert_unnoticed(writers, bench)


def test_a_hook_waits_for_a_deaf_pooler_no_longer_than_it_may(
    bench: Bench, hook: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that stands still just after it was found."""
    monkeypatch.setattr(hook, "CHECKPOINT_SECONDS", 0.5)
    monkeypatch.setattr(hook, "PAUSE_SECONDS", 0.5)
    assert bench.pause(seconds=0.1) == 200, "the agent is there"
    agent, find = bench.agent, hook.Poolers.find
    assert agent is not None

    def find_at_last(poolers: Any) -> None:
        find(poolers)
        agent.send_signal(signal.SIGSTOP)

    monkeypatch.setattr(hook.Poolers, "find", find_at_last)
    started = time.monotonic()
    told: list[str] = []
    assert "Successfully" in hook.hand_over(MEMBERS[0], told.append)
    assert time.monotonic() - started - bench.switch_seconds < 12
    assert len(told) >= 2
