"""Brings changed settings into effect while Redis and Sentinel run.

Kubernetes renews the mounted files; what Redis' configuration says is given to the running server by CONFIG SET, and
the steward gives Sentinel its times.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from pathlib import Path

from .log import log
from .network import LOCAL, NO_ANSWER
from .resp import Connection, RespError
from .settings import PORT_REDIS, Settings

LOOK_SECONDS = 2.0
CALL_SECONDS = 3.0


def directives(text: str) -> dict[str, str]:
    """Lines `name value` by name; quotes around a whole value are taken off."""
    found = {}
    for line in text.splitlines():
        name, _, value = line.strip().partition(" ")
        if name and not name.startswith("#"):
            value = value.strip()
            found[name] = value[1:-1] if len(value) > 1 and value[0] == value[-1] == '"' else value
    return found


def changes(before: str, after: str) -> dict[str, str]:
    """Directives of `after` that `before` has not, or has otherwise."""
    old = directives(before)
    return {name: value for name, value in directives(after).items() if old.get(name) != value}


class Configuration:
    """The operator's part of redis.conf: what of it the running server has."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        folder = settings.paths.configuration
        self._path: Path = folder / "redis.conf"
        self._times: Path = folder / "settings.json"
        self._applied = self._applied_times = ""
        self._refused: dict[str, str] = {}

    @property
    def applied(self) -> str:
        """Hash of what is in effect, as the operator makes it of what it wants."""
        return digest(self._applied, self._applied_times)

    def begin(self) -> None:
        """Note what the server that is about to start reads."""
        self._applied, self._applied_times = self._texts()

    def _texts(self) -> tuple[str, str]:
        return self._path.read_text(encoding="utf-8"), self._times.read_text(encoding="utf-8")

    def run(self, goes_on: Callable[[], bool]) -> None:
        """Look again and again."""
        while goes_on():
            time.sleep(LOOK_SECONDS)
            try:
                self.look()
            except NO_ANSWER:
                # Redis starts, loads or ends, or the file is just being replaced.
                continue

    def look(self) -> None:
        """Give the server what has changed. Raises one of NO_ANSWER."""
        wanted, times = self._texts()
        found = changes(self._applied, wanted)
        if found:
            with Connection(
                LOCAL, PORT_REDIS, self._settings.password, deadline_seconds=CALL_SECONDS
            ) as connection:
                refused = {}
                for name, value in found.items():
                    try:
                        connection.call("CONFIG", "SET", name, value)
                    except RespError as error:
                        if error.code in ("LOADING", "NOAUTH", "WRONGPASS"):
                            raise
                        refused[name] = str(error)
                if refused:
                    if refused != self._refused:
                        log("Redis refuses a part of its new configuration", **refused)
                    self._refused = refused
                    return
            log("configuration changed", **found)
        self._refused = {}
        # The other file is the steward's, who reads it as often.
        self._applied, self._applied_times = wanted, times


def digest(configuration: str, settings: str) -> str:
    """Hash of the two files."""
    return hashlib.sha256("\0".join((configuration, settings)).encode()).hexdigest()[:16]
