"""The launcher of Patroni in the image: it loads, and what it changes is what this Patroni reads."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from kindbed.paths import REPOSITORY

LAUNCHER = REPOSITORY / "images" / "postgres" / "bin" / "patroni-daemon"
# In a process of its own: Patroni changes the umask of whoever imports it.
_LOOK = """
import inspect, json, runpy, sys
from unittest import mock
launcher = runpy.run_path(sys.argv[1])
modules = launcher["patroni"]
with mock.patch("time.sleep") as sleep:
    for seconds in (1, launcher["PATRONIS_LOCK_SECONDS"], 0.25):
        launcher["Clock"]().sleep(seconds)
print(json.dumps({
    "taken": [call.args[0] for call in sleep.call_args_list],
    "lock": launcher["LOCK_SECONDS"],
    "polling": launcher["STOP_POLLING_SECONDS"],
    "patronis_polling": modules.postgresql.STOP_POLLING_INTERVAL,
    "breaks": inspect.getsource(modules.ha).count(
        f"time.sleep({launcher['PATRONIS_LOCK_SECONDS']})  # Give a time to somebody to take the leader lock"
    ),
}))
"""


@pytest.fixture(scope="module")
def seen() -> dict[str, Any]:
    """What the launcher has, and what Patroni has; nothing is started."""
    done = subprocess.run(
        [sys.executable, "-c", _LOOK, str(LAUNCHER)], capture_output=True, text=True, check=True
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_patroni_still_takes_the_breaks_that_are_made_shorter(seen: dict[str, Any]) -> None:
    assert seen["polling"] < seen["patronis_polling"]
    assert seen["breaks"] == 2


def test_other_breaks_stay(seen: dict[str, Any]) -> None:
    assert seen["taken"] == [1, seen["lock"], 0.25]
