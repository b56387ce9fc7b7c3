"""How long the oracle waits for what workers have yet to do."""

import asyncio

import pytest

from e2e.lab.load import LATE_SECONDS
from runnerhub_client import facts, verify
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


@pytest.fixture
def jobs(monkeypatch):
    """Jobs before ours, ours with them, and by how many they become fewer at each look."""
    found = {"ahead": 60, "fewer": 1}

    async def job_statuses(_targets, tried):
        found["ahead"] -= found["fewer"]
        return dict.fromkeys(tried, "queued" if found["ahead"] > 0 else "completed")

    async def jobs_ahead(_targets, _jobs):
        return found["ahead"]

    monkeypatch.setattr(facts, "job_statuses", job_statuses)
    monkeypatch.setattr(facts, "jobs_ahead", jobs_ahead)
    return found


async def ended(seconds=0.2):
    """Whether ours were completed when the wait was over."""
    statuses = await verify.wait_for_jobs(None, WRITES, wait_seconds=seconds, patience_seconds=1)
    return set(statuses.values()) == {"completed"}


async def test_jobs_are_waited_for_while_those_before_them_become_fewer(patience, jobs):
    assert await ended()


async def test_jobs_that_stand_still_are_not_waited_for_longer_than_asked_for(monkeypatch, patience, jobs):
    monkeypatch.setattr(verify, "STUCK_SECONDS", 0.1)
    jobs["fewer"] = 0
    async with asyncio.timeout(20):
        assert not await ended()


async def test_the_wait_for_jobs_that_become_fewer_for_ever_is_bounded(monkeypatch, patience, jobs):
    monkeypatch.setattr(verify, "LATE_SECONDS", 0.2)
    jobs["ahead"] = 1e9
    async with asyncio.timeout(20):
        assert not await ended()


def test_who_asks_for_a_verdict_waits_for_as_long_as_it_may_take():
    assert LATE_SECONDS == verify.LATE_SECONDS
