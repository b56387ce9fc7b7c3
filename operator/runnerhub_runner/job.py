"""The command of the default image: takes a job in, checks that it is one, and tells it.

It runs no workflow, because a delegated job names one and does not carry it. An image of your own sets
RUNNER_COMMAND to what runs workflows. `RUNNER_JOB_SECONDS`: how long a job takes.
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any

_NEEDED = ("jobId", "runId", "repository", "workflow", "labels", "attempt")


def main() -> int:
    """Exit code 0 for a job that is complete."""
    try:
        job: Any = json.load(sys.stdin)
        missing = [name for name in _NEEDED if name not in job]
    except (ValueError, TypeError) as error:
        sys.stderr.write(f"this is no job: {error}\n")
        return 2
    if missing:
        sys.stderr.write(f"the job lacks {', '.join(missing)}\n")
        return 2
    time.sleep(float(os.environ.get("RUNNER_JOB_SECONDS") or 0))
    told = {name: job[name] for name in _NEEDED}
    sys.stdout.write(json.dumps({"message": "job done", **told}) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
