"""JSON log lines on standard output: one line per decision, values as fields."""

from __future__ import annotations

import json
import logging
import math
import sys
import time
from datetime import UTC, datetime

# What failed lately is not well again: a Redis master without replicas refuses writes and answers reads, and a database
# that has too much to do answers some in time and others not.
CALM_SECONDS = 2.0
# What every LogRecord has anyway; the rest of its attributes came in by extra= and is what the line tells.
_STANDARD_ATTRIBUTES = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class AnswersLog:
    """Tells once that something does not answer, and once that it does again."""

    def __init__(self, log: logging.Logger, what: str) -> None:
        self._log = log
        self._what = what
        self._answers: bool | None = None
        self._failed_at = -math.inf

    def answered(self) -> None:
        """A try succeeded; it counts when none failed for a while."""
        if not self._answers and time.monotonic() - self._failed_at >= CALM_SECONDS:
            self._log.info("%s answers", self._what)
            self._answers = True

    def failed(self, error: BaseException | None) -> None:
        """A try failed because it is out of reach."""
        self._failed_at = time.monotonic()
        if self._answers is not False:
            self._log.warning("%s does not answer", self._what, extra={"error": describe(error)})
            self._answers = False


def describe(error: BaseException | None) -> str:
    """The error's type and first line; connection strings never appear in psycopg's first lines."""
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0]}" if text else type(error).__name__


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
