"""All pods restarted and the master does not come back: the furthest of the others becomes master, and no other."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
import redis

from images.redis.runnerhub_redis import config, decision, live, network, redis_pod, standing, volume
from images.redis.runnerhub_redis.decision import Volume
from tests.integration.redis.conftest import ADDRESSES, Pods, wait_until
from tests.integration.redis.test_deposed_master import Looker
from tests.integration.redis.test_pod_start import Resolver
from tests.share import free_port
from tests.unit.redis.test_redis_pod_configuration import write_settings


@pytest.fixture
def states(pods: Pods, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """What the start program of pod 1 tells, which a test fills in; that of pod 2, the master, never answers."""
    told: dict[str, Any] = {}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps(told).encode())

        def log_message(self, format: str, *args: object) -> None: ...  # noqa: A002  http.server's

    server = ThreadingHTTPServer((ADDRESSES[1], free_port()), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(network, "PORT_STATE", server.server_port)
    # That one costs it each time.
    monkeypatch.setattr(network, "DEADLINE_SECONDS", 1.0)
    with socket.create_server((ADDRESSES[2], server.server_port)):
        yield told
    server.shutdown()
    server.server_close()


def noted(pods: Pods, ordinal: int) -> standing.Standing:
    """How far a pod is, as its own watch writes it down."""
    volume.mark_complete(pods.settings(ordinal).paths)
    Looker(pods, ordinal).watch.look()
    found = standing.read(pods.settings(ordinal).paths)
    assert found is not None
    return found


@pytest.mark.parametrize("behind", [0, 1])
def test_of_restarted_replicas_the_furthest_may_be_promoted(
    pods: Pods, monkeypatch: pytest.MonkeyPatch, states: dict[str, Any], behind: int
) -> None:
    monkeypatch.setattr(redis_pod, "Resolver", Resolver)
    for module in (config, live, redis_pod):
        monkeypatch.setattr(module, "PORT_REDIS", pods.port)
    for module in (decision, redis_pod):
        monkeypatch.setattr(module, "LAST_RESORT_SECONDS", 1.0)
    paths = pods.settings().paths
    paths.runtime.mkdir(parents=True)
    write_settings(paths.configuration)
    (paths.configuration / "redis.conf").write_text(
        f"bind {ADDRESSES[0]}\nappendonly yes\nprotected-mode no\n"
    )
    for ordinal in ADDRESSES:
        following = () if ordinal == 2 else ("--replicaof", ADDRESSES[2], str(pods.port))
        pods.start_redis(ordinal, "--appendonly", "yes", "--appendfsync", "always", *following)
    master = pods.redis(2)
    wait_until(lambda: master.info("replication").get("min_slaves_good_slaves") == 2)
    for ordinal in (0, 1):
        wait_until(lambda ordinal=ordinal: is_on_disk(pods, ordinal))  # type: ignore[misc]
    notes = {behind: noted(pods, behind)}
    pods.processes["redis", behind].kill()
    for number in range(100):
        master.set(f"later-{number}", "x")
    wait_until(lambda: pods.redis(1 - behind).exists("later-99") == 1)
    notes[1 - behind] = noted(pods, 1 - behind)
    for ordinal in ADDRESSES:
        pods.processes["redis", ordinal].kill()
        pods.processes["redis", ordinal].wait()
    states |= {"ordinal": 1, "volume": Volume.COMPLETE, "running": True, "standing": notes[1].told()}
    pod = redis_pod.RedisPod(pods.settings())
    monkeypatch.setattr(
        redis_pod, "redis_role", lambda *_: (decision.StartReplica(ADDRESSES[2], "as before"), ADDRESSES[0])
    )
    threading.Thread(target=pod._start, daemon=True).start()
    client = pods.redis(0)
    try:
        if behind == 0:
            wait_until(lambda: answers(client))
            assert client.info("replication")["slave_repl_offset"] == 1, "what this is for"
            time.sleep(3)
            assert client.config_get("replica-priority") == {"replica-priority": "0"}
            # The other one is lost too, but for its volume.
            states["running"] = False
            monkeypatch.setattr(decision, "ANYBODY_SECONDS", 1.0)
        wait_until(lambda: answers(client) and priority(client) == "200")
        assert standing.read(paths) == notes[0], "a start tells nothing new"
    finally:
        with suppress(redis.RedisError):
            client.shutdown(nosave=True)


def test_a_replica_is_as_far_as_it_is_also_while_its_file_is_rewritten(
    pods: Pods, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it has confirmed counts; only after a copy the files are still those of before."""
    monkeypatch.setattr(standing, "NOTE_SECONDS", 0.0)
    master, replica = pods.start_redis(0, "--min-replicas-to-write", "0"), pods.redis(1)
    other = pods.start_redis(2, "--min-replicas-to-write", "0")
    for number in range(20):
        master.set(f"key-{number}", "x")
        other.set(f"key-{number}", "y")
    pods.start_redis(1, "--appendonly", "yes", "--replicaof", ADDRESSES[0], str(pods.port))
    paths, watch = pods.settings(1).paths, Looker(pods, 1).watch

    def offset_noted() -> int:
        watch.look()
        found = standing.read(paths)
        return int(found.info["master_repl_offset"]) if found is not None else 0

    wait_until(lambda: offset_noted() > 0)
    # Microseconds for each key: longer than a busy machine takes for all that is looked at meanwhile.
    replica.config_set("rdb-key-save-delay", 500_000)
    replica.bgrewriteaof()
    wait_until(lambda: not is_on_disk(pods, 1))
    before = offset_noted()
    master.set("later", "x")
    wait_until(lambda: replica.exists("later") == 1)
    assert offset_noted() > before
    assert not is_on_disk(pods, 1), "what this is for"
    wait_until(lambda: is_on_disk(pods, 1))
    last = offset_noted()
    replica.replicaof(ADDRESSES[2], str(pods.port))
    wait_until(lambda: replica.get("key-0") == "y")
    wait_until(lambda: replica.info("replication")["master_link_status"] == "up")
    assert offset_noted() == last
    assert not is_on_disk(pods, 1), "what this is for"
    # Promoted before its copy is on disk: the disk is as far as it was.
    replica.replicaof("NO", "ONE")
    assert offset_noted() == last
    assert not watch.on_disk
    replica.config_set("rdb-key-save-delay", 0)
    wait_until(lambda: offset_noted() != last)
    assert watch.on_disk
    assert is_on_disk(pods, 1)


def is_on_disk(pods: Pods, ordinal: int) -> bool:
    found = pods.redis(ordinal).info("persistence")
    return (
        found["aof_enabled"] == 1 and found["aof_rewrite_in_progress"] == found["aof_rewrite_scheduled"] == 0
    )


def answers(client: redis.Redis) -> bool:
    with suppress(redis.RedisError):
        return bool(client.ping())
    return False


def priority(client: redis.Redis) -> str:
    return str(client.config_get("replica-priority")["replica-priority"])
