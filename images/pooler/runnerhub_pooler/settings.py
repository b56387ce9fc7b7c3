"""What the operator tells the program: ports, the database, and the passwords."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path

LOCAL = "127.0.0.1"
# PgBouncer's console knows this user as its administrator; it is the name for this program's own HTTP too.
ADMIN_USER = "pgbouncer"
MONITORING_USER = "monitoring"

# A name that needs no quotes in PgBouncer's console.
_PLAIN_NAME = re.compile(r"[a-z_][a-z0-9_]*")


@dataclass(frozen=True, slots=True)
class Settings:
    """`port`: of this program. `pooler_port`: of the read-write PgBouncer. `proxy_port`: of HAProxy's runtime API."""

    port: int
    pooler_port: int
    proxy_port: int
    database: str
    admin_password: str = field(repr=False)
    monitoring_password: str = field(repr=False)


def load() -> Settings:
    """Read the settings. Raises OSError, KeyError or ValueError when the pod is set up wrongly."""
    credentials = Path(os.environ["CREDENTIALS_DIR"])
    database = os.environ["POOLER_DATABASE"]
    if not _PLAIN_NAME.fullmatch(database):
        raise ValueError(f"not a plain name of a database: {database!r}")
    return Settings(
        port=int(os.environ["POOLER_AGENT_PORT"]),
        pooler_port=int(os.environ["POOLER_PORT"]),
        proxy_port=int(os.environ["POOLER_PROXY_PORT"]),
        database=database,
        admin_password=(credentials / "restapi-password").read_text(encoding="utf-8"),
        monitoring_password=(credentials / "monitoring-password").read_text(encoding="utf-8"),
    )
