"""What the pod's environment says."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

CONFIGURATION = "haproxy.cfg"


@dataclass(frozen=True, slots=True)
class Settings:
    """Folders that are mounted, the one of this pod's own (in memory), and times in seconds.

    `sources`: folders whose files are watched; together they must have no two of the same name. `service_domain`: the
    domain of Services, such as runnerhub.svc.cluster.local. `reload_seconds`: for a new worker to start;
    `try_again_seconds`: until files that were refused are tried once more; `poll_seconds`: between two looks at them.
    """

    sources: tuple[Path, ...]
    runtime: Path
    service_domain: str
    hard_stop_seconds: float
    state_port: int
    reload_seconds: float
    try_again_seconds: float
    poll_seconds: float

    @property
    def current(self) -> Path:
        """The files that HAProxy works by."""
        return self.runtime / "current"

    @property
    def former(self) -> Path:
        """Those before, until the next ones have been taken up."""
        return self.runtime / "former"

    @property
    def next(self) -> Path:
        """Files that are being checked."""
        return self.runtime / "next"


def read_settings(environment: Mapping[str, str] = os.environ) -> Settings:
    """Read the environment; raises ValueError with a sentence for people."""
    get = environment.get
    sources = get("HAPROXY_SOURCES", "/etc/haproxy:/etc/haproxy-tls").split(":")
    return Settings(
        sources=tuple(map(Path, sources)),
        runtime=Path(get("HAPROXY_RUNTIME", "/run/haproxy")),
        service_domain=service_domain(Path(get("RESOLV_CONF", "/etc/resolv.conf")).read_text()),
        hard_stop_seconds=float(get("HARD_STOP_SECONDS", "20")),
        state_port=int(get("STATE_PORT", "8405")),
        reload_seconds=float(get("RELOAD_SECONDS", "20")),
        try_again_seconds=float(get("TRY_AGAIN_SECONDS", "60")),
        poll_seconds=float(get("POLL_SECONDS", "1")),
    )


def service_domain(resolv_conf: str) -> str:
    """The first search domain, which is that of the Services in the pod's namespace.

    HAProxy's resolver knows no search domains, so the configuration names Services by their full names.
    """
    for line in resolv_conf.splitlines():
        words = line.split()
        if len(words) > 1 and words[0] == "search":
            return words[1]
    raise ValueError("no search domain in resolv.conf: is this a pod with dnsPolicy ClusterFirst?")
