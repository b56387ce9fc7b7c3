"""Logins at Redis whose password changes while a program runs."""

from __future__ import annotations

from pathlib import Path

from redis.credentials import CredentialProvider

from . import PasswordFile


class RedisLogin(CredentialProvider):
    """User and password of each new connection to Redis: what redis-py calls a credential provider.

    While a password changes the one before is given, which every server lets in by until long after; without a file
    the fixed password is.
    """

    def __init__(self, user: str | None, password: str | None, file: Path | None) -> None:
        self._user = user
        self._password = password
        self._passwords = PasswordFile(file)

    def get_credentials(self) -> tuple[str, ...]:
        """User, if there is one, and password, if there is one."""
        found = self._passwords.candidates()
        password = found[-1] if found else self._password
        if password is None:
            return ()
        return (password,) if self._user is None else (self._user, password)
