"""Asks the other pods: addresses, Sentinels, Redis, start programs. Who does not answer is left out."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import TypeVar

from . import standing
from .config import parse_sentinel_state, translated
from .decision import PeerState, RedisAnswer, SentinelAnswer, Volume
from .files import write_private
from .resp import Connection, RespError, pairs
from .settings import PORT_REDIS, PORT_SENTINEL, PORT_STATE, Settings

DEADLINE_SECONDS = 1.0
LOCAL = "127.0.0.1"

# A lookup that fails is repeated; CoreDNS may deny a name that is only just there for up to 30 s.
RESOLVE_RETRY_SECONDS = 0.5
RESOLVE_AGAIN_SECONDS = 30.0
# Addresses of Services outlive DNS, so those of the last start serve while it does not answer.
DNS_PATIENCE_SECONDS = 5.0

Answer = TypeVar("Answer")

NO_ANSWER = (OSError, RespError, HTTPException, ValueError, KeyError)


class Resolver:
    """Looks the pods' own Services up in the background, again and again: one that is made anew may have moved."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._started = time.monotonic()
        self._found: dict[int, str] = {}
        for ordinal in range(settings.replicas):
            threading.Thread(target=self._resolve, args=(ordinal,), daemon=True).start()

    def addresses(self) -> dict[int, str]:
        """Literal addresses by ordinal, as far as they are known now."""
        found = self.looked_up()
        path = self._settings.paths.addresses
        if len(found) == self._settings.replicas:
            if found != remembered_addresses(path):
                with suppress(OSError):  # the volume may be full
                    write_private(path, json.dumps(found))
            return found
        if time.monotonic() - self._started < DNS_PATIENCE_SECONDS:
            return found
        remembered = remembered_addresses(path)
        return {n: remembered[n] for n in range(self._settings.replicas) if n in remembered} | found

    def looked_up(self) -> dict[int, str]:
        """Literal addresses by ordinal, of those alone that DNS has told since this start."""
        return dict(self._found)

    def _resolve(self, ordinal: int) -> None:
        while True:
            try:
                answer = socket.getaddrinfo(self._settings.host(ordinal), PORT_REDIS, type=socket.SOCK_STREAM)
            except OSError:
                time.sleep(RESOLVE_RETRY_SECONDS)
            else:
                self._found[ordinal] = str(answer[0][4][0])
                time.sleep(RESOLVE_AGAIN_SECONDS)


def remembered_addresses(path: Path) -> dict[int, str]:
    """The addresses of the last start; empty when there was none."""
    try:
        return {int(ordinal): str(address) for ordinal, address in json.loads(path.read_text()).items()}
    except (OSError, ValueError):
        return {}


def ask_sentinels(settings: Settings, hosts: Mapping[int, str]) -> dict[int, SentinelAnswer]:
    """What the running Sentinels say of the master, by ordinal."""

    def ask(_ordinal: int, host: str) -> SentinelAnswer:
        with Connection(
            host, PORT_SENTINEL, settings.sentinel_login, deadline_seconds=DEADLINE_SECONDS
        ) as connection:
            answer = sentinel_answer(connection, settings.master_name)
            return replace(answer, tilt=connection.info("sentinel")["sentinel_tilt"] != "0")

    return _ask_all(hosts, ask)


def sentinel_answer(connection: Connection, master_name: str) -> SentinelAnswer:
    """What one Sentinel says; GET-MASTER-ADDR names the promoted replica earlier than MASTER does."""
    address = connection.call("SENTINEL", "GET-MASTER-ADDR-BY-NAME", master_name)
    if not isinstance(address, list) or not address:
        raise ValueError("this Sentinel watches no master of that name")
    master = pairs(connection.call("SENTINEL", "MASTER", master_name))
    return SentinelAnswer(
        master=str(address[0]),
        config_epoch=int(master["config-epoch"]),
        flags=frozenset(master["flags"].split(",")),
    )


def own_sentinel_file(settings: Settings, addresses: Mapping[int, str]) -> SentinelAnswer | None:
    """What this pod's Sentinel knew last, by the addresses of today."""
    try:
        text = settings.paths.sentinel_state.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    state = parse_sentinel_state(text, settings.master_name)
    if state is None:
        return None
    if len(addresses) == settings.replicas:
        state = translated(state, addresses)
    return SentinelAnswer(master=state.master, config_epoch=state.config_epoch, live=False)


def ask_redis(settings: Settings, hosts: Mapping[int, str]) -> list[RedisAnswer]:
    """What the running Redis servers say of themselves."""

    def ask(ordinal: int, host: str) -> RedisAnswer:
        with Connection(
            host, PORT_REDIS, settings.redis_login, deadline_seconds=DEADLINE_SECONDS
        ) as connection:
            return redis_answer(ordinal, connection.info("replication"))

    return list(_ask_all(hosts, ask).values())


def replication_of(settings: Settings, host: str) -> dict[str, str]:
    """INFO replication of one server; empty when it does not answer."""
    try:
        with Connection(
            host, PORT_REDIS, settings.redis_login, deadline_seconds=DEADLINE_SECONDS
        ) as connection:
            return connection.info("replication")
    except NO_ANSWER:
        return {}


def redis_answer(ordinal: int, info: Mapping[str, str]) -> RedisAnswer:
    """INFO replication as an answer."""
    return RedisAnswer(
        ordinal=ordinal,
        role=info["role"],
        master=info.get("master_host"),
        offset=int(info.get("slave_repl_offset") or info["master_repl_offset"]),
        connected_replicas=int(info["connected_slaves"]),
        promotable=info.get("master_link_status") == "up" and info.get("slave_priority") != "0",
    )


def ask_states(hosts: Mapping[int, str]) -> list[PeerState]:
    """What the pods' start programs say of their volumes."""

    def ask(_ordinal: int, host: str) -> PeerState:
        connection = HTTPConnection(host, PORT_STATE, timeout=DEADLINE_SECONDS)
        try:
            connection.request("GET", "/state")
            answer = json.loads(connection.getresponse().read())
        finally:
            connection.close()
        return PeerState(
            ordinal=int(answer["ordinal"]),
            volume=Volume(answer["volume"]),
            running=answer.get("running") is True,
            standing=standing.parse(answer.get("standing")),
        )

    return list(_ask_all(hosts, ask).values())


def _ask_all(hosts: Mapping[int, str], ask: Callable[[int, str], Answer]) -> dict[int, Answer]:
    def one(ordinal: int, host: str) -> dict[int, Answer]:
        try:
            return {ordinal: ask(ordinal, host)}
        except NO_ANSWER:
            return {}

    answers: dict[int, Answer] = {}
    with ThreadPoolExecutor(max_workers=max(1, len(hosts))) as pool:
        for answer in pool.map(one, hosts.keys(), hosts.values()):
            answers |= answer
    return answers
