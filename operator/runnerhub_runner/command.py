"""Running one job as a command."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

# A command whose job somebody else has by now is asked to end, and then made to.
END_SECONDS = 10.0
# What may manage the runners of the whole organisation is no job's business.
_WITHHELD = ("GITHUB_TOKEN",)


class Command:
    """Runs jobs, each in a folder and a process group of its own that go when it is over."""

    def __init__(self, command: Sequence[str], work_folder: Path) -> None:
        self._command = command
        self._work_folder = work_folder

    async def run(self, job: Mapping[str, Any], more: Mapping[str, str]) -> dict[str, Any]:
        """Run a job; its result. The command gets the job as JSON on standard input, and in the environment.

        When cancelled, the command is ended.
        """
        handed_over = {key: value for key, value in job.items() if key != "token"}
        started = time.monotonic()
        try:
            with tempfile.TemporaryDirectory(dir=self._work_folder, ignore_cleanup_errors=True) as folder:
                code = await self._run(handed_over, _environment(handed_over, more), folder)
        except OSError as error:
            return {"conclusion": "failure", "error": f"the command cannot be started: {error}"}
        return {
            "conclusion": "success" if code == 0 else "failure",
            "exitCode": code,
            "seconds": round(time.monotonic() - started, 1),
        }

    async def _run(self, job: Mapping[str, Any], environment: Mapping[str, str], folder: str) -> int | None:
        process = await asyncio.create_subprocess_exec(
            *self._command,
            stdin=asyncio.subprocess.PIPE,
            cwd=folder,
            env=environment,
            start_new_session=True,
        )
        try:
            await process.communicate(json.dumps(job).encode())
        finally:
            await _end(process)
        return process.returncode


def _environment(job: Mapping[str, Any], more: Mapping[str, str]) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if name not in _WITHHELD}
    return {
        **inherited,
        **more,
        "RUNNERHUB_JOB_ID": str(job["jobId"]),
        "RUNNERHUB_RUN_ID": str(job.get("runId", "")),
        "RUNNERHUB_REPOSITORY": str(job.get("repository", "")),
        "RUNNERHUB_WORKFLOW": str(job.get("workflow", "")),
        "RUNNERHUB_LABELS": ",".join(str(label) for label in job.get("labels") or ()),
        "RUNNERHUB_ATTEMPT": str(job.get("attempt", "")),
    }


async def _end(process: asyncio.subprocess.Process) -> None:
    """End the command, and whatever it left running in its group."""
    if process.returncode is None:
        _signal(process.pid, signal.SIGTERM)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(END_SECONDS):
                await process.wait()
    _signal(process.pid, signal.SIGKILL)
    await process.wait()


def _signal(group: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)
