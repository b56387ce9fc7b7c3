"""The pooler pod for each test, with a folder of its own."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.pooler.bench import Bench, missing, running_bench


@pytest.fixture
def bench() -> Iterator[Bench]:
    if lacking := missing():
        pytest.skip(f"not on this machine (make servers): {lacking}")
    # Not in pytest's own folder, which the next pytest on this machine closes to other users, such as Postgres.
    with tempfile.TemporaryDirectory(prefix="pooler-") as folder:
        home = Path(folder)
        home.chmod(0o755)
        with running_bench(home) as found:
            yield found
