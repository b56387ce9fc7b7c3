"""A real orchestrator on a real Postgres and Redis, runner processes, and a stand-in for GitHub's API."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import jwt
import pytest

from runnerhub_client.github import Github
from tests.integration.orchestrator.conftest import (  # noqa: F401 - fixtures
    database,
    database_settings,
    postgres_url,
    redis_link,
    redis_port,
)
from tests.share import free_port

SECRET = "s" * 40
CONTROL_KEY = "control"
ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
async def github() -> AsyncIterator[Github]:
    found = Github(free_port(), "github-token")
    await found.start()
    yield found
    await found.stop()


def _environment(**more: str) -> dict[str, str]:
    inherited = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    return {**inherited, "PYTHONPATH": str(ROOT / "operator"), **more}


@contextlib.asynccontextmanager
async def process(module: str, log: Path, **environment: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """A program of ours, killed at the end if it has not ended."""
    with log.open("ab") as output:
        started = await asyncio.create_subprocess_exec(
            sys.executable, "-m", module, env=_environment(**environment), stdout=output, stderr=output
        )
    try:
        yield started
    finally:
        if started.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                started.send_signal(signal.SIGKILL)
            await started.wait()


async def until(what: str, check: Callable[[], Awaitable[Any]], seconds: float = 60) -> Any:
    """Poll for a state; a server that does not answer yet is no failure."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with contextlib.suppress(aiohttp.ClientError, OSError):
            if found := await check():
                return found
        await asyncio.sleep(0.05)
    raise AssertionError(f"no {what} after {seconds} s")


class Hub:
    """A client of the orchestrator's API, and the means to take the orchestrator away."""

    def __init__(self, session: aiohttp.ClientSession, environment: dict[str, str], log: Path) -> None:
        self.port = int(environment["PORT"])
        self.url = f"http://127.0.0.1:{self.port}"
        self.token = jwt.encode({"sub": "test", "exp": int(time.time()) + 600}, SECRET, algorithm="HS256")
        self._session = session
        self._environment = environment
        self._log = log
        self._stack = contextlib.AsyncExitStack()

    async def start(self) -> None:
        await self._stack.enter_async_context(
            process("runnerhub_orchestrator", self._log, **self._environment)
        )

        async def healthy() -> bool:
            async with self._session.get(f"{self.url}/health") as answer:
                return answer.status == 200

        await until("healthy orchestrator", healthy)

    async def stop(self) -> None:
        await self._stack.aclose()

    async def call(self, method: str, path: str, body: Any = None) -> Any:
        headers = {"Authorization": f"Bearer {self.token}"}
        async with self._session.request(method, self.url + path, json=body, headers=headers) as answer:
            return await answer.json()

    async def delegate(self, job_id: int, *labels: str, workflow: str = "ci") -> None:
        body = {"jobId": job_id, "runId": 1, "repository": "a/b", "workflow": workflow, "labels": labels}
        await self.call("POST", "/api/jobs/delegate", body)

    async def job(self, job_id: int) -> Any:
        return await self.call("GET", f"/api/jobs/{job_id}")

    async def job_is(self, job_id: int, status: str, seconds: float = 60) -> Any:
        async def check() -> Any:
            job = await self.job(job_id)
            return job if job.get("status") == status else None

        return await until(f"job {job_id} that is {status}", check, seconds)


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10)) as found:
        yield found


@pytest.fixture
async def hub(
    session: aiohttp.ClientSession,
    database: Any,  # noqa: F811 - it empties the tables
    redis_link: Any,  # noqa: F811 - it empties the queue
    postgres_url: str,  # noqa: F811
    redis_port: int,  # noqa: F811
    tmp_path: Path,
) -> AsyncIterator[Hub]:
    environment = {
        "PORT": str(free_port()),
        "WEBSOCKET_PORT": str(free_port()),
        "DATABASE_URL": postgres_url,
        "REDIS_HOST": "127.0.0.1",
        "REDIS_PORT": str(redis_port),
        "JWT_SECRET": SECRET,
        "LEADER_ELECTION_ENABLED": "false",
        "JOB_LEASE_SECONDS": "6",
        "HEALTH_CHECK_INTERVAL": "500",
        "HA_NODE_ID": "orchestrator",
    }
    found = Hub(session, environment, tmp_path / "orchestrator.log")
    await found.start()
    yield found
    await found.stop()


class Runner:
    """A runner process and its health endpoint."""

    def __init__(
        self, session: aiohttp.ClientSession, child: asyncio.subprocess.Process, port: int, log: Path
    ) -> None:
        self.process = child
        self.log = log
        self._session = session
        self._url = f"http://127.0.0.1:{port}"

    async def told(self) -> dict[str, Any]:
        async with self._session.get(f"{self._url}/readyz") as answer:
            return {**await answer.json(), "ready": answer.status == 200}

    async def drain(self, key: str = CONTROL_KEY) -> tuple[int, dict[str, Any]]:
        headers = {"Authorization": f"Bearer {key}"}
        async with self._session.post(f"{self._url}/drain", headers=headers) as answer:
            return answer.status, await answer.json()

    async def tells(self, seconds: float = 60, **wanted: object) -> None:
        async def check() -> bool:
            told = await self.told()
            return all(told[name] == value for name, value in wanted.items())

        await until(f"runner that tells {wanted}", check, seconds)

    def terminate(self) -> None:
        self.process.send_signal(signal.SIGTERM)

    async def ends(self, seconds: float = 60) -> int:
        async with asyncio.timeout(seconds):
            return await self.process.wait()


Start = Callable[..., Awaitable[Runner]]


@pytest.fixture
async def start_runner(
    session: aiohttp.ClientSession, hub: Hub, github: Github, tmp_path: Path
) -> AsyncIterator[Start]:
    """Starts runner processes; `environment` adds variables."""
    async with contextlib.AsyncExitStack() as stack:

        async def start(name: str = "hub-runner-linux-0", **environment: str) -> Runner:
            port, log = free_port(), tmp_path / f"{name}.log"
            token, key, work = tmp_path / "token", tmp_path / "control-key", tmp_path / "work"
            token.write_text(f"{hub.token}\n")
            key.write_text(CONTROL_KEY)
            work.mkdir(exist_ok=True)
            values = {
                "RUNNER_NAME": name,
                "RUNNER_LABELS": "self-hosted,linux",
                "RUNNER_PORT": str(port),
                "RUNNER_WORK_FOLDER": str(work),
                "RUNNER_POLL_SECONDS": "1",
                "ORCHESTRATOR_URL": hub.url,
                "RUNNERHUB_TOKEN_FILE": str(token),
                "RUNNERHUB_CONTROL_KEY_FILE": str(key),
                "GITHUB_URL": f"http://127.0.0.1:{github.port}/example",
                "GITHUB_TOKEN": "github-token",
                "GITHUB_CHECK_SECONDS": "0.5",
                **environment,
            }
            child = await stack.enter_async_context(process("runnerhub_runner", log, **values))
            return Runner(session, child, port, log)

        yield start
