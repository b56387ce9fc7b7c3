"""`runnerhub-operator check`: whether the definition is served and an operator is active; `helm test` runs it."""

from __future__ import annotations

import asyncio
import sys
from dataclasses import dataclass
from typing import Final

from . import names
from .errors import KubeError
from .kube.client import KubeClient, ObjectRef
from .kube.lease import LEASE_API_VERSION, LEASE_KIND
from .settings import Settings, read_settings

PERIOD_SECONDS: Final = 0.5
_API: Final = f"{names.API_GROUP}/{names.API_VERSION}"


def run(timeout_seconds: float) -> int:
    """Look until all is well or the time is over; gives the exit code."""
    try:
        sys.stdout.write(f"{asyncio.run(_wait(read_settings(), timeout_seconds))}\n")
    except _Unwell as problem:
        sys.stderr.write(f"{problem}\n")
        return 1
    return 0


class _Unwell(Exception):  # noqa: N818 - it is a state, which may pass
    """Something is not as it should be; the text tells what."""


@dataclass(slots=True)
class _Seen:
    """The version of the Lease at the first look that found a holder."""

    version: str = ""


async def _wait(settings: Settings, timeout_seconds: float) -> str:
    problem = _Unwell("the API server does not answer")
    client = await KubeClient.connect()
    seen = _Seen()
    try:
        async with asyncio.timeout(timeout_seconds):
            while True:
                try:
                    return await _look(client, settings, seen)
                except _Unwell as found:
                    problem = found
                await asyncio.sleep(PERIOD_SECONDS)
    except TimeoutError:
        raise problem from None
    finally:
        await client.close()


async def _look(client: KubeClient, settings: Settings, seen: _Seen) -> str:
    """A sentence about what is well. Raises _Unwell."""
    lease = ObjectRef(LEASE_API_VERSION, LEASE_KIND, settings.namespace, names.OPERATOR_LEASE)
    try:
        for namespace in settings.watch_namespaces or ("",):
            await client.list_page(_API, names.KIND, namespace, limit=1)
        body = await client.get(lease)
    except KubeError as error:
        raise _Unwell(str(error)) from error
    holder, version = body["spec"].get("holderIdentity"), body["metadata"]["resourceVersion"]
    if not holder:
        raise _Unwell(f"nobody holds {lease}")
    # A holder that died stays in the Lease; only a renewal shows that it lives.
    seen.version = seen.version or version
    if version == seen.version:
        raise _Unwell(f"{holder} holds {lease}, but has not renewed it yet")
    where = ", ".join(settings.watch_namespaces) or "all namespaces"
    return f"{names.KIND} {names.API_VERSION} is served in {where}; the active operator is {holder}"
