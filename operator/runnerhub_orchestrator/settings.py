"""Everything the environment decides, read once and validated with sentences a person can act on."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from .errors import SettingsError

# RFC 7518 section 3.2: an HS256 key has at least the size of the hash.
MINIMUM_SECRET_BYTES = 32


@dataclass(frozen=True, slots=True)
class RedisSettings:
    """How to reach the queue: Sentinels (host, port) and a master name, or one plain address.

    Each password is that of its file, which may change, if there is one.
    """

    use_sentinel: bool
    sentinels: tuple[tuple[str, int], ...]
    master_name: str
    address: tuple[str, int]
    password: str | None = field(repr=False)
    sentinel_password: str | None = field(repr=False)
    timeout_seconds: float
    user: str | None = None
    password_file: Path | None = None
    sentinel_password_file: Path | None = None


@dataclass(frozen=True, slots=True)
class DatabaseSettings:
    """How to reach Postgres through the pooler, and how long to be patient.

    `password_file`: has the password of the moment; without one that of the URL counts.
    """

    url: str = field(repr=False)
    connections: int
    connect_timeout_seconds: float
    attempt_timeout_seconds: float
    deadline_seconds: float
    password_file: Path | None = None


@dataclass(frozen=True, slots=True)
class LeaderSettings:
    """Where the ha-agent tells who leads."""

    enabled: bool
    agent_url: str
    leader_file: Path | None
    lease_seconds: float
    poll_seconds: float


@dataclass(frozen=True, slots=True)
class JobSettings:
    """Rules of execution: leases, attempts, and how the leader tidies up."""

    lease_seconds: float
    max_attempts: int
    claim_wait_max_seconds: float
    enqueue_timeout_seconds: float
    reenqueue_after_seconds: float
    singleton_interval_seconds: float
    retention_seconds: float


@dataclass(frozen=True, slots=True)
class Settings:
    """The whole configuration of one orchestrator process.

    `token_keys_file`: has the keys of the moment, as a JSON list; while it is not there `jwt_secret` is the only one.
    `cluster` is namespace/name of the one that it belongs to, "" outside Kubernetes.
    """

    node_id: str
    cluster: str
    port: int
    websocket_port: int
    jwt_secret: str = field(repr=False)
    token_keys_file: Path | None
    health_interval_seconds: float
    health_timeout_seconds: float
    health_retries: int
    drain_seconds: float
    stop_seconds: float
    max_requests_in_flight: int
    log_level: str
    database: DatabaseSettings
    redis: RedisSettings
    leader: LeaderSettings
    jobs: JobSettings

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Settings:
        """Read all settings; raises SettingsError naming every wrong variable at once."""
        return _Reader(environment).settings()


class _Reader:
    """Collects all mistakes before it complains, so that a person fixes them in one go."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment
        self._mistakes: list[str] = []

    def settings(self) -> Settings:
        settings = Settings(
            node_id=self._text("HA_NODE_ID", socket.gethostname()),
            cluster=self._cluster(),
            port=self._integer("PORT", 3001, 1, 65535),
            websocket_port=self._integer("WEBSOCKET_PORT", 3002, 1, 65535),
            jwt_secret=self._secret("JWT_SECRET"),
            token_keys_file=self._path("RUNNERHUB_TOKEN_KEYS_FILE"),
            health_interval_seconds=self._milliseconds("HEALTH_CHECK_INTERVAL", 5000, 500, 600_000),
            health_timeout_seconds=self._milliseconds("HEALTH_CHECK_TIMEOUT", 1000, 100, 60_000),
            health_retries=self._integer("HEALTH_CHECK_RETRIES", 3, 1, 100),
            drain_seconds=self._seconds("ORCHESTRATOR_DRAIN_SECONDS", 5, 0, 120),
            stop_seconds=self._seconds("ORCHESTRATOR_STOP_SECONDS", 20, 1, 300),
            max_requests_in_flight=self._integer("ORCHESTRATOR_MAX_REQUESTS", 1000, 10, 100_000),
            log_level=self._choice("LOG_LEVEL", "INFO", ("DEBUG", "INFO", "WARNING", "ERROR")),
            database=self._database(),
            redis=self._redis(),
            leader=self._leader(),
            jobs=self._jobs(),
        )
        if settings.drain_seconds >= settings.stop_seconds:
            self._mistakes.append("ORCHESTRATOR_DRAIN_SECONDS must be below ORCHESTRATOR_STOP_SECONDS")
        if settings.port == settings.websocket_port:
            self._mistakes.append("PORT and WEBSOCKET_PORT must differ")
        if self._mistakes:
            raise SettingsError("; ".join(self._mistakes))
        return settings

    def _cluster(self) -> str:
        namespace, name = self._text("RUNNERHUB_NAMESPACE", ""), self._text("RUNNERHUB_CLUSTER", "")
        return f"{namespace}/{name}" if namespace and name else ""

    def _database(self) -> DatabaseSettings:
        url = self._text("DATABASE_URL", self._text("DATABASE_PRIMARY_URL", ""))
        parts = urlsplit(url)
        if parts.scheme not in {"postgresql", "postgres"} or not parts.hostname:
            self._mistakes.append("DATABASE_URL must be postgresql://user:password@host:port/database")
        return DatabaseSettings(
            url=url,
            connections=self._integer("DATABASE_CONNECTION_POOL_SIZE", 20, 1, 1000),
            connect_timeout_seconds=self._seconds("DATABASE_CONNECT_TIMEOUT_SECONDS", 2, 0.1, 60),
            attempt_timeout_seconds=self._seconds("DATABASE_ATTEMPT_TIMEOUT_SECONDS", 4, 0.1, 60),
            deadline_seconds=self._seconds("DATABASE_DEADLINE_SECONDS", 15, 0.1, 300),
            password_file=self._path("DATABASE_PASSWORD_FILE"),
        )

    def _path(self, name: str) -> Path | None:
        return Path(path) if (path := self._text(name, "")) else None

    def _redis(self) -> RedisSettings:
        use_sentinel = self._boolean("REDIS_ENABLE_SENTINEL", default=False)
        sentinels = self._addresses("REDIS_SENTINEL_HOSTS", 26379)
        if use_sentinel and not sentinels:
            self._mistakes.append(
                "REDIS_SENTINEL_HOSTS must be host:port,... when REDIS_ENABLE_SENTINEL=true"
            )
        return RedisSettings(
            use_sentinel=use_sentinel,
            sentinels=sentinels,
            master_name=self._text("REDIS_MASTER_NAME", "github-runnerhub-redis"),
            address=(self._text("REDIS_HOST", "localhost"), self._integer("REDIS_PORT", 6379, 1, 65535)),
            password=self._text("REDIS_PASSWORD", "") or None,
            sentinel_password=self._text("REDIS_SENTINEL_PASSWORD", "") or None,
            timeout_seconds=self._seconds("REDIS_TIMEOUT_SECONDS", 2, 0.1, 60),
            user=self._text("REDIS_USER", "") or None,
            password_file=self._path("REDIS_PASSWORD_FILE"),
            sentinel_password_file=self._path("REDIS_SENTINEL_PASSWORD_FILE"),
        )

    def _leader(self) -> LeaderSettings:
        leader_file = self._text("RUNNERHUB_LEADER_FILE", "")
        return LeaderSettings(
            enabled=self._boolean("LEADER_ELECTION_ENABLED", default=True),
            agent_url=self._text("RUNNERHUB_AGENT_URL", "http://127.0.0.1:9808").rstrip("/"),
            leader_file=Path(leader_file) if leader_file else None,
            lease_seconds=self._milliseconds("LEADER_ELECTION_TIMEOUT", 15_000, 1000, 600_000),
            # For so long a pod that gave leadership back may still believe that it leads.
            poll_seconds=min(1.0, self._milliseconds("LEADER_ELECTION_RENEWAL", 2000, 100, 60_000) / 2),
        )

    def _jobs(self) -> JobSettings:
        return JobSettings(
            lease_seconds=self._seconds("JOB_LEASE_SECONDS", 30, 1, 3600),
            max_attempts=self._integer("JOB_MAX_ATTEMPTS", 3, 1, 100),
            claim_wait_max_seconds=self._seconds("JOB_CLAIM_WAIT_MAX_SECONDS", 20, 0, 300),
            enqueue_timeout_seconds=self._seconds("JOB_ENQUEUE_TIMEOUT_SECONDS", 1.5, 0.1, 30),
            reenqueue_after_seconds=self._seconds("JOB_REENQUEUE_AFTER_SECONDS", 5, 1, 600),
            singleton_interval_seconds=self._seconds("SINGLETON_INTERVAL_SECONDS", 2, 0.2, 600),
            retention_seconds=self._seconds("JOB_RETENTION_HOURS", 168, 0.01, 87_600) * 3600,
        )

    def _text(self, name: str, default: str) -> str:
        return self._environment.get(name, "").strip() or default

    def _secret(self, name: str) -> str:
        value = self._environment.get(name, "")
        if len(value.encode()) < MINIMUM_SECRET_BYTES:
            self._mistakes.append(f"{name} must have at least {MINIMUM_SECRET_BYTES} bytes")
        return value

    def _number(self, name: str, default: float, low: float, high: float, unit: str) -> float:
        text = self._text(name, str(default))
        try:
            value = float(text)
        except ValueError:
            value = float("nan")
        # A NaN fails every comparison, so it lands in the complaint as well.
        if not low <= value <= high:
            self._mistakes.append(f"{name} must be a number of {unit} from {low:g} to {high:g}, not {text!r}")
            return default
        return value

    def _seconds(self, name: str, default: float, low: float, high: float) -> float:
        return self._number(name, default, low, high, "hours" if name.endswith("_HOURS") else "seconds")

    def _milliseconds(self, name: str, default: float, low: float, high: float) -> float:
        return self._number(name, default, low, high, "milliseconds") / 1000

    def _integer(self, name: str, default: int, low: int, high: int) -> int:
        text = self._text(name, str(default))
        try:
            value = int(text)
        except ValueError:
            value = low - 1
        if not low <= value <= high:
            self._mistakes.append(f"{name} must be a whole number from {low} to {high}, not {text!r}")
            return default
        return value

    def _boolean(self, name: str, *, default: bool) -> bool:
        text = self._text(name, "true" if default else "false").lower()
        if text not in {"true", "false", "1", "0"}:
            self._mistakes.append(f"{name} must be true or false, not {text!r}")
        return text in {"true", "1"}

    def _choice(self, name: str, default: str, choices: tuple[str, ...]) -> str:
        value = self._text(name, default).upper()
        if value not in choices:
            self._mistakes.append(f"{name} must be one of {', '.join(choices)}, not {value!r}")
            return default
        return value

    def _addresses(self, name: str, default_port: int) -> tuple[tuple[str, int], ...]:
        addresses = []
        for item in filter(None, (part.strip() for part in self._text(name, "").split(","))):
            host, separator, port = item.rpartition(":")
            if not separator:
                host, port = item, str(default_port)
            if not host or not port.isdigit() or not 0 < int(port) <= 65535:
                self._mistakes.append(f"{name} must be host:port,..., not {item!r}")
                continue
            addresses.append((host, int(port)))
        return tuple(addresses)
