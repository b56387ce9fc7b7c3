"""What each way of installing must do, and the record of it in build/reports/install.json."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass

from e2e.lab import report
from e2e.lab.bed import OPERATOR_NAMESPACE, Bed
from e2e.lab.hub import Hub
from e2e.lab.kubectl import wait_for
from kindbed import productimages, versions
from runnerhub_operator import names

from .ways import DEFINITION, NEXT, Way, remove_operator

_OURS = "runnerhub.io/cluster=hub"
# Components of the minimal example, all of which have an image that an upgrade brings a newer one for.
_WITH_PODS = {names.POSTGRES, names.POOLER, names.REDIS, names.ORCHESTRATOR, names.LOAD_BALANCER}
RESULTS: list[Row] = []
# Name -> identity, and how often its containers restarted.
Pods = dict[str, tuple[str, int]]


@dataclass(slots=True)
class Row:
    """One line of install.json."""

    path: str
    # From the first command to a cluster that is complete.
    seconds: float | None = None
    # Pods of the cluster that restarted or were replaced while the operator was upgraded, went back and left.
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
    """Install, upgrade, take back and remove the operator; the cluster must become complete and then notice nothing."""
    started = time.monotonic()
    way.install()
    hub = Hub(bed.kubectl.in_namespace(way.namespace), "hub")
    hub.wait_settled(420)
    row.seconds = round(time.monotonic() - started, 1)
    before = pods(hub)
    go_there_and_back(bed, way, hub, before, row)
    way.remove()
    must_be_without_operator(bed, hub)
    must_not_notice(hub, before, row)


def go_there_and_back(bed: Bed, way: Way, hub: Hub, before: Pods, row: Row) -> None:
    """Upgrade the operator, which must hold the newer images back from the cluster, and take that back."""
    way.upgrade()
    _await_images(bed, NEXT)
    wait_for("the newer images to be held back", lambda: _pending(hub) == _WITH_PODS, 60)
    must_not_notice(hub, before, row)
    way.back()
    _await_images(bed, versions.PRODUCT_VERSION)
    wait_for("nothing to be held back", lambda: not _pending(hub), 60)
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


def _pending(hub: Hub) -> set[str]:
    return set(hub.status().get("pendingUpdates", ()))


def _await_images(bed: Bed, tag: str) -> None:
    """Wait until the operator runs with the images of a tag, in new pods only."""
    inside, wanted = bed.kubectl.in_namespace(OPERATOR_NAMESPACE), productimages.image_name("operator", tag)

    def image() -> str:
        found = inside.get("deployment", "runnerhub-operator")
        assert found is not None
        running: str = found["spec"]["template"]["spec"]["containers"][0]["image"]
        return running

    wait_for(f"the operator to be {wanted}", lambda: image() == wanted, 60)
    inside("rollout", "status", "deployment/runnerhub-operator", "--timeout=120s", timeout=140)
