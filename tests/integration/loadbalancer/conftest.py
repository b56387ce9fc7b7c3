"""The load balancer's pod for each test."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.integration.loadbalancer.bench import Bench, missing


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    if lacking := missing():
        pytest.skip(f"not on this machine (make servers): {lacking}")
    found = Bench(tmp_path)
    yield found
    await found.stop()
    # pytest shows it when the test failed.
    sys.stdout.write(found.log.read_text() if found.log.exists() else "")
