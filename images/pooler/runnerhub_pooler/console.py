"""PgBouncer's administration console: PAUSE, with an end to the waiting, RESUME, and a goodbye to clients.

PAUSE is of all databases, which here is one: while a single one is paused, PgBouncer still makes connections for
`min_pool_size`, ends each at once, takes that for a failed login, and turns away clients that come meanwhile.

Source: https://www.pgbouncer.org/usage.html#admin-console
"""

from __future__ import annotations

import ipaddress
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from datetime import datetime

import psycopg
from psycopg.pq import ExecStatus
from psycopg.pq.abc import PGresult

from .settings import ADMIN_USER, LOCAL

CONNECT_SECONDS = 2
RESUME_SECONDS = 2.0
# From a request to hold clients back until PAUSE: a login at a busy primary takes a second, and nobody waits yet.
PREPARE_SECONDS = 1.5
# Longer than any of those who change a PgBouncer's settings for a moment may take.
ALONE_SECONDS = 5.0
# A login to the server takes a few milliseconds.
LOGIN_SECONDS = 0.003
# A client that has its server for so long does what it does by intent.
LONG_SECONDS = 10.0
_POOL_SIZE = "default_pool_size"
_REST = "client_idle_timeout"
_OWN_DATABASE = "pgbouncer"

NO_ANSWER = (OSError, psycopg.Error)


class ConsoleError(Exception):
    """PgBouncer refused a command or did not answer in time; the message is a sentence."""


class GoneError(ConsoleError):
    """PgBouncer is not there, and so has no clients."""


class StillBusyError(ConsoleError):
    """Transactions did not end in time."""


class Console:
    """The console of one PgBouncer of this pod. Only one thread at once may pause and resume by it.

    `passwords`: those to try, in order. `lock`: the same for all who change this PgBouncer's settings for a moment,
    which nobody else may end meanwhile.
    """

    def __init__(
        self, port: int, passwords: Callable[[], Sequence[str]], lock: threading.Lock | None = None
    ) -> None:
        self._port = port
        self._passwords = passwords
        self._lock = lock or threading.Lock()
        # Kept from before a pause until it ends, so that a PgBouncer that is full of clients can still be resumed.
        self._spare: psycopg.Connection | None = None

    def pause(self, patience_seconds: float) -> None:
        """Let running transactions end, close the connections to the server, hold all clients back.

        Raises StillBusyError when transactions go on for longer, GoneError when PgBouncer is not there, ConsoleError
        when it refuses or does not answer. In all cases clients may be held back until `resume`.
        """
        prepared = time.monotonic() + PREPARE_SECONDS
        try:
            with self._alone(PREPARE_SECONDS), closing(self._connect()) as connection:
                self._spare = self._connect()
                # Who is held back counts as resting since it asked, and would be told to leave as soon as it has its
                # answer, perhaps when it asks for the next thing.
                ask(connection, f"SET {_REST} = 0", RESUME_SECONDS)
                with _without_logins(self._spare, prepared) as is_settled:
                    if not is_settled:
                        raise ConsoleError("PgBouncer cannot log in to the primary")
                    ask(connection, "PAUSE", patience_seconds)
        except TimeoutError as error:
            raise StillBusyError(f"transactions did not end within {patience_seconds:g} s") from error
        except NO_ANSWER as error:
            raise self._failure(f"PgBouncer cannot be paused: {error}".strip()) from error

    def resume(self) -> None:
        """Let the clients go on; fine when they were not held back.

        Raises GoneError when PgBouncer is not there, ConsoleError when it is not certain.
        """
        spare, self._spare = self._spare, None
        try:
            if spare is None or not self._resume_by(spare):
                with self._alone(ALONE_SECONDS), closing(self._connect()) as connection:
                    try:
                        # Whoever paused may have been cut off before it gave the pool its size back.
                        ask(connection, "RELOAD", RESUME_SECONDS)
                    finally:
                        ask(connection, "RESUME", RESUME_SECONDS)
        except NO_ANSWER as error:
            raise self._failure(f"PgBouncer cannot be resumed: {error}".strip()) from error
        except ConsoleError as error:
            if "not paused" not in str(error):
                raise

    def _resume_by(self, connection: psycopg.Connection) -> bool:
        """Whether this connection still worked."""
        with closing(connection):
            try:
                ask(connection, "RESUME", RESUME_SECONDS)
            except NO_ANSWER:
                return False
        return True

    def reload(self, *, log_in: bool = True, is_held_back: Callable[[], bool] = lambda: False) -> None:
        """Have the files be read again, and log in to the server by what is in them. Raises ConsoleError.

        `is_held_back`: whether clients are by then, which reading the files would undo in part: an error, too.
        """
        try:
            with self._alone(ALONE_SECONDS), closing(self._connect()) as connection:
                if is_held_back():
                    raise ConsoleError("clients are held back")
                ask(connection, "RELOAD", RESUME_SECONDS)
                if log_in:
                    _log_in(connection)
        except NO_ANSWER as error:
            raise ConsoleError(f"PgBouncer does not read its files again: {error}".strip()) from error

    def reconnect(self, patience_seconds: float) -> bool:
        """Have all connections to the server be made anew, each when its transaction has ended; whether all are.

        Raises ConsoleError when PgBouncer refuses or does not answer; its pool may be small then, until a `reload`.
        """
        deadline = time.monotonic() + patience_seconds
        try:
            with self._alone(patience_seconds), closing(self._connect()) as connection:
                # Where it cannot log in, connections that are made anew can only help.
                with _without_logins(connection, deadline):
                    ask(connection, "RECONNECT", RESUME_SECONDS)
                try:
                    ask(connection, "WAIT_CLOSE", max(0.0, deadline - time.monotonic()))
                except TimeoutError:
                    return False
        except NO_ANSWER as error:
            raise ConsoleError(f"PgBouncer does not connect anew: {error}".strip()) from error
        return True

    def close_resting(self, rest: Callable[[float], float]) -> int:
        """Have clients be closed that are in no transaction and have asked for nothing for so many seconds; 0: none.

        `rest`: those seconds, given the age in whole seconds of the oldest request without an answer, 0 without one.
        Connections to the server that nobody needs are closed as well: the pods that these clients go to need as many.
        Returns how many clients there are: not those of this pod, nor of the console itself. Raises ConsoleError.
        """
        try:
            with closing(self._connect()) as connection:
                clients = ask(connection, "SHOW CLIENTS", RESUME_SECONDS)
                ask(connection, f"SET {_REST} = '{rest(_oldest_request(clients)):g}'", RESUME_SECONDS)
                ask(connection, "SET server_idle_timeout = '1'", RESUME_SECONDS)
        except (*NO_ANSWER, KeyError, ValueError) as error:
            raise ConsoleError(f"PgBouncer does not tell its clients: {error}".strip()) from error
        return sum(row["database"] != _OWN_DATABASE and not _is_local(row["addr"]) for row in clients)

    @contextmanager
    def _alone(self, patience_seconds: float) -> Iterator[None]:
        if not self._lock.acquire(timeout=patience_seconds):
            raise ConsoleError("PgBouncer is being changed by another")
        try:
            yield
        finally:
            self._lock.release()

    def _failure(self, message: str) -> ConsoleError:
        """What it means that there was no answer."""
        try:
            socket.create_connection((LOCAL, self._port), CONNECT_SECONDS).close()
        except ConnectionRefusedError:
            return GoneError(message)
        except OSError:
            pass
        return ConsoleError(message)

    def _connect(self) -> psycopg.Connection:
        *others, last = self._passwords()
        for password in others:
            try:
                return self._connect_by(password)
            except psycopg.OperationalError:
                continue
        return self._connect_by(last)

    def _connect_by(self, password: str) -> psycopg.Connection:
        return psycopg.connect(
            host=LOCAL,
            port=self._port,
            user=ADMIN_USER,
            password=password,
            dbname=_OWN_DATABASE,
            sslmode="disable",
            gssencmode="disable",
            connect_timeout=CONNECT_SECONDS,
            autocommit=True,
        )


@contextmanager
def _without_logins(connection: psycopg.Connection, deadline: float) -> Iterator[bool]:
    """A moment in which no connection to the server is logging in; False where one still is at the deadline.

    PgBouncer ends one that is when a pause or a reconnection comes, counts it as a failed login, and turns clients away
    for that as long as it has no other connection. A pool that may not grow begins no login.
    """
    size = _pool_size(connection)
    ask(connection, f"SET {_POOL_SIZE} = 1", RESUME_SECONDS)
    try:
        while (is_logging_in := _is_logging_in(connection)) and time.monotonic() < deadline:
            time.sleep(LOGIN_SECONDS)
        yield not is_logging_in
    finally:
        ask(connection, f"SET {_POOL_SIZE} = {size}", RESUME_SECONDS)


def _is_logging_in(connection: psycopg.Connection) -> bool:
    return any(row["sv_login"] != "0" for row in ask(connection, "SHOW POOLS", RESUME_SECONDS))


def _log_in(connection: psycopg.Connection) -> None:
    """Make one more connection to the server in each pool with clients; without one in time it stays as it was.

    PgBouncer remembers until then that a login failed, as by a former password, and turns away whoever comes while it
    has no connection, as at the end of a pause.
    """
    deadline = time.monotonic() + RESUME_SECONDS
    before = _connected(connection)
    wanted = 1 + max(before.values(), default=0)
    try:
        ask(connection, f"SET {_POOL_SIZE} = {max(wanted, _pool_size(connection))}", RESUME_SECONDS)
        ask(connection, f"SET min_pool_size = {wanted}", RESUME_SECONDS)
        while time.monotonic() < deadline and any(
            connected <= before.get(pool, 0) for pool, connected in _connected(connection).items()
        ):
            time.sleep(LOGIN_SECONDS)
    finally:
        ask(connection, "RELOAD", RESUME_SECONDS)


def _pool_size(connection: psycopg.Connection) -> int:
    settings = ask(connection, "SHOW CONFIG", RESUME_SECONDS)
    return next(int(row["value"]) for row in settings if row["key"] == _POOL_SIZE)


def _connected(connection: psycopg.Connection) -> dict[tuple[str, str], int]:
    """Connections to the server that are logged in, by the database and the user of each pool that has clients."""
    return {
        (row["database"], row["user"]): sum(
            int(row[f"sv_{state}"]) for state in ("active", "idle", "used", "tested")
        )
        for row in ask(connection, "SHOW POOLS", RESUME_SECONDS)
        if row["database"] != _OWN_DATABASE and int(row["cl_active"]) + int(row["cl_waiting"]) > 0
    }


def ask(connection: psycopg.Connection, command: str, patience_seconds: float) -> list[dict[str, str]]:
    """One command of the console; gives its rows. Raises TimeoutError without an answer, ConsoleError when refused.

    By libpq's own calls: psycopg would cancel a command that takes too long, which the console answers to by nothing.
    """
    link = connection.pgconn
    deadline = time.monotonic() + patience_seconds
    link.send_query(command.encode())
    while link.flush():
        select.select([], [link.socket], [], max(0.0, deadline - time.monotonic()))
    while link.is_busy():
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError(f"{command}: no answer within {patience_seconds:g} s")
        select.select([link.socket], [], [], left)
        link.consume_input()
    refusals = []
    rows = []
    while (result := link.get_result()) is not None:
        if result.status == ExecStatus.FATAL_ERROR:
            refusals.append(result.error_message.decode(errors="replace").strip())
        elif result.status == ExecStatus.COMMAND_OK and not _name(result).startswith(
            command.partition(" ")[0]
        ):
            # PgBouncer answers all who wait when one of them has what it waits for.
            refusals.append(f"{command}: answered as {_name(result)}")
        rows += [_row(result, number) for number in range(result.ntuples)]
    if refusals:
        raise ConsoleError("; ".join(refusals))
    return rows


def _oldest_request(clients: Sequence[Mapping[str, str]]) -> float:
    """Age in seconds of the oldest request under way; the console's own, made just now, tells the time.

    A transaction that has been idle for long, or a long query, is left out: nobody waits for it.
    """
    asked = [datetime.fromisoformat(row["request_time"][:19]) for row in clients]
    ages = [(max(asked) - at).total_seconds() for at in asked]
    return max(
        (
            age
            for row, age in zip(clients, ages, strict=True)
            if row["state"].startswith("waiting") or (row["link"] and age < LONG_SECONDS)
        ),
        default=0.0,
    )


def _is_local(address: str) -> bool:
    """Whether a client is of this pod; "unix" is no address."""
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return True


def _name(result: PGresult) -> str:
    """Of the command that this answers."""
    return (result.command_status or b"").decode(errors="replace")


def _row(result: PGresult, number: int) -> dict[str, str]:
    """A row by the names of its columns, as text."""
    return {
        (result.fname(column) or b"").decode(): (result.get_value(number, column) or b"").decode(
            errors="replace"
        )
        for column in range(result.nfields)
    }
