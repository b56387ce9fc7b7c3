"""The passwords that may let in now, from a file that changes."""

import os

import pytest

from runnerhub_passwords import CHANGE_SECONDS, PasswordFile


def test_without_a_file_there_is_none(tmp_path):
    assert PasswordFile(None).candidates() == ()
    assert PasswordFile(tmp_path / "missing").candidates() == ()


class Secret:
    """A mounted password, and a program that looks at it when it likes."""

    def __init__(self, folder):
        self.file, self.now = folder / "app-password", 0.0
        self.passwords = PasswordFile(self.file, lambda: self.now)

    def write(self, value):
        self.file.write_text(value)
        os.utime(self.file, (self.now, self.now))

    def candidates_at(self, now):
        self.now = now
        return self.passwords.candidates()


@pytest.fixture
def secret(tmp_path):
    return Secret(tmp_path)


def test_the_former_password_counts_for_a_while_after_a_change(secret):
    secret.write("one\n")
    assert secret.candidates_at(1000) == ("one",)
    secret.write("two")
    assert secret.candidates_at(1000) == ("two", "one")
    assert secret.candidates_at(1000 + CHANGE_SECONDS - 1) == ("two", "one")
    assert secret.candidates_at(1000 + CHANGE_SECONDS) == ("two",)
    secret.now = 1990
    secret.write("three")
    assert secret.candidates_at(2000) == ("three", "two")


def test_a_program_that_did_not_look_for_days_knows_that_the_former_one_is_over(secret):
    secret.write("one")
    assert secret.candidates_at(1000) == ("one",)
    secret.write("two")
    assert secret.candidates_at(1000 + 86400) == ("two",)


def test_of_two_changes_in_quick_succession_all_three_count(secret):
    secret.write("one")
    assert secret.candidates_at(1000) == ("one",)
    secret.write("two")
    assert secret.candidates_at(1010) == ("two", "one")
    secret.write("three")
    assert secret.candidates_at(1020) == ("three", "two", "one")
    assert secret.candidates_at(1000 + CHANGE_SECONDS) == ("three", "two")
    secret.write("two")
    assert secret.candidates_at(1000 + CHANGE_SECONDS) == ("two", "three")


def test_a_file_from_the_future_is_one_of_now(secret):
    secret.write("one")
    assert secret.candidates_at(1000) == ("one",)
    secret.now = 5000
    secret.write("two")
    assert secret.candidates_at(1000) == ("two", "one")
    assert secret.candidates_at(1000 + CHANGE_SECONDS) == ("two",)


@pytest.mark.parametrize("value", [b"", b"\n", b"two\nlines", b"\xff\xfe"])
def test_what_cannot_be_a_password_is_not_used(tmp_path, value):
    file = tmp_path / "app-password"
    file.write_text("one")
    passwords = PasswordFile(file)
    assert passwords.candidates() == ("one",)
    file.write_bytes(value)
    assert passwords.candidates() == ("one",)
    file.unlink()
    assert passwords.candidates() == ("one",)
