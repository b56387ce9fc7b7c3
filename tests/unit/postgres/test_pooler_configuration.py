"""Settings of PgBouncer wait for room in Postgres, and for a pause to end."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from images.pooler.runnerhub_pooler.configuration import IN_EFFECT, Configuration
from runnerhub_operator.resources.pooler import pooler_configuration
from tests.generate import context

REPOSITORY = Path(__file__).parents[3]
PORT = 5432


class Pod:
    """The files of one PgBouncer, and what its agent does."""

    def __init__(self, folder: Path) -> None:
        self.mounted, self.copy = folder / "pgbouncer-rw.ini", folder / IN_EFFECT
        users = folder / "userlist.txt"
        users.write_text("")
        self.copy.write_text("before")
        self.room = 100
        self.reloads = 0
        self.busy: list[bool] = []
        self.configuration = Configuration(
            {PORT: (self.mounted, users)}, lambda: self.room, self.reload, lambda: self.busy.pop(0)
        )

    def reload(self, _port: int) -> None:
        self.reloads += 1

    def look(self, *busy: bool) -> tuple[bool, int]:
        """One look, given whether clients are held back each time it is asked; what PgBouncer has, and how often."""
        self.busy = [*busy, False, False, False]
        self.configuration.look(PORT)
        return self.copy.read_text() == self.mounted.read_text(), self.reloads


@pytest.fixture
def pod(tmp_path: Path) -> Pod:
    """One whose mounted file tells of larger pools."""
    found = Pod(tmp_path)
    found.mounted.write_text("; Postgres needs max_connections = 200\n")
    return found


def test_only_a_file_that_postgres_has_room_for_replaces_what_pgbouncer_goes_by(pod: Pod) -> None:
    assert pod.look() == (False, 0)
    assert pod.configuration.needs() is None
    pod.room = 200
    assert pod.look() == (True, 1)
    assert pod.look() == (True, 1)
    assert pod.configuration.needs() == 200


def test_a_pause_that_begins_while_postgres_is_asked_is_left_alone(pod: Pod) -> None:
    pod.room = 200
    assert pod.look(False, True) == (False, 0)


def test_after_a_pause_that_began_meanwhile_the_file_is_read_once_more(pod: Pod) -> None:
    pod.room = 200
    assert pod.look(False, False, True) == (True, 1)
    assert pod.look() == (True, 2)
    assert pod.look() == (True, 2)


@pytest.fixture
def start(tmp_path: Path) -> Callable[[str], str]:
    """What a pod's PgBouncer starts by, given the mounted file."""
    run, tools, mounted = tmp_path / "run", tmp_path / "tools", tmp_path / "pgbouncer-rw.ini"
    run.mkdir()
    tools.mkdir()
    (run / "userlist.txt").write_text("")
    (tools / "pgbouncer").write_text('#!/bin/sh\ncat "$1"\n')
    (tools / "pgbouncer").chmod(0o755)

    def started(text: str) -> str:
        mounted.write_text(text)
        done = subprocess.run(
            [
                shutil.which("sh") or "sh",
                REPOSITORY / "images/pooler/bin/pooler-entrypoint",
                "pgbouncer",
                mounted,
            ],
            env={
                "PATH": f"{tools}:/usr/bin:/bin",
                "CREDENTIALS_DIR": str(tmp_path),
                "AUTH_FILE": str(run / "userlist.txt"),
            },
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout

    return started


def test_pgbouncer_starts_by_the_settings_in_effect_and_by_the_mounted_ones_without_any(
    start: Callable[[str], str],
) -> None:
    assert start("first\n") == "first\n"
    assert start("larger pools\n") == "first\n"


def test_the_first_pools_are_small_and_all_else_is_as_mounted(start: Callable[[str], str]) -> None:
    mounted = pooler_configuration(context("hub", {}))["pgbouncer-ro.ini"]
    lines = {
        "default_pool_size = 20": "default_pool_size = 5",
        "max_db_connections = 25": "max_db_connections = 8",
    }
    assert set(lines) <= set(mounted.splitlines())
    assert start(mounted).splitlines() == [lines.get(line, line) for line in mounted.splitlines()]


def test_first_pools_that_are_smaller_stay_so(start: Callable[[str], str]) -> None:
    mounted = pooler_configuration(context("hub", {"postgres": {"pooler": {"poolSize": 3}}}))[
        "pgbouncer-rw.ini"
    ]
    started = start(mounted).splitlines()
    assert "default_pool_size = 3" in started
    assert "max_db_connections = 8" in started


def test_pools_that_no_agent_would_make_larger_are_as_mounted(start: Callable[[str], str]) -> None:
    """A pod that was made by an earlier operator does not tell the agent of its files, nor these of the room."""
    assert start("default_pool_size = 20\n") == "default_pool_size = 20\n"
