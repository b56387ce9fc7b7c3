"""How many examples: a short form in `make test`, the full one in `make hostile`."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.strategies import SearchStrategy

FULL = os.environ.get("RUNNERHUB_HOSTILE") == "full"

# hypothesis remembers what it tried, and that memory grows.
_PART = 500


def examples(short: int, full: int) -> settings:
    """Settings of a test. The short form always tries the same examples, so that it fails for a change only."""
    return settings(
        max_examples=full if FULL else short,
        derandomize=not FULL,
        deadline=None,
        database=None,
        print_blob=True,
        # Explaining a failure takes longer than finding it.
        phases=(Phase.explicit, Phase.generate, Phase.shrink),
        suppress_health_check=(
            HealthCheck.too_slow,
            HealthCheck.data_too_large,
            HealthCheck.large_base_example,
        ),
    )


def try_all(test: Callable[..., None], *strategies: SearchStrategy[Any], short: int, full: int) -> None:
    """Run a test with at least so many examples, in parts."""
    left = full if FULL else short
    while left > 0:
        examples(min(left, _PART), min(left, _PART))(given(*strategies)(test))()
        left -= _PART
