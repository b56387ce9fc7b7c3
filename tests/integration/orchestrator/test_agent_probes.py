"""The ha-agent's canary and its look at BullMQ queues against a real Postgres, Redis and Sentinel."""

import asyncio
import base64
import time

import psycopg
import pytest
import redis.asyncio as redis
from bullmq import Queue, Worker

from runnerhub_operator.agent.canary import TABLE, CanaryProbe
from runnerhub_operator.agent.database import DatabaseProbe
from runnerhub_operator.agent.queue_probe import RedisProbe
from runnerhub_operator.agent.queues import (
    DEAF_SECONDS,
    KEYS_PER_STEP,
    NAMES_SECONDS,
    STEPS_PER_LOOK,
    QueuesProbe,
)
from runnerhub_operator.agent.settings import RedisSettings
from runnerhub_operator.errors import ProbeError
from tests.integration.orchestrator.conftest import running
from tests.share import free_port

NODE = "hub-orchestrator-a"


@pytest.fixture
async def queue_probe(redis_port, tmp_path):
    port = free_port()
    configuration = tmp_path / "sentinel.conf"
    configuration.write_text(f"port {port}\nbind 127.0.0.1\nsentinel monitor hub 127.0.0.1 {redis_port} 1\n")
    with running(["redis-server", str(configuration), "--sentinel"], port, cwd=tmp_path):
        probe = RedisProbe(NODE, RedisSettings((("127.0.0.1", port),), "hub"), 3)
        yield probe
        await probe.close()


@pytest.fixture
async def database_probe(postgres_url):
    probe = DatabaseProbe(NODE, postgres_url, None, 3)
    await probe()
    return probe


async def test_the_canary_goes_through_database_and_queue_and_back(database_probe, queue_probe, postgres_url):
    canary = CanaryProbe(NODE, database_probe, queue_probe, 3)
    for _ in range(2):
        told = await canary()
        assert list(told["steps"]) == ["database", "queue", "worker", "result"]
        assert 0 < told["steps"]["database"] < told["seconds"]
    with psycopg.connect(postgres_url) as connection:
        assert connection.execute(f"SELECT node, done FROM {TABLE}").fetchall() == [(NODE, True)]  # noqa: S608


async def test_the_canary_names_the_step_at_which_it_did_not_go_on(database_probe, queue_probe, redis_port):
    canary = CanaryProbe(NODE, database_probe, queue_probe, 3)
    client = redis.Redis(port=redis_port)
    await client.config_set("min-replicas-to-write", "1")
    try:
        with pytest.raises(ProbeError, match=r"^queue: .*NOREPLICAS"):
            await canary()
    finally:
        await client.config_set("min-replicas-to-write", "0")
        await client.aclose()
    nowhere = DatabaseProbe(NODE, f"postgresql://app@127.0.0.1:{free_port()}/postgres", None, 3)
    with pytest.raises(ProbeError, match=r"^database: "):
        await CanaryProbe(NODE, nowhere, queue_probe, 3)()


@pytest.mark.parametrize(
    ("setting", "refusing", "code"),
    [("min-replicas-to-write", "1", "NOREPLICAS"), ("maxmemory", "1", "OOM"), (None, None, "READONLY")],
)
async def test_the_answer_of_a_master_that_refuses_a_write_is_told_with_its_code(
    queue_probe, redis_port, setting, refusing, code
):
    client = redis.Redis(port=redis_port)
    await queue_probe()
    if setting:
        await client.config_set(setting, refusing)
    else:
        await client.replicaof("127.0.0.1", free_port())
    try:
        with pytest.raises(ProbeError, match=rf"^write to 127\.0\.0\.1:{redis_port} is refused: {code} "):
            await queue_probe()
    finally:
        if setting:
            await client.config_set(setting, "0")
        else:
            await client.replicaof("NO", "ONE")
        await client.aclose()


async def test_entries_of_canaries_that_got_stuck_are_thrown_away(database_probe, queue_probe, redis_port):
    client = redis.Redis(port=redis_port)
    await client.rpush(f"runnerhub:ha:canary:{NODE}", 1, 2)
    await CanaryProbe(NODE, database_probe, queue_probe, 3)()
    assert await client.llen(f"runnerhub:ha:canary:{NODE}") == 0
    await client.aclose()


async def test_a_worker_that_takes_nothing_is_told_until_one_does(queue_probe, redis_port):
    now = [0.0]
    probe = QueuesProbe(queue_probe, clock=lambda: now[0])
    queue = Queue("deaf-jobs", {"connection": f"redis://127.0.0.1:{redis_port}"})
    for number in range(2):
        await queue.add("job", {"number": number}, {})
    # Connected under a worker's name, as one whose blocking connection has died.
    name = f"bull:{base64.b64encode(b'deaf-jobs').decode()}"
    deaf = redis.Redis(port=redis_port, client_name=name, single_connection_client=True)
    await deaf.ping()
    await probe()
    assert probe.render()["deaf-jobs"] == {"status": "up", "waiting": 2, "active": 0, "workers": 1}
    now[0] = DEAF_SECONDS
    await probe()
    assert probe.deaf == {"deaf-jobs"}
    done = []

    async def process(job, _token):
        done.append(job.data["number"])

    worker = Worker("deaf-jobs", process, {"connection": f"redis://127.0.0.1:{redis_port}"})
    deadline = time.monotonic() + 30
    while len(done) < 2:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)
    await probe()
    assert probe.deaf == set()
    found = probe.render()["deaf-jobs"]
    assert (found["waiting"], found["workers"] >= 2) == (0, True), "the real one is seen by its name too"
    await worker.close(True)
    await queue.close()
    await deaf.aclose()


async def test_a_worker_that_only_looks_for_stalled_jobs_is_told_and_an_orchestrator_that_does_is_not(
    queue_probe, redis_port
):
    now = [0.0]
    probe = QueuesProbe(queue_probe, clock=lambda: now[0])
    connection = f"redis://127.0.0.1:{redis_port}"
    options = {"connection": connection, "autorun": False, "stalledInterval": 60_000}
    client = redis.Redis(port=redis_port)
    # Somebody else's keys, which only look like a queue.
    await client.hset("bull:a-field:meta", "version", "1")
    await client.set("bull:a-field:wait", "1")
    names = ("deaf-jobs", "github-jobs", "lonely-jobs")
    queues = [Queue(name, {"connection": connection}) for name in names]
    # What is left of workers whose blocking connection leads to a master that is gone.
    workers = [Worker(name, None, options) for name in names[:2]]
    for queue in queues:
        await queue.add("job", {}, {"jobId": "job-1"})
    for second in (0.0, 10.0, 10.0 + DEAF_SECONDS):
        now[0] = second
        # The interval is over, and each looks again.
        await client.delete(*(f"bull:{name}:stalled-check" for name in names))
        for worker in workers:
            await worker.runStalledJobsCheck()
        await probe()
    assert {name: view.workers for name, view in probe.views.items() if name in names} == dict.fromkeys(
        names, 0
    )
    assert probe.deaf == {"deaf-jobs"}
    for closing in (*workers, *queues):
        await closing.close()
    await client.flushall()
    await client.aclose()


async def test_all_keys_are_gone_through_in_parts_and_at_most_once_a_minute(queue_probe, redis_port):
    now = [0.0]
    probe = QueuesProbe(queue_probe, clock=lambda: now[0])
    client = redis.Redis(port=redis_port)
    await client.flushall()
    many = KEYS_PER_STEP * STEPS_PER_LOOK + 50_000
    await client.mset({f"other:{number}": 1 for number in range(many)})
    await client.hset("bull:first:meta", "version", "1")

    async def scans():
        stats = await client.info("commandstats")
        return stats.get("cmdstat_scan", {}).get("calls", 0)

    await client.config_resetstat()
    await probe()
    assert await scans() == STEPS_PER_LOOK
    await probe()
    whole = await scans()
    assert STEPS_PER_LOOK < whole < 2 * STEPS_PER_LOOK
    assert set(probe.views) == {"first"}
    await client.hset("bull:second:meta", "version", "1")
    now[0] = NAMES_SECONDS - 1
    for _ in range(3):
        await probe()
    assert await scans() == whole
    now[0] = NAMES_SECONDS
    for _ in range(2):
        await probe()
    assert set(probe.views) == {"first", "second"}
    await client.flushall()
    await client.aclose()
