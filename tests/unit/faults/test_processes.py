import subprocess
from pathlib import Path

import pytest

from e2e.faults import processes
from e2e.faults.processes import Process
from kindbed.console import TestBedError

TINI, PATRONI, POSTMASTER = Process(10, 5, "tini"), Process(11, 10, "patroni"), Process(20, 10, "postgres")
CONTAINER = [TINI, PATRONI, POSTMASTER, Process(21, 20, "postgres"), Process(22, 20, "postgres")]


def test_processes_are_read_from_their_status_files():
    listing = "\n".join(
        f"/proc/{process.pid}/status:{key}:\t{value}"
        for process in CONTAINER
        for key, value in (("Name", process.name), ("PPid", process.parent))
    )
    assert processes.parse(listing) == CONTAINER


def test_a_process_that_ended_while_it_was_read_is_left_out():
    assert processes.parse("/proc/7/status:Name:\tpostgres\ngrep: nonsense") == []


def test_the_postmaster_is_the_one_that_no_other_server_process_started():
    assert processes.postmaster(CONTAINER) == POSTMASTER
    with pytest.raises(TestBedError, match="0 postmasters"):
        processes.postmaster([TINI, PATRONI])


def test_patroni_is_found_by_name_and_not_among_its_own_children():
    assert processes.named([*CONTAINER, Process(30, 11, "patroni")], "patroni") == PATRONI


def test_the_scripts_find_and_signal_real_processes():
    """The shell that runs on nodes, tried on this machine: a control group's path holds what is looked for."""
    own = Path("/proc/self/cgroup").read_text().splitlines()[0].rpartition(":")[2]
    with subprocess.Popen(["sleep", "60"]) as sleeper:
        listing = subprocess.run(
            ["sh", "-c", processes._LIST, "sh", own], capture_output=True, text=True, check=True
        ).stdout
        found = {process.pid: process.name for process in processes.parse(listing)}
        assert found[sleeper.pid] == "sleep"
        gone = Process(2**22 - 1, 1, "gone")
        for script in (processes._SIGNAL_LEFT, processes._SIGNAL):
            done = subprocess.run(
                ["sh", "-c", script, "sh", "CONT", str(gone.pid), str(sleeper.pid)], check=False
            )
            assert (done.returncode == 0) == (script == processes._SIGNAL_LEFT)
        subprocess.run(["sh", "-c", processes._SIGNAL, "sh", "KILL", str(sleeper.pid)], check=True)
        assert sleeper.wait(5) == -9
