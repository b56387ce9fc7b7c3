"""A Sentinel that spins is started anew; one that works or rests is left alone."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from images.redis.runnerhub_redis.spin import Spin, processor_seconds
from kindbed.paths import REPOSITORY

# Spins at its first start and rests from then on.
_PROGRAM = """
import pathlib, sys, time
starts = pathlib.Path(sys.argv[1])
with starts.open("a") as file:
    file.write("x")
while starts.stat().st_size == 1:
    pass
time.sleep(60)
"""
_KEEPER = """
import sys
from images.redis.runnerhub_redis.spin import Keeper
sys.exit(Keeper([sys.executable, "-c", sys.argv[1], sys.argv[2]], looks=3, look_seconds=0.3, rest_seconds=0).run())
"""


def test_spinning_lasts_several_looks() -> None:
    spin = Spin(looks=3)
    assert not spin.look(100, 7)
    assert not spin.look(110, 12)
    assert not spin.look(120, 17)
    assert spin.look(130, 22)


def test_a_busy_moment_is_no_spinning() -> None:
    spin = Spin(looks=2)
    used = [0.0, 5.0, 5.1, 9.0, 9.2, 13.0]
    assert not any(spin.look(10.0 * number, seconds) for number, seconds in enumerate(used))


def test_the_share_of_a_crowded_machine_is_enough_and_rest_is_not() -> None:
    crowded, at_rest = Spin(looks=1), Spin(looks=1)
    assert [crowded.look(10.0 * i, 2.0 * i) for i in range(3)] == [False, True, True]
    assert not any(at_rest.look(10.0 * i, 0.1 * i) for i in range(9))


def test_processor_time_is_that_of_the_process() -> None:
    busy = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        started = time.monotonic()
        while processor_seconds(busy.pid) < 0.2:
            assert time.monotonic() - started < 60
            time.sleep(0.02)
    finally:
        busy.kill()
        busy.wait()
    with pytest.raises(OSError, match="No such file"):
        processor_seconds(busy.pid)


def test_what_spins_is_started_anew_and_what_rests_is_stopped_when_told(tmp_path: Path) -> None:
    starts = tmp_path / "starts"
    keeper = subprocess.Popen([sys.executable, "-c", _KEEPER, _PROGRAM, str(starts)], cwd=REPOSITORY)
    try:
        deadline = time.monotonic() + 120
        while not starts.exists() or starts.read_text() != "xx":
            assert time.monotonic() < deadline, "not started anew"
            assert keeper.poll() is None
            time.sleep(0.05)
        time.sleep(2)
        assert starts.read_text() == "xx"
        keeper.terminate()
        assert keeper.wait(10) != 0, "the exit code is that of the program, which a signal ended"
    finally:
        keeper.kill()
        keeper.wait()
