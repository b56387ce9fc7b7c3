"""How long the oracle waits for what workers have yet to do."""

import asyncio

import pytest

from runnerhub_client import verify
from runnerhub_client.journal import Journal
from runnerhub_client.oracle import Window, Writes
from runnerhub_client.record import Outcome

WRITES = Writes(acknowledged=frozenset("abc"), unknown=frozenset(), errors=0)


@pytest.fixture
def patience(monkeypatch):
    """Seconds for one more job to be worked on."""
    monkeypatch.setattr(verify, "POLL_SECONDS", 0.02)
    monkeypatch.setattr(verify, "STUCK_SECONDS", 5.0)


def waited(directory, seconds=60.0):
    return verify.wait_for_workers(directory, "bullmq-node", Window(), WRITES, wait_seconds=seconds)


async def test_jobs_are_waited_for_as_long_as_some_are_worked_on(tmp_path, patience):
    async def work():
        for job in "abc":
            await asyncio.sleep(2)
            Journal(tmp_path, "bullmq-node-worker").write("process", Outcome.ACKED, identifier=job)

    processed, _ = await asyncio.gather(waited(tmp_path), work())
    assert processed.keys() == set("abc")


async def test_a_job_that_is_lost_is_not_waited_for_until_the_end(tmp_path, patience):
    Journal(tmp_path, "bullmq-node-worker").write("process", Outcome.ACKED, identifier="a")
    async with asyncio.timeout(30):
        assert (await waited(tmp_path)).keys() == {"a"}


async def test_the_wait_is_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(verify, "POLL_SECONDS", 0.02)
    async with asyncio.timeout(20):
        assert not await waited(tmp_path, 0.1)
