"""Answers the kubelet's probes and the other pods' start programs over HTTP; exec would cost far more.

`/live`   200 while this pod waits for its role, or its Redis answers (also that it is loading).
`/ready`  200 when Redis serves: a master, or a replica whose link to its master is up.
`/master` 200 when Redis is a master that takes writes, for a proxy that leads clients to it.
`/state`  what the volume holds, for the decision of the others; how full it is, and what Redis tells, for the operator.
"""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from . import snapshots, standing, volume
from .handover import followers, online_replicas, replicas_to_write
from .network import LOCAL, NO_ANSWER
from .resp import Connection, RespError
from .settings import PORT_REDIS, PORT_STATE, Settings

# Of the orchestrators' jobs.
QUEUE_PREFIX, QUEUE_NAME = "bull", "github-jobs"
LIVE_SECONDS = 3.0
READY_SECONDS = 1.0


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: object, client_address: object) -> None:
        """A proxy that has its answer, and ends the connection without reading it all, is no error."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]


def serve(settings: Settings, running: Callable[[], bool], more: Callable[[], Mapping[str, Any]]) -> None:
    """Serve in the background; `running` tells whether Redis has been started, `more` what else the state has."""

    class Handler(BaseHTTPRequestHandler):
        timeout = 5

        def do_GET(self) -> None:  # the name is http.server's
            match self.path:
                case "/live":
                    self._send(*_live(settings, started=running()))
                case "/master":
                    self._send(*_master(settings, started=running()))
                case "/ready":
                    self._send(*_ready(settings, started=running()))
                case "/state":
                    state = _state(settings, started=running())
                    self._send(200, json.dumps({**state, **more()}))
                case _:
                    self._send(404, "not found")

        def _send(self, status: int, body: str) -> None:
            raw = body.encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  http.server's
            """Say nothing: probes come every few seconds."""

    server = _Server(("", PORT_STATE), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()


def _state(settings: Settings, *, started: bool) -> dict[str, Any]:
    noted = standing.read(settings.paths)
    return {
        "ordinal": settings.ordinal,
        "volume": volume.inspect(settings.paths),
        "running": started,
        "standing": noted.told() if noted is not None else None,
        "volumeUsedPercent": _told(volume.used_percent(settings.paths.data)),
        "snapshots": snapshots.told(settings.paths),
        "redis": _redis(settings) if started else None,
    }


def _told(percent: int | None) -> int | None:
    """In steps of five below 80 %, so that the ordinary ebb and flow is not told."""
    return percent if percent is None or percent >= 80 else percent - percent % 5


def _redis(settings: Settings) -> dict[str, Any] | None:
    try:
        with Connection(
            LOCAL, PORT_REDIS, settings.redis_login, deadline_seconds=READY_SECONDS
        ) as connection:
            replication, memory = connection.info("replication"), connection.info("memory")
            depth = _depth(connection) if replication["role"] == "master" else None
    except NO_ANSWER:
        return None
    limit = int(memory["maxmemory"])
    return {
        "role": replication["role"],
        "offset": int(replication["master_repl_offset"]),
        "memoryUsedPercent": -(-100 * int(memory["used_memory"]) // limit) if limit else None,
        "replicas": {
            replica.address: {"offset": replica.offset, "silentSeconds": replica.silent_seconds}
            for replica in online_replicas(replication)
        },
        "queue": depth,
    }


def _depth(connection: Connection) -> dict[str, int]:
    """Jobs of the queue by state; each is one command whose time does not depend on how many there are.

    Source of the keys: https://docs.bullmq.io/guide/architecture
    """

    def count(*commands: tuple[str, str]) -> int:
        return sum(
            int(str(connection.call(command, f"{QUEUE_PREFIX}:{QUEUE_NAME}:{key}")))
            for command, key in commands
        )

    return {
        # A queue that was paused by BullMQ keeps its waiting jobs in another list.
        "waiting": count(("LLEN", "wait"), ("LLEN", "paused"), ("ZCARD", "prioritized")),
        "active": count(("LLEN", "active")),
        "delayed": count(("ZCARD", "delayed")),
        "failed": count(("ZCARD", "failed")),
    }


def _live(settings: Settings, *, started: bool) -> tuple[int, str]:
    if not started:
        return 200, "waiting for the role"
    try:
        with Connection(LOCAL, PORT_REDIS, settings.redis_login, deadline_seconds=LIVE_SECONDS) as connection:
            connection.call("PING")
    except RespError as error:
        return 200, error.code
    except NO_ANSWER as error:
        return 503, str(error)
    return 200, "ok"


def _master(settings: Settings, *, started: bool) -> tuple[int, str]:
    """A master that too few follow has been replaced, or refuses writes anyway."""
    if not started:
        return 503, "waiting for the role"
    try:
        with Connection(
            LOCAL, PORT_REDIS, settings.redis_login, deadline_seconds=READY_SECONDS
        ) as connection:
            info = connection.info("replication")
            takes_writes = info["role"] == "master" and followers(info) >= replicas_to_write(connection)
    except NO_ANSWER as error:
        return 503, str(error)
    return (200, "master") if takes_writes else (503, info["role"])


def _ready(settings: Settings, *, started: bool) -> tuple[int, str]:
    if not started:
        return 503, "waiting for the role"
    try:
        with Connection(
            LOCAL, PORT_REDIS, settings.redis_login, deadline_seconds=READY_SECONDS
        ) as connection:
            info = connection.info("replication")
            # Fails while it loads, and on a replica that has nothing to serve.
            connection.call("PING")
    except NO_ANSWER as error:
        return 503, str(error)
    if info["role"] == "slave" and info["master_link_status"] != "up":
        return 503, f"the link to the master {info['master_host']} is down"
    return 200, info["role"]
