"""Brings the schema to the version of this program, through a transaction pooler.

`python -m runnerhub_orchestrator.migrate` does only that and ends; a service does it when it starts, and then finds
nothing left to do.

Alembic keeps the history and the version table. Its steps run in one transaction with
pg_advisory_xact_lock (migrations/env.py), so no session state is needed; it is synchronous, hence the thread.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys

import psycopg
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util.exc import CommandError
from sqlalchemy import NullPool, create_engine
from sqlalchemy.engine import URL, Connection, make_url
from sqlalchemy.exc import DBAPIError

from runnerhub_passwords import PasswordFile

from . import logs
from .database import is_retryable
from .errors import SettingsError
from .logs import describe
from .settings import DatabaseSettings, Settings

log = logging.getLogger(__package__)

FIRST_PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 5.0


EXIT_SETTINGS = 2


def main() -> int:
    """Migrate once; the exit status. The database is waited for, but what it refuses is told and ends it."""
    logs.configure(os.environ.get("HA_NODE_ID", ""), "INFO")
    try:
        settings = Settings.from_environment(os.environ)
    except SettingsError as error:
        log.critical("settings refused", extra={"reason": error.reason, "mistakes": str(error)})
        return EXIT_SETTINGS
    try:
        asyncio.run(migrate_until_done(settings.database, patient=False))
    except (DBAPIError, psycopg.Error) as error:
        log.critical("the migration failed", extra={"error": describe(_cause(error))})
        return 1
    return 0


async def migrate_until_done(settings: DatabaseSettings, *, patient: bool = True) -> None:
    """Return once the schema is there, however long the database needs to appear.

    What waiting does not mend is tried again all the same, unless not `patient`: then it is raised.
    """
    pause = FIRST_PAUSE_SECONDS
    passwords = PasswordFile(settings.password_file)
    attempts = 0
    while True:
        candidates = passwords.candidates() or (None,)
        password = candidates[attempts % len(candidates)]
        attempts += 1
        try:
            return await asyncio.to_thread(_migrate, settings, password)
        except (DBAPIError, psycopg.Error, OSError) as error:
            cause = _cause(error)
            # Others (no privilege, say) are told as what they are, and tried again too: somebody mends
            # the database, not this process, and an exit would only turn one message into a crash loop.
            # A password that has just been changed is tried with the one before as well.
            if not patient and not is_retryable(cause) and attempts >= len(candidates):
                raise
            level = logging.WARNING if is_retryable(cause) else logging.ERROR
            log.log(level, "schema is not ready", extra={"error": describe(cause), "retry_seconds": pause})
        await asyncio.sleep(pause)
        pause = min(pause * 2, LONGEST_PAUSE_SECONDS)


def _cause(error: BaseException) -> BaseException:
    return error.orig if isinstance(error, DBAPIError) and error.orig else error


def _migrate(settings: DatabaseSettings, password: str | None) -> None:
    config = Config()
    config.set_main_option("script_location", f"{__package__}:migrations")
    engine = create_engine(
        _url(settings.url, password),
        poolclass=NullPool,
        connect_args={
            "prepare_threshold": None,
            "connect_timeout": max(int(settings.connect_timeout_seconds), 2),
            "application_name": "runnerhub-orchestrator-migrations",
            # A thread cannot be severed from outside; the kernel gives up on a frozen server instead.
            "tcp_user_timeout": 10_000,
            "keepalives_idle": 5,
            "keepalives_interval": 2,
            "keepalives_count": 3,
        },
    )
    try:
        with engine.connect() as connection:
            if _is_current(connection, config):
                return
            connection.rollback()
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
            log.info("schema is current")
    finally:
        engine.dispose()


def _is_current(connection: Connection, config: Config) -> bool:
    """Whether nothing is to be done: the schema is ours, or one of a newer program (a rolling downgrade)."""
    found = MigrationContext.configure(connection).get_current_heads()
    scripts = ScriptDirectory.from_config(config)
    if set(found) == set(scripts.get_heads()):
        return True
    try:
        scripts.get_revisions(found)
    except CommandError:
        log.warning("the schema is newer than this program", extra={"found": sorted(found)})
        return True
    return False


def _url(text: str, password: str | None) -> URL:
    found = make_url(text).set(drivername="postgresql+psycopg")
    return found if password is None else found.set(password=password)


if __name__ == "__main__":
    sys.exit(main())
