import json
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from e2e.faults.fault import Fault, Primary, Target
from e2e.faults.postgres.suite import PostgresSuite
from e2e.faults.redis.suite import RedisSuite
from e2e.faults.report import Report
from e2e.faults.results import RunResult, details, entry, is_held, percentile
from e2e.faults.suite import TRIED, tried

FAULT = Fault("a", "something breaks", lambda *_: None, Primary.MOVES, Target(2.0, 5.0))


def run(gap=1.0, **more):
    return RunResult(
        "a", "2026-01-01T00:00:00Z", "2026-01-01T00:01:00Z", gap_seconds=gap, acknowledged=10, **more
    )


@pytest.mark.parametrize(
    ("values", "share", "found"),
    [
        ([3, 1, 2], 0.5, 2),
        ([3, 1, 2], 0, 1),
        ([3, 1, 2], 1, 3),
        (list(range(1, 21)), 0.95, 19),
        ([], 0.5, None),
    ],
)
def test_percentiles_are_of_the_nearest_rank(values, share, found):
    assert percentile(values, share) == found


@given(st.lists(st.floats(0, 1000), min_size=1), st.floats(0, 1))
def test_a_percentile_is_one_of_the_values(values, share):
    assert percentile(values, share) in values


def test_an_entry_has_exactly_the_shape_that_tools_read():
    found = entry(
        FAULT, [run(1.0, redundancy_seconds=7.0, errors=2), run(3.0, redundancy_seconds=9.0, lost=1)]
    )
    assert found == {
        "fault": "something breaks",
        "runs": 2,
        "gap_seconds": {"min": 1.0, "p50": 1.0, "p95": 3.0, "max": 3.0},
        "errors": 2,
        "acknowledged": 20,
        "lost": 1,
        "duplicates": 0,
        "redundancy_seconds": {"p50": 7.0, "max": 9.0},
    }


def test_a_run_without_figures_is_counted_and_not_taken_for_a_good_one():
    broken = RunResult("a", "x", "y", problem="never whole")
    found = entry(FAULT, [broken])
    assert found["runs"] == 1
    assert found["gap_seconds"] == {"min": None, "p50": None, "p95": None, "max": None}
    assert is_held(FAULT.target, [broken]) is None
    assert details(FAULT, [broken])["problems"] == ["never whole"]


def test_a_target_is_held_by_both_percentiles():
    target = Target(2.0, 5.0)
    assert is_held(target, [run(1), run(2), run(5)]) is True
    assert is_held(target, [run(3), run(3), run(3)]) is False
    assert is_held(target, [run(1), run(1), run(5.1)]) is False
    assert is_held(None, [run(1)]) is None


def test_where_clients_must_see_no_error_one_misses_the_target():
    target = Target(2.0, 2.0, errors_allowed=False)
    assert is_held(target, [run(1)]) is True
    assert is_held(target, [run(1), run(1, errors=1)]) is False


def report_of(*runs, lost_by_control=1):
    report = Report("postgres", {"postgres": "17"})
    for result in runs:
        report.add(FAULT, result)
    report.control = {"fault": "c", "acknowledged": 100, "lost": lost_by_control}
    return report


@pytest.mark.parametrize(
    ("report", "words"),
    [
        (report_of(run()), None),
        (report_of(run(lost=1)), "1 writes were lost"),
        (report_of(run(partial=1)), "partial"),
        (report_of(run(phantoms=1)), "there although they had failed"),
        (report_of(run(problem="stuck")), "did not go as they must"),
        (report_of(run(), lost_by_control=0), "control run lost nothing"),
    ],
)
def test_a_suite_fails_for_broken_promises_and_for_a_control_that_loses_nothing(report, words):
    failures = report.failures(strict=False)
    assert (words is None) == (not failures)
    assert words is None or words in failures[0]


@pytest.mark.parametrize("name", ["lost", "two_leaders"])
def test_what_only_the_end_of_the_suite_shows_fails_it_as_well(name):
    report = report_of(run())
    report.audit = {"acknowledged": 20, "lost": 0, "partial": 0, "phantoms": 0, "two_leaders": 0, name: 1}
    assert report.failures(strict=False) == ["the audit at the end found broken promises"]


@pytest.mark.parametrize(
    ("found", "words"),
    [
        ({"acknowledged": 0, "problem": "undecided"}, "gave no verdict: undecided"),
        ({"acknowledged": 0}, "nothing"),
    ],
)
def test_an_audit_that_proves_nothing_fails_the_suite_and_is_told(found, words):
    report = report_of(run())
    report.audit = {"lost": 0, "partial": 0, "phantoms": 0, "two_leaders": 0, **found}
    (failure,) = report.failures(strict=False)
    assert words in failure
    assert ("the audit gave no verdict: undecided" in report.text()) == ("problem" in found)


def test_promises_broken_while_pgbench_runs_fail_the_suite():
    report = report_of(run())
    report.bench = {"broken_promises": 2}
    assert report.failures(strict=False) == ["2 writes around the fault under pgbench were not as they must"]


def test_a_skipped_fault_fails_only_when_asked():
    report = report_of(run())
    report.skip(FAULT, "no quota")
    assert report.failures(strict=False) == []
    assert report.failures(strict=True) == ["faults skipped: something breaks"]


def test_a_missed_target_fails_only_when_asked():
    report = report_of(run(9.0))
    assert report.failures(strict=False) == []
    assert report.failures(strict=True) == ["targets missed: something breaks"]


def test_the_report_is_json_and_a_table(tmp_path, monkeypatch):
    monkeypatch.setattr("e2e.lab.report.REPORTS", tmp_path)
    reads = {"gap_seconds": 0.5, "errors": 1, "acknowledged": 9}
    report = report_of(
        run(6.0, error_classes={"57P01": 3}, beside={"reads": reads}), run(1.0, problem="stuck")
    )
    report.skip(FAULT, "no quota")
    report.audit = {"acknowledged": 20, "lost": 0, "partial": 0, "phantoms": 0, "two_leaders": 0}
    report.bench = {
        "ways": {
            "direct": {"select": {"tps": 100.0, "latency_ms": 1.0}},
            "pooler": {"select": {"tps": 90.0, "latency_ms": 1.1}},
            "cost_of_pooler_share": {"select": 0.1},
        },
        "fault": {
            "fault": "a",
            "gap_seconds": 6.0,
            "tps": {"before": 50.0, "during_gap": 0.0, "after": 49.0},
        },
    }
    content = json.loads(report.write().read_text())
    assert {"versions", "faults", "control"} <= content.keys()
    assert content["details"][0]["error_classes"] == {"57P01": 3}
    text = (tmp_path / "faults-postgres.txt").read_text()
    for words in (
        "reads  ",
        "2 / 5 s",
        "NO",
        "skipped: something breaks: no quota",
        "run 2: stuck",
        "pooler: select 90/s",
    ):
        assert words in text


@pytest.mark.parametrize(("suite", "count"), [(PostgresSuite, 26), (RedisSuite, 21)])
def test_each_fault_has_a_name_of_its_own_and_is_found_by_it(suite, count):
    names = [fault.name for fault in suite.faults()]
    assert len(set(names)) == len(names) == count
    assert all(suite.fault(name).name == name for name in names)
    with pytest.raises(KeyError, match=f"there is no fault nonsense; there are {names[0]}"):
        suite.fault("nonsense")


def test_a_suite_that_was_cut_off_goes_on_with_the_runs_it_had():
    frozen, moved = PostgresSuite.fault("node-frozen"), PostgresSuite.fault("planned-switchover")
    before = Report("postgres", {"commit": "a", "product": "p", "postgres": "17"}, control={"lost": 3})
    for fault in (moved, moved, frozen):
        before.add(fault, run(notes={"status_right_seconds": 1.5}, error_classes={"57P01": 2}))
    told = json.loads(json.dumps(before.content()))
    again = Report("postgres", {"commit": "b", "product": "p", "postgres": "17"})
    assert again.resume(told, (moved, frozen))
    assert again.runs == before.runs
    assert {**again.content(), "versions": before.versions} == before.content()
    other = Report("postgres", {"commit": "a", "product": "q", "postgres": "17"})
    assert not other.resume(told, (moved, frozen))
    assert other.runs == {}


def test_figures_are_of_one_product_until_something_that_they_depend_on_changes(tmp_path):
    def git(*arguments):
        identity = ("-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false")
        subprocess.run(["git", "-C", tmp_path, *identity, *arguments], check=True, capture_output=True)

    def write(path):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        with (tmp_path / path).open("a") as file:
            file.write("more\n")

    def product():
        git("add", ".")
        git("commit", "-m", "more")
        return tried(("git", "-C", str(tmp_path)))

    git("init")
    for path in TRIED:
        write(path if "." in path else f"{path}/file")
    first = product()
    write("docs/page.md")
    assert product() == first
    write("operator/file")
    assert "not committed" in tried(("git", "-C", str(tmp_path)))
    assert product() != first
