"""Runs Sentinel, and starts it anew when it spins.

A connection that was begun while its Service had no pod, as during any restart, can keep an error that Sentinel never
fetches. From then on it is woken again and again for nothing, and takes all the time that the processor has to give, on
each node (https://github.com/redis/redis/issues/9956). It does its work all the same, and a start takes a second and
forgets nothing, so there is no hurry.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from .log import log

LOOK_SECONDS = 10.0
# A Sentinel at rest takes less than a hundredth of a processor, a spinning one on a crowded machine still a fifth.
SPINNING_SHARE = 0.1
LOOKS = 3
# The Sentinels of a cluster may begin to spin at the same time; no two of them start anew together.
LOOKS_PER_ORDINAL = 2
REST_SECONDS = 300.0
STOP_SECONDS = 5.0


@dataclass(slots=True)
class Spin:
    """Tells from the processor time of a process whether it has been spinning through `looks` looks in a row."""

    looks: int
    _seen: int = 0
    _at: float | None = None
    _used: float = 0.0

    def look(self, now: float, used: float) -> bool:
        """`now`: seconds of any clock; `used`: seconds of processor time so far."""
        before, share = self._at, 0.0
        if before is not None and now > before:
            share = (used - self._used) / (now - before)
        self._at, self._used = now, used
        self._seen = self._seen + 1 if share > SPINNING_SHARE else 0
        return self._seen >= self.looks


def processor_seconds(pid: int) -> float:
    """User and system time of a process. Raises OSError when there is none."""
    # After the name, which may contain anything; see proc_pid_stat(5), fields 14 and 15.
    fields = (
        Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
    )
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Keeper:
    """Runs a command until it ends by itself or is told to stop; starts it anew while it spins."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        looks: int,
        look_seconds: float = LOOK_SECONDS,
        rest_seconds: float = REST_SECONDS,
        started_anew: Callable[[], None] = lambda: None,
    ) -> None:
        self._command = command
        self._looks = looks
        self._look_seconds = look_seconds
        self._rest_seconds = rest_seconds
        self._started_anew = started_anew
        self._process: subprocess.Popen[bytes] | None = None
        self._terminating = False

    def run(self) -> int:
        """The exit code of the command."""
        signal.signal(signal.SIGTERM, self._terminate)
        signal.signal(signal.SIGINT, self._terminate)
        while not self._terminating:
            self._process = subprocess.Popen(self._command)
            if self._terminating:  # told so before there was anything to tell
                self._process.terminate()
            code = self._watch(self._process)
            if code is not None:
                return code
        return 0

    def _watch(self, process: subprocess.Popen[bytes]) -> int | None:
        """The exit code when it ended, None when it was stopped because it spun."""
        spin, started = Spin(self._looks), time.monotonic()
        while True:
            try:
                return process.wait(self._look_seconds)
            except subprocess.TimeoutExpired:
                now = time.monotonic()
            rested = now - started >= self._rest_seconds
            if spin.look(now, processor_seconds(process.pid)) and rested and not self._terminating:
                log("it spins and is started anew", command=self._command[0], pid=process.pid)
                self._stop(process)
                self._started_anew()
                return None

    def _stop(self, process: subprocess.Popen[bytes]) -> None:
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _terminate(self, _signal: int, _frame: FrameType | None) -> None:
        self._terminating = True
        if self._process is not None:
            self._process.terminate()
