"""A real Postgres and a real Redis of these tests' own, on free loopback ports, in a folder that goes away."""

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

import psycopg
import pytest

from runnerhub_orchestrator.database import Database
from runnerhub_orchestrator.job_queue import JobQueue
from runnerhub_orchestrator.jobs import JobRepository
from runnerhub_orchestrator.migrate import migrate_until_done
from runnerhub_orchestrator.redis_link import RedisLink
from runnerhub_orchestrator.settings import DatabaseSettings, RedisSettings
from tests.share import free_port

LEASE_SECONDS = 30.0


def wait_until_listening(port, process, seconds=60):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        assert process.poll() is None, f"{process.args[0]} ended with {process.returncode}"
        time.sleep(0.05)
    raise AssertionError(f"{process.args[0]} does not listen after {seconds} s")


def wait_until_open(url, seconds=60):
    """A server listens some time before it lets anybody in."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            psycopg.connect(url).close()
        except psycopg.OperationalError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
        else:
            return


@contextlib.contextmanager
def running(command, port, **options):
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **options)
    try:
        wait_until_listening(port, process)
        yield
    finally:
        # SIGINT is Postgres's fast shutdown; at SIGTERM it would wait for every session that a test left.
        process.send_signal(signal.SIGINT)
        process.wait(20)


@pytest.fixture(scope="session")
def postgres_url():
    # Debian keeps the server's programs out of PATH.
    initdb = shutil.which("initdb") or max(Path("/usr/lib/postgresql").glob("*/bin/initdb"), default=None)
    if initdb is None:
        pytest.skip("no PostgreSQL server on this machine (apt-get install postgresql)")
    folder = Path(initdb).parent
    port = free_port()
    # Postgres refuses to run as root.
    user = "postgres" if os.geteuid() == 0 else None
    with tempfile.TemporaryDirectory() as home:
        if user:
            account = pwd.getpwnam(user)
            os.chown(home, account.pw_uid, account.pw_gid)
        data = Path(home, "data")
        subprocess.run(
            [initdb, "-D", data, "-U", "app", "-A", "trust", "--no-sync"],
            check=True, user=user, stdout=subprocess.DEVNULL, cwd=home,
        )  # fmt: skip
        options = [
            "-c",
            "listen_addresses=127.0.0.1",
            "-c",
            f"unix_socket_directories={home}",
            "-c",
            "fsync=off",
        ]
        with running([folder / "postgres", "-D", data, "-p", str(port), *options], port, user=user, cwd=home):
            url = f"postgresql://app@127.0.0.1:{port}/postgres"
            wait_until_open(url)
            yield url


@pytest.fixture(scope="session")
def redis_port():
    if not shutil.which("redis-server"):
        pytest.skip("no redis-server on this machine (apt-get install redis-server)")
    port = free_port()
    with (
        tempfile.TemporaryDirectory() as home,
        running(
            ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", home], port
        ),
    ):
        yield port


@pytest.fixture
def database_settings(postgres_url):
    return DatabaseSettings(
        postgres_url,
        connections=5,
        connect_timeout_seconds=10,
        attempt_timeout_seconds=10,
        deadline_seconds=30,
    )


@pytest.fixture
async def database(database_settings):
    await migrate_until_done(database_settings)
    database = Database(database_settings)

    async def empty(connection):
        await connection.execute("TRUNCATE jobs")
        await connection.execute("UPDATE leadership SET fencing_token = 0, holder = '', renewed_at = now()")

    await database.run(empty)
    yield database
    await database.close()


@pytest.fixture
def repository(database):
    return JobRepository(database, LEASE_SECONDS)


@pytest.fixture
async def redis_link(redis_port):
    link = RedisLink(
        RedisSettings(
            use_sentinel=False,
            sentinels=(),
            master_name="",
            address=("127.0.0.1", redis_port),
            password=None,
            sentinel_password=None,
            timeout_seconds=10,
        )
    )
    client = link.client()
    await client.flushall()
    await client.aclose()
    yield link
    await link.close()


@pytest.fixture
async def queue(redis_link):
    queue = JobQueue(redis_link, timeout_seconds=10, lock_seconds=LEASE_SECONDS)
    yield queue
    await queue.close()
