"""Passwords of the queue: what lets in, and what a pod gives to others, after a change."""

from __future__ import annotations

import errno

import pytest

from images.redis.runnerhub_redis import access
from images.redis.runnerhub_redis.access import Credentials, Login
from runnerhub_passwords import CHANGE_SECONDS
from tests.unit.redis.test_redis_pod_configuration import write_passwords

KEY = access.KEYS[access.OPERATOR]
OLD = f"the-{KEY}"


class Pod:
    """One pod with its copy of the Secret; `restart` loses all but the volume."""

    def __init__(self, folder):
        self.now = 0.0
        self.accept_seconds = access.ACCEPT_SECONDS
        self.folder, self.memory = write_passwords(folder / "secret"), folder / "volume" / "passwords.json"
        self.restart()

    def restart(self):
        self.credentials = Credentials(self.folder, self.memory, lambda: self.now)

    def change(self, value):
        (self.folder / KEY).write_text(value)
        self.credentials.refresh()

    def pass_(self, seconds):
        self.now += seconds
        self.credentials.refresh(self.accept_seconds)


@pytest.fixture
def pod(tmp_path):
    return Pod(tmp_path)


def test_a_new_password_lets_in_at_once_and_is_used_when_all_let_in_by_it(pod):
    assert pod.credentials.agreed
    assert pod.credentials.login(access.OPERATOR) == Login("operator", (OLD,))
    pod.change("new")
    assert not pod.credentials.agreed
    assert pod.credentials.accepted(KEY) == ("new", OLD)
    assert pod.credentials.login(access.OPERATOR) == Login("operator", (OLD, "new"))
    # However long that takes, as on a node that Kubernetes does not reach.
    pod.pass_(10_000)
    assert pod.credentials.used(KEY) == OLD
    pod.credentials.agree()
    assert pod.credentials.login(access.OPERATOR) == Login("operator", ("new", OLD))
    pod.pass_(access.ACCEPT_SECONDS - 1)
    assert pod.credentials.accepted(KEY) == ("new", OLD)
    pod.pass_(1)
    assert pod.credentials.accepted(KEY) == ("new",)


def test_a_restart_in_the_middle_forgets_nothing(pod):
    pod.change("new")
    pod.restart()
    assert not pod.credentials.agreed
    assert pod.credentials.accepted(KEY) == ("new", OLD)
    assert pod.credentials.used(KEY) == OLD
    pod.credentials.agree()
    pod.restart()
    assert pod.credentials.used(KEY) == "new"
    assert pod.credentials.accepted(KEY) == ("new", OLD)


def test_a_change_during_a_restart_is_one_too(pod):
    (pod.folder / KEY).write_text("new")
    pod.restart()
    assert not pod.credentials.agreed
    assert pod.credentials.accepted(KEY) == ("new", OLD)


def test_two_changes_in_quick_succession_let_in_by_all_three(pod):
    pod.change("second")
    pod.change("third")
    assert pod.credentials.accepted(KEY) == ("third", "second", OLD)
    assert pod.credentials.used(KEY) == OLD


def test_on_a_full_volume_a_former_password_is_dropped_all_the_same(pod, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    pod.change("new")
    pod.credentials.agree()
    monkeypatch.setattr(access, "write_private", full)
    pod.pass_(access.PATIENT_SECONDS)
    assert pod.credentials.accepted(KEY) == ("new",)
    pod.restart()
    assert pod.credentials.accepted(KEY) == ("new",)
    with pytest.raises(OSError, match="No space"):
        pod.change("newer")


def test_a_change_during_a_restart_on_a_full_volume_keeps_no_pod_from_starting(pod, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(access, "write_private", full)
    (pod.folder / KEY).write_text("new")
    pod.restart()
    assert pod.credentials.accepted(KEY) == ("new", OLD)
    assert pod.credentials.used(KEY) == OLD


def test_a_change_that_is_taken_back_goes_back(pod):
    pod.change("mistake")
    pod.change(OLD)
    assert pod.credentials.accepted(KEY) == (OLD, "mistake")
    pod.credentials.agree()
    pod.pass_(access.ACCEPT_SECONDS)
    assert pod.credentials.accepted(KEY) == (OLD,)


def test_clients_whose_copy_is_renewed_last_are_let_in_to_the_end():
    """Kubernetes renews a mounted Secret within a minute and a half; nobody is told of it sooner here."""
    latest_copy = 90.0
    assert latest_copy + CHANGE_SECONDS < access.ACCEPT_SECONDS


def test_a_secret_without_a_password_starts_no_server(tmp_path):
    folder = write_passwords(tmp_path / "secret")
    (folder / "operator-password").unlink()
    with pytest.raises(OSError, match="operator-password"):
        Credentials(folder, tmp_path / "memory.json")


def test_a_value_that_cannot_be_used_changes_nothing(pod):
    pod.change("")
    assert pod.credentials.accepted(KEY) == (OLD,)
    assert pod.credentials.agreed


def test_a_memory_that_cannot_be_read_is_none(pod):
    pod.memory.write_text("{")
    pod.restart()
    assert pod.credentials.accepted(KEY) == (OLD,)


def test_what_is_remembered_only_its_owner_reads(pod):
    assert pod.memory.stat().st_mode & 0o777 == 0o600
