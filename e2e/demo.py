"""`make demo`: from an empty machine to a Ready cluster that works off jobs while it is broken on purpose.

Prints what clients saw and writes build/reports/demo.json. Leaves the cluster up.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from kindbed import paths
from kindbed.console import TestBedError

from .lab import bed as test_bed
from .lab import report
from .lab.faults import FaultResult, kept_away, replication_cut, strike
from .lab.hub import Hub
from .lab.kubectl import wait_for
from .lab.load import LoadClient, now
from .lab.steps import Steps

NAMESPACE = "runnerhub"
CLUSTER = "runnerhub"
# The goal is 90 s; the rest is patience with small machines.
READY_DEADLINE_SECONDS = 420


def wait_ready(hub: Hub) -> float:
    """Wait until the cluster is Ready, telling each change of its components; the time that it took."""
    started = time.monotonic()
    seen = ""

    def look() -> bool:
        nonlocal seen
        line = test_bed.conditions_line(hub)
        if line != seen:
            seen = line
            print(
                f"    {time.monotonic() - started:5.1f} s  {line.replace(' | ', chr(10) + ' ' * 13)}",
                flush=True,
            )
        return hub.condition("Ready").get("status") == "True"

    wait_for("the cluster to be Ready", look, READY_DEADLINE_SECONDS, every=1)
    return round(time.monotonic() - started, 1)


@contextmanager
def asynchronous(hub: Hub) -> Iterator[None]:
    """Turn synchronous replication off for a while."""

    def patch(value: str) -> None:
        body = f'{{"spec":{{"postgres":{{"synchronous":"{value}"}}}}}}'
        hub.kubectl("patch", "rhc", hub.name, "--type=merge", "-p", body)

    def roles() -> set[str]:
        return {item["role"] for item in hub.status()["postgres"]["instances"]}

    try:
        patch("disabled")
        wait_for("asynchronous replicas", lambda: roles() == {"primary", "replica"}, 60)
        yield
    finally:
        patch("preferred")
        wait_for("synchronous replicas", lambda: roles() & {"sync_standby", "quorum_standby"}, 120)


def control(bed: test_bed.Bed, hub: Hub, load: LoadClient, probe: str = "rows") -> dict[str, Any]:
    """The run in which the oracle must report a loss: asynchronous replication that hangs when the primary dies.

    `probe`: whose acknowledgements are waited for in between.
    """
    with asynchronous(hub):
        hub.wait_settled(120)
        primary = hub.role_holder("postgres")
        assert primary is not None
        since = now()
        with replication_cut(hub, "postgres", "5432", primary, bed.on_node):
            wait_for(
                f"{probe} acknowledged by the cut-off primary",
                lambda: load.acknowledged(probe, since) >= 30,
                30,
            )
            with kept_away(hub, primary):
                hub.kubectl.delete_pod_now(primary)
                wait_for("another primary", lambda: hub.role_holder("postgres") not in (None, primary), 90)
        hub.wait_settled(240)
        verdict = load.verify(since, now())
    return {
        "fault": "force delete of the Postgres primary, asynchronous replication cut off",
        "acknowledged": int(verdict["acknowledged"]),
        "lost": int(verdict["lost"]),
    }


def main() -> int:
    """Run the demo; the exit code."""
    try:
        return demo()
    except TestBedError as problem:
        print(f"test bed: {problem}", file=sys.stderr)
        return 1


def demo() -> int:
    """Create, break, measure, report; the exit code."""
    steps = Steps()
    with steps.step("kind cluster with the product's images"):
        bed = test_bed.bring_up(CLUSTER, paths.KUBECONFIG)
    with steps.step("install the operator with Helm"):
        bed.install_operator()
    # What an earlier demo left, with its volumes: this one starts with an empty database.
    bed.delete_namespace(NAMESPACE)
    with steps.step("apply examples/minimal.yaml and wait until it is Ready"):
        kubectl = bed.create_namespace(NAMESPACE)
        hub = test_bed.apply_example("hub", kubectl, "minimal")
        ready_seconds = wait_ready(hub)
        hub.wait_settled(120)
    print(kubectl("get", "rhc"))
    load = LoadClient(hub)
    with steps.step("start clients: jobs through the API, rows in Postgres, entries in Redis, runners"):
        load.start(test_bed.CLIENT_IMAGE)
    results: list[FaultResult] = []
    for component, what in (
        ("postgres", "force delete of the Postgres primary"),
        ("redis", "force delete of the Redis master"),
        ("orchestrator", "force delete of the leading orchestrator"),
    ):
        with steps.step(what):
            results.append(strike(hub, load, what, component, hub.kubectl.delete_pod_now))
            print(f"    {results[-1].took_over} took over; longest gap {results[-1].gap_seconds} s")
    with steps.step("control: the same fault where a loss must happen (replication cut off, asynchronous)"):
        control_run = control(bed, hub, load)
        load.stop()
    content = {
        "steps": steps.as_report(),
        "ready_seconds": ready_seconds,
        "faults": [result.as_report() for result in results],
        "control": control_run,
    }
    path = report.write("demo", content)
    rows = [(r.fault, f"{r.gap_seconds:.1f} s", r.acknowledged, r.lost, r.took_over) for r in results] + [
        ("control: asynchronous, must lose", "", control_run["acknowledged"], control_run["lost"], "")
    ]
    print()
    print(report.table(("fault", "longest gap", "acknowledged", "lost", "took over"), rows))
    print(f"\nReady {ready_seconds:.0f} s after apply. Report: {path.relative_to(paths.REPOSITORY)}")
    print(_next_commands(bed))
    failed = any(result.lost for result in results) or not control_run["lost"]
    if failed:
        print("FAILED: an acknowledged write was lost, or the control run lost none", file=sys.stderr)
    return 1 if failed else 0


def _next_commands(bed: test_bed.Bed) -> str:
    kubectl = f"{bed.kubectl.binary} -n {NAMESPACE}"
    return f"""
The cluster stays up. Try:
  export KUBECONFIG={bed.kubectl.kubeconfig}
  {kubectl} get rhc
  {kubectl} describe rhc hub
  {kubectl} get lease
  {kubectl} get events --sort-by=.lastTimestamp
  {kubectl} delete pod hub-postgres-0
  make demo-down"""


if __name__ == "__main__":
    sys.exit(main())
