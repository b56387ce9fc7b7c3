"""Scenes for the plugin's screens: two recorded from a cluster on kind, and what happens to them."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from runnerhub_cli.kubectl import Unknown
from runnerhub_cli.objects import Lease, Pod
from runnerhub_cli.output import text_of
from runnerhub_cli.picture import Picture
from runnerhub_cli.screen import summary_screen
from runnerhub_cli.status import summarise
from runnerhub_cli.times import parse_time

RECORDED = Path(__file__).parent / "recorded"
GOLDEN = Path(__file__).parent / "golden"

Scene = dict[str, Any]


def recorded(name: str) -> Scene:
    """What was read of a cluster at one time."""
    found: Scene = json.loads((RECORDED / f"{name}.json").read_text())
    return found


def picture_of(scene: Scene) -> Picture:
    """As the plugin reads it."""
    now = parse_time(scene["now"])
    assert now is not None
    operator = scene["operator"]
    return Picture(
        now=now,
        body=scene["cluster"],
        pods=tuple(sorted((Pod.of(body) for body in scene["pods"]), key=lambda pod: pod.name)),
        leases=tuple(Lease.of(body) for body in scene["leases"]),
        operator=Unknown(operator) if isinstance(operator, str) else Lease.of(operator) if operator else None,
    )


def set_condition(scene: Scene, kind: str, status: str, reason: str, message: str) -> None:
    """Change one condition, since half a minute."""
    for condition in scene["cluster"]["status"]["conditions"]:
        if condition["type"] == kind:
            condition |= {"status": status, "reason": reason, "message": message}
            condition["lastTransitionTime"] = scene["now"][:-3] + "00Z"
            return
    raise LookupError(kind)


def set_pod_waiting(scene: Scene, name: str, reason: str, message: str) -> None:
    """Let a pod wait with a reason."""
    for pod in scene["pods"]:
        if pod["metadata"]["name"] == name:
            pod["status"]["conditions"] = [
                {"type": "Ready", "status": "False", "lastTransitionTime": scene["now"]},
                {"type": "PodScheduled", "status": "True"},
            ]
            pod["status"]["containerStatuses"][0]["state"] = {
                "waiting": {"reason": reason, "message": message}
            }
            return
    raise LookupError(name)


def no_primary(scene: Scene) -> None:
    """Two members of the database cannot start, so nobody is elected."""
    told = "no primary, 1 of 3 members ready, 0 of 2 replicas streaming, 2 of 2 poolers ready"
    postgres = scene["cluster"]["status"]["postgres"]
    del postgres["primary"]
    for item in postgres["instances"]:
        item |= {"role": "replica", "state": "running"}
    for name in ("hub-postgres-1", "hub-postgres-2"):
        set_pod_waiting(scene, name, "ImagePullBackOff", 'Back-off pulling image "example.test/postgres:2"')
    set_condition(scene, "PostgresReady", "False", "ImagePullBackOff", told)
    set_condition(scene, "Ready", "False", "ComponentsNotReady", f"Postgres: {told}")
    set_condition(scene, "Degraded", "True", "ReducedRedundancy", f"Postgres: {told}")
    scene["cluster"]["status"]["phase"] = "Unavailable"


def operator_gone(scene: Scene) -> None:
    """No operator renews its Lease any more."""
    scene["operator"]["spec"]["renewTime"] = "2026-11-26T08:58:01.000000Z"


def nearly_full(scene: Scene) -> None:
    """A volume and the queue's memory run full, the operator's Lease may not be read, the spec is newer."""
    scene["cluster"]["status"]["postgres"]["instances"][1]["volumeUsedPercent"] = 92
    scene["cluster"]["status"]["redis"]["memoryUsedPercent"] = 90
    scene["cluster"]["status"]["redis"]["replicas"][0] |= {"lagBytes": 3 * 2**20, "silentSeconds": 4}
    scene["cluster"]["metadata"]["generation"] += 1
    scene["operator"] = 'no permission: leases is forbidden: User "dev" cannot list them at the cluster scope'


def paused(scene: Scene) -> None:
    """Somebody paused it and forgot."""
    scene["cluster"]["spec"]["paused"] = True
    set_condition(scene, "Progressing", "False", "Paused", "spec.paused is true: nothing is held back")


def migration_failed(scene: Scene) -> None:
    """A new orchestrator image whose migration failed; the former one serves."""
    told = (
        "the migration of the database for image example.test/hub:2 failed, so its pods are not started: relation "
        '"jobs" does not exist; correct the image or migrations.command, or delete Job hub-migrate-1b2c3d to try again'
    )
    set_condition(scene, "Progressing", "False", "MigrationFailed", told)


def parameters_refused(scene: Scene) -> None:
    """A member of the database does not start with its new parameters, and waits for others."""
    told = (
        "primary hub-postgres-1, 2 of 3 members ready, 1 of 2 replicas streaming, 2 of 2 poolers ready; "
        "hub-postgres-0 does not start since shared_preload_libraries changed; since 2026-11-26T09:05:04Z"
    )
    for pod in scene["pods"]:
        if pod["metadata"]["name"] == "hub-postgres-0":
            pod["status"]["conditions"] = [
                {"type": "Ready", "status": "False", "lastTransitionTime": "2026-11-26T09:05:04Z"},
            ]
    set_condition(scene, "PostgresReady", "True", "ParametersRefused", told)
    set_condition(scene, "Degraded", "True", "ReducedRedundancy", f"Postgres: {told}")
    scene["cluster"]["status"]["phase"] = "Degraded"


def writes_refused(scene: Scene) -> None:
    """All pods are ready, and the Redis master takes no writes."""
    told = (
        "master hub-redis-0, 3 of 3 pods ready, 2 of 2 replicas linked, 3 of 3 sentinels agree; the master refuses "
        "writes: MISCONF Errors writing to the AOF file: No space left on device; since 2026-11-26T09:05:04Z"
    )
    set_condition(scene, "RedisReady", "False", "WritesRefused", told)
    set_condition(scene, "Ready", "False", "ComponentsNotReady", f"Redis: {told}")
    set_condition(scene, "Degraded", "True", "ReducedRedundancy", f"Redis: {told}")
    scene["cluster"]["status"]["phase"] = "Unavailable"


def runners_refused(scene: Scene) -> None:
    """A quota refuses runners, so there is no pod that could tell."""
    told = 'linux: pods "hub-runner-linux-1" is forbidden: exceeded quota: pods; linux: 0 ready'
    set_condition(scene, "RunnersReady", "False", "RefusedByApiServer", told)
    scene["cluster"]["status"]["runners"] = {
        "desired": 4, "ready": 0, "busy": 0, "queued": 7,
        "pools": [{"name": "linux", "desired": 4, "ready": 0, "busy": 0, "queued": 7}],
    }  # fmt: skip


def not_observed(scene: Scene) -> None:
    """Just applied, with no operator to look at it."""
    del scene["cluster"]["status"]
    scene |= {"pods": [], "leases": [], "operator": None}


def newer_spec(scene: Scene) -> None:
    """A spec with a field that this version does not know, and a status with one."""
    scene["cluster"]["spec"]["teleport"] = {"enabled": True}
    scene["cluster"]["status"]["teleport"] = {"ready": True}


def unchanged(_scene: Scene) -> None:
    """As it was recorded."""


SCENES: Mapping[str, tuple[str, Callable[[Scene], None]]] = {
    "healthy": ("healthy", unchanged),
    "rolling": ("rolling", unchanged),
    "no-primary": ("healthy", no_primary),
    "operator-gone": ("healthy", operator_gone),
    "nearly-full": ("healthy", nearly_full),
    "paused": ("healthy", paused),
    "migration-failed": ("healthy", migration_failed),
    "parameters-refused": ("healthy", parameters_refused),
    "writes-refused": ("healthy", writes_refused),
    "runners-refused": ("healthy", runners_refused),
    "not-observed": ("healthy", not_observed),
    "newer-spec": ("healthy", newer_spec),
}


def scene(name: str) -> Picture:
    """A scene by name."""
    source, change = SCENES[name]
    made = copy.deepcopy(recorded(source))
    change(made)
    return picture_of(made)


def screens() -> dict[Path, str]:
    """The golden screens: each scene, and one with all columns."""
    found = {}
    for name in SCENES:
        picture = scene(name)
        found[GOLDEN / f"{name}.txt"] = text_of(
            summary_screen(summarise(picture), picture.now, wide=name == "healthy"), width=200
        )
    return found
