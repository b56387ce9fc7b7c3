"""The statements and the queue's scripts against a real Postgres and a real Redis."""

import asyncio
import os
import sys
import time
import uuid
from dataclasses import replace

import bullmq
import psycopg
import pytest

from runnerhub_orchestrator import job_queue
from runnerhub_orchestrator.database import STATEMENT_SHARE, Database
from runnerhub_orchestrator.errors import (
    DatabaseUnavailableError,
    EntryGoneError,
    JobConflictError,
    JobNotFoundError,
    LeaseLostError,
    StaleLeaderError,
)
from runnerhub_orchestrator.events import EventBus
from runnerhub_orchestrator.http_api import DEMAND_ROWS, WAITING_ROWS
from runnerhub_orchestrator.jobs import NewJob
from runnerhub_orchestrator.leadership import Leadership, LeadershipWatch
from runnerhub_orchestrator.metrics import Metrics
from runnerhub_orchestrator.settings import DatabaseSettings, JobSettings, LeaderSettings
from runnerhub_orchestrator.singleton import FORGET_TOKEN_SECONDS, Round, SingletonWork

JOB = NewJob(7, 1, "a/b", "ci", ("linux",))


def leader(token):
    return Leadership(token, time.monotonic() + 60)


@pytest.fixture
async def singleton(database, queue, redis_link):
    events = EventBus(redis_link, "node")
    settings = JobSettings(
        lease_seconds=30, max_attempts=3, claim_wait_max_seconds=20, enqueue_timeout_seconds=2,
        reenqueue_after_seconds=0, singleton_interval_seconds=1, retention_seconds=3600,
    )  # fmt: skip
    watch = LeadershipWatch(LeaderSettings(False, "", None, 15, 1))
    yield SingletonWork(database, queue, events, watch, Metrics(), settings, "node")
    await events.close()


async def alter(database, statement):
    async def work(connection):
        await connection.execute(statement)

    await database.run(work)


async def take_and_claim(queue, repository):
    entry = await queue.take(str(uuid.uuid4()))
    return entry and await repository.claim(entry.job_id, "r", uuid.UUID(entry.token), None)


async def test_many_pods_may_migrate_at_once(database_settings):
    # Processes, not tasks: Alembic's context belongs to the process.
    program = f"""if True:
        import asyncio
        from runnerhub_orchestrator.migrate import migrate_until_done
        from runnerhub_orchestrator.settings import DatabaseSettings
        asyncio.run(migrate_until_done(DatabaseSettings({database_settings.url!r}, 1, 2, 4, 8)))
    """
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    pods = [
        await asyncio.create_subprocess_exec(sys.executable, "-c", program, env=environment) for _ in range(3)
    ]
    assert [await pod.wait() for pod in pods] == [0, 0, 0]


async def test_a_job_is_accepted_once(repository):
    first, created = await repository.accept(JOB)
    again, created_again = await repository.accept(JOB)
    assert (created, created_again) == (True, False)
    assert first.delegation_id == again.delegation_id
    with pytest.raises(JobConflictError):
        await repository.accept(NewJob(7, 2, "a/b", "ci", ("linux",)))


async def test_concurrent_retries_get_one_delegation(repository):
    answers = await asyncio.gather(*(repository.accept(JOB) for _ in range(20)))
    assert len({job.delegation_id for job, _ in answers}) == 1
    assert sum(created for _, created in answers) == 1


async def test_a_job_is_found_by_both_ids(repository):
    job, _ = await repository.accept(JOB)
    assert (await repository.find("7")).job_id == (await repository.find(str(job.delegation_id))).job_id == 7
    with pytest.raises(JobNotFoundError):
        await repository.find("8")


async def test_one_of_many_runners_gets_the_job(repository):
    await repository.accept(JOB)
    claims = await asyncio.gather(*(repository.claim(7, f"r{n}", uuid.uuid4(), None) for n in range(10)))
    assert sum(job is not None for job in claims) == 1


async def test_a_repeated_claim_is_the_same_attempt(repository):
    await repository.accept(JOB)
    token, claim_id = uuid.uuid4(), uuid.uuid4()
    assert (await repository.claim(7, "r", token, claim_id)).attempt == 1
    assert (await repository.claim(7, "r", token, claim_id)).attempt == 1
    assert (await repository.claimed_before(claim_id)).lease_token == token
    assert await repository.claimed_before(uuid.uuid4()) is None


async def test_the_first_result_stays(repository):
    await repository.accept(JOB)
    token = uuid.uuid4()
    await repository.claim(7, "r", token, None)
    assert (await repository.complete("7", token, {"n": 1}))[1] is True
    assert (await repository.complete("7", token, {"n": 2}))[1] is False
    assert (await repository.find("7")).result == {"n": 1}
    with pytest.raises(LeaseLostError):
        await repository.complete("7", uuid.uuid4(), {})
    with pytest.raises(LeaseLostError):
        await repository.heartbeat("7", token)


async def test_a_superseded_runner_is_refused(repository, database):
    await repository.accept(JOB)
    old, new = uuid.uuid4(), uuid.uuid4()
    await repository.claim(7, "old", old, None)
    await alter(database, "UPDATE jobs SET status = 'queued'")
    await repository.claim(7, "new", new, None)
    for refused in (repository.heartbeat("7", old), repository.complete("7", old, {})):
        with pytest.raises(LeaseLostError):
            await refused
    assert (await repository.complete("7", new, {}))[0].attempt == 2


async def test_an_expired_lease_revives_while_nobody_took_over(repository, database):
    await repository.accept(JOB)
    token = uuid.uuid4()
    await repository.claim(7, "r", token, None)
    await alter(database, "UPDATE jobs SET status = 'pending'")
    assert (await repository.heartbeat("7", token)).status == "running"
    assert await repository.claim(7, "other", uuid.uuid4(), None) is None


async def test_a_claim_nobody_received_is_undone(repository):
    await repository.accept(JOB)
    token = uuid.uuid4()
    await repository.claim(7, "r", token, None)
    await repository.release(7, token)
    job = await repository.find("7")
    assert (job.status, job.attempt) == ("pending", 0)


async def test_the_queue_hands_out_by_hand(queue, repository):
    job, _ = await repository.accept(JOB)
    await queue.add(job)
    await queue.add(job)
    assert await queue.alive_job_ids() == [7]
    entry = await queue.take("token-1")
    assert (entry.job_id, entry.labels) == (7, frozenset({"linux"}))
    assert await queue.take("token-2") is None
    await queue.put_back(entry)
    await asyncio.sleep(0.05)
    again = await queue.take("token-3")
    await queue.extend(7, "token-3")
    with pytest.raises(EntryGoneError):
        await queue.put_back(entry)
    await queue.discard(again)
    assert await queue.alive_job_ids() == []
    await queue.add(job)
    assert await queue.alive_job_ids() == [7]


async def test_a_finished_entry_can_be_queued_again(queue, repository):
    job, _ = await repository.accept(JOB)
    await queue.add(job)
    entry = await queue.take("token")
    await queue.finish(entry.job_id, "token", {"done": True})
    assert (await queue.counts())["completed"] == 1
    await queue.add(job)
    assert await queue.alive_job_ids() == []
    await queue.replace(job)
    assert await queue.alive_job_ids() == [7]


async def test_what_the_queue_lost_is_put_back(singleton, queue, repository, redis_link):
    for number in range(20):
        job, _ = await repository.accept(NewJob(100 + number, 1, "a/b", "ci"))
        await queue.add(job)
        await repository.mark_enqueued([job.job_id])
    assert (await singleton.round(leader(1))).reenqueued == 0
    client = redis_link.client()
    await client.flushall()
    await client.aclose()
    assert (await singleton.round(leader(1))).reenqueued == 20
    assert sorted(await queue.alive_job_ids()) == list(range(100, 120))
    assert (await singleton.round(leader(1))).reenqueued == 0


async def test_jobs_are_counted_in_parts_and_those_missed_meanwhile_stay(
    singleton, queue, repository, monkeypatch
):
    monkeypatch.setattr(job_queue, "IDS_PER_PAGE", 4)
    for number in range(1, 21):
        job, _ = await repository.accept(NewJob(number, 1, "a/b", "ci"))
        await queue.add(job)
    for number in range(6):
        entry = await queue.take(f"token-{number}")
        if number % 2:
            await queue.park(entry, frozenset({"other"}))
    assert sorted(await queue.alive_job_ids()) == list(range(1, 21))

    async def some_moved():
        return [1, 2]

    monkeypatch.setattr(queue, "alive_job_ids", some_moved)
    assert (await singleton.round(leader(1))).reenqueued == 0
    assert await queue.counts() == {"waiting": 14, "active": 3, "delayed": 3, "completed": 0, "failed": 0}


async def test_a_dead_runners_job_is_tried_three_times(singleton, queue, repository, database):
    job, _ = await repository.accept(JOB)
    await queue.add(job)
    for attempt in (1, 2, 3):
        assert (await take_and_claim(queue, repository)).attempt == attempt
        await alter(database, "UPDATE jobs SET lease_until = now() - interval '1 s'")
        client = singleton._queue._client
        await client.delete("bull:github-jobs:job-7:lock")
        assert (await singleton.round(leader(1))).expired == 1
    job = await repository.find("7")
    assert (job.status, job.failure) == ("failed", "no runner kept its lease")
    assert await take_and_claim(queue, repository) is None


async def test_runners_get_grace_after_a_pause_of_the_leaders(singleton, repository, database):
    await repository.accept(JOB)
    await repository.claim(7, "r", uuid.uuid4(), None)
    await alter(database, "UPDATE jobs SET lease_until = now() - interval '1 s'")
    await alter(database, "UPDATE leadership SET renewed_at = now() - interval '1 min'")
    assert (await singleton.round(leader(1))).expired == 0
    assert (await repository.find("7")).status == "running"


async def test_a_leader_of_the_past_is_refused(singleton, repository, database):
    await singleton.round(leader(5))
    await repository.accept(JOB)
    with pytest.raises(StaleLeaderError):
        await singleton.round(leader(4))
    with pytest.raises(StaleLeaderError):
        await singleton.round(Leadership(6, time.monotonic() - 1))
    await singleton.round(leader(5))
    # A Lease made anew counts from zero; its leader takes over once no other has been seen for long.
    assert FORGET_TOKEN_SECONDS < 180
    await alter(database, "UPDATE leadership SET renewed_at = now() - interval '180 s'")
    await singleton.round(leader(0))


async def test_old_finished_rows_are_removed(singleton, repository, database):
    for number in (1, 2, 3):
        await repository.accept(NewJob(number, 1, "a/b", "ci"))
    await alter(
        database,
        "UPDATE jobs SET status = 'completed', finished_at = now() - job_id * interval '50 min' WHERE job_id < 3",
    )
    assert (await singleton.round(leader(1))).removed == 1
    assert (await repository.count_by_status())["completed"] == 1


async def test_a_hanging_statement_ends_with_the_attempt(database_settings):
    settings = DatabaseSettings(database_settings.url, 2, 2, 0.3, 0.8)
    database = Database(settings)

    async def hang(connection):
        await connection.execute("SET LOCAL statement_timeout = 0")
        await connection.execute("SELECT pg_sleep(60)")

    started = time.monotonic()
    with pytest.raises(DatabaseUnavailableError):
        await database.run(hang)
    assert time.monotonic() - started < 10
    await database.close()


async def test_what_is_given_up_ends_at_once_and_costs_no_other_connection(database):
    async def hang(connection):
        await connection.execute("SELECT pg_sleep(60)")

    await asyncio.gather(database.run(own_pid), database.run(own_pid))
    idle = len(database._idle)
    task = asyncio.create_task(database.run(hang))
    async with asyncio.timeout(20):
        while len(database._idle) == idle:  # noqa: ASYNC110 - nothing tells it
            await asyncio.sleep(0.01)
    await asyncio.sleep(0.3)
    started = time.monotonic()
    await give_up(task)
    assert time.monotonic() - started < database._settings.attempt_timeout_seconds / 2
    assert len(database._idle) == idle - 1
    assert await database.run(own_pid)


async def own_pid(connection):
    return (await (await connection.execute("SELECT pg_backend_pid() AS pid")).fetchone())["pid"]


def sleeper(begun, seconds):
    """A transaction that tells its connection, and takes so long."""

    async def sleep(connection):
        begun.append(await own_pid(connection))
        await connection.execute("SELECT pg_sleep(%s)", [seconds])

    return sleep


async def until(begun):
    async with asyncio.timeout(20):
        while not begun:  # noqa: ASYNC110 - nothing tells it
            await asyncio.sleep(0.01)


async def give_up(task):
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_who_waited_for_its_turn_has_the_whole_time_of_an_attempt(database_settings):
    """On a busy machine: else each would be cut off, and the logins anew would keep the machine busy."""
    database = Database(replace(database_settings, connections=2, attempt_timeout_seconds=7.0))
    begun = []
    slow = sleeper(begun, 1.0)
    # The last two wait for longer than an attempt may take, and each takes far less.
    await asyncio.gather(*(database.run(slow) for _ in range(20)))
    assert len(begun) == 20
    assert len(set(begun)) == 2
    await database.close()


async def test_whose_turn_comes_too_late_is_not_begun(database_settings):
    database = Database(replace(database_settings, connections=1))
    begun = []
    slow = sleeper(begun, 1.8)
    first = asyncio.create_task(database.run(slow))
    await until(begun)
    with pytest.raises(DatabaseUnavailableError):
        await database.run(slow, deadline_seconds=2.0)
    await first
    assert begun == [await database.run(own_pid)]
    await database.close()


async def test_a_slow_statement_costs_no_connection(database_settings, monkeypatch):
    # A fifth of an attempt or more is left for Postgres's answer. Here it is eight seconds, as a machine may stall.
    assert STATEMENT_SHARE <= 0.8
    monkeypatch.setattr("runnerhub_orchestrator.database.STATEMENT_SHARE", 0.2)
    database = Database(replace(database_settings, attempt_timeout_seconds=10.0, deadline_seconds=30.0))
    pids = []

    async def slow_at_first(connection):
        pids.append(await own_pid(connection))
        if len(pids) == 1:
            await connection.execute("SELECT pg_sleep(60)")

    await database.run(slow_at_first)
    assert len(pids) == 2
    assert set(pids) == {await database.run(own_pid)}
    await database.close()


async def test_no_answer_in_a_short_time_costs_no_other_connection(database):
    async def hang(connection):
        await connection.execute("SET LOCAL statement_timeout = 0")
        await connection.execute("SELECT pg_sleep(60)")

    async def rest(connection):
        await connection.execute("SELECT pg_sleep(0.2)")

    await asyncio.gather(database.run(rest), database.run(rest))
    idle = len(database._idle)
    assert idle >= 2
    with pytest.raises(DatabaseUnavailableError):
        await database.run(hang, deadline_seconds=0.8)
    assert len(database._idle) == idle - 1


async def test_what_is_given_up_is_brought_to_its_end_and_leaves_its_connection(database_settings):
    """A load balancer that hangs up on a busy machine must not cost it a login too."""
    database = Database(replace(database_settings, connections=1))
    begun = []
    slow = sleeper(begun, 0.5)
    before = await database.run(own_pid)
    task = asyncio.create_task(database.run(slow))
    await until(begun)
    await give_up(task)
    assert not database._idle
    assert await database.run(own_pid) == before
    await database.close()


async def test_closing_ends_what_nobody_waits_for(database_settings):
    database = Database(replace(database_settings, connections=1))
    begun = []
    hang = sleeper(begun, 60)
    task = asyncio.create_task(database.run(hang))
    await until(begun)
    await give_up(task)
    started = time.monotonic()
    await database.close()
    assert time.monotonic() - started < database._settings.attempt_timeout_seconds / 2
    assert not database._running


async def test_a_broken_connection_is_replaced(database):
    before = await database.run(own_pid)
    async with await psycopg.AsyncConnection.connect(database._settings.url, autocommit=True) as other:
        await other.execute("SELECT pg_terminate_backend(%s)", (before,))
    assert await database.run(own_pid) != before


async def set_standby(url, name):
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as admin:
        await admin.execute(f"ALTER SYSTEM SET synchronous_standby_names = '{name}'")
        await admin.execute("SELECT pg_reload_conf()")
    # A new connection begins with what the postmaster has read, which tells all others before it makes one.
    for _ in range(100):
        async with await psycopg.AsyncConnection.connect(url, autocommit=True) as later:
            value = await (await later.execute("SHOW synchronous_standby_names")).fetchone()
            if value == (name,):
                # The checkpointer decides whether commits wait; it reads the settings before it begins one.
                await later.execute("CHECKPOINT")
                return
        await asyncio.sleep(0.05)
    raise AssertionError(f"synchronous_standby_names does not become {name!r}")


async def cancel_replication_waits(url):
    """What a cancel request does to a COMMIT that waits for its standby; returns how many it hit."""
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as admin:
        for _ in range(100):
            hit = await admin.execute(
                "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
            )
            if hit.rowcount:
                return hit.rowcount
            await asyncio.sleep(0.05)
    return 0


async def test_a_commit_that_no_standby_has_is_not_acknowledged(repository, database_settings):
    url = database_settings.url
    await set_standby(url, "nobody")
    try:
        accepting = asyncio.create_task(repository.accept(JOB))
        # The row is committed and visible by now, so a retry that only reads would acknowledge it.
        assert await cancel_replication_waits(url)
        assert await cancel_replication_waits(url)
        assert not accepting.done()
    finally:
        await set_standby(url, "")
    job, created = await accepting
    assert created
    assert (await repository.find("7")).delegation_id == job.delegation_id


async def test_demand_tells_what_waits_by_labels_and_which_runners_have_a_job(repository, database):
    for number, labels in enumerate((("gpu",), ("linux", "x64"), ("linux", "x64"), ()), start=1):
        await repository.accept(NewJob(number, 1, "a/b", "ci", labels))
    await repository.claim(2, "hub-runner-linux-0", uuid.uuid4(), None)
    await alter(database, "UPDATE jobs SET status = 'completed' WHERE job_id = 4")
    demand = await repository.demand(limit=10, waiting_limit=10, deadline_seconds=2)
    assert demand.waiting == ((("gpu",), 1), (("linux", "x64"), 1))
    assert [(job.job_id, job.runner_id) for job in demand.running] == [(2, "hub-runner-linux-0")]
    assert demand.complete
    # Of the runner whose lease has run out nobody knows yet whether it is really gone.
    await alter(database, "UPDATE jobs SET lease_until = now() - interval '1 hour' WHERE job_id = 2")
    assert (await repository.demand(limit=10, waiting_limit=10, deadline_seconds=2)).running
    assert not (await repository.demand(limit=1, waiting_limit=10, deadline_seconds=2)).complete


async def test_entries_of_others_that_make_no_sense_stop_nobody(singleton, queue, repository, redis_link):
    client = redis_link.client()
    others = bullmq.Queue("github-jobs", {"connection": client, "prefix": "bull"})
    await others.add("github-job", {"jobId": 2**63, "labels": []}, {})
    await others.add("github-job", {"jobId": 8, "labels": 5}, {})
    await others.add("github-job", {"jobId": 2**70}, {"jobId": f"job-{2**70}"})
    assert await singleton.round(leader(1)) == Round()
    taken = [await queue.take(f"token-{number}") for number in range(3)]
    assert [entry and (entry.job_id, entry.labels) for entry in taken] == [None, (8, frozenset()), None]
    await queue.discard(taken[1])
    job, _ = await repository.accept(JOB)
    await queue.add(job)
    assert await queue.alive_job_ids() == [7]
    await client.aclose()


async def test_many_jobs_that_nobody_can_take_hide_no_others(repository, database):
    await alter(
        database,
        """
        INSERT INTO jobs (job_id, delegation_id, run_id, repository, workflow, labels, status, created_at)
        SELECT n, gen_random_uuid(), 1, 'a/b', 'ci', ARRAY['retired'], 'queued', now() - interval '1 day'
        FROM generate_series(1, 30000) AS n
        """,
    )
    await repository.accept(NewJob(100_000, 1, "a/b", "ci", ("linux",)))
    demand = await repository.demand(limit=DEMAND_ROWS, waiting_limit=WAITING_ROWS, deadline_seconds=5)
    assert demand.waiting == ((("retired",), 30_000), (("linux",), 1))
