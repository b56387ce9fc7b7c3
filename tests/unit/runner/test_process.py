"""What jobs can see of the runner, and the runner as the first process of a container."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

OPERATOR = Path(__file__).resolve().parents[3] / "operator"
# As in a container: root may look into every process, unless it has no capabilities.
CONTAINED = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"] if os.geteuid() == 0 else []


def run(text: str, *before: str) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(OPERATOR), "GITHUB_TOKEN": "very-secret"}
    return subprocess.run(
        [*before, sys.executable, "-c", text],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize(("hidden", "forked"), [(False, False), (True, False), (True, True)])
def test_a_job_cannot_read_the_token_in_the_runners_environment(hidden: bool, forked: bool) -> None:
    text = f"""
import os, subprocess
from runnerhub_runner.process import hide_from_jobs
if {hidden}: hide_from_jobs()
if {forked} and os.fork(): os.wait(); os._exit(0)
subprocess.run(["cat", f"/proc/{{os.getpid()}}/environ"], env={{"PATH": os.environ["PATH"]}})
"""
    found = run(text, *CONTAINED)
    assert ("very-secret" in found.stdout) is not hidden
    assert ("denied" in found.stderr or "not permitted" in found.stderr) is hidden


INIT = """
import os, signal, subprocess, sys, time
from runnerhub_runner.process import under_init
def main():
    assert os.getpid() != 1
    # A job that leaves a process behind, which ends later.
    subprocess.run(["sh", "-c", "sleep 0.2 &"])
    print(os.getppid(), flush=True)
    deadline = time.monotonic() + 60
    while len([name for name in os.listdir("/proc") if name.isdigit()]) > 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    print([name for name in os.listdir("/proc") if name.isdigit()], flush=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))
    os.kill(1, signal.SIGTERM)
    time.sleep(30)
    return 0
sys.exit(under_init(main))
"""


def test_as_the_first_process_it_takes_in_what_jobs_leave_and_hands_signals_on() -> None:
    apart = [
        "unshare",
        "--pid",
        "--fork",
        "--mount-proc",
        *([] if os.geteuid() == 0 else ["--map-root-user"]),
    ]
    if (
        shutil.which("unshare") is None
        or subprocess.run([*apart, "true"], capture_output=True, check=False).returncode
    ):
        pytest.skip("no process namespace can be made here")
    found = run(INIT, *apart)
    assert (found.stdout.split("\n")[:2], found.returncode) == (["1", "['1', '2']"], 7), found.stderr
