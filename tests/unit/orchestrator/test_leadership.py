from datetime import UTC, datetime, timedelta

import pytest
from pydantic import ValidationError

from runnerhub_orchestrator.leadership import AgentAnswer, Leadership, judge

NOW = datetime(2025, 1, 1, tzinfo=UTC)


def answer(**changes):
    fields = {
        "leader": True,
        "holder": "hub-orchestrator-0",
        "fencingToken": 7,
        "since": "2025-01-01T00:00:00Z",
        "validUntil": (NOW + timedelta(seconds=10)).isoformat(),
    }
    return AgentAnswer.model_validate({**fields, **changes})


def decide(given):
    return judge(given, now=NOW, asked_at_monotonic=100.0, lease_seconds=15)


def test_a_valid_lease_counts_from_the_question():
    assert decide(answer()) == Leadership(fencing_token=7, valid_until_monotonic=110.0)


@pytest.mark.parametrize(
    "given",
    [
        None,
        answer(leader=False),
        answer(validUntil=None),
        answer(validUntil=NOW.isoformat()),
        answer(validUntil=(NOW - timedelta(hours=1)).isoformat()),
    ],
    ids=["no answer", "other leader", "no end", "just over", "long over"],
)
def test_no_leadership_without_a_valid_lease(given):
    assert decide(given) is None


def test_a_promise_longer_than_the_lease_is_cut():
    promised = answer(validUntil=(NOW + timedelta(days=1)).isoformat())
    assert decide(promised) == Leadership(7, 115.0)


def test_a_lease_without_a_time_zone_is_no_answer_to_rely_on():
    with pytest.raises(ValidationError, match="validUntil"):
        answer(validUntil="2025-01-01T00:00:10")


def test_leadership_without_election_never_ends():
    assert Leadership(None, float("inf")).is_valid()
