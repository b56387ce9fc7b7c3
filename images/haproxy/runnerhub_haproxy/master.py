"""HAProxy in master-worker mode: the master lives as long as the pod, and each reload gives it another worker.

The new worker gets the listening sockets from the old one, which serves the connections that it has to their end.
Source: https://docs.haproxy.org/3.0/management.html, 4, 9.4
"""

from __future__ import annotations

import os
import re
import signal
import socket
import ssl
import subprocess
import time
from datetime import UTC, datetime
from pathlib import Path

from .files import environment
from .settings import CONFIGURATION, Settings

COMMAND_SECONDS = 3.0
KILL_SECONDS = 3.0
_NOT_AFTER = re.compile(r"^notAfter: (.+)$", re.MULTILINE)


class Master:
    """The master process."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._socket = settings.runtime / "master.sock"
        self._worker_socket = settings.runtime / "haproxy.sock"
        self._state = settings.runtime / "server-state"
        # That of a container which has ended: the addresses in it may belong to others by now.
        self._forget_servers()
        self._process = subprocess.Popen(
            [
                *("haproxy", "-W", "-db", "-S", f"{self._socket},mode,600"),
                *("-f", settings.current / CONFIGURATION),
            ],
            env=environment(settings, settings.current),
        )

    @property
    def exit_code(self) -> int | None:
        """None while it runs."""
        return self._process.poll()

    def reload(self) -> str | None:
        """Have it work by the files that are there now; why it does not, None: it does."""
        before = self._workers()
        if not before:
            return "HAProxy's master does not tell its workers"
        self._remember_servers()
        self._process.send_signal(signal.SIGUSR2)
        deadline = time.monotonic() + self._settings.reload_seconds
        try:
            while time.monotonic() < deadline and self.exit_code is None:
                if self._workers() - before:
                    return None
                time.sleep(0.05)
        finally:
            self._forget_servers()
        return "HAProxy did not start a worker with the new files; its log tells why"

    def certificate_until(self) -> str | None:
        """When the first certificate in use ends, RFC 3339; None: there is none, or HAProxy does not tell."""
        try:
            listed = _ask(self._worker_socket, "show ssl cert").splitlines()
            shown = [_ask(self._worker_socket, f"show ssl cert {name}") for name in listed if name[:1] == "/"]
            ends = [
                ssl.cert_time_to_seconds(found[1]) for text in shown if (found := _NOT_AFTER.search(text))
            ]
            return datetime.fromtimestamp(min(ends), UTC).strftime("%Y-%m-%dT%H:%M:%SZ") if ends else None
        # A certificate may name a time as nobody reads it.
        except (OSError, ValueError, OverflowError):
            return None

    def stop(self) -> None:
        """Accept nothing new and let requests end; what is still open after the hard stop's time is cut off."""
        for number, seconds in (
            (signal.SIGUSR1, self._settings.hard_stop_seconds),
            (signal.SIGTERM, KILL_SECONDS),
            (signal.SIGKILL, None),
        ):
            self._process.send_signal(number)
            try:
                self._process.wait(seconds)
            except subprocess.TimeoutExpired:
                continue
            return

    def _workers(self) -> set[int]:
        """Process ids of the workers that take new connections; none while the master starts itself anew."""
        try:
            lines = _ask(self._socket, "show proc").splitlines()
        except OSError:
            return set()
        found: set[int] = set()
        section = ""
        for line in lines:
            words = line.split()
            if line.startswith("# "):
                section = line[2:].strip()
            elif section == "workers" and words and words[0].isdecimal():
                found.add(int(words[0]))
        return found

    def _remember_servers(self) -> None:
        """Where the pods are and how they were: a worker that asked DNS first would turn requests away meanwhile."""
        try:
            self._state.write_text(_ask(self._worker_socket, "show servers state"))
        except OSError:
            self._forget_servers()

    def _forget_servers(self) -> None:
        # An empty file of version 1, because HAProxy would complain about none.
        self._state.write_text("1\n")


def _ask(path: Path, command: str) -> str:
    """The answer to a command of HAProxy's runtime API."""
    with socket.socket(socket.AF_UNIX) as link:
        link.settimeout(COMMAND_SECONDS)
        link.connect(os.fspath(path))
        link.sendall(f"{command}\n".encode())
        # The master's would wait for another command.
        link.shutdown(socket.SHUT_WR)
        answer = bytearray()
        while part := link.recv(65536):
            answer += part
    return answer.decode(errors="replace")
