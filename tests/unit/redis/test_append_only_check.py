"""What the check of the append-only files' beginning tells, by how Redis' own program ended."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from images.redis.runnerhub_redis import aof


@pytest.mark.parametrize(("code", "loads"), [(0, True), (1, False), (-9, True)])
def test_a_check_that_was_killed_says_nothing_of_the_file(
    monkeypatch: pytest.MonkeyPatch, code: int, loads: bool
) -> None:
    def end(*_: object, **__: object) -> subprocess.CompletedProcess[bytes]:
        return subprocess.CompletedProcess([], code, stdout=b"")

    monkeypatch.setattr(subprocess, "run", end)
    assert aof._loads(Path("appendonly.aof.1.base.rdb")) is loads
