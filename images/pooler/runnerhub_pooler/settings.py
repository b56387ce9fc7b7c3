"""What the operator tells the program: ports, the database, and where the passwords are."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

LOCAL = "127.0.0.1"
# PgBouncer's console knows this user as its administrator; it is the name for this program's own HTTP too.
ADMIN_USER = "pgbouncer"
MONITORING_USER = "monitoring"
APP_USER = "app"

# A name that needs no quotes in PgBouncer's console.
_PLAIN_NAME = re.compile(r"[a-z_][a-z0-9_]*")


@dataclass(frozen=True, slots=True)
class Settings:
    """`port`: of this program. `pooler_port`, `read_only_port`: of the PgBouncers. `proxy_port`: of HAProxy's runtime
    API. `user_lists`: the auth_file of each PgBouncer. `configurations`: the mounted file of each.
    """

    port: int
    pooler_port: int
    read_only_port: int
    proxy_port: int
    database: str
    credentials_folder: Path
    user_lists: tuple[Path, ...]
    configurations: tuple[Path, ...] = ()

    @property
    def routes(self) -> tuple[tuple[str, int, Path], ...]:
        """Name, port and user list of each PgBouncer."""
        ports = {"read-write": self.pooler_port, "read-only": self.read_only_port}
        return tuple((*route, users) for route, users in zip(ports.items(), self.user_lists, strict=True))


def load() -> Settings:
    """Read the settings. Raises KeyError or ValueError when the pod is set up wrongly."""
    database = os.environ["POOLER_DATABASE"]
    if not _PLAIN_NAME.fullmatch(database):
        raise ValueError(f"not a plain name of a database: {database!r}")
    return Settings(
        port=int(os.environ["POOLER_AGENT_PORT"]),
        pooler_port=int(os.environ["POOLER_PORT"]),
        read_only_port=int(os.environ["POOLER_READ_ONLY_PORT"]),
        proxy_port=int(os.environ["POOLER_PROXY_PORT"]),
        database=database,
        credentials_folder=Path(os.environ["CREDENTIALS_DIR"]),
        user_lists=tuple(Path(path) for path in os.environ["POOLER_USER_LISTS"].split(":")),
        # A pod that was made by an earlier operator does not tell them.
        configurations=tuple(
            Path(path) for path in os.environ.get("POOLER_CONFIGURATIONS", "").split(":") if path
        ),
    )
