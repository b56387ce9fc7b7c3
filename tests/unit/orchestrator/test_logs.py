"""What an orchestrator tells of the stores that it works with."""

import logging

import psycopg

from runnerhub_orchestrator import logs
from runnerhub_orchestrator.logs import CALM_SECONDS, AnswersLog, describe


def test_an_error_is_told_in_one_line():
    assert describe(psycopg.OperationalError("one\ntwo")) == "OperationalError: one"
    assert describe(TimeoutError()) == "TimeoutError"


def test_a_store_that_answers_now_and_then_is_told_of_once(monkeypatch, caplog):
    now = [100.0]
    monkeypatch.setattr(logs.time, "monotonic", lambda: now[0])
    caplog.set_level(logging.INFO)
    told = AnswersLog(logging.getLogger("test"), "database")

    def says(*expected):
        found = [record.getMessage() for record in caplog.records]
        caplog.clear()
        assert found == list(expected)

    told.answered()
    told.answered()
    says("database answers")
    for _ in range(100):
        told.failed(TimeoutError("too late"))
        told.answered()
        now[0] += CALM_SECONDS / 10
    says("database does not answer")
    now[0] += CALM_SECONDS
    told.answered()
    says("database answers")
    told.failed(None)
    says("database does not answer")
