"""One operator process outside a cluster, and what Linux and Prometheus tell about it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from apiserver import end_with_parent

STOP_SECONDS = 30
_SAMPLE = re.compile(r"^(?P<name>\w+)(?:\{(?P<labels>.*)\})? (?P<value>\S+)$")
_LABEL = re.compile(r'(\w+)="([^"]*)"')


@dataclass(frozen=True, slots=True)
class Memory:
    """Resident set in MiB: now, and the most so far."""

    now: float
    peak: float


class OperatorProcess:
    """`python -m runnerhub_operator run` from a source folder, with its log in a file."""

    def __init__(
        self, source: Path, kubeconfig: Path, log: Path, environment: Mapping[str, str], metrics_port: int
    ) -> None:
        self.log = log
        self._metrics_port = metrics_port
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "runnerhub_operator", "run"],
                env={
                    **os.environ,
                    **environment,
                    "PYTHONPATH": str(source),
                    "KUBECONFIG": str(kubeconfig),
                    "RUNNERHUB_METRICS_PORT": str(metrics_port),
                },
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                preexec_fn=end_with_parent,  # noqa: PLW1509 - one prctl call, before any thread matters
            )

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self._process.poll() is None

    def stop(self, number: int = signal.SIGTERM) -> int:
        """End it; its exit code. One that does not end in time is killed."""
        if self.running:
            self._process.send_signal(number)
        try:
            return self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()

    def metrics(self) -> list[tuple[str, dict[str, str], float]]:
        """What it tells Prometheus: name, labels, value; nothing while it does not listen yet."""
        try:
            with urllib.request.urlopen(
                f"http://127.0.0.1:{self._metrics_port}/metrics", timeout=20
            ) as answer:
                return list(parse_metrics(answer.read().decode()))
        except OSError:
            return []

    def leads(self) -> bool:
        """Whether it is the active one."""
        return ("runnerhub_operator_leader", {}, 1.0) in self.metrics()

    def memory(self) -> Memory:
        """Source: proc(5), /proc/pid/status."""
        fields = dict(
            line.split(":", 1)
            for line in Path(f"/proc/{self.pid}/status").read_text().splitlines()
            if ":" in line
        )
        now, peak = (int(fields[name].split()[0]) / 1024 for name in ("VmRSS", "VmHWM"))
        return Memory(now, peak)

    def cpu_seconds(self) -> float:
        """User and system time so far. Source: proc(5), /proc/pid/stat, fields 14 and 15."""
        after_name = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(after_name[11]) + int(after_name[12])) / os.sysconf("SC_CLK_TCK")


def parse_metrics(text: str) -> Iterator[tuple[str, dict[str, str], float]]:
    """Samples of Prometheus' text format."""
    for line in text.splitlines():
        sample = _SAMPLE.match(line)
        if sample is not None:
            yield sample["name"], dict(_LABEL.findall(sample["labels"] or "")), float(sample["value"])
