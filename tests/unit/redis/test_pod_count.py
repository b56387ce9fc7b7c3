"""A pod that waits for pods which are not to be any more starts anew."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from images.redis.runnerhub_redis import start
from images.redis.runnerhub_redis.settings import Settings
from tests.unit.redis.test_redis_pod_configuration import settings, write_settings

__all__ = ["settings"]


class Resolver:
    """DNS that knows nobody."""

    def addresses(self) -> dict[int, str]:
        return {}


def test_a_pod_that_waits_looks_whether_its_count_still_holds(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(start, "RETRY_SECONDS", 0.01)
    folder: Path = settings.paths.configuration
    write_settings(folder, replicas=3)
    threading.Timer(0.3, lambda: write_settings(folder, replicas=5)).start()
    with pytest.raises(OSError, match="number of pods has changed"):
        start.own_address(settings, Resolver())  # type: ignore[arg-type]
