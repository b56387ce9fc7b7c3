"""A planned change of the primary, seen by clients of a real PgBouncer: they wait, and nothing fails."""

from __future__ import annotations

import contextlib
import importlib.machinery
import importlib.util
import signal
import threading
import time
from types import ModuleType

import aiohttp
import psycopg
import pytest

from images.pooler.runnerhub_pooler.haproxy import Proxy, Server
from images.postgres.runnerhub_postgres.passwords import ROLE_KEYS, write_settings
from runnerhub_operator.probes import pgbouncer
from runnerhub_operator.probes.http import Login
from tests.integration.pooler.bench import (
    CLIENT_TIMEOUT_SECONDS,
    MEMBERS,
    PASSWORDS,
    REPOSITORY,
    Bench,
    Writers,
    wait_until,
)

# Beyond the played handover itself, which takes about 1.5 s; the target for all is 2 s on a machine that is not busy.
MOST_MORE_SECONDS = 2.5
# Whether clients still wait is looked at for as long; no pause here ends by itself before.
LOOK_SECONDS = 5


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
    """What the pause is for, and that these writers notice."""
    with Writers(bench) as writers:
        bench.switch()
        writers.wait_for(50)
    assert writers.errors != []


async def test_the_operator_pauses_and_resumes(bench: Bench) -> None:
    login = Login("pgbouncer", PASSWORDS["restapi-password"])
    async with aiohttp.ClientSession() as http:

        async def pause(primary: str) -> str:
            held_up = await pgbouncer.pause(
                http, ["127.0.0.1"], primary, seconds=10, login=login, port=bench.agent_port
            )
            return held_up.get("127.0.0.1", "")

        bench.pause(seconds=0.1)
        wait_until("the pause to be over", lambda: not bench.is_paused())
        assert "is not the primary here but hub-postgres-0" in await pause(MEMBERS[1])
        await pgbouncer.checkpoint(http, "127.0.0.1", login=login, port=bench.agent_port)
        assert await pause(MEMBERS[0]) == ""
        assert bench.is_paused()
        assert await pause(MEMBERS[0]) == "", "the pod itself may ask too"
        assert await pgbouncer.resume(http, ["127.0.0.1"], login=login, port=bench.agent_port) == {}
        assert not bench.is_paused(LOOK_SECONDS)
        wrong = Login("pgbouncer", "x")
        refused = await pgbouncer.resume(http, ["127.0.0.1"], login=wrong, port=bench.agent_port)
        assert "answered 401" in refused["127.0.0.1"]
        nobody = await pgbouncer.pause(http, ["127.0.0.1"], MEMBERS[0], seconds=10, login=login, port=1)
        assert "does not answer" in nobody["127.0.0.1"]


def test_a_long_transaction_ends_the_pause_and_not_the_other_way_round(bench: Bench) -> None:
    with Writers(bench) as writers, bench.connect() as long:
        long.execute("BEGIN")
        long.execute("INSERT INTO app.marks VALUES (-1)")
        started = time.monotonic()
        assert bench.pause() == 409
        assert time.monotonic() - started < 8
        assert not bench.is_paused(LOOK_SECONDS)
        writers.wait_for(20)
        long.execute("COMMIT")
        assert bench.pause() == 200, "nothing is left of the first try"
        assert bench.call("/resume") == 200
        writers.wait_for(20)
    assert writers.errors == []


def test_a_pause_ends_by_itself_when_nobody_takes_over(bench: Bench) -> None:
    with Writers(bench) as writers:
        assert bench.pause(seconds=2) == 200
        writers.wait_for(20)
    assert writers.errors == []
    assert 1.5 < writers.gap_seconds() < CLIENT_TIMEOUT_SECONDS


def test_a_pause_ends_when_the_only_member_is_back(bench: Bench) -> None:
    proxy = Proxy(bench.proxy_runtime_port)
    assert bench.pause(seconds=15) == 200
    bench.primary.leads = False
    bench.primary.control("-m", "fast", "stop")
    wait_until("HAProxy to notice", lambda: not any(server.is_up for server in proxy.servers()))
    bench.primary.start()
    bench.primary.leads = True
    wait_until("the agent to open", lambda: not bench.is_paused())
    assert f"{MEMBERS[0]} is back" in (bench.home / "agent.log").read_text()


def test_a_former_primary_that_answers_no_checks_gets_no_connections(bench: Bench) -> None:
    """As after a crash, when nobody paused: HAProxy itself notices after four seconds."""
    proxy = Proxy(bench.proxy_runtime_port)
    bench.primary.check_seconds = 30.0
    bench.replica.leads = True
    bench.replica.control("promote")
    wait_until(
        "HAProxy to find the new one", lambda: any(server.is_up for server in named(proxy, MEMBERS[1]))
    )
    started = time.monotonic()
    wait_until(
        "the former one to be left out", lambda: not any(server.is_up for server in named(proxy, MEMBERS[0]))
    )
    assert time.monotonic() - started < 3


def named(proxy: Proxy, member: str) -> list[Server]:
    return [server for server in proxy.servers() if server.name == member]


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
    assert bench.agent.wait(10) == 0
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


def test_a_primary_that_stops_hands_over_behind_a_pause(bench: Bench, hook: ModuleType) -> None:
    told: list[str] = []
    with Writers(bench) as writers:
        assert bench.pause(seconds=0.1) == 200, "the agent is there"
        assert "Successfully" in hook.hand_over(MEMBERS[0], told.append)
        writers.wait_for(50)
    assert told == []
    assert_unnoticed(writers, bench)


def test_a_replica_that_stops_has_its_readers_go_elsewhere(bench: Bench, hook: ModuleType) -> None:
    assert bench.pause(seconds=0.1) == 200, "the agent is there"
    told: list[str] = []
    assert hook.hand_over(MEMBERS[1], told.append) == hook.NOT_PRIMARY
    assert told == []
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
    monkeypatch.delenv("POOLER_AGENT_PORT")
    poolers = hook.Poolers(told.append)
    poolers.pause(MEMBERS[0])


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
    told: list[str] = []
    with Writers(bench) as writers, bench.connect() as busy:
        busy.execute("BEGIN")
        busy.execute("INSERT INTO app.marks VALUES (-1)")
        ending = threading.Timer(3, busy.execute, ("COMMIT",))
        ending.start()
        assert "Successfully" in hook.hand_over(MEMBERS[0], told.append)
        ending.join()
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
    assert len(told) == 1
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
    monkeypatch.setattr(hook, "BUDGET_SECONDS", hook.LAST_TRY_SECONDS + 3)
    monkeypatch.setattr(bench, "switch", refuse)
    with pytest.raises(OSError, match="Remote end closed"):
        hook.hand_over(MEMBERS[0], lambda _: None)
    assert len(paused) > 1
    assert all(paused)
    assert not bench.is_paused(LOOK_SECONDS)


def test_a_hook_waits_for_a_deaf_pooler_no_longer_than_it_may(
    bench: Bench, hook: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hook, "CHECKPOINT_SECONDS", 0.5)
    monkeypatch.setattr(hook, "PAUSE_SECONDS", 0.5)
    assert bench.agent is not None
    bench.agent.send_signal(19)
    started = time.monotonic()
    told: list[str] = []
    assert "Successfully" in hook.hand_over(MEMBERS[0], told.append)
    assert time.monotonic() - started - bench.switch_seconds < 6
    assert len(told) >= 2
