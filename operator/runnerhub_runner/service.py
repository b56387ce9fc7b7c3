"""One runner process: health endpoint, registration, work, and its end."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import logging
import signal
from pathlib import Path

import aiohttp
from aiohttp import web

from .github import Registration
from .hub import Hub
from .settings import Settings
from .worker import Worker

log = logging.getLogger(__name__)

KEEP_ANEW_SECONDS = 5.0


class Service:
    """Everything of one process, wired together."""

    def __init__(self, settings: Settings, session: aiohttp.ClientSession) -> None:
        self._settings = settings
        self._registration: Registration | None = None
        if settings.github_token:
            self._registration = Registration(
                session, settings.github_url, settings.github_token, settings.name, settings.labels
            )
        self._worker = Worker(
            settings,
            Hub(session, settings.orchestrator_url, self._authorisation),
            may_work=self._is_registered,
            environment=self._job_environment,
            after_job=self._check_registration,
        )

    async def run(self) -> None:
        """Work until SIGTERM or SIGINT, finish the job that there is, take the registration back."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._worker.stop)
        server = await self._listen()
        keeping = asyncio.create_task(self._keep_registration())
        try:
            log.info("runner starts", extra={"runner": self._settings.name, "labels": self._settings.labels})
            await self._worker.run()
        finally:
            keeping.cancel()
            await asyncio.gather(keeping, return_exceptions=True)
            if self._registration is not None:
                await self._registration.remove()
            await server.cleanup()
        log.info("runner stopped", extra={"runner": self._settings.name})

    async def _keep_registration(self) -> None:
        while self._registration is not None:
            try:
                await self._registration.keep(self._settings.github_check_seconds)
            except Exception:
                # Whatever GitHub answers: a runner that nobody registers any more would wait for ever.
                log.exception("keeping the registration crashed", extra={"retry_seconds": KEEP_ANEW_SECONDS})
                await asyncio.sleep(KEEP_ANEW_SECONDS)

    async def _check_registration(self) -> None:
        """After a job that was one of GitHub's the registration is used up; the next job comes with a new one."""
        if self._registration is not None and self._is_registered():
            await self._registration.check()

    def _is_registered(self) -> bool:
        return self._registration is None or self._registration.registered.is_set()

    def _job_environment(self) -> dict[str, str]:
        config = self._registration.jit_config if self._registration is not None else ""
        return {"RUNNER_JIT_CONFIG": config} if config else {}

    def _authorisation(self) -> dict[str, str]:
        """Read anew each time: the operator renews the token, and Kubernetes the file."""
        return {"Authorization": f"Bearer {_read(self._settings.token_file)}"}

    # -- health --------------------------------------------------------------------------------------

    async def _listen(self) -> web.AppRunner:
        application = web.Application()
        application.add_routes(
            [
                web.get("/livez", self._livez),
                web.get("/readyz", self._readyz),
                web.post("/drain", self._drain),
            ]
        )
        runner = web.AppRunner(application, access_log=None, shutdown_timeout=1)
        await runner.setup()
        await web.TCPSite(runner, port=self._settings.port, reuse_address=True).start()
        return runner

    async def _livez(self, _request: web.Request) -> web.Response:
        """The loop turns."""
        return web.json_response(self._told())

    async def _readyz(self, _request: web.Request) -> web.Response:
        """200 while registered and in touch with an orchestrator."""
        ready = self._is_registered() and self._worker.in_touch
        return web.json_response(self._told(), status=200 if ready else 503)

    async def _drain(self, request: web.Request) -> web.Response:
        """Take no more jobs for a while; whoever may ask for it knows the key."""
        path = self._settings.control_key_file
        key = _read(path) if path is not None else ""
        given = request.headers.get("Authorization", "").removeprefix("Bearer ")
        if not key or not hmac.compare_digest(given.encode(), key.encode()):
            return web.json_response({"message": "the key is missing or wrong"}, status=401)
        self._worker.drain()
        return web.json_response(self._told())

    def _told(self) -> dict[str, object]:
        return {
            "runner": self._settings.name,
            "state": self._worker.state,
            "registered": self._is_registered(),
            "inTouch": self._worker.in_touch,
            "jobId": self._worker.job_id,
        }


def _read(path: Path) -> str:
    """The content of a small file, "" while it is not there."""
    with contextlib.suppress(OSError, UnicodeDecodeError):
        return path.read_text().strip()
    return ""
