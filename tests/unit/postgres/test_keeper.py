"""When the passwords' keeper in a pod of the database does what."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from images.postgres.runnerhub_postgres.passwords import (
    CHECK_SECONDS,
    GRACE_SECONDS,
    PATIENCE_SECONDS,
    REST_KEY,
    ROLE_KEYS,
    SILENT_LOOKS,
    Keeper,
    OldCopyError,
    authorization,
    read_passwords,
    write_settings,
)


class Pod:
    """A pod of the database whose Postgres is played."""

    def __init__(self, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.file = home / "secret", home / "20-passwords.yml"
        self.folder.mkdir()
        self.write("old")
        self.postgres: Any = True
        self.looked = 0
        self.signals = 0
        write_settings(read_passwords(self.folder), self.file)
        self.keeper = Keeper(self.folder, self.file, read_passwords(self.folder), lambda _: None)
        monkeypatch.setattr(self.keeper, "_renew_roles", self.renew_roles)

    def write(self, word: str) -> None:
        for key in (*ROLE_KEYS.values(), REST_KEY):
            (self.folder / key).write_text(word)

    def renew_roles(self) -> bool:
        self.looked += 1
        if isinstance(self.postgres, Exception):
            raise self.postgres
        return bool(self.postgres)

    def patroni_has(self) -> str:
        found: str = json.loads(self.file.read_text())["restapi"]["authentication"]["password"]
        return found


@pytest.fixture
def pod(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Pod]:
    found = Pod(tmp_path, monkeypatch)

    def count(*_: object) -> None:
        found.signals += 1

    before = signal.signal(signal.SIGHUP, count)
    yield found
    signal.signal(signal.SIGHUP, before)


def test_without_a_change_the_roles_are_looked_at_once_a_minute(pod: Pod) -> None:
    for second in range(int(2 * CHECK_SECONDS)):
        pod.keeper.look(100.0 + second)
    assert pod.looked == 2
    assert pod.signals == 0


def test_a_change_waits_for_the_other_pods_and_then_for_postgres(pod: Pod) -> None:
    pod.keeper.look(100.0)
    pod.write("new")
    pod.postgres = False
    pod.keeper.look(101.0)
    pod.keeper.look(101.0 + GRACE_SECONDS - 0.1)
    assert pod.looked == 1
    pod.keeper.look(101.0 + GRACE_SECONDS)
    assert (pod.looked, pod.signals, pod.patroni_has()) == (2, 0, "old")
    pod.postgres = True
    pod.keeper.look(102.0 + GRACE_SECONDS)
    assert (pod.signals, pod.patroni_has()) == (1, "new")
    pod.keeper.look(103.0 + GRACE_SECONDS)
    assert (pod.looked, pod.signals) == (3, 1)


def test_a_replica_without_a_primary_waits_not_for_ever(pod: Pod) -> None:
    pod.keeper.look(100.0)
    pod.write("new")
    pod.postgres = psycopg.OperationalError("down")
    pod.keeper.look(101.0)
    pod.keeper.look(101.0 + PATIENCE_SECONDS - 1)
    assert pod.patroni_has() == "old"
    pod.keeper.look(101.0 + PATIENCE_SECONDS)
    assert (pod.signals, pod.patroni_has()) == (1, "new")


def test_the_signal_waits_for_a_patroni_that_listens(pod: Pod) -> None:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    pod.keeper.look(100.0)
    pod.write("new")
    pod.keeper.look(101.0)
    pod.keeper.look(101.0 + GRACE_SECONDS)
    assert pod.patroni_has() == "old"


def test_a_postgres_that_does_not_answer_is_told_once_and_late(
    pod: Pod, caplog: pytest.LogCaptureFixture
) -> None:
    pod.postgres = psycopg.OperationalError("down")
    for second in range(SILENT_LOOKS - 1):
        pod.keeper.look(100.0 + second)
    assert caplog.records == []
    for second in range(SILENT_LOOKS, SILENT_LOOKS + 5):
        pod.keeper.look(100.0 + second)
    assert len(caplog.records) == 1


def test_values_that_cannot_be_passwords_change_nothing(pod: Pod) -> None:
    pod.keeper.look(100.0)
    pod.write("")
    pod.keeper.look(200.0)
    pod.keeper.look(200.0 + PATIENCE_SECONDS)
    assert (pod.signals, pod.patroni_has()) == (0, "old")


def test_who_has_not_got_the_new_password_is_known_by_the_former_one(pod: Pod) -> None:
    assert pod.keeper.former_authorization is None
    pod.write("new")
    pod.keeper.look(101.0)
    pod.keeper.look(101.0 + GRACE_SECONDS)
    assert pod.keeper.former_authorization == authorization("old")


def test_an_old_copy_of_the_secret_changes_no_role(pod: Pod, caplog: pytest.LogCaptureFixture) -> None:
    """A member that became primary while its kubelet was gone must not bring the former passwords back."""
    pod.postgres = OldCopyError("the API server has another app-password")
    for second in range(SILENT_LOOKS + 5):
        pod.keeper.look(100.0 + second)
    assert pod.looked == SILENT_LOOKS + 5
    assert "another app-password" in caplog.text
    pod.postgres = True
    pod.keeper.look(200.0)
    pod.keeper.look(201.0)
    assert pod.looked == SILENT_LOOKS + 6
