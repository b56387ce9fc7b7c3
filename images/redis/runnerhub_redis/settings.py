"""What the operator tells the start program: settings, passwords, the pod's place in the cluster."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from .access import OPERATOR, Credentials, Login

PORT_REDIS = 6379
PORT_SENTINEL = 26379
PORT_STATE = 6380

DATA = Path("/data")
RUNTIME = Path("/run/redis")
CONFIGURATION = Path("/etc/runnerhub/redis")
CREDENTIALS = Path("/etc/runnerhub/credentials")
STATE = Path("/etc/runnerhub/state")


@dataclass(frozen=True, slots=True)
class Paths:
    """Where things are in the container."""

    data: Path = DATA
    runtime: Path = RUNTIME
    configuration: Path = CONFIGURATION
    credentials: Path = CREDENTIALS
    state: Path = STATE

    @property
    def redis_data(self) -> Path:
        """Working directory of Redis: append-only file and snapshot."""
        return self.data / "redis"

    @property
    def complete_marker(self) -> Path:
        """Present once the volume has held a whole data set."""
        return self.data / "redis" / "complete"

    @property
    def append_only(self) -> Path:
        """Where Redis keeps its append-only files."""
        return self.redis_data / "appendonlydir"

    @property
    def standing(self) -> Path:
        """How far the data on the volume is."""
        return self.redis_data / "standing.json"

    @property
    def alone(self) -> Path:
        """What older versions wrote down of a master that too few replicas followed."""
        return self.redis_data / "alone.json"

    @property
    def append_only_fresh(self) -> Path:
        """What takes the place of damaged append-only files."""
        return self.redis_data / "appendonlydir.fresh"

    @property
    def damaged_marker(self) -> Path:
        """Present while the volume holds only what was whole of a damaged data set."""
        return self.redis_data / "damaged"

    @property
    def starting(self) -> Path:
        """Present from a start of Redis until it has loaded its data."""
        return self.redis_data / "starting"

    @property
    def diverged(self) -> Path:
        """Snapshots of a former master that had something which the new one has not."""
        return self.data / "diverged"

    @property
    def tails(self) -> Path:
        """What was cut off damaged append-only files."""
        return self.data / "tails"

    @property
    def addresses(self) -> Path:
        """The last resolved addresses, for a start while DNS is down."""
        return self.data / "redis" / "addresses.json"

    @property
    def sentinel_state(self) -> Path:
        """Sentinel's configuration, which it rewrites itself: its memory."""
        return self.data / "sentinel" / "sentinel.conf"

    def passwords(self, container: str) -> Path:
        """What a container remembers of passwords that have changed."""
        return self.data / container / "passwords.json"

    @property
    def redis_configuration(self) -> Path:
        """Configuration that Redis starts with; holds passwords, so it is in memory only."""
        return self.runtime / "redis.conf"


@dataclass(frozen=True, slots=True)
class Settings:
    """Settings of one pod. `service` is the name without ordinal of the pods and their Services.

    `credentials`: None without passwords, as in tests. `nameless_clients`: clients that give a password and no user
    name get in as the application. `max_memory_bytes`: at which Redis refuses writes by the
    container's limit, 0 for what the operator's part of the configuration says.
    """

    service: str
    namespace: str
    ordinal: int
    replicas: int
    master_name: str
    quorum: int
    down_after_milliseconds: int
    failover_timeout_milliseconds: int
    parallel_syncs: int
    paths: Paths
    credentials: Credentials | None = None
    nameless_clients: bool = False
    max_memory_bytes: int = 0

    @property
    def replicas_to_write(self) -> int:
        """Replicas without which a master refuses writes: with it they are a majority."""
        return self.replicas // 2

    def host(self, ordinal: int) -> str:
        """Name of a pod's own Service.

        With the namespace, because the kubelet writes the bare name of a StatefulSet's pod, which is the same,
        into that pod's /etc/hosts: it would find its own, mortal address.
        """
        return f"{self.service}-{ordinal}.{self.namespace}.svc"

    @property
    def redis_login(self) -> Login | None:
        """How this program gets into Redis, here and in the other pods."""
        return self.credentials.login(OPERATOR) if self.credentials is not None else None

    @property
    def sentinel_login(self) -> Login | None:
        """How it gets into a Sentinel: the same user is there too."""
        return self.redis_login

    def today(self) -> Settings:
        """The settings that the operator changes while pods run, as it tells them now.

        Raises OSError, KeyError or ValueError when that cannot be read.
        """
        return replace(self, **_changing(_given(self.paths)))

    def is_outgrown(self) -> bool:
        """Whether the operator tells of another number of pods than when this program started."""
        with suppress(OSError, KeyError, ValueError):  # it may just be being replaced
            return int(_given(self.paths)["replicas"]) != self.replicas
        return False

    def bootstrapped(self) -> bool:
        """Whether the operator has seen a master once; read anew each time, for it changes while pods run."""
        try:
            return (self.paths.state / "bootstrapped").read_text(encoding="utf-8").strip() == "true"
        except FileNotFoundError:
            return False


def load(paths: Paths, container: str) -> Settings:
    """Read the settings of a container, redis or sentinel.

    Raises OSError, KeyError or ValueError when the pod is set up wrongly.
    """
    given = _given(paths)
    pod = os.environ["POD_NAME"]
    service, _, ordinal = pod.rpartition("-")
    return Settings(
        service=service,
        namespace=os.environ["POD_NAMESPACE"],
        ordinal=int(ordinal),
        replicas=int(given["replicas"]),
        master_name=str(given["masterName"]),
        **_changing(given),
        paths=paths,
        credentials=Credentials(paths.credentials, paths.passwords(container)),
        max_memory_bytes=int(os.environ.get("REDIS_MAXMEMORY", "0")),
    )


def _given(paths: Paths) -> dict[str, Any]:
    given: dict[str, Any] = json.loads((paths.configuration / "settings.json").read_text(encoding="utf-8"))
    return given


def _changing(given: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "quorum": int(given["quorum"]),
        "down_after_milliseconds": int(given["downAfterMilliseconds"]),
        "failover_timeout_milliseconds": int(given["failoverTimeoutMilliseconds"]),
        "parallel_syncs": int(given["parallelSyncs"]),
        "nameless_clients": bool(given["namelessClients"]),
    }
