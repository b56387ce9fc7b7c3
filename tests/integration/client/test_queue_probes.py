"""The load client's probes of the queue and their oracle against a real Redis with a real Sentinel."""

import asyncio
import contextlib
import shutil
import signal
import subprocess
import time
from dataclasses import replace

import pytest
import redis

from runnerhub_client.oracle import Window
from runnerhub_client.probes.queue import COUNTER, SETS
from runnerhub_client.run import run
from runnerhub_client.settings import Load, Targets
from runnerhub_client.verify import gaps, verify
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
QUICK = replace(LOAD, timeout_seconds=2)
# So many writes of each probe tell enough.
MANY = 30
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
        sentinel.execute_command("SENTINEL", "SET", MASTER, "down-after-milliseconds", 1000)
        self._processes[port].kill()

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
def servers(tmp_path):
    if not shutil.which("redis-server"):
        pytest.skip("no redis-server on this machine (apt-get install redis-server)")
    home = tmp_path / "servers"
    home.mkdir()
    with contextlib.ExitStack() as stack:
        servers = Servers(home, stack)
        servers.wait_replicated()
        yield servers


async def write_while(servers, directory, disturb, seconds):
    writing = asyncio.create_task(run(servers.targets(), QUICK, directory, seconds))
    await asyncio.sleep(seconds / 3)
    await asyncio.to_thread(disturb)
    await writing


async def write_many(servers, directory):
    """Write until each probe has enough acknowledged writes, however slow the machine is."""
    writing = asyncio.create_task(run(servers.targets(), LOAD, directory, None))
    try:
        async with asyncio.timeout(60):
            while not wrote_many(directory):
                assert not writing.done()
                await asyncio.sleep(0.2)
    finally:
        if not writing.done():
            # As the load client is ended where it runs.
            signal.raise_signal(signal.SIGTERM)
        await writing


def wrote_many(directory):
    probes = gaps(directory, Window(0, 2**32))["probes"]
    return all(
        probe in probes and probes[probe]["acknowledged"] > MANY
        for probe in (*SETS, "counter", "bullmq-python", "bullmq-python-worker")
    )


async def judge(servers, directory):
    return await verify(servers.targets(), directory, Window(), wait_seconds=30, patience_seconds=5)


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
    first = servers.master()
    # Only what the master alone has is lost, so the second that is killed keeps no copy of it.
    await write_while(servers, tmp_path / "log", lambda: servers.kill(first), 9)
    # The last server is alone: WAIT cannot be fulfilled any more, and nothing of that counts as acknowledged.
    assert servers.master() != first
    verdict = await judge(servers, tmp_path / "log")
    assert [verdict[name] for name in PROMISES] == [0, 0, 0]
    assert verdict["probes"]["queue"]["unknown"] > 0
    added = gaps(tmp_path / "log", Window(0, 2**32))["probes"]
    assert added["unconfirmed"]["errors"] > 0
    assert added["bullmq-python"]["acknowledged"] > 60
    assert added["bullmq-python-worker"]["acknowledged"] > 60


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
    return await verify(servers.targets(), directory, Window(), wait_seconds=0, patience_seconds=5)
