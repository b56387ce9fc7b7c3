"""Two hundred jobs for a pool without runners, beside a pool whose runners no node takes."""

from __future__ import annotations

import base64
from contextlib import contextmanager
from typing import Any

from kindbed.console import TestBedError

from ...lab import bed as test_bed
from ...lab.hub import Hub
from ...lab.kubectl import wait_for
from .. import planned
from ..arena import OUT_OF_THE_WAY, Before, let_pass
from ..fault import Break
from .arena import HubArena

JOBS = 200
MOST_RUNNERS = 10
JOB_SECONDS = 2
DONE_SECONDS = 420
# While the pool shrinks there are jobs again and again, so that a wrong choice of whom to stop would show.
COOL_DOWN_SECONDS = 15
LATE_BURSTS = 4
LATE_JOBS = 10
IMPOSSIBLE_JOBS = 5
GONE_SECONDS = 240

_POOL, _NOWHERE = "burst", "nowhere"
_GITHUB, _TOKEN, _PORT = "github", "github-token", 8080
_LABELS = {"app.kubernetes.io/name": "runnerhub-suite-github"}


def arrange(arena: HubArena) -> None:
    """Have a stand-in for GitHub and two pools without runners, one of which no node takes."""
    hub = arena.hub
    hub.kubectl(
        "delete", "pod", f"{hub.name}-{_GITHUB}", "--ignore-not-found", "--wait=true", "--grace-period=1"
    )
    hub.kubectl.apply(*github_manifests(hub))
    wait_for("the stand-in for GitHub", lambda: _is_ready(hub), 60)
    url = f"http://{hub.name}-{_GITHUB}.{hub.kubectl.namespace}:{_PORT}/example"
    planned.patch(hub, "github", {"url": url, "tokenSecretName": f"{hub.name}-{_GITHUB}"})
    _set_pools(hub, impossible=True)
    arena.wait_whole(120)


@contextmanager
def impossible_jobs(arena: HubArena, _before: Before) -> Break:
    """Post the jobs that nobody can take first, so that they wait before all others."""
    arena.burst(IMPOSSIBLE_JOBS, _NOWHERE)
    yield


def burst(arena: HubArena) -> dict[str, float]:
    """The burst, jobs while the pool shrinks, and then a node for the others; figures.

    Raises TestBedError when a job was not completed or was begun twice, which is what a runner leaves that is stopped
    with a job.
    """
    try:
        found = arena.burst(JOBS, _POOL, wait_seconds=DONE_SECONDS)
        late = []
        for _ in range(LATE_BURSTS):
            let_pass("a part of the cool-down", COOL_DOWN_SECONDS / 2)
            late.append(arena.burst(LATE_JOBS, _POOL, wait_seconds=60))
        waiting = _count_pods(arena.hub, _NOWHERE)
    finally:
        _work_all_off(arena)
    everything = [found, *late]
    wrong = {
        "not completed": sum(int(one["jobs"] - one["completed"]) for one in everything),
        "begun twice": sum(int(one["interrupted"]) for one in everything),
    }
    if any(wrong.values()):
        raise TestBedError(f"of {JOBS + LATE_BURSTS * LATE_JOBS} jobs: {wrong}")
    told = ("runners", "first_start_seconds", "capacity_seconds", "all_done_seconds", "accepted_seconds")
    return {
        **{name: float(found[name]) for name in told},
        "interrupted": 0.0,
        "impossible_pods": float(waiting),
    }


def _work_all_off(arena: HubArena) -> None:
    """Give the jobs a node that nobody could take, for they were accepted all the same; then take the pools away."""
    try:
        _set_pools(arena.hub, impossible=False)
        # The one that is posted last is the last to be taken.
        arena.burst(1, _NOWHERE, wait_seconds=GONE_SECONDS)
        wait_for(
            "all runners to go", lambda: _count_pods(arena.hub, _POOL, _NOWHERE) == 0, GONE_SECONDS, every=2
        )
    finally:
        planned.patch(arena.hub, "runnerPools", [])
        planned.patch(arena.hub, "github", None)


def pools(*, impossible: bool) -> list[dict[str, Any]]:
    """`runnerPools` of the spec."""
    nowhere: dict[str, Any] = {"nodeSelector": {"example.com/nowhere": "true"}} if impossible else {}
    # The default command ends at once; a job that takes a while is one that a wrong stop would interrupt.
    command = [{"name": "RUNNER_COMMAND", "value": f"sleep {JOB_SECONDS}"}]
    common = {"minReplicas": 0, "coolDownSeconds": COOL_DOWN_SECONDS, "env": command}
    return [
        {**common, "name": _POOL, "labels": [_POOL], "maxReplicas": MOST_RUNNERS},
        {**common, "name": _NOWHERE, "labels": [_NOWHERE], "maxReplicas": 3, **nowhere},
    ]


def _set_pools(hub: Hub, *, impossible: bool) -> None:
    planned.patch(hub, "runnerPools", pools(impossible=impossible))


def _count_pods(hub: Hub, *of_pools: str) -> int:
    return sum(pod["metadata"]["labels"].get("runnerhub.io/pool") in of_pools for pod in hub.pods("runner"))


def _is_ready(hub: Hub) -> bool:
    pod = hub.kubectl.get("pod", f"{hub.name}-{_GITHUB}") or {}
    conditions = pod.get("status", {}).get("conditions", ())
    return any(item["type"] == "Ready" and item["status"] == "True" for item in conditions)


def github_manifests(hub: Hub) -> list[dict[str, Any]]:
    """Pod, Service and token of the stand-in for GitHub, which stays off the nodes that are broken."""
    name = f"{hub.name}-{_GITHUB}"
    metadata = {"name": name, "labels": _LABELS}
    container = {
        "name": _GITHUB,
        "image": test_bed.CLIENT_IMAGE,
        "imagePullPolicy": "IfNotPresent",
        "args": ["github", "--port", str(_PORT), "--token", _TOKEN],
        "readinessProbe": {"tcpSocket": {"port": _PORT}, "periodSeconds": 1},
        "resources": {"requests": {"cpu": "10m", "memory": "64Mi"}},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
    }
    return [
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": metadata,
            "data": {"token": base64.b64encode(_TOKEN.encode()).decode()},
        },
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": metadata,
            "spec": {"selector": _LABELS, "ports": [{"name": "http", "port": _PORT}]},
        },
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": metadata,
            "spec": {**OUT_OF_THE_WAY, "containers": [container]},
        },
    ]
