"""pgbench: what the way through the pooler costs, and how many transactions a second are left during a fault."""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from ...lab.hub import Hub
from ..arena import OUT_OF_THE_WAY, let_pass
from ..results import RunResult
from .arena import PostgresArena

SCALE = 5
CLIENTS = 4
RUN_SECONDS = 10
QUIET_SECONDS = 15
# Short runs one after the other: a client that loses its connection is lost to its run.
CHUNK_SECONDS = 2
CHUNK_DEADLINE_SECONDS = 10
MOST_SECONDS = 900

_SCRIPTS = {"select": ("-S",), "default": ()}
_TPS = re.compile(r"^tps = ([0-9.]+)", re.MULTILINE)
_LATENCY = re.compile(r"^latency average = ([0-9.]+) ms", re.MULTILINE)

# Prints `<begin> <end> <transactions>` for each run, in seconds since 1970, until /tmp/stop is there.
_LOOP = f"""
end=$(($(date +%s) + {MOST_SECONDS}))
until [ -e /tmp/stop ] || [ "$(date +%s)" -ge "$end" ]; do
    begun=$(date +%s.%N)
    count=$(timeout {CHUNK_DEADLINE_SECONDS} pgbench -n -h "$1" -c {CLIENTS} -T {CHUNK_SECONDS} 2>/dev/null |
        sed -n 's/^number of transactions actually processed: \\([0-9]*\\).*/\\1/p')
    echo "$begun $(date +%s.%N) ${{count:-0}}"
done
"""


@dataclass(frozen=True, slots=True)
class Chunk:
    """One short run: begin and end in seconds since 1970, and the transactions that it did."""

    begin: float
    end: float
    transactions: int


def parse_chunks(text: str) -> list[Chunk]:
    """Runs from the lines that the loop prints."""
    rows = (line.split() for line in text.splitlines())
    return [Chunk(float(row[0]), float(row[1]), int(row[2])) for row in rows if len(row) == 3]


def rate(chunks: Sequence[Chunk], begin: float, end: float) -> float | None:
    """Transactions per second within a span of time; a run that lies partly within counts in proportion."""
    if end <= begin:
        return None
    done = 0.0
    for chunk in chunks:
        overlap = min(end, chunk.end) - max(begin, chunk.begin)
        if overlap > 0 and chunk.end > chunk.begin:
            done += chunk.transactions * overlap / (chunk.end - chunk.begin)
    return round(done / (end - begin), 1)


@dataclass(frozen=True, slots=True)
class Bench:
    """A pod with pgbench beside the load client, on the control plane's node."""

    hub: Hub

    @property
    def pod(self) -> str:
        """Its name."""
        return f"{self.hub.name}-pgbench"

    @property
    def pooler(self) -> str:
        """Host of the way through the pooler."""
        return f"{self.hub.name}-postgres"

    def run(self, *command: str, timeout: float = 120.0) -> str:
        """Run a command in the pod; its output."""
        return self.hub.kubectl("exec", self.pod, "--", *command, timeout=timeout)

    def missing(self) -> str | None:
        """What is missing for this step, None when nothing is."""
        if self.run("sh", "-c", "command -v pgbench || true").strip():
            return None
        return "the image of Postgres has no pgbench (Debian: package postgresql-17)"

    def measure(self, host: str, script: str) -> dict[str, float]:
        """Transactions per second and mean latency of one script on one way."""
        text = self.run(
            "pgbench", "-n", "-h", host, "-c", str(CLIENTS), "-T", str(RUN_SECONDS), *_SCRIPTS[script],
            timeout=RUN_SECONDS + 60,
        )  # fmt: skip
        tps, latency = _TPS.search(text), _LATENCY.search(text)
        if tps is None or latency is None:
            raise ValueError(f"pgbench tells no result: {text[-300:]}")
        return {"tps": round(float(tps[1]), 1), "latency_ms": round(float(latency[1]), 3)}


@contextmanager
def bench(hub: Hub) -> Iterator[Bench]:
    """The pod, with pgbench's tables if there is pgbench; both go afterwards."""
    found = Bench(hub)
    hub.kubectl.apply(_pod(hub))
    try:
        hub.kubectl("wait", f"pod/{found.pod}", "--for=condition=Ready", "--timeout=90s")
        if found.missing() is None:
            found.run("pgbench", "-i", "-q", "-s", str(SCALE), "-h", found.pooler, timeout=180)
        yield found
        if found.missing() is None:
            found.run("pgbench", "-i", "-I", "d", "-h", found.pooler)
    finally:
        hub.kubectl(
            "delete", "pod", found.pod, "--ignore-not-found", "--wait=true", "--grace-period=1", timeout=60
        )


def cost_of_pooler(bench: Bench, primary: str) -> dict[str, Any]:
    """The same scripts directly on the primary and through the pooler, by turns."""
    ways = {"direct": primary, "pooler": bench.pooler}
    found: dict[str, Any] = {way: {} for way in ways}
    for script in _SCRIPTS:
        for way, host in ways.items():
            found[way][script] = bench.measure(host, script)
    cost = {
        script: round(1 - found["pooler"][script]["tps"] / found["direct"][script]["tps"], 3)
        for script in _SCRIPTS
    }
    return {"clients": CLIENTS, "scale": SCALE, "seconds": RUN_SECONDS, **found, "cost_of_pooler_share": cost}


@dataclass(slots=True)
class _Timeline:
    """pgbench's default script through the pooler, again and again; `chunks` are there once it was stopped."""

    bench: Bench
    process: subprocess.Popen[str]
    chunks: list[Chunk] = field(default_factory=list)

    def stop(self) -> None:
        """Let the run under way end, and read what all of them did."""
        self.bench.run("touch", "/tmp/stop")  # noqa: S108 - a path inside the pod
        output, _ = self.process.communicate(timeout=CHUNK_DEADLINE_SECONDS + 30)
        self.chunks = parse_chunks(output)


@contextmanager
def _timeline(bench: Bench) -> Iterator[_Timeline]:
    kubectl = bench.hub.kubectl
    bench.run("rm", "-f", "/tmp/stop")  # noqa: S108 - a path inside the pod
    command = [
        str(kubectl.binary), f"--kubeconfig={kubectl.kubeconfig}", f"--namespace={kubectl.namespace}",
        "exec", bench.pod, "--", "sh", "-c", _LOOP, "sh", bench.pooler,
    ]  # fmt: skip
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        try:
            yield _Timeline(bench, process)
        finally:
            if process.poll() is None:
                process.kill()


def during(
    bench: Bench, arena: PostgresArena, strike: Callable[[], RunResult]
) -> tuple[RunResult, dict[str, Any]]:
    """Transactions per second before, during and after one run of a fault.

    `during_gap`: from the fault for as long as writers had their longest gap. `until_whole`: from the fault until the
    cluster was whole again.
    """
    arena.wait_whole(300)
    with _timeline(bench) as timeline:
        begun = time.time()
        let_pass("transactions before the fault", QUIET_SECONDS)
        result = strike()
        ended = time.time()
        let_pass("transactions after the fault", QUIET_SECONDS)
        after = time.time()
        timeline.stop()
    struck = _seconds(result.since)
    gap_end = struck + (result.gap_seconds or 0)
    whole = struck + (result.redundancy_seconds or 0)
    tps = {
        "before": rate(timeline.chunks, begun, struck),
        "during_gap": rate(timeline.chunks, struck, gap_end),
        "until_whole": rate(timeline.chunks, struck, whole),
        "after": rate(timeline.chunks, ended, after),
    }
    return result, {"fault": result.fault, "gap_seconds": result.gap_seconds, "tps": tps}


def _seconds(moment: str) -> float:
    return datetime.fromisoformat(moment).timestamp()


def _pod(hub: Hub) -> dict[str, Any]:
    database = hub.kubectl.get("statefulset", f"{hub.name}-postgres")
    if database is None:
        raise KeyError(f"statefulset {hub.name}-postgres")
    password = {"secretKeyRef": {"name": f"{hub.name}-postgres-credentials", "key": "app-password"}}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": f"{hub.name}-pgbench",
            "labels": {"app.kubernetes.io/name": "runnerhub-pgbench"},
        },
        "spec": {
            "restartPolicy": "Never",
            **OUT_OF_THE_WAY,
            "containers": [
                {
                    "name": "pgbench",
                    "image": database["spec"]["template"]["spec"]["containers"][0]["image"],
                    "imagePullPolicy": "IfNotPresent",
                    "command": ["sleep", "infinity"],
                    "env": [
                        {"name": "PGUSER", "value": "app"},
                        {"name": "PGDATABASE", "value": "github_runnerhub"},
                        {"name": "PGPASSWORD", "valueFrom": password},
                        {"name": "PGCONNECT_TIMEOUT", "value": "5"},
                    ],
                    "resources": {"requests": {"cpu": "50m", "memory": "64Mi"}},
                    "securityContext": {
                        "allowPrivilegeEscalation": False,
                        "readOnlyRootFilesystem": True,
                        "capabilities": {"drop": ["ALL"]},
                    },
                    "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],  # noqa: S108 - inside the pod
                }
            ],
            "volumes": [{"name": "tmp", "emptyDir": {}}],
        },
    }
