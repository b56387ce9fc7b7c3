"""Passwords of the queue: what lets in, and what a pod gives to others, after a change."""

from __future__ import annotations

import pytest

from images.redis.runnerhub_redis import access
from images.redis.runnerhub_redis.access import Credentials, Login
from runnerhub_passwords import CHANGE_SECONDS
from tests.unit.redis.test_redis_pod_configuration import write_passwords


def test_a_new_password_lets_in_at_once_and_is_used_when_all_have_had_time(tmp_path):
    folder, clock = write_passwords(tmp_path / "secret"), [0.0]
    credentials = Credentials(folder, lambda: clock[0])
    key = access.KEYS[access.OPERATOR]
    assert credentials.login(access.OPERATOR) == Login("operator", f"the-{key}")
    (folder / key).write_text("new")
    assert credentials.accepted(key) == ("new", f"the-{key}")
    assert credentials.used(key) == f"the-{key}"
    clock[0] += access.USE_SECONDS
    assert credentials.used(key) == "new"
    assert credentials.accepted(key) == ("new", f"the-{key}")
    clock[0] += access.ACCEPT_SECONDS - access.USE_SECONDS
    assert credentials.accepted(key) == ("new",)


def test_clients_whose_copy_is_renewed_last_are_let_in_to_the_end():
    """Kubernetes renews a mounted Secret within a minute and a half; nobody is told of it sooner here."""
    latest_copy = 90.0
    assert latest_copy + CHANGE_SECONDS < access.ACCEPT_SECONDS
    assert latest_copy < access.USE_SECONDS


def test_a_secret_without_a_password_starts_no_server(tmp_path):
    folder = write_passwords(tmp_path / "secret")
    (folder / "operator-password").unlink()
    with pytest.raises(OSError, match="operator-password"):
        Credentials(folder)


def test_a_value_that_cannot_be_used_changes_nothing(tmp_path):
    folder = write_passwords(tmp_path / "secret")
    credentials = Credentials(folder)
    (folder / "password").write_text("")
    assert credentials.accepted("password") == ("the-password",)
