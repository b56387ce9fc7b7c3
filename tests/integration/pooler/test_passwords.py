"""Passwords that change while clients of a real PgBouncer work: nobody is turned away."""

from __future__ import annotations

import contextlib
import functools
import os
import secrets
import signal
import time

import psycopg
from psycopg.pq import ExecStatus

from images.pooler.runnerhub_pooler.console import Console
from images.pooler.runnerhub_pooler.credentials import Passwords, user_list, write_as
from images.postgres.runnerhub_postgres.passwords import ROLE_KEYS, renew_roles
from tests.integration.pooler.bench import (
    CLIENT_TIMEOUT_SECONDS,
    DATABASE,
    SUPERUSER_PASSWORD,
    Bench,
    Writers,
    wait_until,
)


def lets_in(bench: Bench, user: str, password: str, database: str = DATABASE) -> bool:
    """Whether PgBouncer does."""
    try:
        psycopg.connect(
            host="127.0.0.1", port=bench.pooler_port, user=user, password=password, dbname=database,
            connect_timeout=int(CLIENT_TIMEOUT_SECONDS),
        ).close()  # fmt: skip
    except psycopg.OperationalError:
        return False
    return True


def renew_in_postgres(bench: Bench) -> list[str]:
    """What the pod of the primary does."""
    with psycopg.connect(
        host="127.0.0.1", port=bench.primary.port, user="postgres", password=SUPERUSER_PASSWORD,
        dbname="postgres", autocommit=True,
    ) as connection:  # fmt: skip
        passwords = {**dict.fromkeys(ROLE_KEYS.values(), SUPERUSER_PASSWORD), **bench.passwords}
        return renew_roles(connection, passwords, lambda: None)


def change(bench: Bench, *keys: str) -> dict[str, str]:
    """New values in the Secret; gives the old ones."""
    before = dict(bench.passwords)
    bench.former_password = before["app-password"]
    bench.passwords |= {key: secrets.token_urlsafe(12) for key in keys}
    bench.write_secret()
    return before


def test_clients_notice_nothing_of_a_new_password(bench: Bench) -> None:
    bench.pause(seconds=0.1)
    with Writers(bench) as writers:
        before = change(bench, "app-password", "monitoring-password")
        # Postgres does not have it yet, so PgBouncer must not have it either: its own logins would fail.
        time.sleep(2.5)
        assert lets_in(bench, "app", before["app-password"])
        assert not lets_in(bench, "app", bench.passwords["app-password"])
        assert renew_in_postgres(bench) == ["app", "monitoring"]
        wait_until("the new password", lambda: lets_in(bench, "app", bench.passwords["app-password"]))
        assert not lets_in(bench, "app", before["app-password"])
        in_effect(bench)
        # All connections to the server made anew, by the new password.
        assert bench.pause(seconds=1) == 200
        writers.wait_for(50)
    assert writers.errors == []
    assert renew_in_postgres(bench) == []


def test_a_login_that_failed_on_the_way_is_forgotten_before_the_next_pause(bench: Bench) -> None:
    bench.pause(seconds=0.1)
    assert bench.agent is not None
    with contextlib.ExitStack() as clients:
        change(bench, "app-password")
        crowd = [clients.enter_context(contextlib.closing(bench.connect())) for _ in range(8)]
        crowd[0].execute("SELECT 1")
        bench.agent.send_signal(signal.SIGSTOP)
        renew_in_postgres(bench)
        # More at once than PgBouncer has connections for: it tries to log in by the former password.
        for client in crowd:
            client.pgconn.send_query(b"SELECT pg_sleep(0.3)")
            client.pgconn.flush()
        wait_until("a login that fails", lambda: failed_logins(bench) > 0)
        for client in crowd:
            wait_until("an answer", functools.partial(is_answered, client))
        bench.agent.send_signal(signal.SIGCONT)
        in_effect(bench)
    # All connections to the server are made anew; who comes before there is one has to wait, too.
    resumed = log_of(bench).count("RESUME")
    assert bench.pause(seconds=4) == 200
    postmaster = int((bench.primary.data / "postmaster.pid").read_text().split()[0])
    os.kill(postmaster, signal.SIGSTOP)
    try:
        wait_until("the end of the pause", lambda: log_of(bench).count("RESUME") > resumed)
        newcomers = [bench.connect() for _ in range(2)]
        for newcomer in newcomers:
            newcomer.pgconn.send_query(b"SELECT 1")
            newcomer.pgconn.flush()
        time.sleep(0.3)
        assert [is_answered(newcomer) for newcomer in newcomers] == [False, False]
    finally:
        os.kill(postmaster, signal.SIGCONT)
    for newcomer in newcomers:
        wait_until("an answer", functools.partial(is_answered, newcomer))
        assert newcomer.pgconn.get_result().status == ExecStatus.TUPLES_OK
        newcomer.close()


def in_effect(bench: Bench) -> None:
    """Wait until the agent has done all that belongs to a change."""
    wait_until("the change", lambda: "passwords changed" in (bench.home / "agent.log").read_text())


def log_of(bench: Bench) -> str:
    """PgBouncer's."""
    return (bench.home / "pgbouncer.log").read_text()


def failed_logins(bench: Bench) -> int:
    """How many PgBouncer tells of."""
    return log_of(bench).count("login failed:")


def is_answered(client: psycopg.Connection) -> bool:
    client.pgconn.consume_input()
    return not client.pgconn.is_busy()


def test_whoever_steers_the_pooler_may_come_with_either_password(bench: Bench) -> None:
    bench.pause(seconds=0.1)
    before = change(bench, "restapi-password")
    new = bench.passwords["restapi-password"]
    wait_until("the new password", lambda: lets_in(bench, "pgbouncer", new, "pgbouncer"))
    wait_until("the agent", lambda: bench.call("/resume", password=new) == 200)
    assert bench.call("/resume", password=before["restapi-password"]) == 200
    assert bench.call("/resume", password="wrong") == 401
    assert bench.pause(seconds=1, password=new) == 200


def test_an_agent_that_is_killed_meanwhile_goes_on(bench: Bench) -> None:
    bench.pause(seconds=0.1)
    assert bench.agent is not None
    change(bench, "app-password", "restapi-password")
    bench.agent.kill()
    bench.agent.wait()
    bench.start_agent()
    time.sleep(1.5)
    renew_in_postgres(bench)
    wait_until("the new password", lambda: lets_in(bench, "app", bench.passwords["app-password"]))
    new = bench.passwords["restapi-password"]
    wait_until("the agent", lambda: bench.call("/resume", password=new) == 200)


def test_an_agent_that_is_killed_when_one_pgbouncer_knows_already_goes_on(bench: Bench) -> None:
    bench.pause(seconds=0.1)
    before = change(bench, "app-password", "restapi-password")
    renew_in_postgres(bench)
    former, new = (
        Passwords(found["app-password"], found["monitoring-password"], found["restapi-password"])
        for found in (before, bench.passwords)
    )
    assert bench.agent is not None
    bench.agent.kill()
    bench.agent.wait()
    for port in (bench.pooler_port, bench.read_only_port):
        path = bench.user_list(port)
        write_as(path.with_name(f"{path.name}.former"), user_list(former), path)
        write_as(path, user_list(new), path)
    Console(bench.pooler_port, lambda: (former.admin,)).reload(log_in=False)
    bench.start_agent()
    wait_until("the change to be complete", lambda: not list(bench.home.rglob("*.former")))
    assert bench.pause(seconds=1, password=new.admin) == 200
