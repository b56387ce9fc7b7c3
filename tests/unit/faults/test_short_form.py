"""How the tests on kind judge a single run."""

from dataclasses import asdict, replace
from types import SimpleNamespace

import pytest

from e2e.faults.fault import Fault, Primary, Target
from e2e.faults.hub.suite import HubSuite
from e2e.faults.postgres.suite import PostgresSuite
from e2e.faults.results import RunResult
from e2e.tests import short_form
from e2e.tests.short_form import shortcomings

GOOD = RunResult("a", "x", "y", gap_seconds=1.0, acknowledged=10)


def fault(target):
    return Fault("a", "A", lambda _arena, _before: None, Primary.STAYS, target)


def told(target, **changes):
    return list(shortcomings(fault(target), replace(GOOD, **changes), 20.0))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"problem": "stuck"}, "stuck"),
        ({"lost": 1}, "1 promises were broken"),
        ({"acknowledged": 0}, "nothing was acknowledged"),
        ({"gap_seconds": None}, "gap was None"),
        ({"gap_seconds": 20.1}, "may be 20 s"),
    ],
)
def test_a_run_must_pass_and_keep_its_promises(changes, words):
    assert told(None) == []
    (found,) = told(None, **changes)
    assert words in found


def test_an_error_counts_where_the_target_allows_none():
    changes = {"errors": 1, "error_classes": {"57P01": 1}}
    assert told(Target(2.0, 2.0), **changes) == told(None, **changes) == []
    assert told(Target(2.0, 2.0, errors_allowed=False), **changes) == ["clients saw 1 errors: {'57P01': 1}"]


def test_a_gap_may_be_a_few_times_its_target():
    assert told(Target(1.0, 2.0), gap_seconds=10.0) == []
    assert told(Target(1.0, 2.0), gap_seconds=10.1) == ["the longest gap was 10.1 s, and may be 10 s"]
    assert told(Target(1.0, 8.0), gap_seconds=20.1) == ["the longest gap was 20.1 s, and may be 20 s"]


@pytest.mark.parametrize(
    ("suite", "name"),
    [
        (PostgresSuite, "planned-switchover"),
        (PostgresSuite, "password-rotation"),
        (HubSuite, "rolling-update"),
    ],
)
def test_planned_changes_may_cost_no_error(suite, name):
    result = replace(GOOD, gap_seconds=0.1, errors=1)
    assert any("1 errors" in text for text in shortcomings(suite.fault(name), result, 20.0))


@pytest.mark.parametrize(
    ("runs", "passes"),
    [
        ([{}], True),
        ([{"gap_seconds": 20.1}, {}], True),
        ([{"errors": 1}, {}], True),
        ([{"gap_seconds": 20.1}, {"gap_seconds": 20.1}], False),
        ([{"problem": "stuck"}], False),
    ],
)
def test_only_a_run_that_was_slow_and_kept_its_promises_is_tried_once_more(monkeypatch, runs, passes):
    left = [replace(GOOD, **changes) for changes in runs]
    monkeypatch.setattr(short_form, "run_once", lambda *_: left.pop(0))
    monkeypatch.setattr(short_form, "RESULTS", {})
    monkeypatch.setattr(short_form.report, "write", lambda *_: None)
    monkeypatch.setattr(short_form.mend, "mend", lambda _: None)
    arena = SimpleNamespace(COMPONENT="any", bed=None)

    def judge():
        target = Target(8.0, 8.0, errors_allowed=False)
        short_form.try_once(arena, fault(target), longest_gap_seconds=20.0)

    if passes:
        judge()
    else:
        with pytest.raises(AssertionError):
            judge()
    assert left == []


@pytest.mark.parametrize(
    "changes",
    [
        {"lost": 1},
        {"partial": 1, "problem": "stuck"},
        {"phantoms": 1, "gap_seconds": 20.1},
        {"duplicates": 1},
        {"figures": {"leader": {"two_leaders": 1, "told": ["a and b"]}}},
    ],
)
def test_a_broken_promise_ends_all_tests_by_a_code_of_its_own(changes):
    with pytest.raises(pytest.exit.Exception) as caught:
        short_form.keeps_its_promises(asdict(replace(GOOD, **changes)))
    assert caught.value.returncode not in {None, *map(int, pytest.ExitCode)}


@pytest.mark.parametrize("runs", [[{"errors": 1}, {"lost": 1}], [{"gap_seconds": 20.1, "lost": 1}]])
def test_a_run_that_lost_something_is_never_tried_once_more(monkeypatch, runs):
    left = [replace(GOOD, **changes) for changes in runs]
    monkeypatch.setattr(short_form, "run_once", lambda *_: left.pop(0))
    monkeypatch.setattr(short_form, "RESULTS", {})
    monkeypatch.setattr(short_form.report, "write", lambda *_: None)
    target = Target(8.0, 8.0, errors_allowed=False)
    with pytest.raises(pytest.exit.Exception, match="lost"):
        short_form.try_once(SimpleNamespace(COMPONENT="any"), fault(target), longest_gap_seconds=20.0)
    assert left == []


def test_jobs_may_be_executed_twice():
    short_form.keeps_its_promises(asdict(replace(GOOD, duplicates=1, at_least_once=True)))
