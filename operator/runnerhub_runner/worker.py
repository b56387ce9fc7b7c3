"""The loop of a runner: claim a job, run it under its lease, report it; and how it comes to take no more."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
import uuid
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from .command import Command
from .hub import ERRORS, Hub, LeaseLostError
from .settings import Settings

log = logging.getLogger(__name__)

AFTER_ERROR_SECONDS = 0.5
LONGEST_BREAK_SECONDS = 5.0
REQUEST_SECONDS = 5.0
# A failover of the database takes up to half a minute, and a runner that waits for it is not broken.
SILENCE_SECONDS = 30.0
# Whoever told the runner to take no more jobs says so again, or has changed its mind, or has gone away.
DRAIN_SECONDS = 20.0
# What a claim became whose answer was lost is asked so often when the runner stops; then the lease tells.
LAST_TRIES = 3


class Worker:
    """Works off jobs one at a time, until `stop` and the end of the job that it has.

    `may_work` gives whether jobs may be taken; `environment` what jobs get to know beside themselves; `after_job` is
    awaited before the next one.
    """

    def __init__(
        self,
        settings: Settings,
        hub: Hub,
        *,
        may_work: Callable[[], bool],
        environment: Callable[[], Mapping[str, str]],
        after_job: Callable[[], Awaitable[None]],
    ) -> None:
        self._settings = settings
        self._hub = hub
        self._may_work = may_work
        self._environment = environment
        self._after_job = after_job
        self._command = Command(settings.command, settings.work_folder)
        self._stopping = asyncio.Event()
        self._drained_until = 0.0
        # Set while a claim is on its way, or was and nobody knows what became of it.
        self._claim_id: str | None = None
        self._failing_since: float | None = None
        self.job_id: int | None = None

    def stop(self) -> None:
        """Take no new job, and end when the one that it has is reported."""
        self._stopping.set()

    def drain(self) -> str:
        """Take no new job for a while, unless there is one now. Gives the state.

        drained: no job, and none can come. draining: a request for a job is on its way. busy: there is a job.
        """
        if self.job_id is None:
            self._drained_until = time.monotonic() + DRAIN_SECONDS
        return self.state

    @property
    def state(self) -> str:
        """What people and the operator call it."""
        if self.job_id is not None:
            return "busy"
        if not self._is_draining():
            return "stopping" if self._stopping.is_set() else "idle"
        return "draining" if self._claim_id is not None else "drained"

    @property
    def in_touch(self) -> bool:
        """Whether an orchestrator answered lately."""
        since = self._failing_since
        return since is None or time.monotonic() - since < SILENCE_SECONDS

    def _is_draining(self) -> bool:
        return time.monotonic() < self._drained_until

    async def run(self) -> None:
        """Work until told to stop."""
        pause = AFTER_ERROR_SECONDS
        tries = LAST_TRIES
        while True:
            if self._stopping.is_set() and (self._claim_id is None or tries == 0):
                return
            tries -= self._stopping.is_set()
            # A claim that was not answered is asked for again: it may have got a job.
            if self._claim_id is None and (self._is_draining() or not self._may_work()):
                await self._sleep(AFTER_ERROR_SECONDS)
                continue
            try:
                job = await self._claim()
            except ERRORS as error:
                self._note(error)
                await self._sleep(pause)
                pause = min(pause * 2, LONGEST_BREAK_SECONDS)
                continue
            self._note(None)
            pause = AFTER_ERROR_SECONDS
            if job is not None:
                await self._work_off(job)
                if not self._stopping.is_set():
                    await self._after_job()

    async def _claim(self) -> dict[str, Any] | None:
        """Ask for a job. From the moment it is there the runner is busy, without a gap."""
        self._claim_id = self._claim_id or str(uuid.uuid4())
        asked = time.monotonic()
        calm = not self._stopping.is_set() and not self._is_draining()
        settings = self._settings
        job = await self._hub.claim(
            settings.name,
            settings.labels,
            claim_id=self._claim_id,
            wait_seconds=settings.poll_seconds if calm else 0,
        )
        if job is not None:
            self.job_id = int(job["jobId"])
        self._claim_id = None
        log.debug("claim answered", extra={"seconds": round(time.monotonic() - asked, 1)})
        return job

    async def _work_off(self, job: Mapping[str, Any]) -> None:
        job_id, token = int(job["jobId"]), str(job["token"])
        told = {"jobId": job_id, "attempt": job.get("attempt")}
        log.info("job begins", extra=told)
        running = asyncio.create_task(self._command.run(job, self._environment()))
        beating = asyncio.create_task(self._keep_lease(job_id, token, float(job.get("leaseSeconds", 30))))
        try:
            await asyncio.wait({running, beating}, return_when=asyncio.FIRST_COMPLETED)
            if not running.done():
                # Raises what it crashed by: the process ends, and the lease sees to the job.
                beating.result()
                log.warning("job is somebody else's by now and is ended here", extra=told)
                return
            result = running.result()
            # The lease is kept until the result is known: nobody is to run a job again that is over.
            await self._report(job_id, token, result)
            log.info("job ended", extra={**told, **result})
        finally:
            for task in (running, beating):
                task.cancel()
            await asyncio.gather(running, beating, return_exceptions=True)
            self.job_id = None

    async def _keep_lease(self, job_id: int, token: str, lease_seconds: float) -> None:
        """Renew the lease until it is lost; an orchestrator that does not answer is asked again."""
        every = max(lease_seconds / 3, 0.5)
        wait = every
        while True:
            await asyncio.sleep(wait)
            try:
                await self._hub.heartbeat(job_id, token, timeout_seconds=min(every, REQUEST_SECONDS))
            except LeaseLostError:
                return
            except ERRORS as error:
                self._note(error)
                wait = min(every, 1.0)
            else:
                self._note(None)
                wait = every

    async def _report(self, job_id: int, token: str, result: Mapping[str, Any]) -> None:
        """Report until somebody listens, or until the job turns out to be somebody else's."""
        pause = AFTER_ERROR_SECONDS
        while True:
            try:
                await self._hub.complete(job_id, token, result, timeout_seconds=REQUEST_SECONDS)
            except LeaseLostError as error:
                log.warning("result not wanted", extra={"jobId": job_id, "why": str(error)})
            except ERRORS as error:
                self._note(error)
                await asyncio.sleep(pause)
                pause = min(pause * 2, LONGEST_BREAK_SECONDS)
                continue
            self._note(None)
            return

    async def _sleep(self, seconds: float) -> None:
        """A break that the wish to stop cuts short; after that each try still has its break."""
        if self._stopping.is_set():
            await asyncio.sleep(seconds)
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stopping.wait()

    def _note(self, error: BaseException | None) -> None:
        if error is None:
            if self._failing_since is not None:
                log.info("orchestrators answer")
            self._failing_since = None
        elif self._failing_since is None:
            self._failing_since = time.monotonic()
            log.warning("orchestrators do not answer", extra={"error": f"{type(error).__name__}: {error}"})
