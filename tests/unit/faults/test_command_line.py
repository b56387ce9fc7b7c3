import pytest

from e2e.faults.__main__ import SUITES, main, parse, plan_from
from e2e.faults.postgres import catalogue
from e2e.faults.redis import catalogue as queue_catalogue


def test_everything_is_tried_unless_some_are_named():
    plan = plan_from(parse(["postgres"]))
    assert (plan.faults, plan.runs, plan.bench, plan.control) == (SUITES["postgres"].faults(), 10, True, True)
    assert plan_from(parse(["redis"])).faults == queue_catalogue.SHARED


def test_named_faults_run_in_the_order_given_and_pgbench_only_when_named():
    plan = plan_from(parse(["postgres", "--faults", "node-frozen,planned-switchover", "--runs", "2"]))
    assert [fault.name for fault in plan.faults] == ["node-frozen", "planned-switchover"]
    assert (plan.runs, plan.bench) == (2, False)
    assert plan_from(parse(["postgres", "--faults", "pgbench"])).bench


def test_the_api_server_can_be_away_for_longer():
    plan = plan_from(parse(["postgres", "--api-away-seconds", "600"]))
    seconds = {fault.name: fault.broken_seconds for fault in plan.faults}
    assert seconds["api-server-away"] == 600
    assert seconds["node-frozen"] == SUITES["postgres"].fault("node-frozen").broken_seconds


def test_an_unknown_fault_is_told_before_anything_is_done(capsys):
    assert main(["redis", "--faults", "nonsense"]) == 2
    assert "there is no fault nonsense" in capsys.readouterr().err


@pytest.mark.parametrize("group", [catalogue.SHARED, catalogue.BOUNDED])
def test_a_plan_gives_each_group_its_faults(group):
    assert plan_from(parse(["postgres"])).among(group) == list(group)
