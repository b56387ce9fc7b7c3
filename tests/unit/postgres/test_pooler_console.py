"""What is read from PgBouncer's console."""

from __future__ import annotations

import pytest

from images.pooler.runnerhub_pooler.console import _oldest_request

NOW = {"state": "active", "link": "", "request_time": "2026-01-01 12:00:00 UTC"}


def client(time: str, *, state: str = "active", link: str = "") -> dict[str, str]:
    return {"state": state, "link": link, "request_time": f"2026-01-01 {time} UTC"}


@pytest.mark.parametrize(
    ("clients", "seconds"),
    [
        ([], 0.0),
        ([client("11:00:00")], 0.0),
        ([client("11:59:58", link="0x1")], 2.0),
        ([client("11:59:40", state="waiting"), client("11:59:58", link="0x1")], 20.0),
        # A report, or a session that its client forgot: nobody waits for it.
        ([client("11:59:00", link="0x1")], 0.0),
        ([client("11:59:00", link="0x1"), client("11:59:57", link="0x2")], 3.0),
    ],
)
def test_the_oldest_request_is_one_that_somebody_waits_for(
    clients: list[dict[str, str]], seconds: float
) -> None:
    assert _oldest_request([NOW, *clients]) == seconds
