"""Who may do what in Redis and in Sentinel, and passwords that change while they run.

Redis knows one user for each purpose, and `default` is off unless images that give no user name need it. Sentinel
lets anybody with its password ask who the master is; only the pods and the operator may change anything.

A password changes in the mounted Secret. From then on a pod lets in by the new one and, for a while, by the one before;
it uses the new one itself when all others let in by it. Connections of clients that are there go on.

Source of the rules of replicas and of Sentinel: https://redis.io/docs/latest/operate/oss_and_stack/management/security/acl/
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from runnerhub_passwords import read

from .files import write_private

APPLICATION = "app"
REPLICATION = "replication"
SENTINEL = "sentinel"
MONITORING = "monitoring"
OPERATOR = "operator"
DEFAULT = "default"

# Keys of the Secret. The first two are known to every client.
APPLICATION_KEY = "password"
SENTINEL_CLIENTS_KEY = "sentinel-password"
KEYS = {
    APPLICATION: APPLICATION_KEY,
    REPLICATION: "replication-password",
    SENTINEL: "failover-password",
    MONITORING: "monitoring-password",
    OPERATOR: "operator-password",
}
ALL_KEYS = (*KEYS.values(), SENTINEL_CLIENTS_KEY)

_EVERYTHING = "~* &*"
_NO_STEERING = "+@all -@admin -@dangerous +info +role +client|list"
# All channels but those that begin with `__s`: Sentinels believe what is published in `__sentinel__:hello`, also who
# the master is. To hear of any channel does no harm.
_NO_HELLO = "&[^_]* &_[^_]* &__[^s]* (+subscribe +psubscribe &*)"
REDIS_RULES = {
    # What administers the server or destroys all data at once is closed; BullMQ and clients that go by Sentinel need
    # the rest.
    APPLICATION: f"~* {_NO_HELLO} {_NO_STEERING}",
    REPLICATION: "+psync +replconf +ping",
    SENTINEL: f"{_EVERYTHING} +multi +exec +slaveof +replicaof +ping +subscribe +publish +config|rewrite +role +info "
    "+client|setname +client|kill +script|kill",
    MONITORING: "+ping +info +role +dbsize +client|list +client|setname +slowlog|get +slowlog|len +latency|latest "
    "+latency|histogram +memory|stats",
    OPERATOR: f"{_EVERYTHING} +@all",
}
SENTINEL_RULES = {
    DEFAULT: f"{_EVERYTHING} +auth +hello +ping +info +role +client -client|kill -client|pause "
    "+subscribe +psubscribe +unsubscribe +punsubscribe +sentinel|get-master-addr-by-name +sentinel|master "
    "+sentinel|masters +sentinel|replicas +sentinel|slaves +sentinel|sentinels +sentinel|myid +sentinel|ckquorum",
    OPERATOR: f"{_EVERYTHING} +@all",
}

# After all members let in by a new password: longer than clients give the former one (CHANGE_SECONDS of
# runnerhub_passwords) whose own copy of the Secret is renewed last.
ACCEPT_SECONDS = 300.0
# Where images of somebody else have the password in their environment: until all their pods have been renewed.
PATIENT_SECONDS = 3600.0


@dataclass(frozen=True, slots=True)
class Login:
    """User of one connection, and the passwords to try one after the other."""

    user: str
    passwords: tuple[str, ...]


class Credentials:
    """The passwords of the moment and those before them, which a restart must not forget.

    A new password lets in at once, beside the former ones. The members use the former among themselves until all of
    them let in by the new one (`agreed`), and some time after that it is dropped.
    """

    def __init__(self, folder: Path, memory: Path, clock: Callable[[], float] = time.time) -> None:
        """Raises OSError when a password has never been there."""
        self._folder = folder
        self._memory = memory
        self._clock = clock
        # The newest first.
        self._words: dict[str, list[str]] = {}
        self._agreed_at: float | None = None
        self._remember()
        # On a full volume: the next life reads them again.
        with suppress(OSError):
            self.refresh()
        for key in ALL_KEYS:
            if not self._words.get(key):
                raise OSError(f"the Secret has no usable {key}")

    @property
    def agreed(self) -> bool:
        """Whether all members let in by the newest passwords."""
        return self._agreed_at is not None

    def accepted(self, key: str) -> tuple[str, ...]:
        """What lets in now, the newest first."""
        return tuple(self._words[key])

    def used(self, key: str) -> str:
        """What this pod itself gives to others."""
        return self._words[key][0 if self.agreed else -1]

    def login(self, user: str) -> Login:
        """As this user, by what others know for certain, and then by whatever they may know."""
        key = KEYS[user]
        first = self.used(key)
        return Login(user, (first, *(word for word in self._words[key] if word != first)))

    def refresh(self, accept_seconds: float = PATIENT_SECONDS) -> None:
        """Read the files, and drop what has lasted long enough. Raises OSError when a new one cannot be remembered."""
        before = {key: list(words) for key, words in self._words.items()}
        for key in ALL_KEYS:
            found = read(self._folder / key)
            words = self._words.setdefault(key, [])
            if found is not None and words[:1] != [found[0]]:
                self._words[key] = [found[0], *(word for word in words if word != found[0])]
        if self._words != before:
            # At the very first start nobody has another password.
            first = not any(before.values())
            self._agreed_at = self._clock() if first else None
            self._write()
        elif any(len(words) > 1 for words in self._words.values()) and self._lasted(accept_seconds):
            self._words = {key: words[:1] for key, words in self._words.items()}
            # On a full volume: the next life drops them again.
            with suppress(OSError):
                self._write()

    def _lasted(self, accept_seconds: float) -> bool:
        """Whether clients too have had time enough."""
        return self._agreed_at is not None and self._clock() >= self._agreed_at + accept_seconds

    def agree(self) -> None:
        """Note that all members let in by the newest passwords."""
        self._agreed_at = self._clock()
        self._write()

    def _remember(self) -> None:
        try:
            known = json.loads(self._memory.read_text(encoding="utf-8"))
            self._words = {key: [str(word) for word in known["words"].get(key, [])] for key in ALL_KEYS}
            self._agreed_at = None if known["agreedAt"] is None else float(known["agreedAt"])
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            # The first start on this volume.
            self._words, self._agreed_at = {}, None

    def _write(self) -> None:
        write_private(self._memory, json.dumps({"words": self._words, "agreedAt": self._agreed_at}))


def redis_users(credentials: Credentials, *, nameless_clients: bool) -> dict[str, tuple[str, ...]]:
    """Users of Redis, each with what ACL SETUSER takes after the name: rules and passwords.

    `nameless_clients`: clients that give a password alone get in, as the application. Otherwise nobody gets in as
    `default`, which may do everything all the same: a server loads its append-only file as that user, and leaves out
    every transaction and script in it that the user may not run (https://github.com/redis/redis/issues/14541).
    """
    found = {
        user: _user(REDIS_RULES[user], credentials.accepted(key), is_on=True) for user, key in KEYS.items()
    }
    application = REDIS_RULES[APPLICATION], credentials.accepted(APPLICATION_KEY)
    found[DEFAULT] = (
        _user(*application, is_on=True) if nameless_clients else _user(REDIS_RULES[OPERATOR], (), is_on=False)
    )
    return found


def sentinel_users(credentials: Credentials) -> dict[str, tuple[str, ...]]:
    """Users of Sentinel, in the same form."""
    return {
        DEFAULT: _user(SENTINEL_RULES[DEFAULT], credentials.accepted(SENTINEL_CLIENTS_KEY), is_on=True),
        OPERATOR: _user(SENTINEL_RULES[OPERATOR], credentials.accepted(KEYS[OPERATOR]), is_on=True),
    }


def _user(rules: str, passwords: tuple[str, ...], *, is_on: bool) -> tuple[str, ...]:
    # Everything that was there before goes first, in the same command.
    state = "on" if is_on else "off"
    return ("reset", state, *rules.split(), *(f">{password}" for password in passwords))


def lines(users: Mapping[str, tuple[str, ...]]) -> list[str]:
    """The users as lines of a configuration file."""
    return [" ".join(("user", name, *(quoted(word) for word in words))) for name, words in users.items()]


def quoted(value: str) -> str:
    """A value in the quotes that Redis' configuration parser reads back unchanged, where it needs them."""
    if value and not set(value) & set(" \"'\\#\t"):
        return value
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
