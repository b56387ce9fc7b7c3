"""A password in a file that may change while a program runs, as Kubernetes renews the files of a Secret.

For programs that log in anew now and then: orchestrators, ha-agents, the test's clients. Nothing but the standard
library is needed.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

# How long a new password may take to come into effect, from the first pod that has it to the last.
CHANGE_SECONDS: Final = 180.0


class PasswordFile:
    """The passwords that may let in now. Without a file, or before it was usable once, there is none.

    `change_seconds`: how long the one before counts after a change.

    A value that is empty, no text or not printable is not used: the one before stays. A line break at the end is not
    part of it.
    """

    def __init__(
        self,
        path: Path | None,
        clock: Callable[[], float] = time.monotonic,
        change_seconds: float = CHANGE_SECONDS,
    ) -> None:
        self._path = path
        self._clock = clock
        self._change_seconds = change_seconds
        self._current: str | None = None
        self._former: str | None = None
        self._changed_at = 0.0

    def candidates(self) -> tuple[str, ...]:
        """The password of the moment and, for a while after a change, the one before."""
        found = self._read()
        if found is not None and found != self._current:
            self._former, self._current, self._changed_at = self._current, found, self._clock()
        if self._clock() - self._changed_at >= self._change_seconds:
            self._former = None
        return tuple(word for word in (self._current, self._former) if word is not None)

    def _read(self) -> str | None:
        if self._path is None:
            return None
        try:
            found = self._path.read_text(encoding="utf-8").rstrip("\r\n")
        except (OSError, UnicodeDecodeError):
            return None
        return found if found and found.isprintable() else None
