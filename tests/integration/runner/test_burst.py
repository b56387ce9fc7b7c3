"""The load client's burst of jobs against a real orchestrator with real runners."""

from __future__ import annotations

from pathlib import Path

from runnerhub_client.burst import burst
from runnerhub_client.settings import Targets

from .conftest import SECRET, Hub, Start


async def test_a_burst_tells_what_became_of_its_jobs_by_their_rows(
    hub: Hub,
    start_runner: Start,
    postgres_url: str,
    tmp_path: Path,
) -> None:
    targets = Targets(hub_url=hub.url, websocket_url="", jwt_secret=SECRET, database_url=postgres_url)
    nobody = await burst(targets, tmp_path / "log", 2, ("linux",), wait_seconds=0)
    assert (nobody["jobs"], nobody["completed"], nobody["runners"]) == (2, 0, 0)
    # Jobs that take so long that none has done them all while a busy machine keeps the other one waiting.
    runners = [
        await start_runner(f"hub-runner-linux-{number}", RUNNER_JOB_SECONDS="0.5") for number in range(2)
    ]
    for runner in runners:
        await runner.tells(ready=True)
    found = await burst(targets, tmp_path / "log", 20, ("linux",), wait_seconds=120)
    assert (found["jobs"], found["completed"], found["interrupted"], found["failed_tries"]) == (20, 20, 0, 0)
    assert found["runners"] == 2
    assert 0 <= found["first_start_seconds"] <= found["capacity_seconds"] <= found["all_done_seconds"]
