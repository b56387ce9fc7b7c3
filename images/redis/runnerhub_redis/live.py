"""Brings changed settings into effect while Redis and Sentinel run.

Kubernetes renews the mounted files; what Redis' configuration says is given to the running server by CONFIG SET, the
steward gives Sentinel its times, and users get their new passwords by ACL SETUSER.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from . import access
from .log import log
from .network import LOCAL, NO_ANSWER
from .resp import Connection, RespError
from .settings import PORT_REDIS, PORT_SENTINEL, Settings

LOOK_SECONDS = 2.0
CALL_SECONDS = 3.0


def directives(text: str) -> dict[str, str]:
    """Lines `name value` by name; quotes around a whole value are taken off."""
    found = {}
    for line in text.splitlines():
        name, _, value = line.strip().partition(" ")
        if name and not name.startswith("#"):
            value = value.strip()
            found[name] = value[1:-1] if len(value) > 1 and value[0] == value[-1] == '"' else value
    return found


def changes(before: str, after: str) -> dict[str, str]:
    """Directives of `after` that `before` has not, or has otherwise."""
    old = directives(before)
    return {name: value for name, value in directives(after).items() if old.get(name) != value}


class Configuration:
    """The operator's part of redis.conf: what of it the running server has."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        folder = settings.paths.configuration
        self._path: Path = folder / "redis.conf"
        self._times: Path = folder / "settings.json"
        self._applied = self._applied_times = ""
        self._refused: dict[str, str] = {}

    @property
    def applied(self) -> str:
        """Hash of what is in effect, as the operator makes it of what it wants."""
        return digest(self._applied, self._applied_times)

    def begin(self) -> None:
        """Note what the server that is about to start reads."""
        self._applied, self._applied_times = self._texts()

    def _texts(self) -> tuple[str, str]:
        return self._path.read_text(encoding="utf-8"), self._times.read_text(encoding="utf-8")

    def run(self, goes_on: Callable[[], bool]) -> None:
        """Look again and again."""
        while goes_on():
            time.sleep(LOOK_SECONDS)
            try:
                self.look()
            except NO_ANSWER:
                # Redis starts, loads or ends, or the file is just being replaced.
                continue

    def look(self) -> None:
        """Give the server what has changed. Raises one of NO_ANSWER."""
        wanted, times = self._texts()
        found = changes(self._applied, wanted)
        if self._settings.max_memory_bytes:
            # Until it is renewed, the container has the limit that it was started with.
            found.pop("maxmemory", None)
        if found:
            with Connection(
                LOCAL, PORT_REDIS, self._settings.redis_login, deadline_seconds=CALL_SECONDS
            ) as connection:
                refused = {}
                for name, value in found.items():
                    try:
                        connection.call("CONFIG", "SET", name, value)
                    except RespError as error:
                        if error.code in ("LOADING", "NOAUTH", "WRONGPASS"):
                            raise
                        refused[name] = str(error)
                if refused:
                    if refused != self._refused:
                        log("Redis refuses a part of its new configuration", **refused)
                    self._refused = refused
                    return
            log("configuration changed", **found)
        self._refused = {}
        # The other file is the steward's, who reads it as often.
        self._applied, self._applied_times = wanted, times


def digest(configuration: str, settings: str) -> str:
    """Hash of the two files."""
    return hashlib.sha256("\0".join((configuration, settings)).encode()).hexdigest()[:16]


Command = tuple[str, ...]


def redis_access(settings: Settings) -> list[Command]:
    """Commands that make of any Redis one that lets in whom it should, and follows its master by the right password.

    Raises OSError, KeyError or ValueError when settings or passwords cannot be read.
    """
    if settings.credentials is None:
        return []
    nameless = settings.today().nameless_clients
    users = access.redis_users(settings.credentials, nameless_clients=nameless)
    return [
        *(("ACL", "SETUSER", name, *words) for name, words in users.items()),
        ("CONFIG", "SET", "masteruser", access.REPLICATION),
        ("CONFIG", "SET", "masterauth", settings.credentials.used(access.KEYS[access.REPLICATION])),
    ]


def sentinel_access(settings: Settings) -> list[Command]:
    """The same for a Sentinel and how it gets in elsewhere; it makes its own connections anew for that."""
    if settings.credentials is None:
        return []
    users, name = access.sentinel_users(settings.credentials), settings.master_name
    others, redis = access.KEYS[access.OPERATOR], access.KEYS[access.SENTINEL]
    return [
        *(("ACL", "SETUSER", user, *words) for user, words in users.items()),
        ("SENTINEL", "CONFIG", "SET", "sentinel-pass", settings.credentials.used(others)),
        ("SENTINEL", "SET", name, "auth-pass", settings.credentials.used(redis)),
    ]


class Access:
    """The users and passwords of one running server. `commands` make it right; it was started with those of then.

    `addresses`: of all members.
    """

    def __init__(
        self,
        settings: Settings,
        port: int,
        commands: Callable[[Settings], list[Command]],
        addresses: Callable[[], Mapping[int, str]],
    ) -> None:
        self._settings = settings
        self._port = port
        self._commands = commands
        self._addresses = addresses
        self._done = commands(settings)

    def run(self, goes_on: Callable[[], bool]) -> None:
        """Look again and again."""
        while goes_on():
            time.sleep(LOOK_SECONDS)
            try:
                self.look()
            except NO_ANSWER as error:
                # The server starts, loads or ends; anything else would be told again and again for a reason.
                if isinstance(error, RespError) and error.code != "LOADING":
                    log("new passwords are refused", error=error.code)

    def forget(self) -> None:
        """The server was started with whatever it had written itself: tell it everything."""
        self._done = []

    def look(self) -> None:
        """Do what is new. Raises one of NO_ANSWER; it is tried again then."""
        credentials = self._settings.credentials
        if credentials is None:
            return
        nameless = self._settings.today().nameless_clients
        credentials.refresh(access.PATIENT_SECONDS if nameless else access.ACCEPT_SECONDS)
        self._bring_about()
        if not credentials.agreed and self._all_let_in(credentials):
            credentials.agree()
            self._bring_about()

    def _bring_about(self) -> None:
        wanted = self._commands(self._settings)
        new = [command for command in wanted if command not in self._done]
        if not new:
            return
        login = self._settings.redis_login
        with Connection(LOCAL, self._port, login, deadline_seconds=CALL_SECONDS) as connection:
            for command in new:
                connection.call(*command)
        self._done = wanted
        # Never the passwords.
        log("access changed", commands=[" ".join(command[:3]) for command in new])

    def _all_let_in(self, credentials: access.Credentials) -> bool:
        """Whether every Redis and every Sentinel that answers lets in by the newest passwords.

        One that does not answer has no connections to lose; it finds the others in step when it is back.
        """
        users = {PORT_REDIS: tuple(access.KEYS), PORT_SENTINEL: (access.OPERATOR,)}

        def lets_in(host: str, port: int) -> bool:
            try:
                with Connection(host, port, None, deadline_seconds=CALL_SECONDS) as connection:
                    for user in users[port]:
                        connection.call("AUTH", user, credentials.accepted(access.KEYS[user])[0])
            except RespError:
                return False
            except NO_ANSWER:
                return True
            return True

        hosts = [
            LOCAL if ordinal == self._settings.ordinal else host
            for ordinal, host in self._addresses().items()
        ]
        doors = [(host, port) for host in hosts for port in users]
        with ThreadPoolExecutor(max_workers=max(1, len(doors))) as pool:
            return all(pool.map(lambda door: lets_in(*door), doors))
