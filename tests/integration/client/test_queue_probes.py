"""The load client's probes of the queue and their oracle against a real Redis with a real Sentinel."""

import asyncio
import contextlib
import shutil
import signal
import subprocess
import time

import pytest
import redis

from runnerhub_client import targets
from runnerhub_client.gaps import gaps
from runnerhub_client.oracle import Window
from runnerhub_client.probes.queue import COUNTER, SETS
from runnerhub_client.run import run
from runnerhub_client.settings import Load, Targets
from runnerhub_client.verify import verify
from tests.integration.orchestrator.conftest import wait_until_listening
from tests.share import free_port

MASTER = "queue"
LOAD = Load(
    jobs_rate=0,
    rows_rate=0,
    runners=0,
    websockets=0,
    queue_rate=50,
    unconfirmed_rate=50,
    plain_rate=50,
    counter_rate=50,
    bullmq_rate=30,
    timeout_seconds=20,
    settle_seconds=5,
)
# So many writes of each probe tell enough.
MANY = 30
# And so many before and after a failover.
MORE = 60
BULLMQ = ("bullmq-python", "bullmq-python-worker")
ALL = (*SETS, "counter", *BULLMQ)
PROMISES = ("lost", "partial", "phantoms")


class Servers:
    """A master, a replica and a Sentinel that decides alone."""

    def __init__(self, home, stack):
        self._home = home
        self._stack = stack
        self.ports = free_port(), free_port()
        self.sentinel_port = free_port()
        self._processes = {}
        first, second = self.ports
        self._start(first, "redis-server", "--port", str(first))
        self._start(second, "redis-server", "--port", str(second), "--replicaof", f"127.0.0.1 {first}")
        lines = [
            f"port {self.sentinel_port}",
            f"sentinel monitor {MASTER} 127.0.0.1 {first} 1",
            # Nothing breaks but what is broken on purpose.
            f"sentinel down-after-milliseconds {MASTER} 30000",
            f"sentinel failover-timeout {MASTER} 3000",
        ]
        (home / "sentinel.conf").write_text("\n".join(lines) + "\n")
        self._start(self.sentinel_port, "redis-server", str(home / "sentinel.conf"), "--sentinel")
        # After a leap of its clock a Sentinel starts no failover for half a minute. A busy machine stalls for seconds.
        redis.Redis(port=self.sentinel_port).execute_command("SENTINEL", "DEBUG", "TILT-TRIGGER", 30000)

    def _start(self, port, *command):
        folder = self._home / str(port)
        folder.mkdir()
        options = () if "--sentinel" in command else ("--bind", "127.0.0.1", "--save", "")
        process = subprocess.Popen(
            [*command, *options, "--dir", str(folder)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        self._stack.callback(self._end, process)
        wait_until_listening(port, process)
        self._processes[port] = process

    @staticmethod
    def _end(process):
        process.send_signal(signal.SIGCONT)
        process.kill()
        process.wait(20)

    def server(self, port):
        return redis.Redis(port=port, decode_responses=True)

    def master(self):
        """Port of the master that the Sentinel names."""
        sentinel = redis.Redis(port=self.sentinel_port, decode_responses=True)
        return int(sentinel.execute_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", MASTER)[1])

    def wait_replicated(self):
        sentinel = redis.Redis(port=self.sentinel_port, decode_responses=True)
        deadline = time.monotonic() + 20
        while (
            self.server(self.ports[1]).info("replication")["master_link_status"] != "up"
            or sentinel.sentinel_master(MASTER)["num-slaves"] != 1
        ):
            assert time.monotonic() < deadline
            time.sleep(0.1)

    def kill(self, port):
        sentinel = redis.Redis(port=self.sentinel_port, decode_responses=True)
        self._processes[port].kill()
        # Not before: a busy machine keeps one that lives waiting for that long too.
        sentinel.execute_command("SENTINEL", "SET", MASTER, "down-after-milliseconds", 1000)

    def targets(self):
        return Targets(
            hub_url="http://none",
            websocket_url="ws://none",
            jwt_secret="",
            database_url="",
            sentinels=(("127.0.0.1", self.sentinel_port),),
            redis_host="127.0.0.1",
            redis_port=self.ports[0],
            master_name=MASTER,
        )


@pytest.fixture
def servers(tmp_path, monkeypatch):
    if not shutil.which("redis-server"):
        pytest.skip("no redis-server on this machine (apt-get install redis-server)")
    # The only one is always there, but a busy machine has it answer late.
    monkeypatch.setattr(targets, "SENTINEL_TIMEOUT_SECONDS", 20)
    home = tmp_path / "servers"
    home.mkdir()
    with contextlib.ExitStack() as stack:
        servers = Servers(home, stack)
        servers.wait_replicated()
        yield servers


@contextlib.asynccontextmanager
async def writing(targets, load, directory):
    """The load client writes until this is left; what it does is told by a function that waits."""
    task = asyncio.create_task(run(targets, load, directory, None))

    async def until(condition, seconds=60):
        """A state is reached, however slow the machine is."""
        async with asyncio.timeout(seconds):
            while not await asyncio.to_thread(condition):
                assert not task.done()
                await asyncio.sleep(0.2)

    try:
        yield until
    finally:
        if not task.done():
            # As the load client is ended where it runs.
            signal.raise_signal(signal.SIGTERM)
        await task


def wrote(directory, probes, many, since=0.0):
    """Whether each of the probes has more acknowledged writes than so many, from a moment on."""
    found = gaps(directory, Window(since, 2**32))["probes"]
    return all(probe in found and found[probe]["acknowledged"] > many for probe in probes)


async def write_many(servers, directory):
    async with writing(servers.targets(), LOAD, directory) as until:
        await until(lambda: wrote(directory, ALL, MANY))


async def judge(servers, directory):
    return await verify(servers.targets(), directory, Window(), wait_seconds=30, patience_seconds=30)


async def test_nothing_is_lost_where_nothing_breaks(servers, tmp_path):
    await write_many(servers, tmp_path / "log")
    verdict = await judge(servers, tmp_path / "log")
    for probe in (*SETS, "counter", "bullmq-python"):
        found = verdict["probes"][probe]
        assert found["acknowledged"] > MANY, probe
        assert [found[name] for name in ("lost", "phantoms", "duplicates", "errors")] == [0] * 4, probe
    measured = gaps(tmp_path / "log", Window(0, 2**32))
    assert measured["probes"]["bullmq-python-worker"]["acknowledged"] > MANY
    confirmed = [measured["probes"][probe]["acknowledged"] for probe in ("queue", "counter")]
    assert measured["stores"]["redis"]["acknowledged"] == sum(confirmed)


async def test_what_a_replica_confirmed_outlives_the_master_and_the_worker_goes_on(servers, tmp_path):
    first, log = servers.master(), tmp_path / "log"
    async with writing(servers.targets(), LOAD, log) as until:
        await until(lambda: wrote(log, ALL, MORE))
        await asyncio.to_thread(servers.kill, first)
        await until(lambda: servers.master() != first, 90)
        taken_over = time.time()
        await until(lambda: wrote(log, BULLMQ, MORE, taken_over), 90)
    # The last server is alone: WAIT cannot be fulfilled any more, and nothing of that counts as acknowledged.
    verdict = await judge(servers, log)
    assert [verdict[name] for name in PROMISES] == [0, 0, 0]
    assert verdict["probes"]["queue"]["unknown"] > 0
    assert gaps(log, Window(0, 2**32))["probes"]["unconfirmed"]["errors"] > 0


async def test_the_oracle_sees_what_was_tampered_with(servers, tmp_path):
    await write_many(servers, tmp_path / "log")
    master = servers.server(servers.master())
    for key in SETS.values():
        master.spop(key)
    master.decrby(COUNTER, 2)
    log = tmp_path / "log" / "bullmq-python-worker.jsonl"
    *lines, last = log.read_text().splitlines()
    log.write_text("\n".join([*lines, lines[0]]) + "\n")
    assert last not in lines
    verdict = await judge_at_once(servers, tmp_path / "log")
    assert verdict["probes"]["queue"]["lost"] == 1
    assert verdict["probes"]["unconfirmed"]["lost"] == 1
    assert verdict["probes"]["plain"]["lost"] == 1
    assert verdict["probes"]["counter"]["lost"] == 2
    assert verdict["probes"]["bullmq-python"]["lost"] == 1
    assert verdict["probes"]["bullmq-python"]["duplicates"] == 1
    assert verdict["lost"] == 3
    assert verdict["unconfirmed"]["lost"] == 3


async def judge_at_once(servers, directory):
    return await verify(servers.targets(), directory, Window(), wait_seconds=0, patience_seconds=30)
