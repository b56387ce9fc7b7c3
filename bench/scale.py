"""`make bench-scale`: what the operator costs with 1 to 500 clusters, on a stage without machines.

Writes build/reports/scale.json, its table, and build/reports/scale-profile.txt.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import os
import platform
import random
import signal
import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

from bench import profile
from bench.edits import CLUSTERS, EditBench, settled
from bench.report import Size, table, targets
from e2e.lab.kubectl import wait_for
from e2e.stage import OperatorProcess, Stage
from e2e.stage.api import Api, in_parallel
from kindbed.console import say
from kindbed.paths import BUILD_DIR, REPOSITORY
from kindbed.versions import KUBERNETES
from runnerhub_operator import names

REPORTS: Final = BUILD_DIR / "reports"
NAMESPACES: Final = tuple(f"scale-{number}" for number in range(10))
UNRELATED: Final = "unrelated"
UNRELATED_EACH: Final = 1000
UNRELATED_BYTES: Final = 100_000
QUIET_SECONDS: Final = 10.0
SETTLE_SECONDS: Final = 180.0
CREATION_SECONDS: Final = 3600.0
VISIT_SECONDS: Final = 600.0
_PARALLEL: Final = 16
_PROFILE_SECONDS: Final = 30
# The operator tells server-side apply from other patches, the API server does not.
_WRITES: Final = ("apply", "create", "delete", "patch", "update")


class ScaleBench:
    """Grows one stage from size to size and measures at each; the clusters of the size before stay.

    Settled is an operator that was quiet for `quiet_seconds`; it is then watched for `idle_seconds`.
    """

    def __init__(
        self,
        stage: Stage,
        *,
        idle_seconds: float,
        bursts: Sequence[tuple[int, int]],
        quiet_seconds: float = QUIET_SECONDS,
    ) -> None:
        self._stage = stage
        self._idle_seconds = idle_seconds
        self._quiet_seconds = quiet_seconds
        self._bursts = bursts
        self._starts = 0
        self._started = 0.0
        self._before: Counter[tuple[str, str]] = Counter()
        self._operator = self._start()
        stage.create_namespaces(*NAMESPACES, UNRELATED)

    def measure(self, clusters: int) -> Size:
        """Grow to so many clusters and measure everything but the unrelated objects."""
        started = time.monotonic()
        asyncio.run(self._create(clusters))
        creation = time.monotonic() - started
        say(f"{clusters} clusters: all Ready after {creation:.0f} s")
        # Only an operator that leads frees the Lease for the next one.
        self._until_visited(clusters)
        cold = self.restart(clusters)
        say(f"{clusters} clusters: cold start {cold:.1f} s")
        self.settle()
        rss, cpu, busy, calls = self._idle()
        say(f"{clusters} clusters: RSS {rss:.0f} MiB, {cpu * 3600:.0f} CPU seconds an hour, {dict(calls)}")
        before = len(self._stage.call_seconds())
        edits = asyncio.run(self._edit(self._bursts))
        server = self._stage.call_seconds()[before:]
        for burst, times in edits.items():
            say(
                f"{clusters} clusters: {burst} edits at once: {sorted(round(t, 2) for t in times)[-3:]} s worst"
            )
        return Size(
            clusters=clusters,
            creation_seconds=creation,
            cold_start_seconds=cold,
            rss_mib=rss,
            rss_peak_mib=self._operator.memory().peak,
            cpu_seconds_per_hour=cpu * 3600,
            busy_cores=busy,
            edits=edits,
            server=server,
            calls=calls,
        )

    def unrelated(self, size: Size) -> tuple[float, float]:
        """MiB of RSS that other people's Secrets and ConfigMaps add: while they come, and in a process that finds them.

        `size` tells what such a process has without them.
        """
        self.settle()
        before = self._rss()
        asyncio.run(self._create_unrelated())
        self.settle()
        live = self._rss() - before
        self.restart(size.clusters)
        self.settle()
        found = self._rss() - size.rss_mib
        # A later run on a kept stage begins without them.
        self._stage.kubectl.in_namespace(UNRELATED)("delete", "secret,configmap", "--all", "--wait=false")
        return live, found

    def profile(self, clusters: int) -> str:
        """Where the time goes: during a cold start, settled, and while specs are edited."""
        with ThreadPoolExecutor() as pool:
            self._replace()
            cold = pool.submit(profile.take, self._operator, _PROFILE_SECONDS)
            self._until_visited(clusters)
            cold.result()
            self.settle()
            settled_text = profile.take(self._operator, _PROFILE_SECONDS)
            editing = pool.submit(profile.take, self._operator, _PROFILE_SECONDS)
            while not editing.done():
                asyncio.run(self._edit([self._bursts[-1]]))
        titles = (
            f"the first {_PROFILE_SECONDS} s of a process",
            "settled",
            "while specs are edited in bursts",
        )
        parts = zip(titles, (cold.result(), settled_text, editing.result()), strict=True)
        return "\n".join(f"=== {clusters} clusters, {title} ===\n{text}" for title, text in parts)

    def writes(self) -> tuple[int, int]:
        """Writes of the present process, as it counts them itself and as the API server does."""
        own = sum(
            value
            for name, labels, value in self._operator.metrics()
            if name == "runnerhub_operator_api_calls_total" and labels["verb"] in _WRITES
        )
        audited = self._stage.calls() - self._before
        return int(own), sum(count for (verb, _), count in audited.items() if verb in _WRITES)

    def restart(self, clusters: int) -> float:
        """Stop the operator, start another; seconds until that one has visited every cluster."""
        self._replace()
        self._until_visited(clusters)
        return time.monotonic() - self._started

    def settle(self) -> None:
        """Wait until the operator makes no other calls than those of the steady state, for a while."""
        last = self._stage.calls()
        since = time.monotonic()

        def quiet() -> bool:
            nonlocal last, since
            now = self._stage.calls()
            if any(call[0] != "watch" and call[1] != "leases" for call in now - last):
                last, since = now, time.monotonic()
            return time.monotonic() - since >= self._quiet_seconds

        self._wait("the operator to settle", quiet, SETTLE_SECONDS, every=1.0)

    def _replace(self) -> None:
        self._operator.stop()
        self._operator = self._start()

    def _start(self) -> OperatorProcess:
        self._starts += 1
        self._before = self._stage.calls()
        self._started = time.monotonic()
        return self._stage.start_operator(f"operator-{self._starts}")

    def _until_visited(self, clusters: int) -> None:
        self._wait("all to be visited", lambda: visited(self._operator) >= clusters, VISIT_SECONDS, every=0.5)

    def _wait(self, what: str, look: Callable[[], bool], seconds: float, every: float) -> None:
        def alive() -> bool:
            if not self._operator.running:
                raise RuntimeError(f"the operator ended: {self._operator.log.read_text()[-2000:]}")
            return look()

        wait_for(what, alive, seconds, every)

    async def _create(self, clusters: int) -> None:
        """Create what is missing and wait until all are Ready."""
        async with Api(self._stage.kubeconfig) as api:
            items, _ = await api.items(CLUSTERS)
            new = [manifest(number) for number in range(len(items), clusters)]
            await in_parallel([api.call("POST", collection(item), item) for item in new], _PARALLEL)
            ready: set[tuple[str, str]] = set()
            async with asyncio.timeout(CREATION_SECONDS):
                async for _kind, body in api.follow(CLUSTERS):
                    key = body["metadata"]["namespace"], body["metadata"]["name"]
                    ready.add(key) if settled(body) else ready.discard(key)
                    if len(ready) == clusters:
                        return

    async def _create_unrelated(self) -> None:
        filler = random.randbytes(UNRELATED_BYTES * 3 // 4)  # noqa: S311 - must not compress, is no secret
        text = base64.b64encode(filler).decode()
        async with Api(self._stage.kubeconfig) as api:
            jobs = []
            for number in range(UNRELATED_EACH):
                for kind, plural in (("Secret", "secrets"), ("ConfigMap", "configmaps")):
                    body = {
                        "apiVersion": "v1",
                        "kind": kind,
                        "metadata": {"name": f"other-{number}", "labels": {"app": "other"}},
                        "data": {"filler": text},
                    }
                    jobs.append(api.call("POST", f"/api/v1/namespaces/{UNRELATED}/{plural}", body))
            await in_parallel(jobs, _PARALLEL)

    async def _edit(self, bursts: Sequence[tuple[int, int]]) -> dict[int, list[float]]:
        async with Api(self._stage.kubeconfig) as api:
            return await EditBench(api).run(bursts)

    def _idle(self) -> tuple[float, float, float, dict[tuple[str, str], float]]:
        """RSS in MiB, CPU seconds per second, busy cores of the whole machine, calls per minute."""
        calls, cpu, machine, started = (
            self._stage.calls(),
            self._operator.cpu_seconds(),
            machine_cpu_seconds(),
            time.monotonic(),
        )
        samples: list[float] = []

        def over() -> bool:
            samples.append(self._operator.memory().now)
            return time.monotonic() - started >= self._idle_seconds

        self._wait("the idle time to pass", over, self._idle_seconds + 60, every=2.0)
        seconds = time.monotonic() - started
        made: Counter[tuple[str, str]] = self._stage.calls() - calls
        return (
            statistics.median(samples),
            (self._operator.cpu_seconds() - cpu) / seconds,
            (machine_cpu_seconds() - machine) / seconds,
            {call: count * 60 / seconds for call, count in made.items()},
        )

    def _rss(self) -> float:
        """Median over ten seconds."""
        samples: list[float] = []

        def enough() -> bool:
            samples.append(self._operator.memory().now)
            return len(samples) >= 20

        self._wait("RSS samples", enough, 30, every=0.5)
        return statistics.median(samples)


def manifest(number: int) -> dict[str, Any]:
    """One of many clusters, in one of ten namespaces."""
    return {
        "apiVersion": f"{names.API_GROUP}/{names.API_VERSION}",
        "kind": names.KIND,
        "metadata": {"name": f"hub-{number}", "namespace": NAMESPACES[number % len(NAMESPACES)]},
        "spec": {
            "orchestrator": {"replicas": 3},
            "postgres": {"storage": {"size": "1Gi"}},
            "redis": {"storage": {"size": "1Gi"}},
        },
    }


def collection(body: dict[str, Any]) -> str:
    """Path that a cluster is created at."""
    return f"/apis/{body['apiVersion']}/namespaces/{body['metadata']['namespace']}/{names.PLURAL}"


def visited(operator: OperatorProcess) -> int:
    """How many clusters the process has visited at least once."""
    return sum(
        int(value)
        for name, labels, value in operator.metrics()
        if name == "runnerhub_operator_clusters" and labels["state"] == "visited"
    )


def machine_cpu_seconds() -> float:
    """CPU time of the whole machine but idle, waiting for disks and stolen. Source: proc(5), /proc/stat."""
    user, nice, system, _idle, _wait, irq, softirq = (
        int(word) for word in Path("/proc/stat").read_text().splitlines()[0].split()[1:8]
    )
    return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure; 1 when a target was missed at the largest size."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", default="1,50,200,500", help="numbers of clusters, growing")
    parser.add_argument(
        "--quick", action="store_true", help="short idle time, few edits, no unrelated objects"
    )
    parser.add_argument(
        "--checkout", type=Path, default=REPOSITORY, help="repository of the operator to measure"
    )
    parser.add_argument("--reports", type=Path, default=REPORTS, help="folder of the report")
    parser.add_argument(
        "--keep", type=Path, help="folder of a stage to go on with, and to leave for the next run"
    )
    options = parser.parse_args(arguments)
    # The stage is taken down on the way out.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    sizes = [int(word) for word in options.sizes.split(",")]
    idle_seconds, bursts = (
        (20.0, [(1, 5), (10, 2), (50, 1)]) if options.quick else (60.0, [(1, 20), (10, 5), (50, 4)])
    )
    options.reports.mkdir(parents=True, exist_ok=True)
    with Stage(options.checkout.resolve(), options.keep) as stage:
        bench = ScaleBench(stage, idle_seconds=idle_seconds, bursts=bursts)
        measured: list[Size] = []
        report: dict[str, Any] = {
            "versions": {"kubernetes": KUBERNETES, "python": platform.python_version()},
            "machine": {"cores": os.cpu_count()},
        }
        for size in sizes:
            measured.append(bench.measure(size))
            report["sizes"] = [item.report() for item in measured]
            # What was measured stays, whatever happens later.
            (options.reports / "scale.json").write_text(json.dumps(report, indent=2) + "\n")
        largest = None
        if not options.quick:
            unrelated, found = bench.unrelated(measured[-1])
            report["unrelated_objects_rss_mib"] = round(unrelated, 2)
            report["unrelated_objects_rss_mib_after_restart"] = round(found, 2)
            largest = max(unrelated, found)
        report["targets"] = targets(measured[-1], largest)
        (options.reports / "scale-profile.txt").write_text(bench.profile(sizes[-1]))
    (options.reports / "scale.json").write_text(json.dumps(report, indent=2) + "\n")
    printed = table(report)
    (options.reports / "scale.txt").write_text(printed + "\n")
    say(printed)
    return 0 if all(target["held"] for target in report["targets"]) else 1


if __name__ == "__main__":
    sys.exit(main())
