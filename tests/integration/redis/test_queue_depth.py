"""The pod counts jobs as BullMQ itself does."""

from __future__ import annotations

from bullmq import Queue, Worker

from images.redis.runnerhub_redis import state_server
from images.redis.runnerhub_redis.resp import Connection
from tests.integration.redis.conftest import ADDRESSES, Pods


def counted(pods: Pods) -> dict[str, int]:
    with Connection(ADDRESSES[0], pods.port, None, deadline_seconds=5) as connection:
        return state_server._depth(connection)


async def test_jobs_in_every_state_are_counted_as_bullmq_counts_them(pods: Pods) -> None:
    pods.start_redis(0)
    pods.redis(0).config_set("min-replicas-to-write", "0")
    assert counted(pods) == {"waiting": 0, "active": 0, "delayed": 0, "failed": 0}
    connection = {"host": ADDRESSES[0], "port": pods.port}
    queue = Queue(state_server.QUEUE_NAME, {"connection": connection, "prefix": state_server.QUEUE_PREFIX})
    worker = Worker(
        state_server.QUEUE_NAME,
        None,
        {"connection": connection, "prefix": state_server.QUEUE_PREFIX, "autorun": False},
    )
    try:
        for number in range(6):
            await queue.add("job", {"number": number}, {})
        await queue.add("job", {}, {"priority": 5})
        await queue.add("job", {}, {"delay": 60_000})
        taken = await worker.getNextJob("token")
        failing = await worker.getNextJob("other")
        assert taken is not None
        await failing.moveToFailed(RuntimeError("no"), "other")
        counts = await queue.getJobCounts("waiting", "prioritized", "active", "delayed", "failed")
        assert counted(pods) == {
            "waiting": counts["waiting"] + counts["prioritized"],
            "active": counts["active"],
            "delayed": counts["delayed"],
            "failed": counts["failed"],
        }
        assert counted(pods) == {"waiting": 5, "active": 1, "delayed": 1, "failed": 1}
        await queue.pause()
        assert counted(pods)["waiting"] == 5
    finally:
        await worker.close(force=True)
        await queue.close()
