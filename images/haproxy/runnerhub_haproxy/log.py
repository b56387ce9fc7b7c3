"""One line of JSON per event."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime


def log(message: str, **details: object) -> None:
    """Write one event; never pass a secret."""
    event = {"time": datetime.now(UTC).isoformat(timespec="milliseconds"), "message": message, **details}
    sys.stdout.write(json.dumps(event, default=str) + "\n")
    sys.stdout.flush()
