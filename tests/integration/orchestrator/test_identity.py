"""Whose requests an orchestrator takes: a real process, which needs no database to tell."""

import asyncio
import os
import sys

import aiohttp

from runnerhub_operator import names
from runnerhub_orchestrator.http_api import CLUSTER_HEADER
from tests.integration.orchestrator.conftest import running
from tests.share import free_port


async def test_requests_that_are_meant_for_another_cluster_are_refused(tmp_path):
    port = free_port()
    environment = {
        **os.environ,
        "PORT": str(port),
        "WEBSOCKET_PORT": str(free_port()),
        "DATABASE_URL": f"postgresql://app:x@127.0.0.1:{free_port()}/hub",
        "JWT_SECRET": "s3cr3t" * 8,
        "RUNNERHUB_NAMESPACE": "d",
        "RUNNERHUB_CLUSTER": "hub",
    }
    program = [sys.executable, "-m", "runnerhub_orchestrator"]
    with await asyncio.to_thread(lambda: running(program, port, cwd=tmp_path, env=environment)):
        async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as client:

            async def status(path, meant=None):
                headers = {} if meant is None else {CLUSTER_HEADER: meant}
                async with client.get(path, headers=headers) as response:
                    return response.status

            for path in ("/health", "/", "/api/jobs/1"):
                assert await status(path, "elsewhere/hub") == 421, path
                assert await status(path, "d/hub") == await status(path) != 421, path
    assert CLUSTER_HEADER == names.HEADER_CLUSTER
