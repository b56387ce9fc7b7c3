import pytest
from hypothesis import given
from hypothesis import strategies as st

from runnerhub_client import terms
from runnerhub_client.oracle import Window
from runnerhub_client.record import Outcome, Record
from runnerhub_client.terms import AGENT, ORCHESTRATOR

EVER = Window(0, 1000)


def claim(node, token, asked, answered=None, by=AGENT):
    answered = asked + 0.01 if answered is None else answered
    return Record(
        "leaders",
        "claim",
        Outcome.NOTE,
        answered,
        answered,
        node,
        details={"by": by, "token": token, "asked": asked},
    )


def look(at):
    return Record("leaders", "look", Outcome.NOTE, at, at, details={"asked": 30, "answered": 30})


def term(node, token, since, until, by=AGENT):
    """A claim every 0.2 seconds."""
    return [claim(node, token, since + n / 5, by=by) for n in range(round((until - since) * 5) + 1)]


def test_one_leader_after_the_other_is_as_it_must_be():
    found = terms.judge([look(1), *term("a", 1, 1, 10), *term("b", 2, 24, 30)], Window(1, 30))
    assert (found["two_leaders"], found["terms"], found["highest_token"], found["looks"]) == (0, 2, 2, 1)
    assert found["gap_seconds"] == 14.0


def test_a_frozen_leader_that_still_leads_when_it_thaws_is_seen():
    thawed = claim("a", 1, 25.0)
    found = terms.judge([*term("a", 1, 1, 10), *term("b", 2, 20, 30), thawed], EVER)
    assert found["two_leaders"] == 1
    assert found["told"] == ["a (agent) led with token 1 4.990 s after b (agent) had led with 2"]


def test_the_order_of_the_records_does_not_matter():
    records = [*term("a", 1, 1, 10), *term("b", 2, 8, 20)]
    there = terms.judge(records, EVER)
    assert there["two_leaders"] > 0
    assert terms.judge(records[::-1], EVER) == there


def test_an_answer_that_came_late_may_have_been_given_before_the_next_term_began():
    slow = claim("a", 1, 9.9, answered=12.0)
    assert terms.judge([*term("a", 1, 1, 9), *term("b", 2, 10, 20), slow], EVER)["two_leaders"] == 0


def test_two_with_the_same_token_are_two_leaders():
    assert terms.judge([claim("a", 3, 1), claim("b", 3, 5)], EVER)["two_leaders"] == 1


def test_a_token_that_is_lower_than_an_earlier_one_is_no_new_term():
    assert terms.judge([*term("a", 7, 1, 5), *term("b", 6, 10, 12)], EVER)["two_leaders"] > 0


def test_an_orchestrator_that_believes_its_agent_too_long_is_told_apart():
    records = [
        *term("a", 1, 1, 10),
        *term("b", 2, 10.5, 20),
        *term("a", 1, 1, 11.2, by=ORCHESTRATOR),
        *term("b", 2, 12, 20, by=ORCHESTRATOR),
    ]
    found = terms.judge(records, EVER)
    assert found["two_leaders"] == 0
    assert found["believed_longer_seconds"] == pytest.approx(0.69, abs=0.001)


def test_where_nobody_looked_or_nobody_led_the_gap_is_the_whole_time():
    found = terms.judge([], Window(10, 40))
    assert (found["claims"], found["gap_seconds"]) == (0, 30.0)
    with pytest.raises(ValueError, match="terms need a window"):
        terms.judge([], Window())


def test_claims_outside_the_window_do_not_count():
    assert terms.judge([*term("a", 1, 1, 10), *term("b", 2, 20, 30)], Window(15, 30))["terms"] == 1


@given(st.lists(st.floats(0.5, 20), min_size=1, max_size=6))
def test_terms_that_follow_each_other_never_overlap_and_shifting_one_back_always_shows(lengths):
    records, at = [], 1.0
    for token, length in enumerate(lengths, 1):
        records += term(f"pod-{token}", token, at, at + length)
        at = records[-1].wall + 0.05
    assert terms.judge(records, EVER)["two_leaders"] == 0
    intruder = claim("late", 0, at + 1)
    assert terms.judge([*records, intruder], EVER)["two_leaders"] == 1
