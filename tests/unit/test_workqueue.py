"""The queue's promises: one run at a time per key, nothing lost, backoff, many keys at once."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from runnerhub_operator.errors import UnavailableError
from runnerhub_operator.workqueue import MAX_BACKOFF_SECONDS, WorkQueue, backoff_seconds


@asynccontextmanager
async def running(queue: WorkQueue[str]) -> AsyncIterator[None]:
    task = asyncio.create_task(queue.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def until(condition: Callable[[], object], seconds: float = 20.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 -- what is waited for has no event of its own
            await asyncio.sleep(0.01)


def ignore(_key: str, _error: Exception) -> None:
    """No interest."""


async def test_a_burst_becomes_one_run() -> None:
    runs: Counter[str] = Counter()

    async def work(key: str) -> None:
        runs[key] += 1

    queue = WorkQueue(work, failed=ignore, workers=2)
    async with running(queue):
        for _ in range(50):
            queue.add("a")
        await until(lambda: runs["a"])
        await asyncio.sleep(0.3)
    assert runs == {"a": 1}


async def test_an_addition_during_a_run_is_run_afterwards_and_never_beside_it() -> None:
    active = 0
    most = 0
    runs = 0
    release = asyncio.Event()

    async def work(_key: str) -> None:
        nonlocal active, most, runs
        active += 1
        most = max(most, active)
        runs += 1
        await release.wait()
        active -= 1

    queue = WorkQueue(work, failed=ignore, workers=4)
    async with running(queue):
        queue.add("a", 0)
        await until(lambda: active)
        queue.add("a", 0)
        await asyncio.sleep(0.2)
        assert runs == 1
        release.set()
        await until(lambda: runs == 2)
    assert most == 1


async def test_different_keys_run_at_once() -> None:
    both = asyncio.Barrier(2)
    met: set[str] = set()

    async def work(key: str) -> None:
        await both.wait()
        met.add(key)

    queue = WorkQueue(work, failed=ignore, workers=2)
    async with running(queue):
        queue.add("a", 0)
        queue.add("b", 0)
        await until(lambda: met == {"a", "b"})


async def test_a_failure_is_told_and_repeated() -> None:
    errors: list[str] = []
    runs = 0

    async def work(_key: str) -> None:
        nonlocal runs
        runs += 1
        if runs < 3:
            raise ValueError(str(runs))

    queue = WorkQueue(work, failed=lambda _key, error: errors.append(str(error)), workers=1)
    async with running(queue):
        queue.add("a", 0)
        await until(lambda: runs == 3)
    assert errors == ["1", "2"]


async def test_the_returned_delay_brings_the_key_back_and_an_addition_brings_it_sooner() -> None:
    runs = 0

    async def work(_key: str) -> float:
        nonlocal runs
        runs += 1
        return 0.05 if runs < 3 else 60.0

    queue = WorkQueue(work, failed=ignore, workers=1)
    async with running(queue):
        queue.add("a", 0)
        await until(lambda: runs == 3)
        queue.add("a", 0)
        await until(lambda: runs == 4)


def test_backoff_grows_and_is_bounded() -> None:
    for failures in range(1, 40):
        assert 0.3 <= backoff_seconds(failures) <= MAX_BACKOFF_SECONDS * 1.25
    assert backoff_seconds(10) > backoff_seconds(1) * 10


async def test_an_urgent_key_overtakes_those_that_wait() -> None:
    order: list[str] = []
    gate = asyncio.Event()

    async def work(key: str) -> None:
        await gate.wait()
        order.append(key)

    queue = WorkQueue(work, failed=ignore, workers=1)
    async with running(queue):
        for key in ("first", "a", "b", "c"):
            queue.add(key, 0.0)
            await asyncio.sleep(0.01)
        queue.add("edited", 0.0, urgent=True)
        queue.add("c", 0.0, urgent=True)
        await asyncio.sleep(0.05)
        gate.set()
        await until(lambda: len(order) == 5)
    assert order == ["first", "c", "edited", "a", "b"]


async def test_a_server_that_asks_for_patience_gets_it() -> None:
    runs: list[float] = []
    loop = asyncio.get_running_loop()

    async def work(_key: str) -> None:
        runs.append(loop.time())
        if len(runs) == 1:
            raise UnavailableError("too many requests", 429, retry_after_seconds=1.5)

    queue = WorkQueue(work, failed=ignore, workers=1)
    async with running(queue):
        queue.add("a", 0.0)
        await until(lambda: len(runs) == 2)
    assert runs[1] - runs[0] >= 1.5


async def test_a_run_that_fails_while_it_clears_up_does_not_outlive_the_queue() -> None:
    started = asyncio.Event()

    async def work(_key: str) -> None:
        try:
            started.set()
            await asyncio.sleep(60)
        finally:
            raise UnavailableError("the last write failed too")

    queue = WorkQueue(work, failed=ignore, workers=1)
    task = asyncio.create_task(queue.run())
    queue.add("a", 0)
    await started.wait()
    task.cancel()
    async with asyncio.timeout(20):
        await asyncio.gather(task, return_exceptions=True)
    assert task.cancelled()
