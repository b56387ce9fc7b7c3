"""The first process of a member: what it starts anew, and what it lets end the container.

Patroni is played by a small program that says what it is told; the server is a process that is called postgres.
"""

from __future__ import annotations

import errno
import fcntl
import runpy
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from kindbed.paths import REPOSITORY
from tests.share import free_port

SUPERVISOR = REPOSITORY / "images" / "postgres" / "bin" / "patroni-supervisor"
# Arguments: supervisor, data directory, port, seconds that Patroni must have run, seconds to answer, Patroni's program.
_RUN = """
import pathlib, runpy, sys
supervisor = runpy.run_path(sys.argv[1])
sys.exit(supervisor["Supervisor"](
    [sys.executable, "-c", sys.argv[6], sys.argv[2], sys.argv[3]],
    pathlib.Path(sys.argv[2]), pathlib.Path(sys.argv[2], "lock-renewed"),
    int(sys.argv[3]), float(sys.argv[4]), float(sys.argv[5]),
).run())
"""
# Each start is a line in `starts`; who was asked and has answered leaves a file. Answers as the REST API does, unless a
# file `mute` is there.
_PATRONI = """
import http.server, os, pathlib, sys, threading, time
folder = pathlib.Path(sys.argv[1])
with (folder / "starts").open("a") as starts:
    starts.write(f"{os.getpid()}\\n")
class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(503)
        self.end_headers()
        (folder / f"answered-{os.getpid()}").touch()
    def log_message(self, *_):
        pass
if not (folder / "mute").exists():
    server = http.server.HTTPServer(("127.0.0.1", int(sys.argv[2])), Answer)
    threading.Thread(target=server.serve_forever, daemon=True).start()
if (folder / "ends").exists():
    sys.exit(5)
time.sleep(60)
"""


class Member:
    """A supervisor with its Patroni, and a server beside it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.server: subprocess.Popen[bytes] | None = None
        self.supervisor: subprocess.Popen[str] | None = None
        self.port = 0

    def start_server(self) -> None:
        """A process that is called postgres."""
        program = self.folder / "postgres"
        shutil.copy(shutil.which("sleep") or "sleep", program)
        self.server = subprocess.Popen([program, "60"])
        (self.folder / "postmaster.pid").write_text(f"{self.server.pid}\n{self.folder}\n")

    def start(self, healthy_seconds: float = 0.0, answer_seconds: float = 10.0) -> None:
        """Start the supervisor, and wait until its Patroni was started."""
        self.start_alone(healthy_seconds, answer_seconds)
        self.wait_for_starts(1)

    def start_alone(self, healthy_seconds: float = 0.0, answer_seconds: float = 10.0) -> None:
        """Start the supervisor."""
        self.port = free_port()
        settings = [str(self.port), str(healthy_seconds), str(answer_seconds)]
        self.supervisor = subprocess.Popen(
            [sys.executable, "-c", _RUN, str(SUPERVISOR), str(self.folder), *settings, _PATRONI],
            stdout=subprocess.PIPE,
            text=True,
        )

    def starts(self) -> list[int]:
        """Ids of the processes that were started as Patroni."""
        file = self.folder / "starts"
        return [int(line) for line in file.read_text().split()] if file.exists() else []

    def wait_for_starts(self, count: int) -> int:
        """Wait until Patroni was started so many times; the id of the last."""
        deadline = time.monotonic() + 30
        while len(self.starts()) < count:
            assert time.monotonic() < deadline, f"{len(self.starts())} starts instead of {count}"
            time.sleep(0.02)
        return self.starts()[count - 1]

    def wait_for_answer(self) -> None:
        """Wait until the last Patroni has answered the supervisor."""
        answered = self.folder / f"answered-{self.starts()[-1]}"
        deadline = time.monotonic() + 30
        while not answered.exists():
            assert time.monotonic() < deadline, "no answer"
            time.sleep(0.02)

    def kill_patroni(self, number: signal.Signals = signal.SIGKILL) -> None:
        """Send a signal to the last one."""
        subprocess.run(["kill", f"-{number.value}", str(self.starts()[-1])], check=True)

    def end(self, seconds: float = 30) -> tuple[int, str]:
        """Exit code and output of the supervisor, which must end by itself."""
        assert self.supervisor is not None
        output, _ = self.supervisor.communicate(timeout=seconds)
        return self.supervisor.returncode, output

    def clean_up(self) -> None:
        """End what is left."""
        for process in (self.supervisor, self.server):
            if process is not None:
                process.kill()
                process.wait()
        for pid in self.starts():
            subprocess.run(["kill", "-9", str(pid)], check=False, capture_output=True)


@pytest.fixture
def member(tmp_path):
    folder = tmp_path / "pgdata"
    folder.mkdir()
    member = Member(folder)
    yield member
    member.clean_up()


def test_a_killed_patroni_is_started_anew_beside_the_server_as_often_as_it_was_healthy(member):
    member.start_server()
    member.start()
    for count in (2, 3):
        member.kill_patroni()
        member.wait_for_starts(count)
        member.wait_for_answer()
        time.sleep(0.5)
    assert member.supervisor.poll() is None
    assert member.server.poll() is None


def test_without_a_server_the_container_ends_with_patroni(member):
    member.start()
    member.kill_patroni()
    assert member.end()[0] == 128 + signal.SIGKILL
    assert len(member.starts()) == 1


def test_the_process_id_of_a_server_that_is_gone_counts_for_nothing(member):
    member.start_server()
    member.server.kill()
    member.server.wait()
    member.start()
    member.kill_patroni()
    assert member.end()[0] == 128 + signal.SIGKILL


def test_another_program_with_the_servers_former_process_id_is_no_server(member):
    member.start()
    (member.folder / "postmaster.pid").write_text(f"{member.supervisor.pid}\n")
    member.kill_patroni()
    assert member.end()[0] == 128 + signal.SIGKILL


def test_one_that_dies_soon_after_its_start_is_left_to_kubernetes(member):
    member.start_server()
    member.start(healthy_seconds=60)
    member.kill_patroni()
    code, output = member.end()
    assert code == 128 + signal.SIGKILL
    assert "soon after its start" in output


def test_a_primary_is_not_left_alone_with_a_patroni_that_does_not_answer(member):
    member.start_server()
    member.start(answer_seconds=1)
    (member.folder / "mute").touch()
    member.kill_patroni()
    began = time.monotonic()
    code, output = member.end()
    assert code == 128 + signal.SIGKILL
    assert "no answer within 1.0 s" in output
    assert 0.9 < time.monotonic() - began < 8


def test_a_patroni_that_starts_slowly_has_until_shortly_before_the_lock_ends(member):
    member.start_server()
    member.start(answer_seconds=1)
    (member.folder / "mute").touch()
    (member.folder / "lock-renewed").write_text(f"{time.monotonic() - 12:.3f}")
    member.kill_patroni()
    code, output = member.end()
    assert code == 128 + signal.SIGKILL
    # Six seconds less what has passed since the time was written.
    given = float(output.partition("no answer within ")[2].partition(" s")[0])
    assert 1 < given <= 6


@pytest.mark.parametrize("renewed", ["", "often", "-100"])
def test_a_lock_that_nobody_knows_of_gives_no_more_time(member, renewed):
    member.start_server()
    member.start(answer_seconds=1)
    (member.folder / "mute").touch()
    (member.folder / "lock-renewed").write_text(renewed)
    member.kill_patroni()
    _, output = member.end()
    assert "no answer within 1.0 s" in output


def test_patroni_writes_its_renewals_where_the_supervisor_reads_them():
    name = runpy.run_path(str(SUPERVISOR))["RENEWED"]
    assert f'tell_supervisor(configuration / "{name}")' in SUPERVISOR.with_name("patroni-daemon").read_text()


def test_what_an_earlier_container_left_of_its_lock_is_forgotten(member):
    (member.folder / "lock-renewed").write_text("5")
    member.start()
    assert not (member.folder / "lock-renewed").exists()


def test_nor_with_one_that_ends_at_once(member):
    member.start_server()
    member.start(answer_seconds=60)
    (member.folder / "ends").touch()
    (member.folder / "mute").touch()
    member.kill_patroni()
    code, _ = member.end()
    assert code != 0


def test_told_to_stop_it_tells_patroni_and_starts_nothing(member):
    member.start_server()
    member.start()
    member.supervisor.terminate()
    assert member.end()[0] == 128 + signal.SIGTERM
    assert len(member.starts()) == 1


def test_told_to_stop_while_patroni_starts_anew_it_ends_as_well(member):
    member.start_server()
    member.start(answer_seconds=60)
    (member.folder / "mute").touch()
    member.kill_patroni()
    member.wait_for_starts(2)
    member.supervisor.terminate()
    assert member.end()[0] == 128 + signal.SIGTERM


# --- A pod that starts while the containers of the one before still run on the same volume ---


@pytest.fixture
def later(member):
    """The same member in a later pod."""
    later = Member(member.folder)
    yield later
    later.clean_up()


def wait_for_line(member: Member, text: str) -> None:
    """Wait for a line of the supervisor's output."""
    assert member.supervisor is not None
    assert member.supervisor.stdout is not None
    assert text in member.supervisor.stdout.readline()


def test_no_server_starts_on_a_volume_that_another_one_uses(member, later):
    member.start()
    later.start_alone()
    wait_for_line(later, "still use the volume")
    time.sleep(0.5)
    assert len(member.starts()) == 1
    member.supervisor.kill()
    wait_for_line(later, "the volume is free")
    later.wait_for_starts(2)


def test_one_that_waits_for_the_volume_ends_when_told_to(member, later):
    member.start()
    later.start_alone()
    wait_for_line(later, "still use the volume")
    later.supervisor.terminate()
    assert later.end()[0] == 128 + signal.SIGTERM
    assert len(member.starts()) == 1


def test_the_volume_stays_in_use_while_patroni_is_started_anew(member, later):
    member.start_server()
    member.start()
    later.start_alone()
    wait_for_line(later, "still use the volume")
    member.kill_patroni()
    member.wait_for_starts(2)
    member.wait_for_answer()
    assert later.supervisor.poll() is None
    assert len(member.starts()) == 2


def test_a_file_system_without_locks_holds_nothing_up(tmp_path, monkeypatch, capsys):
    supervisor = runpy.run_path(str(SUPERVISOR))["Supervisor"]([], tmp_path / "pgdata", tmp_path / "none")

    def refuse(*_: int) -> None:
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", refuse)
    supervisor._wait_for_volume()
    assert "has no locks, going on without" in capsys.readouterr().out
