"""What each way of installing must do, and the record of it in build/reports/install.json."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

from e2e.lab import report
from e2e.lab.bed import OPERATOR_NAMESPACE, Bed
from e2e.lab.hub import Hub
from e2e.lab.kubectl import wait_for

from .ways import DEFINITION, LEVEL, Way, remove_operator

_OURS = "runnerhub.io/cluster=hub"
RESULTS: list[Row] = []
# Name -> identity, and how often its containers restarted.
Pods = dict[str, tuple[str, int]]


@dataclass(slots=True)
class Row:
    """One line of install.json."""

    path: str
    # From the first command to a cluster that is complete.
    seconds: float | None = None
    # Pods of the cluster that restarted or were replaced while the operator changed, went back and left.
    restarts: int | None = None
    result: str = "failed"


@contextmanager
def recorded(way: Way) -> Iterator[Row]:
    """A row for a way: passed when the block ends well, else failed with the first line of what was wrong."""
    row = Row(way.name)
    RESULTS.append(row)
    try:
        yield row
    except BaseException as error:
        row.result = f"failed: {(str(error).strip() or type(error).__name__).splitlines()[0]}"
        raise
    else:
        row.result = "passed"
    finally:
        report.write("install", [asdict(item) for item in RESULTS])


def travel(bed: Bed, way: Way, row: Row) -> None:
    """Install, change, go back and remove the operator; the cluster must become complete and then notice nothing."""
    started = time.monotonic()
    way.install()
    hub = Hub(bed.kubectl.in_namespace(way.namespace), "hub")
    hub.wait_settled(420)
    row.seconds = round(time.monotonic() - started, 1)
    before = pods(hub)
    way.change()
    await_level(bed, "DEBUG")
    must_not_notice(hub, before, row)
    way.back()
    await_level(bed, "INFO")
    must_not_notice(hub, before, row)
    way.remove()
    must_be_without_operator(bed, hub)
    must_not_notice(hub, before, row)


def must_be_without_operator(bed: Bed, hub: Hub) -> None:
    """Wait until no operator is left; the definition and the cluster must be there."""
    operator = bed.kubectl.in_namespace(OPERATOR_NAMESPACE)
    selector = "app.kubernetes.io/name=runnerhub-operator"
    wait_for("the operator to go", lambda: not operator.items("pod,deployment", selector), 90)
    assert bed.kubectl.get("crd", DEFINITION) is not None, "the definition went, and all clusters with it"
    assert hub.body()["metadata"].get("deletionTimestamp") is None


def clear(bed: Bed, way: Way) -> None:
    """Remove what a way left: the cluster with its data, the definition, and an operator that a failure left."""
    inside = bed.kubectl.in_namespace(way.namespace)
    if bed.kubectl.get("crd", DEFINITION) is not None:
        inside("delete", "rhc", "--all", "--wait=true", timeout=120)
        wait_for("the cluster's pods to go", lambda: not inside.items("pod", _OURS), 180)
    bed.delete_namespace(way.namespace)
    remove_operator(bed)
    bed.kubectl("delete", "crd", DEFINITION, "--ignore-not-found", "--wait=true")


def pods(hub: Hub) -> Pods:
    """Name of each running pod of the cluster, with its identity and how often its containers restarted."""
    return {
        pod["metadata"]["name"]: (
            pod["metadata"]["uid"],
            sum(item["restartCount"] for item in pod["status"].get("containerStatuses", ())),
        )
        for pod in hub.kubectl.items("pod", _OURS)
        if pod["status"]["phase"] == "Running" and "deletionTimestamp" not in pod["metadata"]
    }


def must_not_notice(hub: Hub, before: Pods, row: Row) -> None:
    """All pods of before must be there, running and not restarted."""
    after = pods(hub)
    row.restarts = _noticed(before, after)
    assert row.restarts == 0, f"pods of the cluster restarted: {before} -> {after}"


def _noticed(before: Pods, after: Pods) -> int:
    """How many pods are gone, are others of the same name, or have restarted."""
    return sum(after.get(name) != known for name, known in before.items())


def await_level(bed: Bed, wanted: str) -> None:
    """Wait until the operator runs with a log level, in new pods only."""
    inside = bed.kubectl.in_namespace(OPERATOR_NAMESPACE)

    def level() -> str | None:
        found: dict[str, Any] | None = inside.get("deployment", "runnerhub-operator")
        assert found is not None
        variables = found["spec"]["template"]["spec"]["containers"][0]["env"]
        return next((item["value"] for item in variables if item["name"] == LEVEL), None)

    wait_for(f"the log level {wanted}", lambda: level() == wanted, 60)
    inside("rollout", "status", "deployment/runnerhub-operator", "--timeout=120s", timeout=140)
