"""Telling a waiting person what goes on and how long it took."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass(slots=True)
class Steps:
    """The steps of a run with their durations in seconds."""

    done: list[tuple[str, float]] = field(default_factory=list)

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Say what begins, and afterwards how long it took."""
        print(f"==> {name}", flush=True)
        started = time.monotonic()
        try:
            yield
        except BaseException:
            print(f"    failed after {time.monotonic() - started:.1f} s", flush=True)
            raise
        seconds = time.monotonic() - started
        self.done.append((name, round(seconds, 1)))
        print(f"    done in {seconds:.1f} s", flush=True)

    def as_report(self) -> list[dict[str, object]]:
        """The steps as in demo.json."""
        return [{"name": name, "seconds": seconds} for name, seconds in self.done]
