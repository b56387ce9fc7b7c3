"""How many orchestrators of the cluster answer."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Sequence
from urllib.parse import urlsplit, urlunsplit

import aiohttp

from .candidacy import Outcome, ask
from .checks import Details


class NodesProbe:
    """Resolves the names of HA_CLUSTER_NODES and asks each address for its health, as `health_url` of this
    pod.
    """

    def __init__(self, nodes: Sequence[str], health_url: str, session: aiohttp.ClientSession) -> None:
        self._nodes = nodes
        self._url = urlsplit(health_url)
        self._session = session
        self.healthy: int | None = None
        # Where they were when their names resolved last: who cannot ask DNS may still ask them.
        self.addresses: tuple[str, ...] = ()

    async def __call__(self) -> Details:
        """Count once; names that do not resolve count as no node."""
        addresses = sorted(set().union(*await asyncio.gather(*(self._resolve(node) for node in self._nodes))))
        self.addresses = tuple(addresses) or self.addresses
        answers = await asyncio.gather(*(ask(self._session, self._url_of(address)) for address in addresses))
        self.healthy = sum(outcome is Outcome.OK for outcome, _ in answers)
        return {"nodes": len(addresses), "nodesHealthy": self.healthy}

    async def _resolve(self, node: str) -> set[str]:
        try:
            found = await asyncio.get_running_loop().getaddrinfo(node, None, type=socket.SOCK_STREAM)
        except OSError:
            return set()
        return {str(entry[4][0]) for entry in found}

    def _url_of(self, address: str) -> str:
        return url_of(self._url.scheme, address, self._url.port or 80, self._url.path)


def url_of(scheme: str, address: str, port: int, path: str) -> str:
    """The URL of a server by its IP address."""
    host = f"[{address}]" if ipaddress.ip_address(address).version == 6 else address
    return urlunsplit((scheme, f"{host}:{port}", path, "", ""))
