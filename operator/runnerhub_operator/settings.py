"""The operator's own settings, read once from the environment."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from . import __version__
from .resources.common import Images

_REGISTRY = "ghcr.io/runnerhub"


@dataclass(frozen=True, slots=True)
class Settings:
    """Settings of one operator process.

    `namespace` and `identity` are the pod's; `watch_namespaces` empty means all. Times in seconds.
    `look_again_seconds`: until it is asked again whether the API server has a kind that is no part of Kubernetes.
    """

    namespace: str
    identity: str
    watch_namespaces: tuple[str, ...]
    images: Images
    log_format: Literal["json", "text"]
    log_level: str
    metrics_port: int
    health_port: int
    lease_duration_seconds: float
    renew_deadline_seconds: float
    retry_period_seconds: float
    probe_interval_seconds: float
    look_again_seconds: float
    workers: int


def _image(environment: Mapping[str, str], name: str) -> str:
    return environment.get(f"RUNNERHUB_IMAGE_{name.upper()}") or f"{_REGISTRY}/{name}:{__version__}"


def read_settings(environment: Mapping[str, str] = os.environ) -> Settings:
    """Read the settings. Raises ValueError with the name of a variable that does not hold."""
    log_format = environment.get("RUNNERHUB_LOG_FORMAT", "json")
    if log_format not in ("json", "text"):
        raise ValueError("RUNNERHUB_LOG_FORMAT must be json or text")
    return Settings(
        namespace=environment.get("POD_NAMESPACE", "default"),
        identity=environment.get("POD_NAME") or os.uname().nodename,
        watch_namespaces=tuple(
            part.strip()
            for part in environment.get("RUNNERHUB_WATCH_NAMESPACES", "").split(",")
            if part.strip()
        ),
        images=Images(
            operator=_image(environment, "operator"),
            postgres=_image(environment, "postgres"),
            pooler=_image(environment, "pooler"),
            redis=_image(environment, "redis"),
            haproxy=_image(environment, "haproxy"),
            orchestrator=_image(environment, "orchestrator"),
            runner=_image(environment, "runner"),
        ),
        log_format="json" if log_format == "json" else "text",
        log_level=environment.get("RUNNERHUB_LOG_LEVEL", "INFO").upper(),
        metrics_port=_number(environment, "RUNNERHUB_METRICS_PORT", 8000),
        health_port=_number(environment, "RUNNERHUB_HEALTH_PORT", 8080),
        lease_duration_seconds=_number(environment, "RUNNERHUB_LEASE_DURATION_SECONDS", 15),
        renew_deadline_seconds=_number(environment, "RUNNERHUB_RENEW_DEADLINE_SECONDS", 10),
        retry_period_seconds=_number(environment, "RUNNERHUB_RETRY_PERIOD_SECONDS", 2),
        probe_interval_seconds=_number(environment, "RUNNERHUB_PROBE_INTERVAL_SECONDS", 5),
        look_again_seconds=_number(environment, "RUNNERHUB_LOOK_AGAIN_SECONDS", 60),
        workers=_number(environment, "RUNNERHUB_WORKERS", 20),
    )


def _number(environment: Mapping[str, str], name: str, default: int) -> int:
    text = environment.get(name, "")
    if not text:
        return default
    if not text.isdigit() or int(text) < 1:
        raise ValueError(f"{name} must be a whole number above 0, not {text!r}")
    return int(text)
