"""A pooler pod on loopback: real PgBouncer, HAProxy and Postgres servers, and a Patroni that is played.

The configuration is the builders' own; only ports, addresses and paths are others.
"""

from __future__ import annotations

import base64
import contextlib
import itertools
import json
import os
import pwd
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import psycopg

from images.pooler.runnerhub_pooler.configuration import IN_EFFECT
from images.pooler.runnerhub_pooler.haproxy import PRIMARY, REPLICAS, Proxy, ProxyError
from runnerhub_operator.resources.pooler import pooler_configuration
from tests.generate import context
from tests.share import free_port

REPOSITORY = Path(__file__).resolve().parents[3]
MEMBERS = tuple(f"hub-postgres-{ordinal}" for ordinal in range(9))
# At the addresses of the others nobody is, as at a Service without a pod.
THERE = 3
CONFIGURATIONS = ("pgbouncer-rw.ini", "pgbouncer-ro.ini")
DATABASE = "github_runnerhub"
PASSWORDS = {"app-password": "a", "monitoring-password": 'm"1', "restapi-password": "r"}
SUPERUSER_PASSWORD = "s"
# How long a client waits for a connection, or for a write; a machine that is busy may take seconds.
CLIENT_TIMEOUT_SECONDS = 15.0
# Postgres and PgBouncer refuse to run as root.
USER = "postgres" if os.geteuid() == 0 else None


def postgres_programs() -> Path | None:
    """Folder of the newest Postgres server's programs, None when there is none."""
    return max(Path("/usr/lib/postgresql").glob("*/bin"), default=None)


def missing() -> str:
    """What this machine lacks for these tests, "" when nothing."""
    programs = [name for name in ("pgbouncer", "haproxy") if shutil.which(name) is None]
    return ", ".join([*programs, *([] if postgres_programs() else ["a PostgreSQL server"])])


# Earlier ones know no prepared statements in transaction pooling.
PREPARED_STATEMENTS_SINCE = (1, 21)


def pgbouncer_version() -> tuple[int, int]:
    """Of this machine's."""
    output = subprocess.run(["pgbouncer", "--version"], capture_output=True, text=True, check=True).stdout
    found = re.search(r"PgBouncer (\d+)\.(\d+)", output)
    assert found is not None
    return int(found[1]), int(found[2])


def wait_until(what: str, condition: Any, seconds: float = 40) -> None:
    """Poll for a state."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds} s for {what}"
        time.sleep(0.02)


def is_listening(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


@dataclass(slots=True)
class Member:
    """One Postgres server and the role that its Patroni tells."""

    name: str
    data: Path
    port: int = field(default_factory=free_port)
    patroni_port: int = field(default_factory=free_port)
    leads: bool = False
    lag_bytes: int = 0
    # How long its Patroni takes to answer a check.
    check_seconds: float = 0.0

    def control(self, *words: str) -> None:
        """pg_ctl."""
        folder = postgres_programs()
        assert folder is not None
        command = [folder / "pg_ctl", "-D", self.data, "-w", "-l", self.data.with_suffix(".log"), *words]
        subprocess.run(command, check=True, user=USER, stdout=subprocess.DEVNULL, cwd=self.data.parent)

    def start(self) -> None:
        options = (
            f"-p {self.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={self.data.parent}"
        )
        self.control("-o", options, "start")

    def execute(self, *statements: str, database: str = "postgres") -> list[Any]:
        """As the superuser; gives the rows of the last statement."""
        with psycopg.connect(
            host="127.0.0.1", port=self.port, user="postgres", password=SUPERUSER_PASSWORD,
            dbname=database, autocommit=True,
        ) as connection:  # fmt: skip
            for statement in statements:
                cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []


class _Quiet(ThreadingHTTPServer):
    def handle_error(self, request: object, client_address: object) -> None:
        """Health checks hang up as soon as they know."""


class Bench:
    """The pooler pod and its database. `switch` moves the primary as Patroni does, step by step."""

    def __init__(self, home: Path, stack: contextlib.ExitStack) -> None:
        self.home = home
        self._stack = stack
        self.pooler_port, self.agent_port = free_port(), free_port()
        self.read_only_port = free_port()
        self.proxy_runtime_port, self._proxy_port = free_port(), free_port()
        self._read_only_proxy_port = free_port()
        self.members = tuple(Member(name, home / name) for name in MEMBERS)
        self.primary, self.replica = self.members[:2]
        self.agent: subprocess.Popen[bytes] | None = None
        self.proxy_file = home / "haproxy.cfg"
        self.credentials = home / "credentials"
        self.passwords = dict(PASSWORDS)
        self.former_password: str | None = None
        self.switch_seconds = 0.0
        # What Patroni was asked for, each time.
        self.switchovers: list[dict[str, Any]] = []

    # --- Starting ---

    def start(self) -> None:
        """Start everything but the agent."""
        if USER:
            account = pwd.getpwnam(USER)
            os.chown(self.home, account.pw_uid, account.pw_gid)
        self._start_postgres()
        for member in self.members[:THERE]:
            self._answer_as_patroni(member)
        self.credentials.mkdir()
        self.write_secret()
        files = pooler_configuration(context("hub", {}))
        self._write_proxy_file(files["haproxy.cfg"])
        self.start_proxy()
        routes = dict(zip(CONFIGURATIONS, (self.pooler_port, self.read_only_port), strict=True))
        self.poolers = {
            port: self._run(
                "pgbouncer",
                self._pgbouncer_file(name, files[name], port),
                user=USER,
                log="pgbouncer" if port == self.pooler_port else "pgbouncer-ro",
            )
            for name, port in routes.items()
        }
        for port in routes.values():
            wait_until("PgBouncer", lambda port=port: is_listening(port))
        wait_until("the pooler to find the primary", self._serves)

    def renew_pooler(self) -> None:
        """End the PgBouncer of the read-write route and start one as in a new pod, by the mounted file."""
        port = self.pooler_port
        _end(self.poolers[port])
        self.user_list(port).with_name(IN_EFFECT).unlink()
        # The repository may be closed to other users.
        entrypoint = shutil.copy(REPOSITORY / "images/pooler/bin/pooler-entrypoint", self.home)
        self.poolers[port] = self._run(
            "env", f"AUTH_FILE={self.user_list(port)}", f"CREDENTIALS_DIR={self.credentials}",
            "sh", entrypoint, "pgbouncer", self.home / CONFIGURATIONS[0], user=USER, log="pgbouncer",
        )  # fmt: skip
        wait_until("PgBouncer", lambda: is_listening(port))

    def start_proxy(self) -> None:
        """Start HAProxy, and wait until it has checked all: before, it takes each member for what it looks for."""
        self.haproxy = self._run("haproxy", "-db", "-f", self.proxy_file)
        wait_until("HAProxy", lambda: is_listening(self._proxy_port))
        for backend, member in ((PRIMARY, self.primary), (REPLICAS, self.replica)):
            wait_until(
                "HAProxy's checks", lambda backend=backend, member=member: self.up(backend) == (member.name,)
            )

    def up(self, backend: str = PRIMARY) -> tuple[str, ...] | None:
        """The members that HAProxy sends connections to, None when it does not answer."""
        with contextlib.suppress(ProxyError):
            servers = Proxy(self.proxy_runtime_port).servers(backend)
            return tuple(server.name for server in servers if server.is_up)
        return None

    def write_secret(self) -> None:
        """What Kubernetes has of the Secret."""
        for key, password in self.passwords.items():
            (self.credentials / key).write_text(password)

    def _start_postgres(self) -> None:
        folder = postgres_programs()
        assert folder is not None
        password = self.home / "password"
        password.write_text(SUPERUSER_PASSWORD)
        if USER:
            shutil.chown(password, USER)
        quiet: dict[str, Any] = {
            "user": USER,
            "stdout": subprocess.DEVNULL,
            "stderr": subprocess.DEVNULL,
            "cwd": self.home,
        }
        subprocess.run(
            [folder / "initdb", "-D", self.primary.data, "-U", "postgres", "--no-sync",
             "-A", "scram-sha-256", f"--pwfile={password}"],
            check=True, **quiet,
        )  # fmt: skip
        with (self.primary.data / "postgresql.conf").open("a") as settings:
            settings.write("fsync = off\nwal_retrieve_retry_interval = 500ms\n")
        with (self.primary.data / "pg_hba.conf").open("a") as rules:
            rules.write("host replication all 127.0.0.1/32 scram-sha-256\n")
        self.primary.start()
        self._stack.callback(self._stop_postgres)
        self.primary.execute(
            f"CREATE ROLE app LOGIN PASSWORD '{PASSWORDS['app-password']}'",
            f"CREATE ROLE monitoring LOGIN PASSWORD '{PASSWORDS['monitoring-password']}'",
            "GRANT pg_monitor, pg_checkpoint TO monitoring",
            f"CREATE DATABASE {DATABASE} OWNER app",
        )
        self.primary.execute(
            "SET ROLE app", "CREATE SCHEMA app", "CREATE TABLE app.marks (id bigint)", database=DATABASE
        )
        subprocess.run(
            [folder / "pg_basebackup", "-D", self.replica.data, "-R", "-c", "fast", "-d",
             f"host=127.0.0.1 port={self.primary.port} user=postgres password={SUPERUSER_PASSWORD}"],
            check=True, **quiet,
        )  # fmt: skip
        self.replica.start()
        self.primary.leads = True

    def _stop_postgres(self) -> None:
        for member in self.members:
            if (member.data / "postmaster.pid").exists():
                member.control("-m", "immediate", "stop")

    def _answer_as_patroni(self, member: Member) -> None:
        bench = self

        class Handler(BaseHTTPRequestHandler):
            def do_OPTIONS(self) -> None:
                time.sleep(member.check_seconds)
                alive = (member.data / "postmaster.pid").exists()
                near = member.lag_bytes <= int(self.path.partition("lag=")[2] or 0)
                replicates = alive and not member.leads and near
                wanted = member.leads if self.path.startswith("/primary") else replicates
                self.answer(200 if wanted else 503, "")

            def do_GET(self) -> None:
                leads = {"role": "leader", "state": "running"}
                follows = {"role": "quorum_standby", "state": "streaming"}
                members = [
                    {"name": item.name, **(leads if item.leads else follows | {"lag": item.lag_bytes})}
                    for item in bench.members[:THERE]
                ]
                self.answer(200, json.dumps({"members": members}))

            def do_POST(self) -> None:
                asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                if self.path == "/switchover":
                    bench.switchovers.append(asked)
                bench.switch()
                self.answer(200, "Successfully switched over")

            def answer(self, status: int, text: str) -> None:
                self.send_response(status)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text.encode())

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        server = _Quiet(("127.0.0.1", member.patroni_port), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        self._stack.callback(server.shutdown)

    def _write_proxy_file(self, text: str) -> None:
        ports = {
            6432: self._proxy_port,
            6433: self._read_only_proxy_port,
            8404: free_port(),
            8405: self.proxy_runtime_port,
        }
        for before, after in ports.items():
            text = text.replace(f"127.0.0.1:{before}", f"127.0.0.1:{after}").replace(
                f"bind :{before}", f"bind :{after}"
            )
        for member in self.members:
            here = f"server {member.name} 127.0.0.1:{member.port} port {member.patroni_port}"
            text = re.sub(rf'server {member.name} "[^"]*"', here, text)
        self.proxy_file.write_text(text)

    def user_list(self, port: int) -> Path:
        """Of the PgBouncer at a port."""
        # In a folder for each, as in the pod.
        return self.home / ("" if port == self.pooler_port else "ro") / "userlist.txt"

    def _pgbouncer_file(self, name: str, text: str, port: int) -> Path:
        users = self.user_list(port)
        users.parent.mkdir(exist_ok=True)
        logins = {
            "app": "app-password",
            "monitoring": "monitoring-password",
            "pgbouncer": "restapi-password",
        }
        users.write_text(
            "".join(
                f'"{name}" "{PASSWORDS[key].replace(chr(34), chr(34) * 2)}"\n' for name, key in logins.items()
            )
        )
        if USER:
            shutil.chown(users, USER)
        if pgbouncer_version() < PREPARED_STATEMENTS_SINCE:
            text = re.sub(r"max_prepared_statements = .*\n", "", text)
        text = text.replace("port=6432", f"port={self._proxy_port}")
        text = text.replace("port=6433", f"port={self._read_only_proxy_port}")
        text = re.sub(r"listen_addr = .*", "listen_addr = 127.0.0.1", text)
        text = re.sub(r"listen_port = .*", f"listen_port = {port}", text)
        text = re.sub(r"auth_file = .*", f"auth_file = {users}", text)
        (self.home / name).write_text(text)
        copy = users.with_name(IN_EFFECT)
        copy.write_text(text)
        return copy

    def _run(
        self, *command: str | Path, user: str | None = None, log: str | None = None
    ) -> subprocess.Popen[bytes]:
        with (self.home / f"{log or command[0]}.log").open("wb") as file:
            process = subprocess.Popen(command, stdout=file, stderr=file, user=user, cwd=self.home)
        self._stack.callback(_end, process)
        return process

    # --- The agent ---

    def start_agent(self) -> None:
        """Start it, and wait until it takes orders."""
        environment = {
            **os.environ,
            "PYTHONPATH": str(REPOSITORY / "images" / "pooler"),
            "CREDENTIALS_DIR": str(self.credentials),
            "POOLER_AGENT_PORT": str(self.agent_port),
            "POOLER_DATABASE": DATABASE,
            "POOLER_PORT": str(self.pooler_port),
            "POOLER_READ_ONLY_PORT": str(self.read_only_port),
            "POOLER_USER_LISTS": ":".join(
                str(self.user_list(port)) for port in (self.pooler_port, self.read_only_port)
            ),
            "POOLER_PROXY_PORT": str(self.proxy_runtime_port),
            "POOLER_CONFIGURATIONS": ":".join(str(self.home / name) for name in CONFIGURATIONS),
        }
        with (self.home / "agent.log").open("ab") as log:
            self.agent = subprocess.Popen(
                [sys.executable, "-m", "runnerhub_pooler"], env=environment, stdout=log, stderr=log
            )
        self._stack.callback(_end, self.agent)
        wait_until("the agent", lambda: is_listening(self.agent_port))

    def call(self, path: str, body: object = None, password: str = PASSWORDS["restapi-password"]) -> int:
        """Ask the agent something; gives the status of its answer."""
        login = base64.b64encode(f"pgbouncer:{password}".encode()).decode()
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.agent_port}{path}",
            data=json.dumps(body).encode(),
            headers={"Authorization": f"Basic {login}"},
        )
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310 -- the same
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code

    def pause(
        self, seconds: float = 14, *, again: bool = True, password: str = PASSWORDS["restapi-password"]
    ) -> int:
        """Ask for a pause; one that comes too early, before PgBouncer has been found, is asked for again.

        `again`: so is one that is refused as transactions do not end, as when the machine is busy.
        """
        statuses: list[int] = []

        def answered() -> bool:
            body = {"primary": MEMBERS[0], "seconds": seconds}
            statuses.append(self.call("/pause", body, password))
            return statuses[-1] not in ((409, 503) if again else (503,))

        wait_until("the pause to begin", answered)
        return statuses[-1]

    def console(self) -> psycopg.Connection:
        """PgBouncer's."""
        return psycopg.connect(
            host="127.0.0.1", port=self.pooler_port, user="pgbouncer", dbname="pgbouncer",
            password=self.passwords["restapi-password"], autocommit=True, cursor_factory=psycopg.ClientCursor,
        )  # fmt: skip

    def is_paused(self, seconds: float = 0.5) -> bool:
        """Whether a client waits for so long. PgBouncer itself tells it from 1.19 on only."""
        with contextlib.closing(self.connect()) as client:
            link = client.pgconn
            link.send_query(b"SELECT 1")
            link.flush()
            answered, _, _ = select.select([link.socket], [], [], seconds)
        return not answered

    # --- The database ---

    def connect(self) -> psycopg.Connection:
        """As a client does: by the password of the moment, or by the one before while a new one comes into effect."""
        current = self.passwords["app-password"]
        # The change may come between two tries.
        for password in () if self.former_password is None else (current, self.former_password):
            with contextlib.suppress(psycopg.OperationalError):
                return self._connect(password)
        return self._connect(current)

    def connect_read_only(self) -> psycopg.Connection:
        """As a client of the read-only route does."""
        return self._connect(self.passwords["app-password"], self.read_only_port)

    def _connect(self, password: str, port: int | None = None) -> psycopg.Connection:
        return psycopg.connect(
            host="127.0.0.1", port=port or self.pooler_port, user="app", password=password,
            dbname=DATABASE, autocommit=True, connect_timeout=int(CLIENT_TIMEOUT_SECONDS), prepare_threshold=None,
        )  # fmt: skip

    def _serves(self) -> bool:
        with contextlib.suppress(psycopg.Error), self.connect() as connection:
            return connection.execute("SELECT NOT pg_is_in_recovery()").fetchone() == (True,)
        return False

    def switch(self) -> None:
        """Move the primary: Patroni stops the old one, waits a second, gives the role up, and promotes the other."""
        started = time.monotonic()
        self.primary.control("-m", "fast", "stop")
        time.sleep(1)
        self.primary.leads = False
        # The leader key comes first: this member calls itself the primary while it still cannot take a write.
        self.replica.leads = True
        time.sleep(0.3)
        self.replica.control("promote")
        self.switch_seconds = time.monotonic() - started

    def marks(self, member: Member) -> set[int]:
        """What has been written."""
        return {row[0] for row in member.execute("SELECT id FROM app.marks", database=DATABASE)}


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGCONT)
        process.send_signal(signal.SIGINT)
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(5)


# How often a client comes that was not there before, unless so many of those are still there: a busy machine would
# have more of them by the second.
ARRIVAL_SECONDS = 0.02
NEWCOMERS = 12


class Writers:
    """Clients that write without a break; some keep their connection, some make a new one each time, and others come.

    Those that come during a pause and at its very end find a PgBouncer without a connection to the server.
    """

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._next = 0
        self.acknowledged: dict[int, float] = {}
        self.errors: list[str] = []
        self.slowest_seconds = 0.0
        self._threads = [
            threading.Thread(target=self._write, args=(keeps,)) for keeps in (True, True, False, False)
        ]
        self._newcomers: list[threading.Thread] = []
        self._arrivals = threading.Thread(target=self._arrive)

    def __enter__(self) -> Writers:
        for thread in self._threads:
            thread.start()
        self._arrivals.start()
        self.wait_for(20)
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._arrivals.join()
        for thread in (*self._threads, *self._newcomers):
            thread.join()

    def wait_for(self, more: int) -> None:
        """Wait until so many more writes have been acknowledged."""
        before = len(self.acknowledged)
        wait_until(f"{more} more writes", lambda: len(self.acknowledged) >= before + more)

    def gap_seconds(self) -> float:
        """The longest time between two acknowledged writes."""
        times = sorted(self.acknowledged.values())
        return max(after - before for before, after in itertools.pairwise(times))

    def _arrive(self) -> None:
        while not self._stop.wait(ARRIVAL_SECONDS):
            self._newcomers = [thread for thread in self._newcomers if thread.is_alive()]
            if len(self._newcomers) < NEWCOMERS:
                self._newcomers.append(threading.Thread(target=self._write, args=(False, 1)))
                self._newcomers[-1].start()

    def _write(self, keeps: bool, times: int = sys.maxsize) -> None:
        connection: psycopg.Connection | None = None
        for _ in range(times):
            if self._stop.is_set():
                break
            with self._lock:
                self._next += 1
                number = self._next
            started = time.monotonic()
            try:
                connection = connection or self._bench.connect()
                connection.execute("INSERT INTO app.marks VALUES (%s)", [number])
                self._acknowledge(number, started)
                if not keeps:
                    connection.close()
                    connection = None
            except psycopg.Error as error:
                self.errors.append(f"{type(error).__name__}: {error}")
                connection = None
            self._stop.wait(0.01)
        if connection is not None:
            connection.close()

    def _acknowledge(self, number: int, started: float) -> None:
        now = time.monotonic()
        self.acknowledged[number] = now
        self.slowest_seconds = max(self.slowest_seconds, now - started)
        if now - started > CLIENT_TIMEOUT_SECONDS:
            self.errors.append(f"took {now - started:.1f} s")


@contextlib.contextmanager
def running_bench(home: Path) -> Iterator[Bench]:
    """A bench with its agent."""
    with contextlib.ExitStack() as stack:
        bench = Bench(home, stack)
        bench.start()
        bench.start_agent()
        yield bench
