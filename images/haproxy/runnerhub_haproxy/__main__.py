"""Start HAProxy, follow the files, stop it in peace."""

from __future__ import annotations

import signal
import sys
import threading
import time
from dataclasses import dataclass

from . import files
from .log import log
from .master import Master
from .settings import Settings, read_settings
from .state_server import State, serve

# Each reload that fails counts for the worker that serves, and mworker-max-reloads of them would end it.
MAX_FAILED_RELOADS = 3


@dataclass(slots=True)
class Tries:
    """What became of the latest files. `failed_reloads`: of those that passed the check."""

    seen: files.Files
    at: float
    failed_reloads: int = 0

    def is_due(self, found: files.Files, state: State, again_seconds: float) -> bool:
        """Whether files are to be tried: others, or, for want of memory it may have been, the same once more."""
        if found != self.seen:
            return True
        if state.refused is None or self.failed_reloads >= MAX_FAILED_RELOADS:
            return False
        return time.monotonic() - self.at > again_seconds * 2**self.failed_reloads


def main() -> int:
    """Run until told to stop; gives the exit code."""
    try:
        settings = read_settings()
    except (OSError, ValueError) as error:
        log(str(error))
        return 1
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
        signal.signal(number, lambda *_: stop.set())
    state = State()
    seen = files.read(settings)
    if not _first_files(settings, seen, state):
        return 1
    serve(state, settings.state_port)
    master = Master(settings)
    _follow(settings, master, state, seen, stop)
    if not stop.is_set():
        log("HAProxy ended by itself", exit_code=master.exit_code)
        return 1
    log("stopping: no new connections")
    master.stop()
    return 0


def _first_files(settings: Settings, mounted: files.Files, state: State) -> bool:
    """Choose what to start with: what is mounted, or what an earlier container of this pod worked by."""
    state.refused = files.refusal(settings, mounted)
    if state.refused is None:
        files.keep(settings)
    elif not settings.current.is_dir() or files.check(settings, settings.current) is not None:
        log(
            "HAProxy refuses these files, and there are no former ones",
            why=state.refused,
            files=sorted(mounted),
        )
        return False
    else:
        log("HAProxy refuses the new files and starts with the former ones", why=state.refused)
    state.loaded = files.digest(files.read_folder(settings.current))
    return True


def _follow(
    settings: Settings, master: Master, state: State, seen: files.Files, stop: threading.Event
) -> None:
    """Take up new files until told to stop, or until HAProxy has ended."""
    tries = Tries(seen, time.monotonic())
    has_certificate = any(name.endswith(".crt") for name in seen)
    while not stop.wait(settings.poll_seconds) and master.exit_code is None:
        if has_certificate and state.certificate_until is None:
            state.certificate_until = master.certificate_until()
        try:
            found = files.read(settings)
        except OSError:
            # Kubernetes is just putting others in their place.
            continue
        if not tries.is_due(found, state, settings.try_again_seconds):
            continue
        tries = Tries(found, time.monotonic(), tries.failed_reloads if found == tries.seen else 0)
        try:
            _take_up(settings, master, state, tries)
        except OSError as error:
            # Short of memory, processes or space: what runs goes on, and it is tried again.
            state.refused = f"the new files cannot be tried: {error}"
            log(state.refused)


def _take_up(settings: Settings, master: Master, state: State, tries: Tries) -> None:
    refused = files.refusal(settings, tries.seen)
    if refused is None:
        files.keep(settings)
        refused = master.reload()
        if refused is not None:
            files.restore(settings)
            tries.failed_reloads += 1
            last = tries.failed_reloads >= MAX_FAILED_RELOADS
            refused += f", {MAX_FAILED_RELOADS} times; it is tried again when they change" if last else ""
    if refused is None:
        state.loaded, state.refused = files.digest(tries.seen), None
        state.certificate_until = None
        log("HAProxy works by the new files")
    else:
        state.refused = refused
        log("HAProxy refuses the new files and goes on with the former ones", why=refused)


if __name__ == "__main__":
    sys.exit(main())
