"""The search for the primary that follows another one."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import cast

import psycopg
import pytest

from images.pooler.runnerhub_pooler import successor
from images.pooler.runnerhub_pooler.database import Database
from images.pooler.runnerhub_pooler.haproxy import Server
from images.pooler.runnerhub_pooler.successor import Search

PATIENCE_SECONDS = 5.0
MEMBERS = [Server(f"hub-postgres-{i}", f"127.0.0.{i + 1}", 5432, 8008, is_up=False) for i in range(3)]


@dataclass
class Login:
    """One connection to a member."""

    server: Server
    is_closed: bool = False

    def close(self) -> None:
        self.is_closed = True


@dataclass
class Members:
    """What the members answer; one that is frozen answers when it thaws."""

    writable: set[str] = field(default_factory=set)
    leading: set[str] = field(default_factory=set)
    refusing: set[str] = field(default_factory=set)
    frozen: dict[str, threading.Event] = field(default_factory=dict)
    logins: list[Login] = field(default_factory=list)

    def promote(self, name: str) -> None:
        self.writable.add(name)
        self.leading.add(name)

    def connect(self, server: Server) -> Login:
        if server.name in self.refusing:
            raise psycopg.OperationalError("the database system is starting up")
        self.logins.append(Login(server))
        return self.logins[-1]

    def is_writable_by(self, login: Login) -> bool:
        if (thaws := self.frozen.get(login.server.name)) is not None:
            thaws.wait(30)
        if login.server.name in self.refusing:
            raise psycopg.OperationalError("terminating connection due to administrator command")
        return login.server.name in self.writable


@pytest.fixture
def members(monkeypatch: pytest.MonkeyPatch) -> Members:
    members = Members()
    monkeypatch.setattr(successor, "_leads", lambda server, _: server.name in members.leading)
    return members


def search_among(members: Members) -> Search:
    return Search(cast("Database", members))


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_nobody_is_found_before_one_is_promoted_and_then_that_one(members: Members) -> None:
    search = search_among(members)
    assert search.first(MEMBERS[1:], 0.2) is None
    members.promote("hub-postgres-2")
    assert search.first(MEMBERS[1:], PATIENCE_SECONDS) == MEMBERS[2]
    search.end()


@pytest.mark.parametrize("half", ["writable", "leading"])
def test_half_a_promotion_is_none(members: Members, half: str) -> None:
    """Patroni leads from the moment it has the key; a server that has lost it may still take writes."""
    getattr(members, half).add("hub-postgres-2")
    search = search_among(members)
    assert search.first(MEMBERS[1:], 0.3) is None
    search.end()


def test_one_that_does_not_answer_keeps_nobody_from_hearing_another(members: Members) -> None:
    members.frozen["hub-postgres-1"] = threading.Event()
    search = search_among(members)
    assert search.first(MEMBERS[1:], 0.1) is None
    members.promote("hub-postgres-2")
    started = time.monotonic()
    assert search.first(MEMBERS[1:], PATIENCE_SECONDS) == MEMBERS[2]
    assert time.monotonic() - started < PATIENCE_SECONDS / 2
    members.frozen["hub-postgres-1"].set()
    search.end()


def test_one_that_answers_late_is_heard(members: Members) -> None:
    members.frozen["hub-postgres-1"] = threading.Event()
    members.promote("hub-postgres-1")
    search = search_among(members)
    for _ in range(3):
        assert search.first(MEMBERS[1:], 0.1) is None
    members.frozen["hub-postgres-1"].set()
    assert search.first(MEMBERS[1:], PATIENCE_SECONDS) == MEMBERS[1]
    search.end()


def test_a_member_is_asked_by_one_login_until_that_breaks_or_the_search_ends(members: Members) -> None:
    members.refusing.add("hub-postgres-1")
    search = search_among(members)
    for _ in range(5):
        search.first(MEMBERS[1:], 0.1)
    assert [login.server for login in members.logins] == [MEMBERS[2]]
    members.refusing.clear()
    until(lambda: len(members.logins) == 2)
    members.refusing.add("hub-postgres-2")
    until(lambda: members.logins[0].is_closed)
    members.refusing.clear()
    until(lambda: len(members.logins) == 3)
    assert members.logins[2].server == MEMBERS[2]
    search.end()
    until(lambda: all(login.is_closed for login in members.logins))


def test_a_member_that_left_meanwhile_is_not_it(members: Members) -> None:
    members.promote("hub-postgres-1")
    search = search_among(members)
    until(lambda: search.first(MEMBERS[1:], 0.2) is not None)
    time.sleep(0.2)
    assert search.first(MEMBERS[2:], 0.2) is None
    search.end()
