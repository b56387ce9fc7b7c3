"""Everything the environment decides, read once."""

from __future__ import annotations

import shlex
import socket
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from .errors import SettingsError
from .github import api_url

DEFAULT_COMMAND = f"{sys.executable} -m runnerhub_runner.job"
PORT = 9810


@dataclass(frozen=True, slots=True)
class Settings:
    """One runner.

    `github_url` and `github_token`: without a token it does not register. `token_file` has the token for the
    orchestrators, `control_key_file` the key of whoever may tell the runner to take no more jobs. `command` runs a job.
    Times in seconds; `poll_seconds`: how long one request waits for a job, and so at most how long it takes to take
    no more.
    """

    name: str
    labels: tuple[str, ...]
    orchestrator_url: str
    token_file: Path
    control_key_file: Path | None
    github_url: str
    github_token: str = field(repr=False)
    command: tuple[str, ...]
    work_folder: Path
    port: int
    poll_seconds: float
    github_check_seconds: float
    log_level: str

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Settings:
        """Read all settings; raises SettingsError that names every wrong variable."""

        def text(name: str, default: str = "") -> str:
            return environment.get(name, "").strip() or default

        def seconds(name: str, default: float) -> float:
            try:
                value = float(text(name, str(default)))
            except ValueError:
                value = -1.0
            if not 0.1 <= value <= 86400:
                mistakes.append(f"{name} must be a number of seconds from 0.1 to 86400")
            return value

        mistakes: list[str] = []
        orchestrator_url, token_file = text("ORCHESTRATOR_URL"), text("RUNNERHUB_TOKEN_FILE")
        if not orchestrator_url.startswith(("http://", "https://")):
            mistakes.append("ORCHESTRATOR_URL must be the address of the orchestrators, such as http://hub")
        if not token_file:
            mistakes.append("RUNNERHUB_TOKEN_FILE must name the file with the token for the orchestrators")
        port = text("RUNNER_PORT", str(PORT))
        if not port.isdigit() or not 0 < int(port) < 65536:
            mistakes.append("RUNNER_PORT must be a number of a port")
        try:
            command = tuple(shlex.split(text("RUNNER_COMMAND", DEFAULT_COMMAND)))
        except ValueError as error:
            command = ()
            mistakes.append(f"RUNNER_COMMAND cannot be read: {error}")
        key_file = text("RUNNERHUB_CONTROL_KEY_FILE")
        settings = cls(
            name=text("RUNNER_NAME", socket.gethostname()),
            labels=tuple(part.strip() for part in text("RUNNER_LABELS").split(",") if part.strip()),
            orchestrator_url=orchestrator_url.rstrip("/"),
            token_file=Path(token_file),
            control_key_file=Path(key_file) if key_file else None,
            github_url=text("GITHUB_URL", "https://github.com").rstrip("/"),
            github_token=text("GITHUB_TOKEN"),
            command=command,
            work_folder=Path(text("RUNNER_WORK_FOLDER", "/work")),
            port=int(port) if port.isdigit() else 0,
            poll_seconds=seconds("RUNNER_POLL_SECONDS", 5),
            github_check_seconds=seconds("GITHUB_CHECK_SECONDS", 600),
            log_level=text("LOG_LEVEL", "INFO").upper(),
        )
        if settings.github_token:
            try:
                api_url(settings.github_url)
            except ValueError as error:
                mistakes.append(f"GITHUB_URL: {error}")
        if mistakes:
            raise SettingsError("; ".join(mistakes))
        return settings
