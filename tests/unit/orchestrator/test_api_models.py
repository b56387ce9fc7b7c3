import uuid
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from runnerhub_orchestrator.api_models import CompleteRequest, DelegateRequest, render, render_claim
from runnerhub_orchestrator.errors import JobNotFoundError
from runnerhub_orchestrator.jobs import Job, parse_identifier

BODY = {"jobId": 5, "runId": 6, "repository": "a/b", "workflow": "ci"}


def test_labels_are_a_set():
    one = DelegateRequest.model_validate({**BODY, "labels": ["x64", "linux", "linux"]}).new_job()
    other = DelegateRequest.model_validate({**BODY, "labels": ["linux", "x64"]}).new_job()
    assert one == other


@pytest.mark.parametrize(
    "change",
    [
        {"jobId": "5"},
        {"jobId": 0},
        {"jobId": 2**63},
        {"jobId": 5.5},
        {"jobId": True},
        {"repository": ""},
        {"repository": "a\x00b"},
        {"workflow": None},
        {"labels": "linux"},
        {"labels": [""]},
    ],
    ids=str,
)
def test_bad_jobs_are_refused(change):
    with pytest.raises(ValidationError):
        DelegateRequest.model_validate({**BODY, **change})


def test_unknown_fields_are_ignored():
    assert DelegateRequest.model_validate({**BODY, "sender": "webhook"}).job_id == 5


def test_a_result_that_postgres_cannot_store_is_refused():
    token = str(uuid.uuid4())
    for result in ({"a": "\x00"}, {"\x00": 1}, {"a": [{"b": "\x00"}]}):
        with pytest.raises(ValidationError, match="null character"):
            CompleteRequest.model_validate({"token": token, "result": result})
    assert CompleteRequest.model_validate({"token": token, "result": {"a": [1, {"b": None}]}}).result


def test_only_the_runner_sees_the_token():
    token = uuid.uuid4()
    job = Job(5, uuid.uuid4(), 6, "a/b", "ci", ("linux",), "running", 1, 0, "r", token, datetime.now(UTC), None,
              None, datetime.now(UTC), datetime.now(UTC), None)  # fmt: skip
    assert str(token) not in str(render(job))
    assert render_claim(job, 30.0)["token"] == str(token)


@given(st.integers(min_value=1, max_value=2**63 - 1))
def test_a_number_is_a_job_id(number):
    assert parse_identifier(str(number)) == {"job_id": number, "delegation_id": None}


@given(st.uuids())
def test_a_uuid_is_a_delegation_id(identifier):
    assert parse_identifier(str(identifier))["delegation_id"] == identifier


@given(st.text())
def test_any_other_text_is_no_job(text):
    try:
        parsed = parse_identifier(text)
    except JobNotFoundError:
        return
    assert parsed["job_id"] or parsed["delegation_id"]
