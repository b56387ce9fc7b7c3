"""The runner program against a real orchestrator; only GitHub is a stand-in."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

from .conftest import Github, Hub, Start, until


def command(folder: Path, text: str) -> str:
    """A command that runs a shell script."""
    script = folder / "job.sh"
    script.write_text(f"#!/bin/sh\n{text}\n")
    script.chmod(0o755)
    return str(script)


# A job that begins by telling so, and ends when a file is there.
WAITING = 'touch "{folder}/begun-$RUNNERHUB_JOB_ID"; while [ ! -e "{folder}/go" ]; do sleep 0.05; done'


async def begun(folder: Path, job_id: int) -> None:
    async def check() -> bool:
        return (folder / f"begun-{job_id}").exists()

    await until("job that runs", check)


async def test_a_runner_registers_takes_a_job_runs_it_and_reports(
    hub: Hub, github: Github, start_runner: Start, tmp_path: Path
) -> None:
    runner = await start_runner(
        RUNNER_COMMAND=command(tmp_path, f'cat > "{tmp_path}/stdin"; env > "{tmp_path}/environment"')
    )
    await runner.tells(ready=True, registered=True, state="idle")
    ((registered),) = github.runners.values()
    assert registered["name"] == "hub-runner-linux-0"
    assert [label["name"] for label in registered["labels"]] == ["self-hosted", "linux"]
    await hub.delegate(1, "linux", workflow="build")
    job = await hub.job_is(1, "completed")
    assert job["runnerId"] == "hub-runner-linux-0"
    assert job["result"]["conclusion"] == "success"
    handed_over = json.loads((tmp_path / "stdin").read_text())
    assert handed_over["workflow"] == "build"
    assert "token" not in handed_over
    environment = (tmp_path / "environment").read_text().splitlines()
    assert "RUNNERHUB_REPOSITORY=a/b" in environment
    assert "RUNNER_JIT_CONFIG=config-1" in environment
    assert not [line for line in environment if line.startswith("GITHUB_TOKEN=")]


async def test_the_default_command_takes_a_job_and_a_failing_one_is_reported_as_such(
    hub: Hub, start_runner: Start, tmp_path: Path
) -> None:
    await start_runner("default")
    await hub.delegate(1)
    assert (await hub.job_is(1, "completed"))["result"]["conclusion"] == "success"
    await start_runner("failing", RUNNER_LABELS="bad", RUNNER_COMMAND=command(tmp_path, "exit 3"))
    await hub.delegate(2, "bad")
    result = (await hub.job_is(2, "completed"))["result"]
    assert (result["conclusion"], result["exitCode"]) == ("failure", 3)
    await start_runner("absent", RUNNER_LABELS="absent", RUNNER_COMMAND="/nowhere/job")
    await hub.delegate(3, "absent")
    assert "cannot be started" in (await hub.job_is(3, "completed"))["result"]["error"]


async def test_a_runner_that_is_told_to_stop_finishes_its_job_and_takes_no_other(
    hub: Hub, github: Github, start_runner: Start, tmp_path: Path
) -> None:
    runner = await start_runner(RUNNER_COMMAND=command(tmp_path, WAITING.format(folder=tmp_path)))
    await hub.delegate(1, "linux")
    await begun(tmp_path, 1)
    runner.terminate()
    await hub.delegate(2, "linux")
    # Longer than a lease: it is renewed meanwhile.
    await asyncio.sleep(7)
    job = await hub.job(1)
    assert (job["status"], job["attempt"]) == ("running", 1)
    (tmp_path / "go").touch()
    assert await runner.ends() == 0
    job = await hub.job(1)
    assert (job["status"], job["attempt"], job["result"]["conclusion"]) == ("completed", 1, "success")
    assert (await hub.job(2))["status"] == "queued"
    assert github.runners == {}, "it has taken its registration back"


async def test_an_idle_runner_ends_at_once_when_it_is_told_to(start_runner: Start, github: Github) -> None:
    runner = await start_runner()
    await runner.tells(ready=True)
    runner.terminate()
    assert await runner.ends() == 0
    assert github.runners == {}


async def test_a_drained_runner_takes_no_job_until_the_wish_is_forgotten(
    hub: Hub, start_runner: Start
) -> None:
    runner = await start_runner()
    await runner.tells(ready=True)
    assert (await runner.drain("wrong"))[0] == 401

    async def drained() -> bool:
        status, told = await runner.drain()
        return status == 200 and told["state"] == "drained"

    await until("drained runner", drained)
    await hub.delegate(1, "linux")
    await asyncio.sleep(3)
    assert (await hub.job(1))["status"] == "queued"
    await hub.job_is(1, "completed", 30)


async def test_a_busy_runner_says_so_and_goes_on_taking_jobs(
    hub: Hub, start_runner: Start, tmp_path: Path
) -> None:
    runner = await start_runner(RUNNER_COMMAND=command(tmp_path, WAITING.format(folder=tmp_path)))
    await hub.delegate(1, "linux")
    await begun(tmp_path, 1)
    assert (await runner.drain())[1]["state"] == "busy"
    demand = await hub.call("GET", "/api/runners/demand")
    assert [(item["runnerId"], item["jobId"]) for item in demand["running"]] == [("hub-runner-linux-0", 1)]
    (tmp_path / "go").touch()
    await hub.job_is(1, "completed")
    await hub.delegate(2, "linux")
    await hub.job_is(2, "completed")


async def test_a_job_outlives_an_orchestrator_that_is_away(
    hub: Hub, start_runner: Start, tmp_path: Path
) -> None:
    runner = await start_runner(RUNNER_COMMAND=command(tmp_path, WAITING.format(folder=tmp_path)))
    await hub.delegate(1, "linux")
    await begun(tmp_path, 1)
    await hub.stop()
    (tmp_path / "go").touch()
    # It is done and nobody listens.
    await asyncio.sleep(3)
    assert (await runner.told())["state"] == "busy"
    await hub.start()
    job = await hub.job_is(1, "completed")
    assert job["attempt"] == 1
    await runner.tells(state="idle", ready=True)


async def test_a_runner_is_not_ready_while_github_is_away_at_its_start_and_takes_no_job(
    hub: Hub, github: Github, start_runner: Start
) -> None:
    github.down = True
    runner = await start_runner()
    await hub.delegate(1, "linux")
    await runner.tells(ready=False, registered=False)
    await asyncio.sleep(2)
    assert (await hub.job(1))["status"] == "queued"
    assert len(github.calls) <= 4, "it is asked ever more rarely"
    github.down = False
    await hub.job_is(1, "completed")
    assert (await runner.told())["ready"]


async def test_a_registered_runner_works_on_while_github_is_away(
    hub: Hub, github: Github, start_runner: Start
) -> None:
    runner = await start_runner()
    await runner.tells(registered=True)
    github.down = True
    before = len(github.calls)

    async def asked() -> bool:
        return len(github.calls) > before + 1

    await until("check of the registration", asked)
    await hub.delegate(1, "linux")
    await hub.job_is(1, "completed")
    assert (await runner.told())["ready"]
    runner.terminate()
    assert await runner.ends(30) == 0, "a GitHub that is away does not hold it up for long"


async def test_a_registration_that_is_gone_is_made_anew_and_a_namesakes_is_replaced(
    github: Github, start_runner: Start
) -> None:
    github.runners[99] = {"id": 99, "name": "hub-runner-linux-0", "labels": []}
    runner = await start_runner()
    await runner.tells(registered=True)
    assert list(github.runners) == [1], "what a dead runner of this name left is gone"
    github.runners.clear()

    async def again() -> bool:
        return list(github.runners) == [2]

    await until("new registration", again)
    await runner.tells(ready=True)


async def test_an_answer_that_makes_no_sense_keeps_no_runner_from_registering_later(
    hub: Hub, github: Github, start_runner: Start
) -> None:
    github.runners[99] = {"id": 99, "name": "hub-runner-linux-0", "labels": []}
    github.mad = True
    runner = await start_runner()

    async def crashed() -> bool:
        return "keeping the registration crashed" in runner.log.read_text()

    await until("word of the crash", crashed)
    github.mad = False
    await hub.delegate(1, "linux")
    await hub.job_is(1, "completed")
    await runner.tells(ready=True)


async def test_a_registration_whose_answer_nobody_waited_for_is_taken_back_as_well(
    github: Github, start_runner: Start
) -> None:
    github.mute = True
    runner = await start_runner()

    async def asked() -> bool:
        return bool(github.runners)

    await until("registration", asked)
    runner.terminate()
    assert await runner.ends() == 0
    assert github.runners == {}
    github.mute = False


async def test_each_job_that_uses_a_registration_up_is_followed_by_a_new_one(
    hub: Hub, github: Github, start_runner: Start, tmp_path: Path
) -> None:
    text = f'echo $RUNNER_JIT_CONFIG > "{tmp_path}/config-of-$RUNNERHUB_JOB_ID"; '
    runner = await start_runner(
        GITHUB_CHECK_SECONDS="600", RUNNER_COMMAND=command(tmp_path, text + WAITING.format(folder=tmp_path))
    )
    await runner.tells(registered=True)
    await hub.delegate(1, "linux")
    await begun(tmp_path, 1)
    await hub.delegate(2, "linux")
    # As GitHub does with a runner that was made for a single job.
    github.runners.clear()
    (tmp_path / "go").touch()
    await hub.job_is(2, "completed")
    configs = [(tmp_path / f"config-of-{job}").read_text().strip() for job in (1, 2)]
    assert configs == ["config-1", "config-2"]
    await hub.delegate(3, "linux")
    await hub.job_is(3, "completed")
    assert (tmp_path / "config-of-3").read_text().strip() == "config-2", "one that was not used stays"


async def test_a_command_whose_job_went_to_somebody_else_is_ended(
    hub: Hub, start_runner: Start, tmp_path: Path, database: object
) -> None:
    text = f'trap "touch {tmp_path}/ended; exit 1" TERM; touch "{tmp_path}/begun-1"; while :; do sleep 0.05; done'
    runner = await start_runner(RUNNER_COMMAND=command(tmp_path, text))
    await hub.delegate(1, "linux")
    await begun(tmp_path, 1)

    async def give_away(connection: object) -> None:
        await connection.execute(  # type: ignore[attr-defined]
            "UPDATE jobs SET lease_token = gen_random_uuid(), runner_id = 'other' WHERE job_id = 1"
        )

    await database.run(give_away)  # type: ignore[attr-defined]

    async def ended() -> bool:
        return (tmp_path / "ended").exists()

    await until("command that is told to end", ended)
    await runner.tells(state="idle")
    assert (await hub.job(1))["runnerId"] == "other"


async def test_without_a_token_a_runner_does_not_register(
    hub: Hub, github: Github, start_runner: Start
) -> None:
    runner = await start_runner(GITHUB_TOKEN="")
    await runner.tells(ready=True)
    await hub.delegate(1, "linux")
    await hub.job_is(1, "completed")
    assert github.calls == []


async def test_jobs_that_no_runner_can_take_hold_others_up_for_moments_only(
    hub: Hub, start_runner: Start
) -> None:
    for first in range(1, 201, 20):
        await asyncio.gather(*(hub.delegate(number, "gpu") for number in range(first, first + 20)))
    runner = await start_runner()
    await runner.tells(ready=True)
    for number in range(1001, 1004):
        await hub.delegate(number, "linux")
        await hub.job_is(number, "completed")
