"""The schema's history, applied by Alembic (see migrate.py)."""
