"""What a runner asks of the orchestrators, and the load client too: claim a job, keep its lease, report its end."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import aiohttp

# A claim is answered at the latest when its wait is over; the rest is the way there and back.
CLAIM_SLACK_SECONDS = 5.0
# What a request may raise beside HubError.
ERRORS = (aiohttp.ClientError, OSError, TimeoutError, ValueError)
_SUPERSEDED = ("LeaseLost", "JobNotFound")


class HubError(ValueError):
    """The answer was none that the interface promises."""


class LeaseLostError(Exception):
    """The job is somebody else's by now, or is gone: nobody waits for this execution."""


class Hub:
    """Requests through the load balancer, each tried once; `headers` gives those that authorise at the moment."""

    def __init__(
        self, session: aiohttp.ClientSession, url: str, headers: Callable[[], Mapping[str, str]]
    ) -> None:
        self._session = session
        self._url = url
        self._headers = headers

    async def claim(
        self, runner_id: str, labels: Sequence[str], *, claim_id: str, wait_seconds: float
    ) -> dict[str, Any] | None:
        """Wait for a job; None when none came in time.

        The id of a claim stays until it is answered, so that a job whose answer was lost is not left behind.
        """
        body = {
            "runnerId": runner_id,
            "labels": list(labels),
            "waitSeconds": wait_seconds,
            "claimId": claim_id,
        }
        status, answer = await self._post("/api/runners/claim", body, wait_seconds + CLAIM_SLACK_SECONDS)
        if status == 204:
            return None
        if status != 200 or answer is None:
            raise HubError(f"HTTP {status}: {answer}")
        return answer

    async def heartbeat(self, job_id: int, token: str, *, timeout_seconds: float) -> None:
        """Extend the lease. Raises LeaseLostError."""
        status, answer = await self._post(f"/api/jobs/{job_id}/heartbeat", {"token": token}, timeout_seconds)
        _check(status, answer)

    async def complete(
        self, job_id: int, token: str, result: Mapping[str, Any], *, timeout_seconds: float
    ) -> None:
        """Report the result; the same report may be repeated. Raises LeaseLostError."""
        body = {"token": token, "result": dict(result)}
        status, answer = await self._post(f"/api/jobs/{job_id}/complete", body, timeout_seconds)
        _check(status, answer)

    async def _post(
        self, path: str, body: Mapping[str, Any], timeout_seconds: float
    ) -> tuple[int, dict[str, Any] | None]:
        async with self._session.post(
            self._url + path,
            json=body,
            headers=self._headers(),
            timeout=aiohttp.ClientTimeout(total=timeout_seconds),
        ) as response:
            if response.status == 204:
                return 204, None
            # Balancers answer with pages of their own.
            if response.content_type != "application/json":
                return response.status, None
            answer = await response.json()
            return response.status, answer if isinstance(answer, dict) else None


def _check(status: int, answer: Mapping[str, Any] | None) -> None:
    if status in (404, 409) and (answer or {}).get("error") in _SUPERSEDED:
        raise LeaseLostError(f"HTTP {status}: {answer}")
    if status != 200:
        raise HubError(f"HTTP {status}: {answer}")
