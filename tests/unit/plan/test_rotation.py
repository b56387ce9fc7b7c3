"""Passwords that change: which pods are marked, what is made anew, and what people are told."""

from __future__ import annotations

import base64
from typing import Any

from runnerhub_operator import names
from runnerhub_operator.actions import GeneratePasswords
from runnerhub_operator.plan import credentials, rotation

from .builders import children, cluster, snapshot

NAME = "hub-postgres-credentials"


def seen(version: str, annotations: dict[str, str] | None = None, name: str = NAME, **values: str) -> Any:
    """A snapshot with a Secret in this state."""
    found = children()
    before = found["Secret", name]
    data = {key.replace("_", "-"): base64.b64encode(value.encode()).decode() for key, value in values.items()}
    found["Secret", name] = {
        **before,
        "metadata": {**before["metadata"], "resourceVersion": version, "annotations": annotations or {}},
        "data": {**before["data"], **data},
    }
    return snapshot(children=found)


def known() -> rotation.Known:
    return rotation.look(cluster(), seen("1"), rotation.Known()).known


def test_what_is_seen_first_is_no_change() -> None:
    found = rotation.look(cluster(), seen("1"), rotation.Known())
    assert found.marks == ()
    assert found.events == ()
    assert found.known.versions[0] == "1"


def test_a_change_marks_all_pods_that_follow_it_once() -> None:
    found = rotation.look(cluster(), seen("2", app_password="new"), known())
    (mark,) = found.marks
    assert mark.version == "postgres-2"
    for pod in ("hub-postgres-0", "hub-postgres-2"):
        assert pod in mark.pods
    assert not any("redis" in pod for pod in mark.pods)
    (event,) = found.events
    assert event.reason == "PasswordsChanged"
    assert "app-password" in event.message
    assert "monitoring-password" not in event.message
    assert rotation.look(cluster(), seen("2", app_password="new"), found.known).marks == ()


def test_a_new_password_of_the_queue_marks_its_pods_and_its_clients() -> None:
    def at(version: str, **values: str) -> Any:
        return seen(version, None, "hub-redis-credentials", **values)

    before = rotation.look(cluster(), at("1"), rotation.Known()).known
    found = rotation.look(cluster(), at("2", password="new"), before)
    (mark,) = found.marks
    assert mark.version == "redis-2"
    assert {"hub-redis-0", "hub-redis-2"} <= set(mark.pods)
    assert any("orchestrator" in pod for pod in mark.pods)
    assert not any("postgres" in pod for pod in mark.pods)
    assert [event.reason for event in found.events] == ["PasswordsChanged"]


def test_a_new_label_on_the_secret_is_no_change() -> None:
    found = rotation.look(cluster(), seen("2"), known())
    assert found.marks == ()
    assert found.known.versions[0] == "2"


def test_an_annotation_asks_for_new_passwords() -> None:
    asked = {names.ANNOTATION_ROTATE: "app-password, monitoring-password"}
    found = rotation.look(cluster(), seen("2", asked), known())
    assert found.generate == (GeneratePasswords(NAME, ("app-password", "monitoring-password")),)
    assert found.events == ()
    # The write may fail: what was asked is not taken for seen.
    assert found.known.versions == ()
    everything = rotation.look(cluster(), seen("2", {names.ANNOTATION_ROTATE: "all"}), known())
    assert set(everything.generate[0].keys) == {
        "superuser-password",
        "replication-password",
        "app-password",
        "restapi-password",
        "monitoring-password",
    }


def test_what_cannot_be_made_is_told_and_the_annotation_goes() -> None:
    found = rotation.look(cluster(), seen("2", {names.ANNOTATION_ROTATE: "app-pasword"}), known())
    assert found.generate == (GeneratePasswords(NAME, ()),)
    assert [event.reason for event in found.events] == ["RotationRefused"]
    assert "app-pasword" in found.events[0].message
    queue = seen("2", {names.ANNOTATION_ROTATE: "all"}, "hub-redis-credentials")
    (asked,) = rotation.look(cluster(), queue, known()).generate
    assert {"password", "sentinel-password", "operator-password"} < set(asked.keys)


def test_passwords_that_cannot_be_used_are_told() -> None:
    empty = rotation.look(cluster(), seen("2", monitoring_password=""), known())
    assert [event.reason for event in empty.events] == ["PasswordsChanged", "PasswordNotUsed"]
    awkward = rotation.look(cluster(), seen("3", app_password="a/b@c"), known())
    assert [event.reason for event in awkward.events] == ["PasswordsChanged", "PasswordUnsuitable"]
    assert "a/b@c" not in " ".join(event.message for event in awkward.events)


def test_only_images_of_others_restart_for_a_password_or_key() -> None:
    before, after = seen("1"), seen("2", app_password="new")
    ours = cluster()
    assert credentials.credentials_hash(ours, before) == credentials.credentials_hash(ours, after)
    theirs = cluster({"orchestrator": {"image": "registry.example/hub:1"}})
    assert credentials.credentials_hash(theirs, before) != credentials.credentials_hash(theirs, after)
    queue = seen("2", None, "hub-redis-credentials", password="new")
    assert credentials.credentials_hash(ours, before) == credentials.credentials_hash(ours, queue)
    assert credentials.credentials_hash(theirs, before) != credentials.credentials_hash(theirs, queue)
    key = seen("2", None, "hub-orchestrator-credentials", jwt_secret="n" * 32)
    assert credentials.credentials_hash(ours, before) == credentials.credentials_hash(ours, key)
    assert credentials.credentials_hash(theirs, before) != credentials.credentials_hash(theirs, key)
