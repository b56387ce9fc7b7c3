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

    A value that is empty, no text or not printable is not used: the one before stays. A line break at the end is not
    part of it. When it changed the file itself tells, for a program may not look at it for days.
    """

    def __init__(self, path: Path | None, clock: Callable[[], float] = time.time) -> None:
        self._path = path
        self._clock = clock
        self._current: str | None = None
        # Each with the time until which it counts, the newest first.
        self._former: list[tuple[str, float]] = []

    def candidates(self) -> tuple[str, ...]:
        """The password of the moment and, for a while after a change, those before, the newest first."""
        now = self._clock()
        found = read(self._path)
        if found is not None and found[0] != self._current:
            word, changed_at = found
            if self._current is not None:
                self._former.insert(0, (self._current, min(now, changed_at) + CHANGE_SECONDS))
            self._current = word
        self._former = [
            (word, until) for word, until in self._former if now < until and word != self._current
        ]
        known = [] if self._current is None else [self._current]
        return tuple(known + [word for word, _ in self._former])


def read(path: Path | None) -> tuple[str, float] | None:
    """A usable password and when its file was written; None when there is none."""
    if path is None:
        return None
    try:
        found, written_at = path.read_text(encoding="utf-8").rstrip("\r\n"), path.stat().st_mtime
    except (OSError, UnicodeDecodeError):
        return None
    return (found, written_at) if found and found.isprintable() else None
