"""A small client of the Redis protocol, version 2: what the start of a pod needs, without a library.

Source: https://redis.io/docs/latest/develop/reference/protocol-spec/
"""

from __future__ import annotations

import socket
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from .access import Login

Reply = str | int | None | list["Reply"]


class RespError(Exception):
    """The server answered with an error, such as NOGOODSLAVE or LOADING."""

    @property
    def code(self) -> str:
        """First word of the answer."""
        return str(self).partition(" ")[0]


class Connection:
    """One connection, authenticated if there is a login; all on it must be over within `deadline_seconds`.

    `host`: a name, an address, or the path of a Unix socket, which has no port.
    Raises OSError (TimeoutError included) when the server does not answer, RespError when it refuses.
    """

    def __init__(self, host: str, port: int, login: Login | None, *, deadline_seconds: float) -> None:
        self._ends = time.monotonic() + deadline_seconds
        self._socket = _open(host, port, deadline_seconds)
        self._buffer = b""
        try:
            if login is not None:
                self._log_in(login)
        except BaseException:
            self._socket.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()

    def call(self, *command: str) -> Reply:
        """Send one command and read its answer."""
        self._limit()
        self._socket.sendall(encode(command))
        return self._read()

    def _log_in(self, login: Login) -> None:
        """By the first password that lets in."""
        *others, last = login.passwords
        for password in others:
            try:
                self.call("AUTH", login.user, password)
            except RespError as error:
                if error.code != "WRONGPASS":
                    raise
            else:
                return
        self.call("AUTH", login.user, last)

    def info(self, section: str) -> dict[str, str]:
        """One section of INFO as a dictionary."""
        return parse_info(text(self.call("INFO", section)))

    def _limit(self) -> None:
        remaining = self._ends - time.monotonic()
        if remaining <= 0:
            raise TimeoutError("the deadline of the connection has passed")
        self._socket.settimeout(remaining)

    def _read(self) -> Reply:
        line = self._line()
        kind, rest = line[:1], line[1:]
        if kind == b"+":
            return rest.decode(errors="replace")
        if kind == b"-":
            raise RespError(rest.decode(errors="replace"))
        if kind == b":":
            return int(rest)
        if kind == b"$":
            return None if (length := int(rest)) < 0 else self._exactly(length).decode(errors="replace")
        if kind == b"*":
            return None if (count := int(rest)) < 0 else [self._item() for _ in range(count)]
        raise ConnectionError(f"this is not the Redis protocol: {line[:40]!r}")

    def _item(self) -> Reply:
        # An error inside an array (EXEC) is a value there: the answers after it must still be read.
        try:
            return self._read()
        except RespError as error:
            return f"-{error}"

    def _line(self) -> bytes:
        while (end := self._buffer.find(b"\r\n")) < 0:
            self._fill()
        line, self._buffer = self._buffer[:end], self._buffer[end + 2 :]
        return line

    def _exactly(self, length: int) -> bytes:
        while len(self._buffer) < length + 2:
            self._fill()
        data, self._buffer = self._buffer[:length], self._buffer[length + 2 :]
        return data

    def _fill(self) -> None:
        self._limit()
        data = self._socket.recv(65536)
        if not data:
            raise ConnectionError("the server closed the connection")
        self._buffer += data


def _open(host: str, port: int, timeout_seconds: float) -> socket.socket:
    if host.startswith("/"):
        local = socket.socket(socket.AF_UNIX)
        try:
            local.settimeout(timeout_seconds)
            local.connect(host)
        except BaseException:
            local.close()
            raise
        return local
    remote = socket.create_connection((host, port), timeout=timeout_seconds)
    remote.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return remote


def encode(command: Sequence[str]) -> bytes:
    """A command as an array of bulk strings."""
    parts = [b"*%d\r\n" % len(command)]
    for word in command:
        raw = word.encode()
        parts.append(b"$%d\r\n%s\r\n" % (len(raw), raw))
    return b"".join(parts)


def text(reply: Reply) -> str:
    """The answer as text; one of another kind is a protocol error."""
    if not isinstance(reply, str):
        raise ConnectionError(f"expected text, got {type(reply).__name__}")
    return reply


def pairs(reply: Reply) -> dict[str, str]:
    """A flat array of names and values as a dictionary."""
    if not isinstance(reply, list):
        raise ConnectionError(f"expected an array, got {type(reply).__name__}")
    words = [str(word) for word in reply]
    return dict(zip(words[::2], words[1::2], strict=False))


def parse_info(answer: str) -> dict[str, str]:
    """The lines `name:value` of INFO."""
    lines = (line.partition(":") for line in answer.splitlines() if line and not line.startswith("#"))
    return {name: value for name, colon, value in lines if colon}
