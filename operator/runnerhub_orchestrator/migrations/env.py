"""Alembic's entry: all missing steps in one transaction, behind a lock that ends with it."""

from __future__ import annotations

from alembic import context
from sqlalchemy import Connection, text

# Any constant that nothing else in this database uses.
MIGRATION_LOCK = 7_261_354_001
LOCK_TIMEOUT_SECONDS = 20
STATEMENT_TIMEOUT_SECONDS = 120


def migrate(connection: Connection) -> None:
    """Run the steps; several pods may start at once, the later ones wait here and find nothing to do."""
    context.configure(connection=connection, transactional_ddl=True, transaction_per_migration=False)
    with context.begin_transaction():
        # Everything is local to the transaction: the pooler gives the server away at its end.
        connection.execute(text(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT_SECONDS}s'"))
        connection.execute(text(f"SET LOCAL statement_timeout = '{STATEMENT_TIMEOUT_SECONDS}s'"))
        connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": MIGRATION_LOCK})
        context.run_migrations()


migrate(context.config.attributes["connection"])
