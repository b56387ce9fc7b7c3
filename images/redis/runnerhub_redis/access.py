"""Who may do what in Redis and in Sentinel, and passwords that change while they run.

Redis knows one user for each purpose, and `default` is off unless images that give no user name need it. Sentinel
lets anybody with its password ask who the master is; only the pods and the operator may change anything.

A password changes in the mounted Secret. From then on a pod lets in by the new one and, for a while, by the one before;
it uses the new one itself when all others have had time to learn of it. Connections that are there go on.

Source of the rules of replicas and of Sentinel: https://redis.io/docs/latest/operate/oss_and_stack/management/security/acl/
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from runnerhub_passwords import PasswordFile

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

_EVERYTHING = "~* &*"
_NO_STEERING = "+@all -@admin -@dangerous +info +role +client|list"
REDIS_RULES = {
    # What administers the server or destroys all data at once is closed; BullMQ and clients that go by Sentinel need
    # the rest.
    APPLICATION: f"{_EVERYTHING} {_NO_STEERING}",
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

# By then Kubernetes has given every pod its copy; it does so at once for pods that the operator marks.
USE_SECONDS = 100.0
# Longer than clients use the former one (CHANGE_SECONDS of runnerhub_passwords after their own copy changed).
ACCEPT_SECONDS = 300.0


@dataclass(frozen=True, slots=True)
class Login:
    """User and password of one connection."""

    user: str
    password: str


class Credentials:
    """The passwords of the moment. Raises OSError when one has never been there."""

    def __init__(self, folder: Path, clock: Callable[[], float] = time.monotonic) -> None:
        keys = (*KEYS.values(), SENTINEL_CLIENTS_KEY)
        self._accepted = {key: PasswordFile(folder / key, clock, ACCEPT_SECONDS) for key in keys}
        self._used = {key: PasswordFile(folder / key, clock, USE_SECONDS) for key in keys}
        for key in keys:
            self.accepted(key)
            self.used(key)

    def accepted(self, key: str) -> tuple[str, ...]:
        """What lets in now, the newest first."""
        return _there(key, self._accepted[key].candidates())

    def used(self, key: str) -> str:
        """What this pod itself gives to others."""
        return _there(key, self._used[key].candidates())[-1]

    def login(self, user: str) -> Login:
        """As this user, at Redis or as the operator at Sentinel."""
        return Login(user, self.used(KEYS[user]))


def _there(key: str, found: tuple[str, ...]) -> tuple[str, ...]:
    if not found:
        raise OSError(f"the Secret has no usable {key}")
    return found


def redis_users(credentials: Credentials, *, nameless_clients: bool) -> dict[str, tuple[str, ...]]:
    """Users of Redis, each with what ACL SETUSER takes after the name: rules and passwords.

    `nameless_clients`: clients that give a password alone get in, as the application.
    """
    found = {
        user: _user(REDIS_RULES[user], credentials.accepted(key), is_on=True) for user, key in KEYS.items()
    }
    application = REDIS_RULES[APPLICATION], credentials.accepted(APPLICATION_KEY)
    found[DEFAULT] = _user(*application, is_on=True) if nameless_clients else _user("", (), is_on=False)
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
