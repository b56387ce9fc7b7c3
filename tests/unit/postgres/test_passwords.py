"""Passwords in the pods of the database and of the pooler: what is read, written and compared."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import ClassVar

import psycopg
import pytest

from images.pooler.runnerhub_pooler.console import ConsoleError
from images.pooler.runnerhub_pooler.credentials import (
    FORMER_SECONDS,
    Credentials,
    Passwords,
    Renewal,
    coming,
    in_effect,
    parse_user_list,
    read_passwords,
    user_list,
)
from images.pooler.runnerhub_pooler.server import authorization, is_admin
from images.pooler.runnerhub_pooler.settings import Settings
from images.postgres.runnerhub_postgres import passwords as postgres

OLD = Passwords(app="a", monitoring='m"1', admin="r")


# --- Postgres ---


def verifier(password: str, role: str = "app") -> str:
    """What Postgres stores, made by libpq."""
    connection = psycopg.pq.PGconn.connect_start(b"host=/nowhere")
    return connection.encrypt_password(password.encode(), role.encode(), b"scram-sha-256").decode()


@pytest.mark.parametrize("password", ["secret", "with space", "ü-umlaut", 'quote"d', "x" * 200])
def test_a_stored_password_is_recognized(password: str) -> None:
    assert postgres.fits(verifier(password), password)
    assert not postgres.fits(verifier(password), password + "x")


@pytest.mark.parametrize(
    "stored", [None, "", "md5abc", "SCRAM-SHA-256$4096:?$a:b", "SCRAM-SHA-256$x:YQ==$YQ==:YQ=="]
)
def test_nothing_fits_what_is_no_verifier(stored: str | None) -> None:
    assert not postgres.fits(stored, "secret")


def fill(folder: Path, **others: str) -> None:
    keys = (*postgres.ROLE_KEYS.values(), postgres.REST_KEY)
    for key in keys:
        (folder / key).write_text(others.get(key.replace("-", "_"), f"{key}-value"))


def test_a_line_break_at_the_end_is_no_part_of_a_password(tmp_path: Path) -> None:
    fill(tmp_path, app_password="word\n")
    assert postgres.read_passwords(tmp_path)["app-password"] == "word"


@pytest.mark.parametrize("value", [b"", b"\n", b"two\nlines", b"tab\t", b"\xff\xfe"])
def test_what_cannot_be_a_password_is_not_used(tmp_path: Path, value: bytes) -> None:
    fill(tmp_path)
    known = postgres.read_passwords(tmp_path)
    former = read_passwords(tmp_path)
    for key in ("app-password", "restapi-password"):
        (tmp_path / key).write_bytes(value)
    assert postgres.read_passwords(tmp_path, known) == known
    assert read_passwords(tmp_path, former) == former
    with pytest.raises(ValueError, match="restapi-password") as told:
        postgres.read_passwords(tmp_path)
    assert repr(value) not in str(told.value)
    with pytest.raises(ValueError, match="app-password"):
        read_passwords(tmp_path)


def test_a_role_without_a_usable_password_is_left_alone(tmp_path: Path) -> None:
    fill(tmp_path, app_password="")
    assert "app-password" not in postgres.read_passwords(tmp_path)


def test_what_an_earlier_process_gave_to_patroni_is_found_again(tmp_path: Path) -> None:
    fill(tmp_path)
    path = tmp_path / "20-passwords.yml"
    assert postgres.known_settings(path) == {}
    passwords = postgres.read_passwords(tmp_path)
    postgres.write_settings(passwords, path)
    assert postgres.known_settings(path).items() <= passwords.items()
    assert len(postgres.known_settings(path)) == 3


class FakeApi:
    """An API server with one Secret."""

    data: ClassVar[dict[str, str]] = {}

    def __init__(self, namespace: str) -> None:
        assert namespace == "team"

    def call(self, method: str, path: str) -> dict[str, object]:
        assert (method, path) == ("GET", "/secrets/hub-postgres-credentials")
        if not self.data:
            raise OSError("no route to host")
        return {"data": {key: base64.b64encode(word.encode()).decode() for key, word in self.data.items()}}


def test_a_copy_counts_only_while_the_api_server_has_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres, "Api", FakeApi)
    copy = {"app-password": "a", "monitoring-password": "m"}

    def compare() -> None:
        postgres.compare_with_secret(copy, "team", "hub-postgres-credentials")

    FakeApi.data = {"app-password": "a\n", "monitoring-password": "m"}
    compare()
    # What the Secret has cannot be a password, so the one before is right.
    FakeApi.data = {"app-password": "", "monitoring-password": "m"}
    compare()
    FakeApi.data = {"app-password": "newer", "monitoring-password": "m"}
    with pytest.raises(postgres.OldCopyError, match="another app-password") as told:
        compare()
    assert "newer" not in str(told.value)
    FakeApi.data = {}
    with pytest.raises(postgres.OldCopyError, match="does not tell"):
        compare()


def test_patronis_part_is_for_its_user_only(tmp_path: Path) -> None:
    fill(tmp_path)
    path = tmp_path / "20-passwords.yml"
    for _ in range(2):
        postgres.write_settings(postgres.read_passwords(tmp_path), path)
    assert path.stat().st_mode & 0o777 == 0o600
    written = json.loads(path.read_text())
    assert written["restapi"]["authentication"] == {
        "username": "patroni",
        "password": "restapi-password-value",
    }
    assert written["postgresql"]["authentication"]["replication"]["password"] == "replication-password-value"


# --- The pooler ---


def test_a_user_list_is_read_as_it_was_written() -> None:
    assert parse_user_list(user_list(OLD)) == OLD
    with pytest.raises(ValueError, match="missing"):
        parse_user_list('"app" "a"\n')


def test_the_former_admin_is_let_in_for_a_while() -> None:
    now = [0.0]
    found = Credentials(OLD, clock=lambda: now[0])
    coming = Passwords(app="b", monitoring="m", admin="s")
    found.expect(coming)
    assert found.admins() == ("r", "s")
    found.renew(coming)
    assert found.admins() == ("s", "r")
    assert is_admin(authorization("r"), found)
    assert is_admin(authorization("s"), found)
    assert not is_admin(authorization("t"), found)
    now[0] = FORMER_SECONDS + 1
    assert not is_admin(authorization("r"), found)


class Pod:
    """A pooler pod with two PgBouncers that are played."""

    def __init__(self, home: Path) -> None:
        self.secret = home / "secret"
        self.secret.mkdir()
        self.lists = (home / "rw.txt", home / "ro.txt")
        self.postgres_has = OLD
        self.reloaded: list[int] = []
        self.refuses: set[int] = set()
        self.turned_away = 0
        self.settings = Settings(1, 5432, 5433, 2, "hub", self.secret, self.lists)
        self.write(OLD)
        for path in self.lists:
            path.write_text(user_list(OLD))
        self.credentials = Credentials(in_effect(self.settings))
        self.renewal = Renewal(self.settings, self.credentials, self.lets_in, self.reload)

    def write(self, passwords: Passwords) -> None:
        for key, word in (
            ("app-password", passwords.app),
            ("monitoring-password", passwords.monitoring),
            ("restapi-password", passwords.admin),
        ):
            (self.secret / key).write_text(word)

    def lets_in(self, user: str, password: str) -> bool:
        found = self.postgres_has.by_user()[user] == password
        self.turned_away += not found
        return found

    def reload(self, port: int) -> None:
        if port in self.refuses:
            raise ConsoleError("not now")
        self.reloaded.append(port)


@pytest.fixture
def pod(tmp_path: Path) -> Pod:
    return Pod(tmp_path)


NEW = Passwords(app="b", monitoring='m"1', admin="s")


def test_without_a_change_nothing_is_read_again(pod: Pod) -> None:
    pod.renewal.look()
    assert pod.reloaded == []


def test_a_new_password_waits_for_postgres(pod: Pod) -> None:
    pod.write(NEW)
    assert pod.renewal.look(), "the next look comes sooner"
    assert pod.reloaded == []
    assert pod.turned_away == 0, "what fails at each look would fill the server's log"
    assert pod.credentials.current == OLD
    pod.postgres_has = NEW
    assert not pod.renewal.look()
    assert pod.reloaded == [5432, 5433]
    assert pod.credentials.current == NEW
    assert [path.read_text() for path in pod.lists] == [user_list(NEW)] * 2
    assert pod.lists[0].stat().st_mode & 0o777 == 0o600


def test_a_pgbouncer_that_does_not_answer_is_asked_again(pod: Pod) -> None:
    pod.write(NEW)
    pod.postgres_has = NEW
    pod.refuses = {5433}
    pod.renewal.look()
    assert pod.credentials.current == OLD
    pod.refuses = set()
    pod.renewal.look()
    assert pod.credentials.current == NEW


def test_a_program_that_ends_before_pgbouncer_knows_goes_on_where_it_was(pod: Pod) -> None:
    pod.write(NEW)
    pod.postgres_has = NEW
    pod.refuses = {5433}
    pod.renewal.look()
    again = Credentials(in_effect(pod.settings), coming(pod.settings))
    assert again.current == OLD
    assert again.admins() == ("r", "s"), "one PgBouncer knows the new one only"
    pod.refuses = set()
    Renewal(pod.settings, again, pod.lets_in, pod.reload).look()
    assert again.current == NEW
    assert in_effect(pod.settings) == NEW
    assert coming(pod.settings) is None
    assert [path.name for path in pod.lists[0].parent.glob("*.former")] == []


def test_nothing_is_read_again_while_clients_are_held_back(pod: Pod) -> None:
    pod.write(NEW)
    pod.postgres_has = NEW
    busy = Renewal(pod.settings, pod.credentials, pod.lets_in, pod.reload, lambda: True)
    busy.look()
    assert pod.reloaded == []


def test_a_program_that_starts_again_goes_by_what_pgbouncer_knows(pod: Pod) -> None:
    pod.write(NEW)
    assert in_effect(pod.settings) == OLD
    for path in pod.lists:
        path.unlink()
    assert in_effect(pod.settings) == NEW


def test_a_secret_that_is_not_usable_changes_nothing(pod: Pod) -> None:
    pod.write(Passwords(app="", monitoring="m", admin="r"))
    pod.renewal.look()
    assert pod.credentials.current == OLD
