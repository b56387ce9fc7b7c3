"""`python -m runnerhub_runner`: run one runner, configured by the environment."""

from __future__ import annotations

import asyncio
import logging
import os
import sys

import aiohttp

from . import logs
from .errors import SettingsError
from .process import hide_from_jobs, under_init
from .service import Service
from .settings import Settings

EXIT_SETTINGS = 2


def main() -> int:
    """Run until a signal; returns the exit status."""
    hide_from_jobs()
    return under_init(_serve)


def _serve() -> int:
    try:
        settings = Settings.from_environment(os.environ)
    except SettingsError as error:
        logs.configure("INFO")
        logging.getLogger(__package__).critical("settings refused", extra={"mistakes": str(error)})
        return EXIT_SETTINGS
    logs.configure(settings.log_level)
    asyncio.run(_run(settings))
    return 0


async def _run(settings: Settings) -> None:
    # Each request finds a balancer that lives: a connection to one that froze would be used again and again.
    connector = aiohttp.TCPConnector(ttl_dns_cache=2, force_close=True)
    async with aiohttp.ClientSession(connector=connector) as session:
        await Service(settings, session).run()


if __name__ == "__main__":
    sys.exit(main())
