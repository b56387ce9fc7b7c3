"""The API server's audit log: who asks it for what, whatever the caller itself counts."""

from __future__ import annotations

import json
from collections import Counter
from datetime import datetime
from pathlib import Path
from typing import Any


class AuditLog:
    """Counts the calls in a log that grows; each line is read once."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._offset = 0
        self._calls: Counter[tuple[str, str]] = Counter()
        self._seconds: list[float] = []

    def calls(self) -> Counter[tuple[str, str]]:
        """Calls so far by verb and resource, such as `("patch", "runnerhubclusters/status")`."""
        if self.path.exists():
            with self.path.open("rb") as log:
                log.seek(self._offset)
                for line in log:
                    if not line.endswith(b"\n"):
                        break
                    self._offset += len(line)
                    self._count(json.loads(line))
        return self._calls.copy()

    def seconds(self) -> list[float]:
        """How long the API server took for each call so far that was no watch, in the order of their ends."""
        self.calls()
        return list(self._seconds)

    def _count(self, call: dict[str, Any]) -> None:
        # A watch is told when it starts and again when it ends.
        if call["verb"] == "watch" and call["stage"] == "ResponseComplete":
            return
        if call["verb"] != "watch":
            began, ended = (
                datetime.fromisoformat(call[name]) for name in ("requestReceivedTimestamp", "stageTimestamp")
            )
            self._seconds.append((ended - began).total_seconds())
        reference: dict[str, Any] = call.get("objectRef", {})
        # Discovery has no object.
        parts = (reference.get("resource", call["requestURI"]), reference.get("subresource", ""))
        self._calls[call["verb"], "/".join(part for part in parts if part)] += 1
