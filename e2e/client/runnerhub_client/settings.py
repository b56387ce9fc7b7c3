"""What the client talks to, from the same environment variables as the orchestrator's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from runnerhub_passwords.redis_login import RedisLogin


@dataclass(frozen=True, slots=True)
class Targets:
    """Addresses and credentials. An empty URL, host or Sentinel list switches the probes that need it off.

    `redis_host`: what leads clients to the master that cannot ask Sentinels.
    """

    hub_url: str
    websocket_url: str
    jwt_secret: str = field(repr=False)
    database_url: str = field(repr=False)
    read_only_url: str = field(default="", repr=False)
    database_password_file: Path | None = None
    sentinels: tuple[tuple[str, int], ...] = ()
    redis_host: str = ""
    redis_port: int = 6379
    master_name: str = "github-runnerhub-redis"
    redis_password: str | None = field(default=None, repr=False)
    sentinel_password: str | None = field(default=None, repr=False)
    redis_user: str | None = None
    redis_password_file: Path | None = None
    sentinel_password_file: Path | None = None

    def redis_login(self) -> RedisLogin | None:
        """User and password at Redis, of the moment when a connection is made."""
        from runnerhub_passwords.redis_login import redis_login

        return redis_login(self.redis_user, self.redis_password, self.redis_password_file)

    def sentinel_login(self) -> RedisLogin | None:
        """The same at a Sentinel."""
        from runnerhub_passwords.redis_login import redis_login

        return redis_login(None, self.sentinel_password, self.sentinel_password_file)

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Targets:
        """Read LOAD_BALANCER_URL, WEBSOCKET_URL, JWT_SECRET, DATABASE_URL, DATABASE_READ_ONLY_URL,
        DATABASE_PASSWORD_FILE and REDIS_*.
        """
        hub_url = environment.get("LOAD_BALANCER_URL", "http://hub").rstrip("/")
        sentinels = tuple(
            (host, int(port))
            for host, _, port in (
                item.strip().rpartition(":")
                for item in environment.get("REDIS_SENTINEL_HOSTS", "").split(",")
                if item.strip()
            )
        )
        return cls(
            hub_url=hub_url,
            websocket_url=environment.get("WEBSOCKET_URL") or f"ws://{urlsplit(hub_url).hostname}:3002/ws",
            jwt_secret=environment.get("JWT_SECRET", ""),
            database_url=environment.get("DATABASE_URL", ""),
            database_password_file=_path(environment, "DATABASE_PASSWORD_FILE"),
            read_only_url=environment.get("DATABASE_READ_ONLY_URL", ""),
            sentinels=sentinels,
            redis_host=environment.get("REDIS_HOST", ""),
            redis_port=int(environment.get("REDIS_PORT") or 6379),
            master_name=environment.get("REDIS_MASTER_NAME", "github-runnerhub-redis"),
            redis_password=environment.get("REDIS_PASSWORD") or None,
            sentinel_password=environment.get("REDIS_SENTINEL_PASSWORD") or None,
            redis_user=environment.get("REDIS_USER") or None,
            redis_password_file=_path(environment, "REDIS_PASSWORD_FILE"),
            sentinel_password_file=_path(environment, "REDIS_SENTINEL_PASSWORD_FILE"),
        )


def _path(environment: Mapping[str, str], name: str) -> Path | None:
    return Path(value) if (value := environment.get(name)) else None


@dataclass(frozen=True, slots=True)
class Load:
    """How much to do. A rate is per second, 0 switches the probe off.

    `connections`: how many each database probe keeps and uses in turn. While tries hang it opens more, up to
    `most_connections`, and keeps them until they were not needed for a while; 0 means enough for every try of a
    timeout to hang. `leaders`: the host name whose addresses are asked whether they lead, "" for none.
    """

    jobs_rate: float = 4.0
    rows_rate: float = 10.0
    transactions_rate: float = 0.0
    rows_per_transaction: int = 5
    reads_rate: float = 0.0
    connections: int = 2
    most_connections: int = 0
    queue_rate: float = 10.0
    unconfirmed_rate: float = 0.0
    plain_rate: float = 0.0
    counter_rate: float = 0.0
    bullmq_rate: float = 0.0
    runners: int = 4
    websockets: int = 2
    gets_rate: float = 0.0
    leaders: str = ""
    timeout_seconds: float = 5.0
    work_seconds: float = 0.2
    claim_wait_seconds: float = 10.0
    wait_for_replicas: int = 1
    wait_milliseconds: int = 1000
    settle_seconds: float = 20.0
