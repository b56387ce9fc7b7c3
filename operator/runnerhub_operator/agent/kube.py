"""The few requests that the agent makes to the API server, with nothing but aiohttp.

The Kubernetes library would cost three times the memory of the whole agent.
"""

from __future__ import annotations

import json
import os
import ssl
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Self

import aiohttp

from ..errors import ConflictError, KubeError, NotFoundError, RefusedError, UnavailableError

Manifest = dict[str, Any]

SERVICE_ACCOUNT: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount")
# Kubernetes replaces the token well before it runs out; reading it once a minute is often enough.
TOKEN_AGE_SECONDS: Final = 60.0
DEADLINE_SECONDS: Final = 10.0


class AgentKube:
    """Requests with the pod's ServiceAccount, each with a deadline.

    Raises NotFoundError, ConflictError, RefusedError or UnavailableError.
    """

    def __init__(self, session: aiohttp.ClientSession, address: str, token_file: Path) -> None:
        self._session = session
        self._address = address
        self._token_file = token_file
        self._token = ""
        self._token_read_at = float("-inf")

    @classmethod
    def connect(cls, environment: Mapping[str, str] = os.environ) -> Self:
        """Use the pod's ServiceAccount and the API server's address that Kubernetes gives each container."""
        folder = Path(environment.get("RUNNERHUB_SERVICE_ACCOUNT", SERVICE_ACCOUNT))
        host = environment.get("KUBERNETES_SERVICE_HOST", "kubernetes.default.svc")
        host = f"[{host}]" if ":" in host else host
        session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                ssl=ssl.create_default_context(cafile=str(folder / "ca.crt")), limit=4
            ),
            timeout=aiohttp.ClientTimeout(total=DEADLINE_SECONDS),
        )
        return cls(
            session, f"https://{host}:{environment.get('KUBERNETES_SERVICE_PORT', '443')}", folder / "token"
        )

    async def close(self) -> None:
        """Close the connections."""
        await self._session.close()

    async def read_lease(self, namespace: str, name: str) -> Manifest:
        """Read a Lease."""
        return await self._call("GET", _leases(namespace, name))

    async def create(self, manifest: Manifest) -> Manifest:
        """Create a Lease."""
        return await self._call("POST", _leases(manifest["metadata"]["namespace"]), body=manifest)

    async def replace(self, manifest: Manifest) -> Manifest:
        """Replace a Lease, if its resourceVersion is still the current one."""
        metadata = manifest["metadata"]
        return await self._call("PUT", _leases(metadata["namespace"], metadata["name"]), body=manifest)

    async def list_pods(self, namespace: str, label_selector: str) -> list[str]:
        """Names of the pods that match a label selector."""
        answer = await self._call("GET", _pods(namespace), query={"labelSelector": label_selector})
        return [item["metadata"]["name"] for item in answer.get("items", [])]

    async def label_pod(self, namespace: str, name: str, label: str, value: str | None) -> None:
        """Set a label of a pod; None removes it."""
        await self._call(
            "PATCH",
            _pods(namespace, name),
            body={"metadata": {"labels": {label: value}}},
            content="application/merge-patch+json",
        )

    async def _call(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
        content: str = "application/json",
    ) -> Manifest:
        headers = {"Accept": "application/json"}
        data = None
        if body is not None:
            headers["Content-Type"] = content
            data = json.dumps(body)
        try:
            headers["Authorization"] = f"Bearer {self._bearer()}"
            async with self._session.request(
                method, self._address + path, params=query, data=data, headers=headers
            ) as response:
                status, text = response.status, await response.read()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise UnavailableError(f"{method} {path}: no answer from the API server: {error!r}") from error
        try:
            answer = json.loads(text or b"{}")
        except ValueError:
            answer = {"message": text[:200].decode(errors="replace")}
        if status >= 400:
            raise _error_for(status, f"{method} {path}: {answer.get('message') or status}")
        return answer if isinstance(answer, dict) else {}

    def _bearer(self) -> str:
        if time.monotonic() - self._token_read_at > TOKEN_AGE_SECONDS:
            self._token = self._token_file.read_text().strip()
            self._token_read_at = time.monotonic()
        return self._token


def _leases(namespace: str, name: str = "") -> str:
    return f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases" + (f"/{name}" if name else "")


def _pods(namespace: str, name: str = "") -> str:
    return f"/api/v1/namespaces/{namespace}/pods" + (f"/{name}" if name else "")


def _error_for(status: int, message: str) -> KubeError:
    if status == 404:
        return NotFoundError(message, status)
    if status == 409:
        return ConflictError(message, status)
    if status in (408, 429) or status >= 500:
        return UnavailableError(message, status)
    return RefusedError(message, status)
