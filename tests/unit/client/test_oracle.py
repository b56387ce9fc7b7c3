import math
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runnerhub_client import oracle
from runnerhub_client.oracle import Course, Stored, Window, Writes
from runnerhub_client.record import Outcome, Record

ACKED, UNKNOWN, ERROR, NOTE = Outcome.ACKED, Outcome.UNKNOWN, Outcome.ERROR, Outcome.NOTE
IDS = st.sets(st.text("abcdef", min_size=1, max_size=3), max_size=12)


def row(identifier, outcome=ACKED, wall=0.0, latency=None):
    return Record("rows", "insert", outcome, wall, wall, identifier, latency)


def execution(job_id, token):
    return Record("runners", "execute", ACKED, 0, 0, job_id, details={"token": token})


def writes(acknowledged=(), unknown=(), errors=0):
    return Writes(frozenset(acknowledged), frozenset(unknown), errors)


def test_a_lost_write_is_reported():
    verdict = oracle.judge_writes(writes(acknowledged={"a", "b", "c"}), present={"a", "c"})
    assert verdict.lost == 1
    assert verdict.lost_ids == ["b"]
    assert verdict.acknowledged == 3


def test_an_unknown_write_may_be_either():
    verdict = oracle.judge_writes(writes({"a"}, unknown={"u", "v"}, errors=2), present={"a", "u"})
    assert (verdict.lost, verdict.unknown, verdict.unknown_present, verdict.errors) == (0, 2, 1, 2)


def test_an_empty_store_loses_everything_acknowledged():
    verdict = oracle.judge_writes(writes({str(n) for n in range(100)}), present=())
    assert verdict.lost == 100
    assert len(verdict.lost_ids) == oracle.SHOWN_IDS


@given(acknowledged=IDS, unknown=IDS, present=IDS)
def test_lost_is_what_was_acknowledged_and_is_not_there(acknowledged, unknown, present):
    verdict = oracle.judge_writes(writes(acknowledged, unknown - acknowledged), present)
    assert verdict.lost == sum(identifier not in present for identifier in acknowledged)
    assert (verdict.lost == 0) == (acknowledged <= present)


def test_a_job_without_a_row_is_lost():
    verdict = oracle.judge_jobs(writes({"1", "2"}), {"1": "completed"}, Counter({"1": 1}))
    assert (verdict.lost, verdict.not_completed, verdict.lost_ids) == (1, 0, ["2"])


@pytest.mark.parametrize("status", ["pending", "queued", "running", "failed"])
def test_a_job_that_was_never_completed_is_lost(status):
    verdict = oracle.judge_jobs(writes({"1"}), {"1": status}, Counter())
    assert (verdict.lost, verdict.not_completed) == (1, 1)


def test_a_job_executed_under_two_leases_is_a_duplicate():
    executions = oracle.count_executions(
        [execution("1", "t1"), execution("1", "t2"), execution("2", "t3"), execution("2", "t3")]
    )
    verdict = oracle.judge_jobs(writes({"1", "2"}), {"1": "completed", "2": "completed"}, executions)
    assert (verdict.duplicates, verdict.lost) == (1, 0)


def test_executions_of_other_runs_are_not_counted():
    assert oracle.judge_jobs(writes({"1"}), {"1": "completed"}, Counter({"1": 1, "9": 4})).duplicates == 0


def test_a_write_acknowledged_at_last_is_not_unknown():
    found = oracle.collect_writes("rows", [row("a", ERROR), row("a", UNKNOWN), row("a"), row("b", UNKNOWN)])
    assert found == writes({"a"}, {"b"}, errors=3)


def test_a_failure_is_certain_unless_another_try_says_otherwise():
    found = oracle.collect_writes("rows", [row("a", ERROR), row("b", ERROR), row("b", UNKNOWN)])
    assert (found.failed, found.unknown, found.tried) == ({"a"}, {"b"}, {"a", "b"})


def test_a_failed_write_that_is_there_is_a_phantom():
    found = Writes(frozenset({"a"}), frozenset(), 1, failed=frozenset({"f", "g"}))
    assert oracle.judge_writes(found, present={"a", "f"}).phantoms == 1


def test_an_id_that_is_there_already_was_written_twice():
    refused = Record("rows", "insert", UNKNOWN, 0, 0, "a", details={"class": "23505"})
    found = oracle.collect_writes("rows", [refused])
    assert oracle.judge_writes(found, present={"a"}).duplicates == 1


WHOLE = Stored(rows=3, positions=3, size=3)
PART = Stored(rows=2, positions=2, size=3)
TWICE = Stored(rows=6, positions=3, size=3)


def test_an_acknowledged_transaction_is_lost_when_any_of_its_rows_is():
    verdict = oracle.judge_transactions(writes({"a", "b", "c"}), {"a": WHOLE, "b": PART})
    assert (verdict.lost, verdict.partial, verdict.lost_ids) == (2, 1, ["b", "c"])


def test_a_transaction_may_never_be_half_there_whatever_the_client_was_told():
    found = Writes(frozenset(), frozenset({"u", "v"}), 3, failed=frozenset({"f"}))
    verdict = oracle.judge_transactions(found, {"u": PART, "v": WHOLE, "f": PART})
    assert (verdict.partial, verdict.phantoms, verdict.unknown_present, verdict.lost) == (2, 1, 2, 0)


def test_a_transaction_applied_twice_is_a_duplicate_and_not_lost():
    verdict = oracle.judge_transactions(writes({"a", "b"}), {"a": TWICE, "b": WHOLE})
    assert (verdict.duplicates, verdict.lost, verdict.partial) == (1, 0, 0)


@given(acknowledged=IDS, whole=IDS, part=IDS)
def test_only_whole_transactions_keep_the_promise(acknowledged, whole, part):
    stored = {**dict.fromkeys(whole, WHOLE), **dict.fromkeys(part - whole, PART)}
    verdict = oracle.judge_transactions(writes(acknowledged), stored)
    assert verdict.lost == len(acknowledged - whole)
    assert verdict.partial == len(part - whole)


def test_only_promises_within_the_window_count():
    records = [
        row("early", wall=9.9),
        row("in", wall=10),
        row("late", wall=20.1),
        Record("rows", "create-table", ERROR, 15, 15),
    ]
    assert oracle.collect_writes("rows", records, Window(10, 20)) == writes({"in"})


def test_the_longest_gap_lies_between_two_acknowledgements():
    records = [row(str(n), wall=wall, latency=0.1) for n, wall in enumerate([0, 1, 2, 7.5, 8, 9])]
    gap = oracle.longest_gap(records, {"insert"}, Window(0, 9))
    assert (gap.gap_seconds, gap.gap_started_at, gap.acknowledged) == (5.5, 2, 6)
    assert gap.latency_seconds == {"p50": 0.1, "p95": 0.1, "p99": 0.1, "max": 0.1}


def test_a_service_that_never_came_back_has_a_gap_up_to_the_end():
    gap = oracle.longest_gap([row("a", wall=1), row("b", UNKNOWN, wall=5)], {"insert"}, Window(0, 60))
    assert (gap.gap_seconds, gap.gap_started_at, gap.errors, gap.unknown) == (59, 1, 1, 1)


def test_a_window_without_any_acknowledgement_is_one_gap():
    gap = oracle.longest_gap([], {"insert"}, Window(5, 30))
    assert (gap.gap_seconds, gap.acknowledged, gap.latency_seconds) == (25, 0, {})


def test_acknowledgements_out_of_order_are_sorted():
    records = [row("a", wall=3), row("b", wall=1), row("c", wall=2)]
    assert oracle.longest_gap(records, {"insert"}, Window(0, 3)).gap_seconds == 1


def test_the_gap_over_several_writers_is_the_time_in_which_none_got_through():
    commits = [Record("transactions", "commit", ACKED, wall, wall, str(wall)) for wall in (2, 9)]
    records = [row("a", wall=1), row("b", wall=4), *commits]
    gap = oracle.longest_gap(records, {"insert", "commit"}, Window(0, 10))
    assert (gap.gap_seconds, gap.gap_started_at, gap.acknowledged) == (5, 4, 4)


def test_errors_are_counted_by_class():
    shut_down = {"class": "57P01"}
    records = [
        Record("rows", "insert", UNKNOWN, 1, 1, "a", details=shut_down),
        Record("rows", "insert", ERROR, 2, 2, "b", details=shut_down),
        Record("rows", "insert", UNKNOWN, 3, 3, "c", error="the run ended"),
        row("d", wall=4),
    ]
    gap = oracle.longest_gap(records, {"insert"}, Window(0, 5))
    assert (gap.errors, gap.error_classes) == (3, {"57P01": 2, "other": 1})


def test_an_open_window_has_no_gap():
    for window in (Window(), Window(0, math.inf), Window(3, 2)):
        with pytest.raises(ValueError, match="window"):
            oracle.longest_gap([], {"insert"}, window)


@given(st.lists(st.floats(0, 100), max_size=30))
def test_a_gap_is_never_longer_than_its_window(walls):
    gap = oracle.longest_gap([row(str(n), wall=w) for n, w in enumerate(walls)], {"insert"}, Window(0, 100))
    assert 100 / (len(walls) + 1) - 0.001 <= gap.gap_seconds <= 100


def test_unfinished_counts_rows_on_their_way_only():
    statuses = {"1": "pending", "2": "running", "3": "completed", "4": "failed"}
    assert oracle.unfinished(writes({"1", "2", "3", "4", "5"}), statuses) == 2


def test_runner_and_websocket_summaries():
    runners = [
        execution("1", "t"),
        Record("runners", "complete", ACKED, 0, 0, "1"),
        Record("runners", "claim", ERROR, 0, 0),
        Record("runners", "superseded", NOTE, 0, 0, "2"),
    ]
    assert oracle.summarise_runners(runners) == {
        "executions": 1,
        "completed": 1,
        "superseded": 1,
        "errors": 1,
    }
    sockets = [
        Record("websocket", "connect", ACKED, 0, 0, "ws-0"),
        Record("websocket", "events", NOTE, 0, 0, "ws-0", details={"events": 5}),
        Record("websocket", "disconnect", NOTE, 0, 0, "ws-0"),
        Record("websocket", "connect", ERROR, 0, 0, "ws-0"),
    ]
    assert oracle.summarise_websockets(sockets) == {"connects": 1, "disconnects": 1, "errors": 1, "events": 5}


def test_percentiles_are_of_the_nearest_rank():
    assert oracle.summarise([4, 1, 3, 2]) == {"p50": 2, "p95": 4, "p99": 4, "max": 4}


def increment(value, outcome=ACKED, wall=0.0):
    return Record("counter", "increment", outcome, wall, wall, str(value))


def test_a_counter_that_kept_everything():
    told = [increment(value) for value in (1, 2, 4)] + [increment("9e", UNKNOWN)]
    verdict = oracle.judge_counter(told, value_now=4)
    assert (verdict.acknowledged, verdict.unknown, verdict.lost) == (3, 1, 0)


@pytest.mark.parametrize(
    ("values", "value_now", "lost"),
    [
        ((1, 2, 3), 1, 2),  # forgot two, and counted no further
        ((1, 2, 3, 2, 3, 4), 4, 2),  # forgot two, and has given them again
        ((1, 2, 3, 2), 2, 2),  # forgot two, and has given one of them again
        ((), 0, 0),
    ],
)
def test_a_counter_that_forgot(values, value_now, lost):
    assert oracle.judge_counter([increment(value) for value in values], value_now).lost == lost


def test_a_counter_is_judged_within_the_window():
    told = [increment(1, wall=1.0), increment(1, wall=10.0), increment(2, wall=11.0)]
    assert oracle.judge_counter(told, 2, Window(5, 20)).lost == 0
    assert oracle.judge_counter(told, 2).lost == 1


def test_a_bullmq_job_must_be_worked_on_once_at_least():
    processed = oracle.count_processed(
        [
            Record("bullmq-node-worker", "process", ACKED, 0, 0, identifier)
            for identifier in ("a", "b", "b", "u", "other", "other")
        ]
        + [Record("bullmq-node-worker", "connection", NOTE, 0, 0, "c")]
    )
    verdict = oracle.judge_deliveries(writes({"a", "b", "c"}, unknown={"u", "v"}), processed)
    assert (verdict.lost, verdict.lost_ids, verdict.duplicates, verdict.unknown_present) == (1, ["c"], 1, 1)


def socket_event(kind, at, name="ws-0", outcome=NOTE, **details):
    return Record("websocket", kind, outcome, at, at, name, details=details)


def test_a_dropped_socket_is_timed_from_what_was_noticed_and_from_what_was_heard_last():
    records = [
        socket_event("disconnect", 10.0, silent=2.0),
        socket_event("disconnect", 10.5, "ws-1", silent=0.0),
        socket_event("connect", 11.0, outcome=ERROR),
        socket_event("connect", 12.0, outcome=ACKED),
        socket_event("disconnect", 99.0, "ws-2", silent=1.0),
    ]
    assert oracle.judge_websockets(records, Window(0, 50)) == {
        "dropped": 2,
        "errors": 1,
        "never_back": 1,
        "reconnect_seconds": {"p50": 2.0, "p95": 2.0, "p99": 2.0, "max": 2.0},
        "away_seconds": {"p50": 4.0, "p95": 4.0, "p99": 4.0, "max": 4.0},
    }


def test_a_burst_tells_when_the_last_runner_had_its_first_job_and_which_jobs_were_begun_twice():
    courses = [
        Course("completed", 1, "a", 100.0, 103.0, 104.0),
        Course("completed", 2, "b", 100.5, 108.0, 109.0),
        Course("completed", 1, "a", 100.2, 110.0, 111.5),
    ]
    assert oracle.summarise_burst(courses) == {
        "jobs": 3,
        "completed": 3,
        "interrupted": 1,
        "runners": 2,
        "first_start_seconds": 3.0,
        "capacity_seconds": 8.0,
        "all_done_seconds": 11.5,
    }


def test_a_burst_that_is_not_over_has_no_end():
    courses = [Course("queued", 0, "", 100.0, None, None), Course("completed", 1, "a", 100, 101, 102)]
    found = oracle.summarise_burst(courses)
    assert (found["completed"], found["jobs"]) == (1, 2)
    assert "all_done_seconds" not in found
    assert oracle.summarise_burst([])["runners"] == 0
