"""The command by which a Job migrates: it waits for the database, ends when the schema is there, and tells refusals."""

import os
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import psycopg

OPERATOR = Path(__file__).resolve().parents[3] / "operator"


def migrate(url, **more):
    environment = {
        **os.environ,
        "PYTHONPATH": str(OPERATOR),
        "DATABASE_URL": url,
        "JWT_SECRET": "x" * 32,
        "HA_NODE_ID": "migration",
        **more,
    }
    return subprocess.run(
        [sys.executable, "-m", "runnerhub_orchestrator.migrate"],
        env=environment,
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_it_migrates_once_and_then_finds_nothing_to_do(postgres_url):
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute("DROP DATABASE IF EXISTS migrated")
        connection.execute("CREATE DATABASE migrated")
    url = urlsplit(postgres_url)._replace(path="/migrated").geturl()
    for _ in range(2):
        done = migrate(url)
        assert done.returncode == 0, done.stdout + done.stderr
    with psycopg.connect(url) as connection:
        assert connection.execute("SELECT count(*) FROM alembic_version").fetchone() == (1,)


def test_what_waiting_does_not_mend_ends_it_with_a_word(postgres_url):
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute("DROP DATABASE IF EXISTS refused")
        connection.execute("CREATE DATABASE refused")
        connection.execute("DROP ROLE IF EXISTS reader")
        connection.execute("CREATE ROLE reader LOGIN")
    url = urlsplit(postgres_url)._replace(path="/refused").geturl().replace("app@", "reader@")
    done = migrate(url)
    assert done.returncode == 1
    assert "permission denied" in done.stdout + done.stderr


def test_wrong_settings_are_told():
    assert migrate("nonsense").returncode == 2
