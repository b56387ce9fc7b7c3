"""Logins at Redis whose password changes while a program runs."""

from __future__ import annotations

from pathlib import Path

from redis.credentials import CredentialProvider

from . import PasswordFile


class RedisLogin(CredentialProvider):
    """User and password of each new connection to Redis.

    While a password changes the one before is given, which every server lets in by until long after. Before its file
    was usable once, the fixed password is.
    """

    def __init__(self, user: str | None, password: str, file: Path | None) -> None:
        self._user = user
        self._password = password
        self._passwords = PasswordFile(file)

    def get_credentials(self) -> tuple[str] | tuple[str, str]:
        """User, if there is one, and password; redis-py's asynchronous clients ask the same."""
        found = self._passwords.candidates()
        password = found[-1] if found else self._password
        return (password,) if self._user is None else (self._user, password)

    async def get_credentials_async(self) -> tuple[str] | tuple[str, str]:
        """The same; nothing is waited for."""
        return self.get_credentials()


def redis_login(user: str | None, password: str | None, file: Path | None) -> RedisLogin | None:
    """The login of a server with passwords; None for one without."""
    return None if password is None and file is None else RedisLogin(user, password or "", file)
