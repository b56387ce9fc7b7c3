"""JSON log lines on standard output: one line per decision, values as fields."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime

# What every LogRecord has anyway; the rest of its attributes came in by extra= and is what the line tells.
_STANDARD_ATTRIBUTES = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class JsonFormatter(logging.Formatter):
    """One JSON object per record: time, level, logger, message, node, and the fields given by extra=."""

    def __init__(self, node_id: str) -> None:
        super().__init__()
        self._node_id = node_id

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            "node": self._node_id,
        }
        line.update({key: value for key, value in vars(record).items() if key not in _STANDARD_ATTRIBUTES})
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def configure(node_id: str, level: str) -> None:
    """Send all records of the process to standard output as JSON."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(JsonFormatter(node_id))
    logging.basicConfig(level=level, handlers=[handler], force=True)
    # Libraries tell each retry and each migration step on their own; our lines carry the decision.
    for noisy in ("alembic", "sqlalchemy", "psycopg", "aiohttp.access"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
