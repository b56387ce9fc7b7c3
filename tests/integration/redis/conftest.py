"""Real Redis servers and Sentinels, each at a loopback address of its own and all at the same port, as pods are."""

from __future__ import annotations

import contextlib
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from images.redis.runnerhub_redis import deposed, handover, hang, network, steward
from images.redis.runnerhub_redis.settings import Paths, Settings
from tests.share import free_port

NAME = "github-runnerhub-redis"
ADDRESSES = {ordinal: f"127.0.0.{ordinal + 1}" for ordinal in range(3)}

# Nobody is taken for dead because a busy machine answers late. Tests that wait for an election make it quick.
DOWN_AFTER_MILLISECONDS = 10000
QUICK_MILLISECONDS = 1000
# A leap of time that a Sentinel takes for a clock that is wrong: it starts no failover for half a minute then. A busy
# machine stalls that long; tests of that have Sentinel's own value.
TILT_MILLISECONDS = 30000
SENTINELS_TILT_MILLISECONDS = 2000
# For an answer. Only who does not answer at all costs that much.
ANSWER_SECONDS = 10.0

# A wrong password counts as a broken connection to this library, which tries that for four seconds.
AT_ONCE = Retry(NoBackoff(), 0)


def wait_until(condition: Callable[[], bool], seconds: float = 40) -> None:
    """Poll for a state. A Sentinel that makes a server another's replica ends the connections of whoever asks it."""
    deadline = time.monotonic() + seconds
    while True:
        with contextlib.suppress(redis.ConnectionError):
            if condition():
                return
        assert time.monotonic() < deadline, f"waited {seconds} s"
        time.sleep(0.05)


class Pods:
    """Three pods of the queue without their start programs; that of pod 0 is what is tested."""

    def __init__(self, home: Path, stack: contextlib.ExitStack) -> None:
        self._home = home
        self._stack = stack
        self.port, self.sentinel_port = free_port(), free_port()
        self.processes: dict[tuple[str, int], subprocess.Popen[bytes]] = {}

    def settings(self, ordinal: int = 0) -> Settings:
        home = self._home / str(ordinal)
        paths = Paths(data=home, runtime=home / "run", configuration=home / "configuration")
        return Settings(
            service="hub-redis",
            namespace="default",
            ordinal=ordinal,
            replicas=3,
            master_name=NAME,
            quorum=2,
            down_after_milliseconds=DOWN_AFTER_MILLISECONDS,
            failover_timeout_milliseconds=3000,
            parallel_syncs=1,
            paths=paths,
        )

    def start_redis(self, ordinal: int, *options: str) -> redis.Redis:
        folder = self.settings(ordinal).paths.redis_data
        folder.mkdir(parents=True, exist_ok=True)
        self._start(
            "redis", ordinal, "redis-server", "--bind", ADDRESSES[ordinal], "--port", str(self.port),
            "--dir", str(folder), "--min-replicas-to-write", "1", "--repl-diskless-sync-delay", "0",
            "--replica-announce-ip", ADDRESSES[ordinal], *options,
        )  # fmt: skip
        return self.redis(ordinal)

    def redis(self, ordinal: int) -> redis.Redis:
        return redis.Redis(ADDRESSES[ordinal], self.port, decode_responses=True, retry=AT_ONCE)

    def keys_of(self, snapshot: Path) -> set[str]:
        """The keys in a snapshot, by a server that loads it."""
        folder = self._home / "reader"
        folder.mkdir()
        shutil.copy(snapshot, folder / "dump.rdb")
        port = free_port()
        process = subprocess.Popen(
            ["redis-server", "--port", str(port), "--dir", str(folder)], stdout=subprocess.DEVNULL
        )
        self._stack.callback(self._end, process)
        client = redis.Redis(port=port, decode_responses=True)

        def loaded() -> bool:
            with contextlib.suppress(redis.RedisError):
                return bool(client.ping())
            return False

        wait_until(loaded)
        return set(client.keys())

    def start_all(self) -> None:
        """Pod 0 as the master of the others, and the Sentinels that watch it."""
        self.start_redis(0)
        for ordinal in (1, 2):
            self.start_redis(ordinal, "--replicaof", f"{ADDRESSES[0]} {self.port}")
        for ordinal in ADDRESSES:
            self.start_sentinel(ordinal, ADDRESSES[0], acquainted=True)
        wait_until(lambda: self.redis(0).info("replication")["connected_slaves"] == 2)
        for ordinal in ADDRESSES:
            wait_until(lambda ordinal=ordinal: self.is_complete(ordinal))  # type: ignore[misc]

    def start_sentinel(self, ordinal: int, master: str, *, acquainted: bool = False) -> None:
        """`acquainted`: it knows the others as from a life before, which finding them would take seconds for."""
        folder = self._home / str(ordinal) / "sentinel"
        folder.mkdir(parents=True, exist_ok=True)
        lines = [
            f"# members {' '.join(ADDRESSES.values())}",
            f"bind {ADDRESSES[ordinal]}",
            f"port {self.sentinel_port}",
            f"dir {folder}",
            f"sentinel monitor {NAME} {master} {self.port} 2",
            f"sentinel down-after-milliseconds {NAME} {DOWN_AFTER_MILLISECONDS}",
            f"sentinel failover-timeout {NAME} 3000",
            f"sentinel parallel-syncs {NAME} 1",
            f"sentinel announce-ip {ADDRESSES[ordinal]}",
        ]
        if acquainted:
            others = {number: address for number, address in ADDRESSES.items() if number != ordinal}
            lines += [
                f"sentinel myid {ordinal:040x}",
                *(
                    f"sentinel known-sentinel {NAME} {address} {self.sentinel_port} {number:040x}"
                    for number, address in others.items()
                ),
                *(
                    f"sentinel known-replica {NAME} {address} {self.port}"
                    for address in ADDRESSES.values()
                    if address != master
                ),
            ]
        (folder / "sentinel.conf").write_text("\n".join(lines) + "\n")
        self.restart_sentinel(ordinal)

    def restart_sentinel(self, ordinal: int) -> None:
        """With what its file says."""
        folder = self._home / str(ordinal) / "sentinel"
        self._start("sentinel", ordinal, "redis-server", str(folder / "sentinel.conf"), "--sentinel")
        self.distrust_clock_after(ordinal, TILT_MILLISECONDS)

    def sentinel(self, ordinal: int) -> redis.Redis:
        return redis.Redis(ADDRESSES[ordinal], self.sentinel_port, decode_responses=True, retry=AT_ONCE)

    def take_for_dead_after(self, milliseconds: int) -> None:
        """Have all Sentinels do so from now on."""
        for ordinal in ADDRESSES:
            self.sentinel(ordinal).execute_command(
                "SENTINEL", "SET", NAME, "down-after-milliseconds", milliseconds
            )

    def distrust_clock_after(self, ordinal: int, milliseconds: int) -> None:
        """Have a Sentinel go into TILT after a leap of time, until it ends: its file does not keep that."""
        self.sentinel(ordinal).execute_command("SENTINEL", "DEBUG", "TILT-TRIGGER", milliseconds)

    def is_complete(self, ordinal: int) -> bool:
        """Whether a Sentinel knows all others and all replicas, and hears from them."""
        client = self.sentinel(ordinal)
        sentinels = client.execute_command("SENTINEL", "SENTINELS", NAME)
        replicas = client.execute_command("SENTINEL", "REPLICAS", NAME)
        heard = [str(found["flags"]) for found in sentinels] == ["sentinel"] * 2
        linked = [str(found["master-link-status"]) for found in replicas] == ["ok"] * 2
        return heard and linked and all(str(found["flags"]) == "slave" for found in replicas)

    def master(self, ordinal: int) -> str:
        """Who is master by the word of one Sentinel."""
        return str(self.sentinel(ordinal).sentinel_get_master_addr_by_name(NAME)[0])

    def _start(self, kind: str, ordinal: int, *command: str) -> None:
        log = (self._home / f"{kind}-{ordinal}.log").open("ab")
        process = subprocess.Popen(command, stdout=log, stderr=log)
        log.close()
        self._stack.callback(self._end, process)
        self.processes[kind, ordinal] = process
        client = self.redis(ordinal) if kind == "redis" else self.sentinel(ordinal)

        def answers() -> bool:
            assert process.poll() is None, (self._home / f"{kind}-{ordinal}.log").read_text()
            try:
                return bool(client.ping())
            except redis.AuthenticationError:
                return True
            except redis.RedisError:
                return False

        wait_until(answers)

    @staticmethod
    def _end(process: subprocess.Popen[bytes]) -> None:
        process.send_signal(signal.SIGCONT)
        process.kill()
        process.wait(20)


@pytest.fixture
def pods(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Pods]:
    if not shutil.which("redis-server"):
        pytest.skip("no redis-server on this machine (apt-get install redis-server)")
    with contextlib.ExitStack() as stack:
        pods = Pods(tmp_path, stack)
        for module in (deposed, handover, hang, network):
            monkeypatch.setattr(module, "PORT_REDIS", pods.port)
        for module in (handover, network, steward):
            monkeypatch.setattr(module, "PORT_SENTINEL", pods.sentinel_port)
        be_patient(monkeypatch)
        yield pods


def be_patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give answers and hand-overs more time than they need on a machine that does nothing else."""
    monkeypatch.setattr(network, "DEADLINE_SECONDS", ANSWER_SECONDS)
    for module in (deposed, handover):
        monkeypatch.setattr(module, "CALL_SECONDS", ANSWER_SECONDS)
    # They have the constant as a default, which was taken when they were defined.
    for connect in (deposed.Watch._connect, handover._connect):
        monkeypatch.setattr(connect, "__defaults__", (ANSWER_SECONDS,))
    for name, seconds in (
        ("DEADLINE_SECONDS", 20.0),
        ("FAILOVER_SECONDS", 15.0),
        ("LOOK_AGAIN_SECONDS", 10.0),
        ("CONCLUDE_SECONDS", 5.0),
    ):
        monkeypatch.setattr(handover, name, seconds)
