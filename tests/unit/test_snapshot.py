"""What is read from objects as the API server sends them."""

from __future__ import annotations

from typing import Any

import pytest

from runnerhub_operator.snapshot import Pod

READY = {"type": "Ready", "status": "True"}
CONTAINERS_READY = {"type": "ContainersReady", "status": "True"}
NOT_READY = {
    "status": "False",
    "reason": "ContainersNotReady",
    "message": "containers with unready status: [app]",
}


@pytest.mark.parametrize(
    ("conditions", "silent"),
    [
        ([READY, CONTAINERS_READY], False),
        ([READY | NOT_READY, CONTAINERS_READY | NOT_READY], False),
        # As the node controller leaves it after 40 seconds without a word of the kubelet.
        ([READY | {"status": "False"}, CONTAINERS_READY], True),
        ([READY | {"status": "False", "reason": "ReadinessGatesNotReady"}, CONTAINERS_READY], False),
        (
            [READY | {"status": "False", "reason": "PodCompleted"}, CONTAINERS_READY | {"status": "False"}],
            False,
        ),
        ([], False),
    ],
    ids=["ready", "kubelet says no", "node controller says no", "readiness gates", "ended", "not scheduled"],
)
@pytest.mark.parametrize("evicted", [False, True], ids=["", "evicted from there"])
def test_a_pod_on_a_silent_node_is_told_from_one_that_is_not_ready(
    conditions: list[dict[str, Any]], silent: bool, evicted: bool
) -> None:
    metadata = {"name": "hub-runner-a-0", "uid": "u"}
    if evicted:
        metadata["deletionTimestamp"] = "2026-11-27T12:00:00Z"
    pod = Pod.of({"metadata": metadata, "status": {"phase": "Running", "conditions": conditions}})
    assert pod.node_silent is silent
