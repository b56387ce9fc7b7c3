"""`python -m runnerhub_orchestrator`: run one orchestrator, configured by the environment."""

from __future__ import annotations

import asyncio
import logging
import os
import sys

from . import logs
from .errors import SettingsError
from .service import Service
from .settings import Settings

EXIT_SETTINGS = 2


def main() -> int:
    """Run until a signal; returns the exit status."""
    try:
        settings = Settings.from_environment(os.environ)
    except SettingsError as error:
        logs.configure(os.environ.get("HA_NODE_ID", ""), "INFO")
        # The sentences say it all; a traceback of the reader would only hide them.
        logging.getLogger(__package__).critical(
            "settings refused", extra={"reason": error.reason, "mistakes": str(error)}
        )
        return EXIT_SETTINGS
    logs.configure(settings.node_id, settings.log_level)
    asyncio.run(_run(settings))
    return 0


async def _run(settings: Settings) -> None:
    await Service(settings).run()


if __name__ == "__main__":
    sys.exit(main())
