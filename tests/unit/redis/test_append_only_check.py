"""What the check of the append-only files' beginning tells, by how Redis' own program ended."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from images.redis.runnerhub_redis import aof

NEWER = b"[offset 9] RDB version 12\n--- RDB ERROR DETECTED ---\nCan't handle RDB format version 12\n"


@pytest.mark.parametrize(
    ("code", "said", "loads"), [(0, b"", True), (1, b"", False), (-9, b"", True), (1, NEWER, True)]
)
def test_a_check_that_was_killed_or_is_too_old_says_nothing_of_the_file(
    monkeypatch: pytest.MonkeyPatch, code: int, said: bytes, loads: bool
) -> None:
    def end(*_: object, **__: object) -> subprocess.CompletedProcess[bytes]:
        return subprocess.CompletedProcess([], code, stdout=said)

    monkeypatch.setattr(subprocess, "run", end)
    assert aof._loads(Path("appendonly.aof.1.base.rdb")) is loads
