"""Registration with GitHub by its REST API, and watching that it lasts.

By `generate-jitconfig`, which registers a runner in one request and tells the id by which it can be watched and
removed. A registration token serves only the `config.sh` of GitHub's own runner, and leaves no runner that a client of
the API knows.
Source: https://docs.github.com/en/rest/actions/self-hosted-runners
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote, urlsplit

import aiohttp

from .errors import GithubError

log = logging.getLogger(__name__)

REQUEST_SECONDS = 10.0
FIRST_RETRY_SECONDS = 1.0
LONGEST_RETRY_SECONDS = 60.0
# A runner that stops must not wait for a GitHub that is away: the next one of its name takes the place over.
REMOVE_TRIES = 3
REMOVE_SECONDS = 15.0
# Every organisation has it. Source: https://docs.github.com/en/rest/actions/self-hosted-runner-groups
DEFAULT_GROUP = 1
_API_VERSION = "2022-11-28"


def api_url(url: str) -> str:
    """Where the runners of an organisation or a repository are in the REST API.

    Of github.com that is another host, of an Enterprise Server a path.
    """
    parts = urlsplit(url)
    owner = [quote(part) for part in parts.path.split("/") if part]
    if not parts.hostname or len(owner) not in (1, 2):
        raise ValueError(f"{url} names no organisation or repository")
    place = f"orgs/{owner[0]}" if len(owner) == 1 else f"repos/{owner[0]}/{owner[1]}"
    if parts.hostname in ("github.com", "www.github.com"):
        return f"https://api.github.com/{place}/actions/runners"
    return f"{parts.scheme}://{parts.netloc}/api/v3/{place}/actions/runners"


class Registration:
    """One runner's registration; `registered` is set while GitHub knows the runner, as far as was asked.

    `jit_config` is what GitHub's own runner program would be started with.
    """

    def __init__(
        self, session: aiohttp.ClientSession, url: str, token: str, name: str, labels: Sequence[str]
    ) -> None:
        self._session = session
        self._runners = api_url(url)
        self._headers = {
            "Authorization": f"Bearer {token}",
            "Accept": "application/vnd.github+json",
            "X-GitHub-Api-Version": _API_VERSION,
        }
        self._name = name
        self._labels = list(labels) or ["self-hosted"]
        self._id: int | None = None
        # An answer is on its way, or got lost: GitHub may know the runner although it does not know so itself.
        self._asked = False
        self.jit_config = ""
        self.registered = asyncio.Event()
        self._gone = asyncio.Event()

    async def keep(self, check_seconds: float) -> None:
        """Register, look from time to time whether that lasts, register anew when not; until cancelled.

        A GitHub that does not answer ends no registration.
        """
        while True:
            await self._register_until_done()
            while self.registered.is_set():
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(check_seconds * random.uniform(0.8, 1.2)):  # noqa: S311 - spreads load
                        await self._gone.wait()
                if self.registered.is_set():
                    await self.check()

    async def check(self) -> None:
        """Ask GitHub whether it still knows the runner, and register anew when not.

        What is registered by `generate-jitconfig` is for one job: after that GitHub has removed it.
        """
        try:
            await self._call("GET", f"/{self._id}")
        except GithubError as error:
            if error.status == 404:
                log.warning("registration is gone", extra={"runner": self._name, "id": self._id})
                self.registered.clear()
                self._gone.set()
            else:
                log.info("registration not checked", extra={"why": str(error)})

    async def remove(self) -> None:
        """Take the registration back, as far as GitHub answers."""
        identifier, self._id = self._id, None
        self.registered.clear()
        try:
            async with asyncio.timeout(REMOVE_SECONDS):
                if identifier is not None:
                    await self._delete(identifier)
                elif self._asked:
                    await self._remove_namesake()
        except (GithubError, TimeoutError) as error:
            log.warning("registration not removed", extra={"runner": self._name, "why": str(error)})

    async def _delete(self, identifier: int) -> None:
        for attempt in range(1, REMOVE_TRIES + 1):
            try:
                await self._call("DELETE", f"/{identifier}")
            except GithubError as error:
                if error.status == 404:
                    return
                if attempt == REMOVE_TRIES:
                    raise
                await asyncio.sleep(FIRST_RETRY_SECONDS * attempt)
            else:
                return

    async def _register_until_done(self) -> None:
        wait = FIRST_RETRY_SECONDS
        while not self.registered.is_set():
            try:
                await self._register()
            except GithubError as error:
                log.warning("not registered", extra={"runner": self._name, "why": str(error)})
                pause = max(wait * random.uniform(0.75, 1.25), error.retry_after_seconds)  # noqa: S311 - jitter
                await asyncio.sleep(pause)
                wait = min(wait * 2, LONGEST_RETRY_SECONDS)

    async def _register(self) -> None:
        body = {"name": self._name, "runner_group_id": DEFAULT_GROUP, "labels": self._labels}
        self._asked = True
        try:
            answer = await self._call("POST", "/generate-jitconfig", body)
        except GithubError as error:
            if error.status != 409:
                self._asked = error.status == 0
                raise
            # A runner of this name that ended without a word: the name is this pod's alone, so it is gone.
            await self._remove_namesake()
            answer = await self._call("POST", "/generate-jitconfig", body)
        try:
            self._id, self.jit_config = int(answer["runner"]["id"]), str(answer["encoded_jit_config"])
        except (KeyError, TypeError, ValueError) as error:
            raise GithubError(f"GitHub's answer has no {error}") from error
        self._asked = False
        log.info("registered", extra={"runner": self._name, "id": self._id})
        self._gone.clear()
        self.registered.set()

    async def _remove_namesake(self) -> None:
        found = (await self._call("GET", f"?name={quote(self._name)}")).get("runners", ())
        for runner in found:
            if runner.get("name") == self._name:
                await self._delete(int(runner["id"]))

    async def _call(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        try:
            async with self._session.request(
                method,
                self._runners + path,
                json=body,
                headers=self._headers,
                timeout=aiohttp.ClientTimeout(total=REQUEST_SECONDS),
            ) as response:
                status, retry_after = response.status, response.headers.get("Retry-After", "")
                is_json = response.content_type == "application/json"
                answer = await response.json() if is_json else {}
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
            raise GithubError(f"GitHub does not answer: {type(error).__name__}: {error}") from error
        answer = answer if isinstance(answer, dict) else {}
        if status >= 300:
            patience = float(retry_after) if retry_after.isdigit() else 0.0
            text = str(answer.get("message", ""))[:200]
            raise GithubError(f"GitHub answers {status} to {method} {path}: {text}", status, patience)
        return answer
