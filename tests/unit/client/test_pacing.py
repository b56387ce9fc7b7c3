import asyncio

from runnerhub_client.pacing import bound_in_flight, pace


async def test_a_hanging_target_does_not_slow_the_pace():
    stop = asyncio.Event()
    begun, many = [], asyncio.Event()

    async def hang():
        begun.append(1)
        if len(begun) > 15:
            many.set()
        await asyncio.sleep(60)

    task = asyncio.create_task(pace(100, 1000, stop, hang, patience_seconds=0.01))
    await asyncio.wait_for(many.wait(), 10)
    stop.set()
    await task


async def test_no_more_than_the_bound_hang():
    stop = asyncio.Event()
    begun, bound = [], asyncio.Event()

    async def hang():
        begun.append(1)
        if len(begun) == 5:
            bound.set()
        await asyncio.sleep(60)

    task = asyncio.create_task(pace(1000, 5, stop, hang, patience_seconds=0.01))
    await asyncio.wait_for(bound.wait(), 10)
    await asyncio.sleep(0.1)
    stop.set()
    await task
    assert len(begun) == 5


async def test_what_is_in_flight_may_end():
    stop = asyncio.Event()
    ended = []

    async def finish():
        await asyncio.sleep(0.05)
        ended.append(1)

    task = asyncio.create_task(pace(100, 3, stop, finish, patience_seconds=1))
    await asyncio.sleep(0.01)
    stop.set()
    await task
    assert ended


def test_the_bound_holds_a_whole_timeout():
    assert bound_in_flight(10, 5) >= 50
    assert bound_in_flight(10, 5, most=20) == 20
    assert bound_in_flight(1, 5, most=100) < 100
