"""Talking to the person at the terminal, and running commands so that failures can be read."""

import contextlib
import fcntl
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from kindbed.paths import LOG_DIR, cache_dir

LOG_TAIL_LINES = 40

Word = str | Path


class TestBedError(Exception):
    """The test bed cannot go on; the message is one sentence a person can act on."""

    __test__ = False  # keeps pytest from collecting it by its name


def say(text: str) -> None:
    """One line of progress on standard output."""
    print(text, flush=True)


@contextlib.contextmanager
def step(what: str) -> Iterator[None]:
    """Announce a long step and say how long it took, also when it fails."""
    say(f"==> {what} ...")
    started = time.monotonic()
    try:
        yield
    except BaseException:
        say(f"==> {what}: failed after {time.monotonic() - started:.1f} s")
        raise
    say(f"==> {what}: done in {time.monotonic() - started:.1f} s")


def run_logged(
    command: Sequence[Word],
    log_name: str,
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    stdin: Path | None = None,
) -> None:
    """Run a command with its output in build/logs/<log_name>.log; show the end of the log when it fails."""
    LOG_DIR.mkdir(parents=True, exist_ok=True)
    log_path = LOG_DIR / f"{log_name}.log"
    words = [str(word) for word in command]
    with contextlib.ExitStack() as stack:
        log = stack.enter_context(log_path.open("ab"))
        log.write(f"\n$ {' '.join(words)}\n".encode())
        log.flush()
        source = stack.enter_context(stdin.open("rb")) if stdin else subprocess.DEVNULL
        done = subprocess.run(
            words, stdin=source, stdout=log, stderr=log, env=_environment(env), cwd=cwd, check=False
        )
    if done.returncode != 0:
        tail = log_path.read_text(errors="replace").splitlines()[-LOG_TAIL_LINES:]
        print("\n".join(tail), file=sys.stderr, flush=True)
        raise TestBedError(f"{words[0]} ended with status {done.returncode}; the full log is {log_path}")


def output_of(
    command: Sequence[Word], *, env: Mapping[str, str] | None = None, timeout_seconds: float = 60
) -> str:
    """Standard output of a short command; raises TestBedError with its error text when it fails."""
    words = [str(word) for word in command]
    try:
        done = subprocess.run(
            words,
            capture_output=True,
            text=True,
            env=_environment(env),
            timeout=timeout_seconds,
            check=False,
        )
    except FileNotFoundError as missing:
        raise TestBedError(f"{words[0]} is not installed") from missing
    except subprocess.TimeoutExpired as late:
        raise TestBedError(f"{' '.join(words)} gave no answer within {timeout_seconds:.0f} s") from late
    if done.returncode != 0:
        raise TestBedError(f"{' '.join(words)} failed: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


def succeeds(
    command: Sequence[Word], *, env: Mapping[str, str] | None = None, timeout_seconds: float = 30
) -> bool:
    """Whether a short command exists and ends with status 0."""
    try:
        output_of(command, env=env, timeout_seconds=timeout_seconds)
    except TestBedError:
        return False
    return True


def _environment(extra: Mapping[str, str] | None) -> dict[str, str]:
    return {**os.environ, **(extra or {})}


@contextlib.contextmanager
def exclusive(name: str) -> Iterator[None]:
    """Let one process at a time do a kind of work; others wait. The kernel frees the lock of a killed one."""
    lock_dir = cache_dir() / "locks"
    lock_dir.mkdir(exist_ok=True)
    with (lock_dir / name).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"    waiting for another run that is busy with: {name}")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
