import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from psycopg.errors import AdminShutdown

from runnerhub_client import journal as journals
from runnerhub_client.journal import Journal, describe, read
from runnerhub_client.record import Outcome, Record, parse


@given(
    st.builds(
        Record,
        probe=st.sampled_from(["rows", "jobs"]),
        kind=st.text(min_size=1),
        outcome=st.sampled_from(Outcome),
        wall=st.integers(0, 2**31).map(float),
        monotonic=st.integers(0, 2**31).map(float),
        identifier=st.text(),
        latency=st.none() | st.integers(0, 100).map(float),
        error=st.none() | st.text(min_size=1),
        details=st.dictionaries(st.sampled_from(["token", "events", "attempts"]), st.integers()),
    )
)
def test_a_record_survives_its_line(record):
    line = record.line()
    assert "\n" not in line
    assert parse(line) == record


@given(st.text())
def test_any_text_is_a_record_or_none(text):
    assert parse(text) is None or isinstance(parse(text), Record)


def test_every_line_is_on_disk_at_once(tmp_path):
    journal = Journal(tmp_path / "log", "rows")
    journal.write("insert", Outcome.ACKED, identifier="a", started=0.0)
    assert [record.identifier for record in read(tmp_path / "log", "rows")] == ["a"]


def test_a_line_torn_by_a_kill_costs_only_itself(tmp_path):
    journal = Journal(tmp_path, "rows")
    journal.write("insert", Outcome.ACKED, identifier="a")
    with (tmp_path / "rows.jsonl").open("a") as file:
        file.write('{"probe":"rows","kind":"ins')
    Journal(tmp_path, "rows").write("insert", Outcome.ACKED, identifier="b")
    assert [record.identifier for record in read(tmp_path, "rows")] == ["a", "b"]


def test_a_log_that_was_never_written_is_empty(tmp_path):
    assert list(read(tmp_path, "queue")) == []


def test_errors_are_one_bounded_line(tmp_path):
    journal = Journal(tmp_path, "rows")
    journal.write("insert", Outcome.UNKNOWN, error=TimeoutError("x" * 5000 + "\nmore"))
    line = json.loads((tmp_path / "rows.jsonl").read_text())
    assert line["error"].startswith("TimeoutError: x")
    assert len(line["error"]) <= 300
    assert describe(None) is None


def test_an_error_leaves_its_class(tmp_path):
    journal = Journal(tmp_path, "rows")
    for error in (AdminShutdown("bye"), ConnectionResetError("gone"), "the run ended"):
        journal.write("insert", Outcome.UNKNOWN, error=error)
    assert [record.details.get("class") for record in read(tmp_path, "rows")] == [
        "57P01",
        "ConnectionResetError",
        None,
    ]


@given(
    walls=st.lists(st.integers(0, 100), max_size=60).map(sorted),
    since=st.integers(-5, 105),
    step=st.integers(1, 500),
    torn=st.integers(0, 60),
)
def test_a_window_is_found_in_a_long_log(tmp_path_factory, walls, since, step, torn):
    folder = tmp_path_factory.mktemp("log")
    lines = [
        Record("rows", "insert", Outcome.ACKED, wall, wall, str(n)).line() for n, wall in enumerate(walls)
    ]
    lines.insert(min(torn, len(lines)), '{"probe":"ro')
    (folder / "rows.jsonl").write_text("\n".join(lines) + "\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(journals, "SEARCH_STEP_BYTES", step)
        found = [record.wall for record in read(folder, "rows", since)]
    wanted = [wall for wall in walls if wall >= since]
    assert found[len(found) - len(wanted) :] == wanted


def test_what_is_long_before_the_window_is_not_read(tmp_path):
    lines = [Record("rows", "insert", Outcome.ACKED, n, n, str(n)).line() for n in range(20_000)]
    (tmp_path / "rows.jsonl").write_text("\n".join(lines) + "\n")
    assert len(list(read(tmp_path, "rows", 19_000))) < 3_000
