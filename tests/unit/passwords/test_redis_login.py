"""What clients of Redis give while a password changes."""

from __future__ import annotations

from runnerhub_passwords.redis_login import redis_login


def test_a_server_without_passwords_is_given_none():
    assert redis_login("app", None, None) is None


def test_the_password_before_is_given_until_every_server_has_the_new_one(tmp_path):
    file = tmp_path / "password"
    file.write_text("one\n")
    login = redis_login("app", None, file)
    assert login.get_credentials() == ("app", "one")
    file.write_text("two")
    assert login.get_credentials() == ("app", "one")
    # Another process, which starts now, knows the new one only.
    assert redis_login("app", None, file).get_credentials() == ("app", "two")


async def test_without_a_file_the_fixed_one_counts_and_without_a_name_there_is_none(tmp_path):
    assert redis_login(None, "fixed", tmp_path / "missing").get_credentials() == ("fixed",)
    assert await redis_login("app", "fixed", None).get_credentials_async() == ("app", "fixed")
