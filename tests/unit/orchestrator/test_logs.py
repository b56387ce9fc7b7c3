import json
import logging

from runnerhub_orchestrator.logs import JsonFormatter


def test_a_line_is_one_json_object_with_the_fields_of_the_decision():
    record = logging.makeLogRecord(
        {"name": "x", "levelname": "INFO", "msg": "rows put back\ninto the queue", "jobs": 3}
    )
    line = JsonFormatter("node-1").format(record)
    assert "\n" not in line
    told = json.loads(line)
    assert (told["event"], told["jobs"], told["node"]) == ("rows put back\ninto the queue", 3, "node-1")


def test_a_crash_carries_its_trace():
    try:
        raise RuntimeError("no")
    except RuntimeError as error:
        record = logging.makeLogRecord(
            {"msg": "crashed", "exc_info": (type(error), error, error.__traceback__)}
        )
    assert "RuntimeError: no" in json.loads(JsonFormatter("n").format(record))["exception"]
