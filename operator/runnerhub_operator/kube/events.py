"""Kubernetes Events of the operator, on the RunnerHubCluster."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal, NamedTuple

from .. import names
from ..api import ConditionReason, EventReason, RunnerHubCluster

MAX_MESSAGE_LENGTH = 1024  # The API server's limit for `note` (events.k8s.io) and good manners for `message`.


@dataclass(frozen=True, slots=True)
class EventNote:
    """What an Event says: one word for programs, one sentence for people."""

    type: Literal["Normal", "Warning"]
    reason: EventReason | ConditionReason
    message: str


class Involved(NamedTuple):
    """A RunnerHubCluster whose spec is not understood."""

    namespace: str
    name: str
    uid: str


def event_manifest(
    cluster: RunnerHubCluster | Involved, note: EventNote, reporter: str, now: datetime
) -> dict[str, Any]:
    """The Event object; the same note within a minute has the same name, so that repetitions do not pile up.

    `reporter` is the pod name of the operator.
    """
    stamp = now.astimezone(UTC)
    digest = hashlib.sha256(
        f"{cluster.uid}/{note.reason}/{note.message}/{stamp:%Y%m%d%H%M}".encode()
    ).hexdigest()[:16]
    time = stamp.strftime("%Y-%m-%dT%H:%M:%SZ")
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": f"{cluster.name}.{digest}", "namespace": cluster.namespace},
        "involvedObject": {
            "apiVersion": f"{names.API_GROUP}/{names.API_VERSION}",
            "kind": names.KIND,
            "name": cluster.name,
            "namespace": cluster.namespace,
            "uid": cluster.uid,
        },
        "type": note.type,
        "reason": note.reason,
        "message": note.message[:MAX_MESSAGE_LENGTH],
        "source": {"component": names.FIELD_MANAGER},
        "reportingComponent": names.FIELD_MANAGER,
        "reportingInstance": reporter,
        "firstTimestamp": time,
        "lastTimestamp": time,
        "count": 1,
    }
