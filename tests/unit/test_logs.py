"""The programs' logs: JSON, with the same keys for all, so that one query finds what each of them tells."""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime

import pytest

import runnerhub_operator.logs
import runnerhub_orchestrator.logs
import runnerhub_runner.logs

FORMATTERS = (
    runnerhub_operator.logs.JsonFormatter(),
    runnerhub_orchestrator.logs.JsonFormatter("node-1"),
    runnerhub_runner.logs.JsonFormatter(),
)
all_programs = pytest.mark.parametrize("formatter", FORMATTERS, ids=lambda item: type(item).__module__)


@all_programs
def test_a_line_is_one_json_object_with_the_fields_of_the_decision(formatter: logging.Formatter) -> None:
    text = "rows put back\ninto the queue"
    record = logging.makeLogRecord(
        {"name": "x", "levelname": "WARNING", "msg": text, "created": 0.25, "jobs": 3}
    )
    line = formatter.format(record)
    assert "\n" not in line
    told = json.loads(line)
    assert (told.pop("node", "node-1"), told.pop("jobs")) == ("node-1", 3)
    assert datetime.fromisoformat(told.pop("time")) == datetime(1970, 1, 1, 0, 0, 0, 250_000, UTC)
    assert told == {"level": "warning", "logger": "x", "message": text}


@all_programs
def test_a_crash_carries_its_trace(formatter: logging.Formatter) -> None:
    try:
        raise RuntimeError("no")
    except RuntimeError as error:
        record = logging.makeLogRecord(
            {"msg": "crashed", "exc_info": (type(error), error, error.__traceback__)}
        )
    assert "RuntimeError: no" in json.loads(formatter.format(record))["error"]
