"""`python -m runnerhub_operator.agent`: run one ha-agent, configured by the environment."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from typing import Final

from .. import logs
from ..errors import InvalidSpecError
from .service import run
from .settings import read_settings

EXIT_SETTINGS: Final = 2


def main() -> int:
    """Run until a signal; the exit code."""
    logs.configure("json", "INFO")
    try:
        settings = read_settings(os.environ)
    except InvalidSpecError as error:
        logging.getLogger(__package__).critical("settings refused: %s", error)
        return EXIT_SETTINGS
    logs.configure("json", settings.log_level)
    asyncio.run(run(settings))
    return 0


if __name__ == "__main__":
    sys.exit(main())
