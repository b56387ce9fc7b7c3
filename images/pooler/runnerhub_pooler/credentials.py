"""The passwords of this pod, and how a new one comes into effect while clients work.

Kubernetes renews the mounted Secret. The same password has to be known on both sides of PgBouncer: to the clients, and
to Postgres, where a pod of the database sets it. So a new one waits here until the primary lets it in.
"""

from __future__ import annotations

import contextlib
import os
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from .console import ConsoleError
from .haproxy import ProxyError
from .log import log
from .settings import ADMIN_USER, APP_USER, MONITORING_USER, Settings

LOOK_SECONDS = 1.0
# While Postgres still has the former passwords: what PgBouncer connects anew between its change and this look fails.
NEAR_SECONDS = 0.1
# Whoever steers the poolers may have read the Secret before it changed.
FORMER_SECONDS = 300.0

# By user of PgBouncer, the key of the Secret.
_KEYS = {APP_USER: "app-password", MONITORING_USER: "monitoring-password", ADMIN_USER: "restapi-password"}


@dataclass(frozen=True, slots=True)
class Passwords:
    """One state of the Secret."""

    app: str = field(repr=False)
    monitoring: str = field(repr=False)
    admin: str = field(repr=False)

    def by_user(self) -> dict[str, str]:
        """By the names that PgBouncer knows."""
        return {APP_USER: self.app, MONITORING_USER: self.monitoring, ADMIN_USER: self.admin}


def read_passwords(folder: Path, known: Passwords | None = None) -> Passwords:
    """Read the mounted Secret; a line break at the end of a value is not part of it.

    One that is empty, no text or not printable is not used, the one in `known` stays. Raises ValueError when there is
    none, OSError when there is no Secret.
    """
    found = {}
    for user, key in _KEYS.items():
        password = _usable((folder / key).read_bytes()) or (known.by_user()[user] if known else None)
        if password is None:
            raise ValueError(f"{key} is empty or has a character that cannot be printed")
        found[user] = password
    return Passwords(found[APP_USER], found[MONITORING_USER], found[ADMIN_USER])


def _usable(value: bytes) -> str | None:
    try:
        text = value.decode().rstrip("\r\n")
    except UnicodeDecodeError:
        return None
    return text if text and text.isprintable() else None


class Credentials:
    """The passwords in effect, for all threads. `coming`: those that some PgBouncer may go by already."""

    def __init__(
        self,
        current: Passwords,
        coming: Passwords | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.current = current
        self._coming = coming
        self._clock = clock
        self._former: tuple[str, float] | None = None

    def expect(self, passwords: Passwords) -> None:
        """Have others in effect soon: from now on a PgBouncer may know them only."""
        self._coming = passwords

    def renew(self, passwords: Passwords) -> None:
        """Put others in effect."""
        if passwords.admin != self.current.admin:
            self._former = self.current.admin, self._clock() + FORMER_SECONDS
        self.current = passwords
        self._coming = None

    def admins(self) -> tuple[str, ...]:
        """Passwords by which this program may be steered, and a PgBouncer by it.

        The one in effect, the one that is coming into effect, and for a while the one before.
        """
        former, coming = self._former, self._coming
        found = [self.current.admin]
        if coming is not None:
            found.append(coming.admin)
        if former is not None and self._clock() <= former[1]:
            found.append(former[0])
        return tuple(dict.fromkeys(found))


def in_effect(settings: Settings) -> Passwords:
    """What the PgBouncers beside know: their lists, or the Secret when they have not started.

    A list of before tells that an earlier process did not get to the end of a change. Raises OSError or ValueError.
    """
    for path in (*map(_former, settings.user_lists), *settings.user_lists):
        with contextlib.suppress(FileNotFoundError):
            return parse_user_list(path.read_text(encoding="utf-8"))
    return read_passwords(settings.credentials_folder)


def coming(settings: Settings) -> Passwords | None:
    """What an earlier process was putting into effect when it ended, if anything. Raises OSError or ValueError."""
    for path in settings.user_lists:
        if _former(path).exists():
            return parse_user_list(path.read_text(encoding="utf-8"))
    return None


def parse_user_list(text: str) -> Passwords:
    """Read an auth_file as `user_list` writes it. Raises ValueError."""
    found = {
        user: password.replace('""', '"')
        for user, password in re.findall(r'^"([^"]*)" "((?:[^"]|"")*)"$', text, re.MULTILINE)
    }
    if not set(_KEYS) <= set(found):
        raise ValueError("a user is missing in PgBouncer's list")
    return Passwords(found[APP_USER], found[MONITORING_USER], found[ADMIN_USER])


def user_list(passwords: Passwords) -> str:
    """PgBouncer's auth_file; quotes are doubled there."""
    return "".join(
        f'"{user}" "{password.replace(chr(34), chr(34) * 2)}"\n'
        for user, password in passwords.by_user().items()
    )


class Renewal:
    """Watches the Secret, and puts what is new into effect in the PgBouncers beside.

    `lets_in`: whether the primary lets a user in by a password. `reload`: has the PgBouncer at a port read its
    files; raises ConsoleError. `is_busy`: whether clients are held back, which that would undo in part.
    """

    def __init__(
        self,
        settings: Settings,
        credentials: Credentials,
        lets_in: Callable[[str, str], bool],
        reload: Callable[[int], None],
        is_busy: Callable[[], bool] = lambda: False,
    ) -> None:
        self._settings = settings
        self._credentials = credentials
        self._lets_in = lets_in
        self._reload = reload
        self._is_busy = is_busy
        self._told = ""

    def watch(self) -> None:
        """Look for ever, at the same moments as the other poolers do, so that clients find them alike."""
        every = LOOK_SECONDS
        while True:
            time.sleep(every - time.time() % every)
            every = NEAR_SECONDS if self.look() else LOOK_SECONDS

    def look(self) -> bool:
        """Put new passwords into effect if there are any and Postgres has them; whether that is still to come."""
        current = self._credentials.current
        try:
            wanted = read_passwords(self._settings.credentials_folder, current)
        except (OSError, ValueError) as error:
            self._tell(f"the Secret is not usable, its passwords stay as they were: {error}")
            return False
        if wanted == current or self._is_busy():
            return False
        changed = [user for user, word in wanted.by_user().items() if word != current.by_user()[user]]
        try:
            for user in changed:
                # The former one first: a login that fails leaves a line in the server's log.
                if user != ADMIN_USER and (
                    self._lets_in(user, current.by_user()[user])
                    or not self._lets_in(user, wanted.by_user()[user])
                ):
                    self._tell(f"the primary does not let {user} in by the new password yet")
                    return True
            self._credentials.expect(wanted)
            for path in self._settings.user_lists:
                write_as(_former(path), user_list(current), path)
                write_as(path, user_list(wanted), path)
            for port in (self._settings.pooler_port, self._settings.read_only_port):
                self._reload(port)
            for path in self._settings.user_lists:
                _former(path).unlink()
        except (OSError, ConsoleError, ProxyError) as error:
            self._tell(f"new passwords are not in effect in PgBouncer yet: {error}")
            return False
        self._credentials.renew(wanted)
        self._told = ""
        log("passwords changed", users=changed)
        return False

    def _tell(self, what: str) -> None:
        if what != self._told:
            log(what)
        self._told = what


def _former(path: Path) -> Path:
    """The list of before, while a new one is coming into effect."""
    return path.with_name(f"{path.name}.former")


def write_as(path: Path, text: str, owned_as: Path) -> None:
    """Write a file for the owner of another one only; who reads it finds the old one or the new one. Raises OSError."""
    owner = owned_as.stat()
    new = path.with_name(f"{path.name}.renewed-{threading.get_ident()}")
    with contextlib.suppress(FileNotFoundError):
        new.unlink()
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        os.fchown(file.fileno(), owner.st_uid, owner.st_gid)
        file.write(text)
    new.replace(path)
