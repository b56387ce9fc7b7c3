"""What a cluster of defaults asks for as a page, from the objects that the builders give."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal
from typing import Any

from runnerhub_operator import names
from runnerhub_operator.quantities import quantity
from tests.markdown import table

_INTRODUCTION = """\
# Reference: what a cluster asks for

Made by `make generate` from what the operator would make of [the minimal example](../../examples/minimal.yaml). These
are requests, what Kubernetes reserves on nodes. No limits are set unless the spec has some,
but for the ha-agent's 256Mi of memory.
"""

_REST = """\
Beside them: each pool of runners has requests of its own, and the operator itself asks for what
[its chart](values.md#runnerhub-operator) says. During a rolling change one pod more per Deployment may run. Volumes are
those of `spec.postgres.storage` and `spec.redis.storage`, one for each member.
"""

_MIB = 1024 * 1024


def _requests(pod: dict[str, Any], resource: str) -> Decimal:
    """Of a pod: its containers, and those init containers that stay."""
    stay = [item for item in pod.get("initContainers", ()) if item.get("restartPolicy") == "Always"]
    return sum(
        (quantity(item["resources"]["requests"][resource]) for item in (*pod["containers"], *stay)), Decimal()
    )


def size_reference(objects: Iterable[dict[str, Any]]) -> str:
    """The page."""
    rows = []
    pods, cpu, memory = 0, Decimal(), Decimal()
    for item in objects:
        if item["kind"] not in ("Deployment", "StatefulSet"):
            continue
        count, pod = item["spec"]["replicas"], item["spec"]["template"]["spec"]
        one = _requests(pod, "cpu"), _requests(pod, "memory") / _MIB
        pods, cpu, memory = pods + count, cpu + count * one[0], memory + count * one[1]
        component = item["metadata"]["labels"][names.LABEL_COMPONENT]
        rows.append((component, str(count), _cores(one[0]), f"{one[1]:.0f} MiB"))
    rows.append(("together", str(pods), _cores(cpu), f"{memory:.0f} MiB"))
    head = ("Component", "Pods", "CPU of a pod", "Memory of a pod")
    return "\n".join([_INTRODUCTION, table(head, rows), _REST])


def _cores(amount: Decimal) -> str:
    return f"{amount * 1000:.0f}m"
