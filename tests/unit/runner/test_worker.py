"""The loop of a runner with orchestrators that answer as a test says."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from runnerhub_runner.hub import HubError, LeaseLostError
from runnerhub_runner.settings import Settings
from runnerhub_runner.worker import Worker

JOB = {"jobId": 7, "token": "t", "leaseSeconds": 1.5}


class PlayedHub:
    """Has one job. `calls` has what was asked; `failures`: how many reports fail."""

    def __init__(self, failures: int = 0, beat: type[Exception] | None = None) -> None:
        self.calls: list[str] = []
        self.reported = asyncio.Event()
        self._jobs: list[dict[str, Any]] = [JOB]
        self._failures = failures
        self._beat = beat

    async def claim(self, *_: object, **__: object) -> dict[str, Any] | None:
        await asyncio.sleep(0.01)
        return self._jobs.pop() if self._jobs else None

    async def heartbeat(self, *_: object, **__: object) -> None:
        self.calls.append("heartbeat")
        if self._beat is not None:
            raise self._beat("no")

    async def complete(self, _job: int, _token: str, _result: object, **__: object) -> None:
        self.calls.append("report")
        self._failures -= 1
        if self._failures >= 0:
            raise HubError("no")
        self.reported.set()


def worker_of(hub: PlayedHub, folder: Path, command: str) -> Worker:
    settings = Settings.from_environment(
        {
            "ORCHESTRATOR_URL": "http://hub",
            "RUNNERHUB_TOKEN_FILE": "token",
            "RUNNER_COMMAND": command,
            "RUNNER_WORK_FOLDER": str(folder),
        }
    )

    async def nothing() -> None:
        return None

    played: Any = hub
    return Worker(settings, played, may_work=lambda: True, environment=dict, after_job=nothing)


async def test_a_lease_is_kept_until_the_result_has_arrived(tmp_path: Path) -> None:
    hub = PlayedHub(failures=2)
    working = worker_of(hub, tmp_path, "true")
    loop = asyncio.create_task(working.run())
    async with asyncio.timeout(10):
        await hub.reported.wait()
    assert "heartbeat" in hub.calls[hub.calls.index("report") :]
    working.stop()
    async with asyncio.timeout(5):
        await loop


async def test_a_job_of_somebody_else_is_ended_and_a_crash_is_no_such_thing(tmp_path: Path) -> None:
    lost = PlayedHub(beat=LeaseLostError)
    working = worker_of(lost, tmp_path, "sleep 60")
    loop = asyncio.create_task(working.run())
    async with asyncio.timeout(10):
        while not lost.calls or working.job_id is not None:  # noqa: ASYNC110 - two states
            await asyncio.sleep(0.02)
    assert not loop.done()
    working.stop()
    await loop
    crashed = worker_of(PlayedHub(beat=KeyError), tmp_path, "sleep 60")
    async with asyncio.timeout(10):
        with pytest.raises(KeyError):
            await crashed.run()
