"""Having each PgBouncer read its mounted file again when that has changed, while its clients work.

Kubernetes swaps the mounted files all at once, so one that can be read is whole. A file that tells of larger pools
waits until Postgres has room for their connections, because its members are restarted for that one after the other.
PgBouncer goes by a copy, which only this program replaces: it reads its file for other reasons, too.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import psycopg

from .console import ConsoleError
from .credentials import write_as
from .haproxy import ProxyError
from .log import log

LOOK_SECONDS = 1.0
# The copy, beside PgBouncer's user list; the name that its start has for it, too.
IN_EFFECT = "pgbouncer.ini"
# A comment of the operator's.
_NEEDS = re.compile(r"^; Postgres needs max_connections = (\d+)$", re.MULTILINE)


class Configuration:
    """Watches the files of the PgBouncers: by their ports, the mounted file and the user list beside the copy.

    `room`: the least max_connections of all members; raises psycopg.Error, ProxyError. `reload`: has the PgBouncer at a
    port read its files; raises ConsoleError. `is_busy`: whether clients are held back, which that would undo in part.
    """

    def __init__(
        self,
        files: Mapping[int, tuple[Path, Path]],
        room: Callable[[], int],
        reload: Callable[[int], None],
        is_busy: Callable[[], bool] = lambda: False,
    ) -> None:
        self._files = files
        self._room = room
        self._reload = reload
        self._is_busy = is_busy
        self._in_effect: dict[int, str] = {}
        self._told: dict[int, str] = {}

    def watch(self) -> None:
        """Look for ever."""
        while True:
            time.sleep(LOOK_SECONDS)
            for port in self._files:
                self.look(port)

    def look(self, port: int) -> None:
        """Put a changed file into effect, if Postgres has room for what it says."""
        mounted, users = self._files[port]
        try:
            text = mounted.read_text(encoding="utf-8")
            if text == self._in_effect.get(port) or self._is_busy():
                return
            needed = _needed(text)
            if needed and (room := self._room()) < needed:
                raise ConsoleError(f"max_connections of Postgres is {room}, and {needed} are needed")
            if self._is_busy():
                return
            write_as(users.with_name(IN_EFFECT), text, users)
            self._reload(port)
            if self._is_busy():
                # The pause may have given the pool its former size back: once more after it.
                return
        except (OSError, ValueError, ConsoleError, ProxyError, psycopg.Error) as error:
            self._tell(port, str(error).strip())
            return
        self._in_effect[port] = text
        self._told.pop(port, None)
        log("configuration is in effect", port=port)

    def needs(self) -> int | None:
        """The max_connections of Postgres that what is in effect needs; None when that is not known."""
        texts = [self._in_effect.get(port) for port in self._files]
        return (
            max((_needed(text) for text in texts if text is not None), default=None) if all(texts) else None
        )

    def _tell(self, port: int, why: str) -> None:
        if self._told.get(port) != why:
            log("the configuration is not in effect yet", port=port, why=why)
        self._told[port] = why


def _needed(text: str) -> int:
    found = _NEEDS.search(text)
    return int(found[1]) if found is not None else 0
