"""The passwords that may let in now, from a file that changes."""

import pytest

from runnerhub_passwords import CHANGE_SECONDS, PasswordFile


def test_without_a_file_there_is_none(tmp_path):
    assert PasswordFile(None).candidates() == ()
    assert PasswordFile(tmp_path / "missing").candidates() == ()


def test_the_former_password_counts_for_a_while_after_a_change(tmp_path):
    file, clock = tmp_path / "app-password", [0.0]
    file.write_text("one\n")
    passwords = PasswordFile(file, lambda: clock[0])
    assert passwords.candidates() == ("one",)
    clock[0] = 1000.0
    file.write_text("two")
    assert passwords.candidates() == ("two", "one")
    clock[0] += CHANGE_SECONDS - 1
    assert passwords.candidates() == ("two", "one")
    clock[0] += 2
    assert passwords.candidates() == ("two",)
    file.write_text("three")
    assert passwords.candidates() == ("three", "two")


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
