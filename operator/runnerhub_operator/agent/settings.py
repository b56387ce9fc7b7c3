"""The agent's settings, read once from the environment that the operator gives the pod."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from .. import names
from ..errors import InvalidSpecError
from ..kube.lease import ElectionTiming

# Checks with a timing that can be their own.
CHECKS: Final = ("database", "redis", "storage", "canary")
DEFAULT_LEADER_FILE: Final = "/run/runnerhub/leader.json"


@dataclass(frozen=True, slots=True)
class CheckTiming:
    """Timing of the health checks in seconds; `retries` failures in a row make a dependency down."""

    interval_seconds: float = 10.0
    timeout_seconds: float = 5.0
    retries: int = 3


@dataclass(frozen=True, slots=True)
class RedisSettings:
    """How to find the queue's master and to write to it."""

    sentinels: tuple[tuple[str, int], ...]
    master_name: str
    password: str | None = field(default=None, repr=False)
    sentinel_password: str | None = field(default=None, repr=False)
    user: str | None = None
    password_file: Path | None = None
    sentinel_password_file: Path | None = None


@dataclass(frozen=True, slots=True)
class BucketSettings:
    """The bucket of the shared storage. Without a folder the environment has an identity, as a cloud gives it."""

    bucket: str
    prefix: str = ""
    region: str | None = None
    endpoint: str | None = None
    path_style: bool = False
    credentials_folder: Path | None = None
    ca_file: Path | None = None


@dataclass(frozen=True, slots=True)
class AgentSettings:
    """Everything the environment decides. A dependency without address is not checked."""

    cluster: str
    cluster_uid: str
    namespace: str
    node: str
    timing: ElectionTiming
    checks: CheckTiming
    leader_file: Path
    port: int = names.PORT_AGENT
    app_health_url: str = f"http://127.0.0.1:{names.PORT_ORCHESTRATOR}/health"
    nodes: tuple[str, ...] = ()
    database_url: str | None = field(default=None, repr=False)
    replica_url: str | None = field(default=None, repr=False)
    database_password_file: Path | None = None
    redis: RedisSettings | None = None
    storage_path: Path | None = None
    bucket: BucketSettings | None = None
    log_level: str = "INFO"
    own_checks: Mapping[str, CheckTiming] = field(default_factory=dict)

    def timing_of(self, check: str) -> CheckTiming:
        """Timing of one check: its own, or that of all."""
        return self.own_checks.get(check, self.checks)


def read_settings(environment: Mapping[str, str]) -> AgentSettings:
    """Read the settings; InvalidSpecError names the variable that is missing or wrong."""
    sentinels = tuple(
        _host_and_port(part, names.PORT_SENTINEL)
        for part in environment.get("REDIS_SENTINEL_HOSTS", "").split(",")
        if part.strip()
    )
    storage = environment.get("SHARED_STORAGE_PATH")
    password = environment.get("DATABASE_PASSWORD_FILE")
    try:
        timing = ElectionTiming(
            _seconds(environment, "LEADER_ELECTION_TIMEOUT", 15_000),
            _seconds(environment, "LEADER_ELECTION_RENEW_DEADLINE", 10_000),
            _seconds(environment, "LEADER_ELECTION_RENEWAL", 2_000),
        )
    except ValueError as error:
        raise InvalidSpecError(f"LEADER_ELECTION_*: {error}") from error
    checks = _timing(environment, "HEALTH_CHECK", CheckTiming())
    return AgentSettings(
        cluster=_needed(environment, "RUNNERHUB_CLUSTER"),
        cluster_uid=environment.get("RUNNERHUB_CLUSTER_UID", ""),
        namespace=_needed(environment, "RUNNERHUB_NAMESPACE"),
        node=_needed(environment, "HA_NODE_ID"),
        timing=timing,
        checks=checks,
        own_checks={check: _timing(environment, f"HEALTH_CHECK_{check.upper()}", checks) for check in CHECKS},
        leader_file=Path(environment.get("RUNNERHUB_LEADER_FILE", DEFAULT_LEADER_FILE)),
        port=_number(environment, "RUNNERHUB_AGENT_PORT", names.PORT_AGENT),
        app_health_url=environment.get("RUNNERHUB_APP_HEALTH_URL")
        or f"http://127.0.0.1:{names.PORT_ORCHESTRATOR}/health",
        nodes=tuple(n.strip() for n in environment.get("HA_CLUSTER_NODES", "").split(",") if n.strip()),
        database_url=environment.get("DATABASE_PRIMARY_URL") or environment.get("DATABASE_URL"),
        replica_url=environment.get("DATABASE_REPLICA_URL"),
        database_password_file=Path(password) if password else None,
        redis=None
        if not sentinels
        else RedisSettings(
            sentinels,
            environment.get("REDIS_MASTER_NAME", names.REDIS_MASTER_NAME),
            environment.get("REDIS_PASSWORD"),
            environment.get("REDIS_SENTINEL_PASSWORD"),
            environment.get("REDIS_USER") or None,
            _path(environment, "REDIS_PASSWORD_FILE"),
            _path(environment, "REDIS_SENTINEL_PASSWORD_FILE"),
        ),
        storage_path=Path(storage) if storage else None,
        bucket=_bucket(environment),
        log_level=environment.get("RUNNERHUB_LOG_LEVEL", "INFO").upper(),
    )


def _bucket(environment: Mapping[str, str]) -> BucketSettings | None:
    if not (bucket := environment.get("S3_BUCKET")):
        return None
    return BucketSettings(
        bucket,
        environment.get("S3_PREFIX", ""),
        environment.get("AWS_REGION") or None,
        environment.get("AWS_ENDPOINT_URL_S3") or None,
        environment.get("S3_FORCE_PATH_STYLE") == "true",
        _path(environment, "S3_CREDENTIALS_FOLDER"),
        _path(environment, "AWS_CA_BUNDLE"),
    )


def _timing(environment: Mapping[str, str], prefix: str, default: CheckTiming) -> CheckTiming:
    """Interval, timeout and retries of the variables that begin with the prefix."""
    return CheckTiming(
        _seconds(environment, f"{prefix}_INTERVAL", round(default.interval_seconds * 1000)),
        _seconds(environment, f"{prefix}_TIMEOUT", round(default.timeout_seconds * 1000)),
        _number(environment, f"{prefix}_RETRIES", default.retries),
    )


def _needed(environment: Mapping[str, str], name: str) -> str:
    if not (value := environment.get(name, "")):
        raise InvalidSpecError(f"{name} must be set")
    return value


def _path(environment: Mapping[str, str], name: str) -> Path | None:
    return Path(value) if (value := environment.get(name)) else None


def _number(environment: Mapping[str, str], name: str, default: int) -> int:
    text = environment.get(name) or str(default)
    if not text.isdecimal() or int(text) == 0:
        raise InvalidSpecError(f"{name} must be a whole number above 0, not {text!r}")
    return int(text)


def _seconds(environment: Mapping[str, str], name: str, default_milliseconds: int) -> float:
    return _number(environment, name, default_milliseconds) / 1000


def _host_and_port(text: str, default_port: int) -> tuple[str, int]:
    host, _, port = text.strip().rpartition(":")
    if not host:
        return text.strip(), default_port
    if not port.isdecimal():
        raise InvalidSpecError(f"REDIS_SENTINEL_HOSTS has a wrong port in {text!r}")
    return host, int(port)
