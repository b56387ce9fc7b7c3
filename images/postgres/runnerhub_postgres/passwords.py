"""The passwords of the database, and how a new one comes into effect while it works.

Kubernetes renews the mounted Secret. The primary changes the roles, each member's Patroni is told when its Postgres has
the change. The primary also looks once a minute, because a member that becomes primary may not have replayed what the
one before changed. Its copy of the Secret may be an old one then, as when its kubelet is gone: before it changes a role
it asks the API server, and does nothing when that has another Secret, or does not answer.

Patroni itself reaches its Postgres through the socket, where no password is asked for, so nothing depends on which of
the two knows a new one first. On the network Postgres' answer counts: the poolers go on with the old password
until the primary takes the new one.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import logging
import os
import signal
import threading
import time
import unicodedata
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import psycopg
from psycopg import sql

from .kubernetes import Api, RefusedError

logger = logging.getLogger(__name__)

SUPERUSER: Final = "postgres"
REPLICATION_ROLE: Final = "replicator"
APP_ROLE: Final = "app"
MONITORING_ROLE: Final = "monitoring"
REST_USER: Final = "patroni"

# By role of Postgres, the key of the Secret.
ROLE_KEYS: Final = {
    SUPERUSER: "superuser-password",
    REPLICATION_ROLE: "replication-password",
    APP_ROLE: "app-password",
    MONITORING_ROLE: "monitoring-password",
}
REST_KEY: Final = "restapi-password"
_NEEDED_KEYS: Final = (ROLE_KEYS[SUPERUSER], ROLE_KEYS[REPLICATION_ROLE], REST_KEY)

LOOK_SECONDS: Final = 1.0
# How often the primary's roles are looked at without a change of the Secret.
CHECK_SECONDS: Final = 60.0
# Between a new Secret and the change of the roles: the other pods have it too by then, and follow all at once.
GRACE_SECONDS: Final = 6.0
# How long a replica waits for the change of the roles before its Patroni gets the new passwords all the same.
PATIENCE_SECONDS: Final = 20.0
STATEMENT_SECONDS: Final = 5.0
SILENT_LOOKS: Final = 30

Passwords = Mapping[str, str]


def read_passwords(folder: Path, known: Passwords | None = None) -> dict[str, str]:
    """Passwords by key of the mounted Secret; a line break at the end is not part of one.

    One that is empty, no text or not printable is not used: the one in `known` stays, and a role without any is left as
    it is. Raises ValueError when Patroni itself would have none, OSError when there is no Secret.
    """
    found = {}
    for key in (*ROLE_KEYS.values(), REST_KEY):
        password = usable((folder / key).read_bytes()) or (known or {}).get(key)
        if password is not None:
            found[key] = password
        elif key in _NEEDED_KEYS:
            raise ValueError(f"{key} is empty or has a character that cannot be printed")
    return found


def usable(value: bytes) -> str | None:
    """A value of the Secret as a password, None when it cannot be one."""
    try:
        text = value.decode().rstrip("\r\n")
    except UnicodeDecodeError:
        return None
    return text if text and text.isprintable() else None


def patroni_settings(passwords: Passwords) -> dict[str, Any]:
    """The part of Patroni's configuration that has the passwords.

    Source of names: https://patroni.readthedocs.io/en/latest/yaml_configuration.html
    """
    return {
        "restapi": {"authentication": {"username": REST_USER, "password": passwords[REST_KEY]}},
        "postgresql": {
            "authentication": {
                "superuser": {"username": SUPERUSER, "password": passwords[ROLE_KEYS[SUPERUSER]]},
                "replication": {
                    "username": REPLICATION_ROLE,
                    "password": passwords[ROLE_KEYS[REPLICATION_ROLE]],
                },
            }
        },
    }


def write_settings(passwords: Passwords, path: Path) -> None:
    """Write Patroni's part for this user only; a reader finds the old file or the new one. Raises OSError."""
    new = path.with_suffix(".new")
    new.unlink(missing_ok=True)
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        # JSON is YAML.
        json.dump(patroni_settings(passwords), file)
    new.replace(path)


def known_settings(path: Path) -> dict[str, str]:
    """The passwords that an earlier process of this pod gave to Patroni, by key; none when there was none."""
    try:
        written = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    roles = written["postgresql"]["authentication"]
    return {
        REST_KEY: written["restapi"]["authentication"]["password"],
        ROLE_KEYS[SUPERUSER]: roles["superuser"]["password"],
        ROLE_KEYS[REPLICATION_ROLE]: roles["replication"]["password"],
    }


def authorization(password: str) -> str:
    """The header by which Patroni's REST API lets in."""
    return "Basic " + base64.b64encode(f"{REST_USER}:{password}".encode()).decode()


# --- Roles ---


def fits(stored: str | None, password: str) -> bool:
    """Whether what Postgres keeps of a role's password was made from this one.

    `stored`: pg_authid.rolpassword, SCRAM-SHA-256$<iterations>:<salt>$<StoredKey>:<ServerKey>.
    Source: https://www.postgresql.org/docs/17/catalog-pg-authid.html, RFC 5802.
    """
    try:
        method, count_and_salt, keys = (stored or "").split("$")
        count, salt = count_and_salt.split(":")
        wanted = base64.b64decode(keys.split(":")[0], validate=True)
        # SASLprep for what people use as passwords; where it differs, the password is set once more for nothing.
        prepared = unicodedata.normalize("NFKC", password).encode()
        salted = hashlib.pbkdf2_hmac("sha256", prepared, base64.b64decode(salt, validate=True), int(count))
    except ValueError:
        return False
    client_key = hmac.digest(salted, b"Client Key", "sha256")
    return method == "SCRAM-SHA-256" and hmac.compare_digest(hashlib.sha256(client_key).digest(), wanted)


def set_password(
    connection: psycopg.Connection[Any], role: str, password: str, action: str = "ALTER ROLE"
) -> None:
    """Set a login role's password, or create the role by the action CREATE ROLE.

    The server only ever sees the SCRAM verifier, so no log can leak the password.
    """
    verifier = connection.pgconn.encrypt_password(password.encode(), role.encode(), b"scram-sha-256").decode()
    connection.execute(
        sql.SQL(action + " {} WITH LOGIN PASSWORD {}").format(sql.Identifier(role), sql.Literal(verifier))
    )


class OldCopyError(Exception):
    """This pod's copy of the Secret is not what the API server has, or nobody can tell."""


def misfits(connection: psycopg.Connection[Any], passwords: Passwords) -> list[str]:
    """Roles that are there and whose stored password does not fit."""
    stored = dict(connection.execute("SELECT rolname, rolpassword FROM pg_catalog.pg_authid").fetchall())
    return [
        role
        for role, key in ROLE_KEYS.items()
        if role in stored and key in passwords and not fits(stored[role], passwords[key])
    ]


def renew_roles(
    connection: psycopg.Connection[Any], passwords: Passwords, check_copy: Callable[[], None]
) -> list[str]:
    """Set the passwords of those roles whose stored one does not fit, and give their names. Not on a replica.

    `check_copy` raises OldCopyError when the passwords are not those of the Secret; then nothing is changed.
    """
    row = connection.execute("SELECT pg_catalog.pg_is_in_recovery()").fetchone()
    if row is None or row[0]:
        return []
    changed = misfits(connection, passwords)
    if changed:
        check_copy()
    for role in changed:
        set_password(connection, role, passwords[ROLE_KEYS[role]])
    return changed


def compare_with_secret(passwords: Passwords, namespace: str, secret: str) -> None:
    """Raise OldCopyError unless the API server has these passwords in the Secret."""
    try:
        data = Api(namespace).call("GET", f"/secrets/{secret}").get("data") or {}
    except (RefusedError, OSError, ValueError) as error:
        raise OldCopyError(f"the API server does not tell the Secret: {error}") from error
    for key, password in passwords.items():
        there = usable(base64.b64decode(data.get(key, "")))
        if there is not None and there != password:
            raise OldCopyError(f"the API server has another {key} than this pod's copy of the Secret")


class Keeper:
    """Brings new passwords to the Patroni of this process and, on the primary, to the roles.

    The roles come first, after a while in which the copies of the Secret in other pods are renewed; then Patroni, which
    a replica's keeper tells when the change of the roles has been replayed.
    """

    def __init__(
        self,
        folder: Path,
        patroni_file: Path,
        known: Passwords,
        check_copy: Callable[[Passwords], None],
        former_authorization: str | None = None,
    ) -> None:
        self._folder = folder
        self._patroni_file = patroni_file
        self._check_copy = check_copy
        # The header by which others may still come, or be asked, who have not got the new password yet.
        self.former_authorization = former_authorization
        # What Patroni has, and what the Secret had at the last look, since when by the monotonic clock.
        self._given = known
        self._wanted = known
        self._since = 0.0
        self._checked = 0.0
        self._failures = 0
        self._told = ""

    def start(self) -> None:
        """Watch in the background, as long as the process lives."""
        threading.Thread(target=self._watch, name="passwords", daemon=True).start()

    def _watch(self) -> None:
        pause = threading.Event()
        while True:
            try:
                self.look(time.monotonic())
            except (OSError, ValueError) as error:
                self._tell(f"the Secret is not usable, its passwords stay as they were: {error}")
            except Exception:
                # Whatever it is, the next look may pass.
                logger.exception("the passwords could not be looked at")
            pause.wait(LOOK_SECONDS)

    def look(self, now: float) -> None:
        """Do what is due at a moment of the monotonic clock.

        Raises OSError or ValueError when the Secret is not usable.
        """
        passwords = read_passwords(self._folder, self._wanted)
        if passwords != self._wanted:
            self._wanted, self._since = passwords, now
            logger.info("the Secret has new passwords")
        is_new = self._wanted != self._given
        if is_new and now - self._since < GRACE_SECONDS:
            return
        if not is_new and self._checked and now - self._checked < CHECK_SECONDS:
            return
        fit = self._check_roles(now)
        # Not for ever: a replica that has lost its primary gets the change of the roles by the new passwords only.
        if is_new and (fit or now - self._since >= PATIENCE_SECONDS):
            self._give()

    def _give(self) -> None:
        # Before Patroni listens to it, the signal would end the process.
        if signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:
            return
        write_settings(self._wanted, self._patroni_file)
        # Patroni reads its files again.
        os.kill(os.getpid(), signal.SIGHUP)
        if self._wanted[REST_KEY] != self._given[REST_KEY]:
            self.former_authorization = authorization(self._given[REST_KEY])
        self._given = self._wanted
        self._told = ""
        logger.info("Patroni has the new passwords")

    def _check_roles(self, now: float) -> bool:
        """Whether Postgres goes by the Secret now."""
        try:
            fit = self._renew_roles()
        except (psycopg.Error, OldCopyError) as error:
            # A Postgres that starts or stops is nothing to tell, nor a copy that is renewed in a moment.
            self._failures += 1
            if self._failures >= SILENT_LOOKS:
                self._tell(f"the passwords of the roles could not be looked at: {error}".strip())
            return False
        self._failures = 0
        if fit:
            self._checked = now
        return fit

    def _renew_roles(self) -> bool:
        with psycopg.connect(
            host=os.environ["PGHOST"],
            user=SUPERUSER,
            dbname="postgres",
            # Not for the standbys: whoever becomes primary looks by itself.
            options=f"-c statement_timeout={int(STATEMENT_SECONDS * 1000)} -c synchronous_commit=local",
            connect_timeout=2,
            autocommit=True,
        ) as connection:
            for role in renew_roles(connection, self._wanted, lambda: self._check_copy(self._wanted)):
                logger.info("set the password of the role %s", role)
            return not misfits(connection, self._wanted)

    def _tell(self, what: str) -> None:
        if what != self._told:
            logger.warning("%s", what)
        self._told = what
