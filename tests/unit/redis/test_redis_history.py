"""Which replica a Sentinel promotes, by what it was told."""

from __future__ import annotations

import pytest

from images.redis.runnerhub_redis.history import promotes_one_of

WHOLE = frozenset({"10.0.0.11"})


def replica(address: str, offset: int, priority: int = 100, flags: str = "slave") -> dict[str, str]:
    return {"ip": address, "slave-repl-offset": str(offset), "slave-priority": str(priority), "flags": flags}


@pytest.mark.parametrize(
    ("replicas", "certain"),
    [
        ([], False),
        # All have everything, whatever Sentinel was told last.
        ([replica("10.0.0.11", 1)], True),
        ([replica("10.0.0.11", 1), replica("10.0.0.12", 900, priority=0)], True),
        # One lacks something: certain only once Sentinel has seen the other one at the end.
        ([replica("10.0.0.11", 900), replica("10.0.0.12", 899)], False),
        ([replica("10.0.0.11", 1000), replica("10.0.0.12", 899)], True),
        ([replica("10.0.0.11", 1000), replica("10.0.0.12", 899, priority=1)], False),
        ([replica("10.0.0.11", 1000, flags="slave,disconnected"), replica("10.0.0.12", 899)], False),
        # It may be back before Sentinel decides.
        ([replica("10.0.0.11", 900), replica("10.0.0.12", 899, flags="slave,disconnected")], False),
    ],
)
def test_a_sentinel_is_asked_only_when_its_choice_is_certain(
    replicas: list[dict[str, str]], certain: bool
) -> None:
    assert promotes_one_of(WHOLE, 1000, replicas) is certain
