"""Migrations: the schema first, then the pods that need it.

A Job runs once for each image and command, and the finished Job is the record of that. Until it has ended well the
orchestrators' Deployment is not written, so the pods of the former image go on serving. A Job that failed stays as it
is: the next try follows another image or command, or the deletion of the Job.

Our own image migrates when its pods start and serves nothing before, so for a new cluster there is no Job; one that
comes to other pods has one, so that a migration that fails costs no pod that serves.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from .. import names
from ..resources.common import BuildContext, Manifest
from ..resources.migration import migration_command, migration_job, migration_name, orchestrator_image
from ..snapshot import LiveObject, Pod, Snapshot

LONGEST_WORDS: Final = 600
LEAST_SECRET: Final = 6
_SECRETS: Final = (
    (names.POSTGRES, "app-password"),
    (names.REDIS, "password"),
    (names.REDIS, "sentinel-password"),
    (names.ORCHESTRATOR, "jwt-secret"),
)


@dataclass(frozen=True, slots=True)
class Migration:
    """`job` is to be created now. `holds`: the orchestrators' Deployment waits. `told`: why, for people.

    `failed` is the name of the Job that ended badly, "" when none did. `wanted` is the Job of this image, which stays.
    """

    job: Manifest | None = None
    holds: bool = False
    told: str = ""
    failed: str = ""
    wanted: str = ""


def look(context: BuildContext, snapshot: Snapshot, *, database_serves: bool) -> Migration:
    """Whether the schema is ready for the orchestrators' image, and what is done about it."""
    if not migration_command(context):
        return Migration()
    name = migration_name(context)
    live = snapshot.children.live("Job", name)
    result = _result(live)
    image = orchestrator_image(context)
    if result == "Complete" or not _is_needed(context, snapshot):
        return Migration(wanted=name)
    if live is not None and live.terminating:
        return Migration(holds=True, told=f"Job {name} is being deleted, and made anew then", wanted=name)
    if result == "Failed":
        why = _last_words(context, snapshot, name) or _message(live)
        told = (
            f"the migration of the database for image {image} failed, so its pods are not started: {why}; correct the "
            f"image or migrations.command, or delete Job {name} to try again"
        )
        return Migration(holds=True, told=told, failed=name, wanted=name)
    if live is not None:
        return Migration(holds=True, told=f"Job {name} migrates the database for image {image}", wanted=name)
    if other := next(_running(context, snapshot, name), None):
        return Migration(
            holds=True, told=f"the migration for image {image} waits for {other} to end", wanted=name
        )
    if not database_serves:
        told = f"the migration for image {image} waits for the database"
        return Migration(holds=True, told=told, wanted=name)
    told = f"Job {name} is made to migrate the database for image {image}"
    return Migration(job=migration_job(context), holds=True, told=told, wanted=name)


def stays(snapshot: Snapshot, name: str, current: Migration) -> bool:
    """Whether a migration's Job that is no longer asked for must not go yet.

    One that runs is not torn down in its middle. While another one has not ended well, the record of one that has is
    kept: going back to that version runs nothing.
    """
    result = _result(snapshot.children.live("Job", name))
    if result:
        return result == "Complete" and current.holds
    return not _cannot_start(snapshot, name)


def _is_needed(context: BuildContext, snapshot: Snapshot) -> bool:
    """Whether the pods of this image may find a schema that is not theirs, unless its Job has run."""
    if context.cluster.spec.orchestrator.migrations.command is not None:
        return True
    live = snapshot.child("Deployment", names.child(context.name, names.ORCHESTRATOR))
    if live is None:
        return False
    pod: Mapping[str, Any] = live["spec"].get("template", {}).get("spec", {})
    serving = {
        item.get("image") for item in pod.get("containers", ()) if item.get("name") == names.ORCHESTRATOR
    }
    return orchestrator_image(context) not in serving


def _result(live: LiveObject | None) -> str:
    if live is None or live.terminating:
        return ""
    conditions = live.status().get("conditions") or ()
    held = {item.get("type") for item in conditions if item.get("status") == "True"}
    return next((result for result in ("Complete", "Failed") if result in held), "")


def _message(live: LiveObject | None) -> str:
    conditions = live.status().get("conditions") or () if live is not None else ()
    found: Mapping[str, Any] = next((item for item in conditions if item.get("type") == "Failed"), {})
    return f"{found.get('reason') or 'Failed'}: {found.get('message') or 'no reason given'}"[:LONGEST_WORDS]


def _running(context: BuildContext, snapshot: Snapshot, name: str) -> Iterator[str]:
    """Other migrations that have not ended: two at the same time would meet in the schema."""
    prefix = names.child(context.name, "migrate-")
    for kind, other in snapshot.children:
        if kind == "Job" and other != name and other.startswith(prefix):
            live = snapshot.children.live(kind, other)
            if not _result(live):
                yield f"Job {other}"
    for pod in snapshot.pods_of(names.MIGRATION):
        if not pod.ended:
            yield f"pod {pod.name}"


def _cannot_start(snapshot: Snapshot, name: str) -> bool:
    """Whether nothing of a Job that has pods runs: the image is missing, say, and no pod comes further by itself."""
    left = [pod for pod in _pods(snapshot, name) if not pod.ended]
    return bool(left) and all(pod.cannot_start for pod in left)


def _pods(snapshot: Snapshot, name: str) -> Iterator[Pod]:
    return (pod for pod in snapshot.pods_of(names.MIGRATION) if pod.name.startswith(f"{name}-"))


def _last_words(context: BuildContext, snapshot: Snapshot, name: str) -> str:
    """The end of the log of a pod that failed, in one line and without our passwords."""
    words = next(
        (pod.last_words for pod in reversed(tuple(_pods(snapshot, name))) if pod.last_words),
        "",
    )
    for component, key in _SECRETS:
        value = snapshot.children.secret_value(names.credentials(context.name, component), key)
        # What is shorter was not made by us, and its characters may be anywhere.
        if value and len(value.strip()) >= LEAST_SECRET:
            words = words.replace(value.strip(), "***")
    return " | ".join(line.strip() for line in words.splitlines() if line.strip())[-LONGEST_WORDS:]
