"""Where the time of an operator process goes: by py-spy when it is installed, and by the operator's own phases."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Final

from e2e.stage import OperatorProcess

_RATE: Final = 100  # samples a second
_PACKAGE: Final = "runnerhub_operator"
_LINES: Final = 30
_PHASES: Final = "runnerhub_operator_phase_seconds_sum"


def _py_spy() -> str | None:
    """The sampler's path, None when it is not installed: it is no part of the environment."""
    return shutil.which("py-spy", path=str(Path(sys.executable).parent)) or shutil.which("py-spy")


def take(operator: OperatorProcess, seconds: int) -> str:
    """Both, over so many seconds."""
    before = _phases(operator)
    samples = _sampled(operator, seconds)
    return f"{samples}\n{_phase_table(before, _phases(operator), seconds)}"


def _phases(operator: OperatorProcess) -> dict[str, float]:
    """Seconds in each phase so far, as the operator counts them."""
    return {labels["phase"]: value for name, labels, value in operator.metrics() if name == _PHASES}


def _sampled(operator: OperatorProcess, seconds: int) -> str:
    """Sample the process; the share of its CPU time by our functions (with all that they call) and by any function.

    Raises CalledProcessError when the sampler may not look into the process.
    """
    sampler = _py_spy()
    if sampler is None:
        time.sleep(seconds)  # the phases are left to be measured
        return "py-spy is not installed: no samples\n"
    with tempfile.TemporaryDirectory() as folder:
        stacks = Path(folder, "stacks")
        command = [sampler, "record", "--pid", str(operator.pid), "--duration", str(seconds)]
        output = ["--rate", str(_RATE), "--format", "raw", "--nonblocking", "--output", str(stacks)]
        subprocess.run([*command, *output], check=True, capture_output=True)
        lines = stacks.read_text().splitlines()
    ours: Counter[str] = Counter()
    own: Counter[str] = Counter()
    total = 0
    for line in lines:
        stack, _, count = line.rpartition(" ")
        frames = [_function(frame) for frame in stack.split(";")]
        total += int(count)
        own[frames[-1]] += int(count)
        for frame in {frame for frame in frames if f"{_PACKAGE}/" in frame}:
            ours[frame] += int(count)
    # On a busy machine that is more than the time that it got.
    working = total / _RATE / seconds
    parts = [f"{total} samples in {seconds} s: it had work for {working:.0%} of the time\n"]
    for title, counts in (("with all that they call", ours), ("by themselves", own)):
        parts.append(f"\nfunctions {title}\n")
        parts += [f"  {count / total:6.1%}  {frame}\n" for frame, count in counts.most_common(_LINES)]
    return "".join(parts)


def _function(frame: str) -> str:
    """A frame without its line, and with the file's path from its package on."""
    text = frame.rsplit(":", 1)[0] + ")" if ":" in frame else frame
    return text.replace("(/", "(").replace("site-packages/", "")


def _phase_table(before: dict[str, float], after: dict[str, float], seconds: float) -> str:
    """Seconds of wall time in each phase per second, over all workers."""
    lines = [
        f"  {(after[phase] - before.get(phase, 0.0)) / seconds:8.3f}  {phase}\n"
        for phase in sorted(after, key=lambda phase: before.get(phase, 0.0) - after[phase])
    ]
    return "seconds in each phase per second, waiting included\n" + "".join(lines)
