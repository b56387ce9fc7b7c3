"""The password of the moment, from a file that changes."""

from __future__ import annotations

from runnerhub_client.targets import CHANGE_SECONDS, Passwords


def test_without_a_file_the_address_counts():
    assert Passwords(None).now() == (None,)


def test_the_former_password_is_tried_for_a_while_after_a_change(tmp_path):
    file, clock = tmp_path / "app-password", [0.0]
    file.write_text("one\n")
    passwords = Passwords(file, lambda: clock[0])
    assert passwords.now() == ("one",)
    clock[0] = 1000.0
    file.write_text("two")
    assert passwords.now() == ("two", "one")
    clock[0] += CHANGE_SECONDS - 1
    assert passwords.now() == ("two", "one")
    clock[0] += 2
    assert passwords.now() == ("two",)
    file.write_text("three")
    assert passwords.now() == ("three", "two")
