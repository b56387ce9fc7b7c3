"""What listens at the played pods' addresses: Patroni, Sentinel, start programs and poolers' agents, as far as asked.

Plain protocols instead of a web server: a few hundred clusters are asked several hundred times a second, on the
same machine that is measured.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any, Final

from e2e.stage.roles import PlayedCluster
from runnerhub_operator import names

_HEAD_END: Final = b"\r\n\r\n"


class _Protocol(asyncio.Protocol):
    def __init__(self, cluster: PlayedCluster) -> None:
        self._cluster = cluster
        self._received = b""
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport


class _HttpProtocol(_Protocol):
    """HTTP/1.1 with whole requests and answers."""

    def data_received(self, data: bytes) -> None:
        """Answer each complete request."""
        self._received += data
        while _HEAD_END in self._received:
            head, _, rest = self._received.partition(_HEAD_END)
            line, *fields = head.decode("latin-1").split("\r\n")
            headers = {
                name.strip().lower(): value.strip() for name, _, value in (f.partition(":") for f in fields)
            }
            length = int(headers.get("content-length", 0))
            if len(rest) < length:
                return
            self._received = rest[length:]
            method, path, _version = line.split(" ", 2)
            status, text = self._answer(method, path.partition("?")[0], rest[:length])
            body = text.encode()
            self._transport.write(
                f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode()
                + body
            )
            if headers.get("connection", "").lower() == "close":
                self._transport.close()

    def _answer(self, method: str, path: str, body: bytes) -> tuple[str, str]:
        raise NotImplementedError

    def _address(self) -> str:
        """The address of the pod that was asked."""
        host: str = self._transport.get_extra_info("sockname")[0]
        return host


class PoolerProtocol(_HttpProtocol):
    """POST /pause, /resume, /checkpoint and /leave, GET /healthz and /needs: nobody is connected, so nobody waits."""

    def _answer(self, method: str, path: str, _body: bytes) -> tuple[str, str]:
        if method == "POST" and path in ("/pause", "/resume", "/checkpoint", "/leave"):
            return "200 OK", json.dumps({"message": "done"})
        if (method, path) == ("GET", "/healthz"):
            return "200 OK", json.dumps({"message": "ok"})
        if (method, path) == ("GET", "/needs"):
            return "200 OK", json.dumps({"message": "0"})
        return "404 Not Found", "{}"


class RedisPodProtocol(_HttpProtocol):
    """GET /state: a volume and a memory with room, and replicas in step."""

    def _answer(self, method: str, path: str, _body: bytes) -> tuple[str, str]:
        if (method, path) != ("GET", "/state"):
            return "404 Not Found", "{}"
        replicas = {
            replica["ip"]: {"offset": 1, "silentSeconds": 0} for replica in self._cluster.sentinel_replicas()
        }
        redis = {"role": "master", "offset": 1, "memoryUsedPercent": 5, "replicas": replicas}
        return "200 OK", json.dumps({"volumeUsedPercent": 10, "snapshots": [], "redis": redis})


class OrchestratorProtocol(_HttpProtocol):
    """GET /api/runners/demand. PUT /demand is a test's."""

    def _answer(self, method: str, path: str, body: bytes) -> tuple[str, str]:
        if (method, path) == ("PUT", "/demand"):
            self._cluster.demand = json.loads(body)
            return "200 OK", "{}"
        if (method, path) == ("GET", "/api/runners/demand") and self._cluster.demand is not None:
            return "200 OK", json.dumps(self._cluster.demand)
        return "404 Not Found", json.dumps({"message": "Not Found"})


class BalancerProtocol(_HttpProtocol):
    """GET /health: an orchestrator answers through HAProxy."""

    def _answer(self, method: str, path: str, _body: bytes) -> tuple[str, str]:
        if (method, path) != ("GET", "/health"):
            return "404 Not Found", "{}"
        dependencies = {name: {"status": "up"} for name in ("orchestrator", "database", "redis")}
        return "200 OK", json.dumps({"dependencies": dependencies})


class RunnerProtocol(_HttpProtocol):
    """POST /drain."""

    def _answer(self, method: str, path: str, _body: bytes) -> tuple[str, str]:
        if (method, path) != ("POST", "/drain"):
            return "404 Not Found", "{}"
        state = self._cluster.drain(self._address())
        return ("200 OK", json.dumps({"state": state})) if state else ("500 Internal Server Error", "{}")


class PatroniProtocol(_HttpProtocol):
    """GET /cluster and /patroni, GET and PATCH /config, POST /switchover, /restart and /reinitialize.

    POST /break is a test's.
    """

    def _answer(self, method: str, path: str, body: bytes) -> tuple[str, str]:
        cluster = self._cluster
        match method, path:
            case "GET", "/cluster":
                return "200 OK", json.dumps(cluster.patroni_members())
            case "GET", "/patroni":
                return "200 OK", json.dumps(cluster.patroni_own_words(self._address()))
            case "GET", "/config":
                return "200 OK", json.dumps(cluster.config)
            case "PATCH", "/config":
                cluster.config = merged(cluster.config, json.loads(body))
                return "200 OK", json.dumps(cluster.config)
            case "POST", "/switchover":
                if cluster.hand_over(names.POSTGRES, json.loads(body).get("candidate")):
                    return "200 OK", "Successfully switched over"
                return "412 Precondition Failed", "no good candidates have been found"
            case "POST", "/restart":
                return "200 OK", "done"
            case "POST", "/reinitialize":
                if cluster.reinitialize(self._address()):
                    return "200 OK", "reinitialize started"
                return "503 Service Unavailable", "I am the leader, can not reinitialize"
            case "POST", "/break":
                if cluster.break_replica(self._address(), json.loads(body)["state"]):
                    return "200 OK", "broken"
                return "409 Conflict", "no replica"
        return "404 Not Found", "{}"


def merged(before: Mapping[str, Any], patch: Mapping[str, Any]) -> dict[str, Any]:
    """A JSON merge patch applied (RFC 7386)."""
    result = dict(before)
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        elif isinstance(value, Mapping):
            below = result.get(key)
            result[key] = merged(below if isinstance(below, Mapping) else {}, value)
        else:
            result[key] = value
    return result


class SentinelProtocol(_Protocol):
    """RESP 2: the four questions of the operator's probe; every other command is answered by OK, as AUTH is."""

    def data_received(self, data: bytes) -> None:
        """Answer each complete command."""
        self._received += data
        while (parsed := parse_command(self._received)) is not None:
            words, self._received = parsed
            self._transport.write(self._answer(words))

    def _answer(self, words: list[str]) -> bytes:
        if words[0].upper() != "SENTINEL" or len(words) < 2:
            return b"+OK\r\n"
        master = self._cluster.sentinel_master()
        if master is None:
            return b"-ERR No such master with that name\r\n"
        match words[1].upper():
            case "GET-MASTER-ADDR-BY-NAME":
                return encode([master["ip"], master["port"]])
            case "MASTER":
                return encode(_flat(master))
            case "REPLICAS":
                return encode([_flat(replica) for replica in self._cluster.sentinel_replicas()])
            case "FAILOVER":
                moved = self._cluster.hand_over(names.REDIS)
                return b"+OK\r\n" if moved else b"-NOGOODSLAVE No suitable replica to promote\r\n"
        return b"+OK 3 usable Sentinels. Quorum and failover authorization can be reached\r\n"


def parse_command(data: bytes) -> tuple[list[str], bytes] | None:
    """The first command, an array of bulk strings, and what follows it; None when it is not complete yet.

    Source: https://redis.io/docs/latest/develop/reference/protocol-spec/
    """
    head, separator, rest = data.partition(b"\r\n")
    if not separator:
        return None
    words = []
    for _ in range(int(head[1:])):
        size, separator, rest = rest.partition(b"\r\n")
        length = int(size[1:]) if separator else 0
        if not separator or len(rest) < length + 2:
            return None
        words.append(rest[:length].decode())
        rest = rest[length + 2 :]
    return words, rest


def encode(value: str | list[Any]) -> bytes:
    """A bulk string or an array."""
    if isinstance(value, str):
        return f"${len(value.encode())}\r\n{value}\r\n".encode()
    return f"*{len(value)}\r\n".encode() + b"".join(encode(item) for item in value)


def _flat(fields: Mapping[str, str]) -> list[str]:
    return [word for pair in fields.items() for word in pair]


_SERVED: Final[Mapping[str, Mapping[int, type[_Protocol]]]] = {
    names.POSTGRES: {names.PORT_PATRONI: PatroniProtocol},
    names.POOLER: {names.PORT_POOLER_AGENT: PoolerProtocol},
    names.REDIS: {names.PORT_SENTINEL: SentinelProtocol, names.PORT_REDIS_STATE: RedisPodProtocol},
    names.ORCHESTRATOR: {names.PORT_ORCHESTRATOR: OrchestratorProtocol},
    names.LOAD_BALANCER: {names.PORT_ORCHESTRATOR: BalancerProtocol},
    names.RUNNER: {names.PORT_RUNNER: RunnerProtocol},
}


class Listeners:
    """Listening sockets of the pods that have something to say: a pod that is gone refuses connections."""

    def __init__(self) -> None:
        self._servers: dict[str, list[asyncio.Server]] = {}

    async def open(self, cluster: PlayedCluster, component: str, ip: str) -> None:
        """Listen at a pod's address, unless somebody does already or its component says nothing."""
        if component not in _SERVED or ip in self._servers:
            return
        loop = asyncio.get_running_loop()
        servers = self._servers[ip] = []
        for port, protocol in _SERVED[component].items():
            servers.append(
                await loop.create_server(lambda protocol=protocol: protocol(cluster), ip, port, backlog=64)  # type: ignore[misc]
            )

    def close(self, ip: str) -> None:
        """Stop listening at an address; connections that are open stay open."""
        for server in self._servers.pop(ip, ()):
            server.close()
