"""This pod's leadership, told to the orchestrator: by HTTP, by a file and by a pod label."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, Protocol

from .. import names
from ..errors import KubeError, NotFoundError
from ..kube.election import LeaseApi, LeaseElector
from ..kube.lease import LeaseRecord
from .settings import AgentSettings

log = logging.getLogger(__name__)

LABEL_RETRY_SECONDS: Final = 2.0
# Somebody may have edited labels, or a crashed leader's last request may have arrived late.
LABEL_RECHECK_SECONDS: Final = 60.0


class PodLabels(Protocol):
    """What the label keeper asks of the API server."""

    async def list_pods(self, namespace: str, label_selector: str) -> list[str]:
        """Names of the pods that match a label selector."""
        ...

    async def label_pod(self, namespace: str, name: str, label: str, value: str | None) -> None:
        """Set a label of a pod; None removes it."""
        ...


def lease_metadata(settings: AgentSettings) -> dict[str, Any]:
    """Metadata of a Lease that the agent creates: it goes away with the cluster."""
    result: dict[str, Any] = {"labels": names.labels(settings.cluster, names.ORCHESTRATOR)}
    if settings.cluster_uid:
        result["ownerReferences"] = [
            {
                "apiVersion": f"{names.API_GROUP}/{names.API_VERSION}",
                "kind": names.KIND,
                "name": settings.cluster,
                "uid": settings.cluster_uid,
            }
        ]
    return result


class Leadership:
    """Takes part in the election and tells the outcome."""

    def __init__(
        self,
        settings: AgentSettings,
        api: LeaseApi,
        labels: PodLabels,
        *,
        candidate: Callable[[], bool],
        on_moved: Callable[[str, str], None] = lambda _old, _new: None,
    ) -> None:
        self._settings = settings
        self._on_moved = on_moved
        self._last_holder = ""
        self._last_term: tuple[str, int] | None = None
        self._changed = asyncio.Event()
        self._labels = labels
        self.elector = LeaseElector(
            api,
            settings.namespace,
            names.leader_lease(settings.cluster),
            settings.node,
            settings.timing,
            on_started=lambda _token: self._tell(),
            on_stopped=lambda _reason: self._tell(),
            on_observed=self._observed,
            candidate=candidate,
            metadata=lease_metadata(settings),
        )

    def answer(self) -> dict[str, Any]:
        """Who leads: body of GET /leader and content of the leader file.

        `validUntil` is given to the leader only: if the agent stops, its word holds no longer than that.
        """
        record = self.elector.observed
        token = self.elector.fencing_token
        if token is not None and record is not None:
            until = datetime.now(UTC) + timedelta(seconds=self.elector.remaining_seconds)
            return {
                "leader": True,
                "holder": self.elector.identity,
                "fencingToken": token,
                "since": record.acquired or None,
                "validUntil": until.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            }
        # A Lease that still carries the own name after the term has run out names no leader.
        holder = record.holder if record and record.holder != self.elector.identity else ""
        return {
            "leader": False,
            "holder": holder,
            "fencingToken": record.transitions if record else 0,
            "since": (record.acquired or None) if record and holder else None,
            "validUntil": None,
        }

    def health(self) -> tuple[bool, dict[str, Any]]:
        """Whether the cluster has a leader as far as this pod can see, with details."""
        answer = self.answer()
        age = self.elector.observed_age_seconds
        patience = self._settings.timing.lease_duration_seconds
        healthy = bool(answer["leader"] or (answer["holder"] and age is not None and age < patience))
        return healthy, {
            "status": "up" if healthy else "down",
            "isLeader": answer["leader"],
            "leader": answer["holder"] if healthy else None,
            "fencingToken": answer["fencingToken"],
            "since": answer["since"] if healthy else None,
            "leaseUnchangedSeconds": None if age is None else round(age, 1),
        }

    async def run(self) -> None:
        """Take part in the election until `release`."""
        write_atomically(self._settings.leader_file, self.answer())
        await self.elector.run()

    async def release(self) -> None:
        """Give leadership back so that another orchestrator takes over at once."""
        await self.elector.release()
        self._tell()

    async def keep_labels(self) -> None:
        """Keep the pod label where leadership is, for ever: set here, removed elsewhere; late, but surely."""
        known: bool | None = None
        while True:
            self._changed.clear()
            leads = self.elector.is_leader
            wait = LABEL_RECHECK_SECONDS if leads else None
            try:
                if leads:
                    await self._label_as_leader()
                elif known is not False:
                    await self._set_label(self._settings.node, None)
                known = leads
            except KubeError as error:
                log.warning("could not set the leader label: %s", error)
                wait = LABEL_RETRY_SECONDS
            try:
                async with asyncio.timeout(wait):
                    await self._changed.wait()
            except TimeoutError:
                pass

    async def _label_as_leader(self) -> None:
        """First takes the label from a former leader that crashed and cannot do so itself: a moment without an address
        is better than one with two.
        """
        selector = ",".join(
            f"{key}={value}"
            for key, value in {
                **names.selector_labels(self._settings.cluster, names.ORCHESTRATOR),
                names.LABEL_LEADER: "true",
            }.items()
        )
        for pod in await self._labels.list_pods(self._settings.namespace, selector):
            if pod != self._settings.node and self.elector.is_leader:
                await self._set_label(pod, None)
        if self.elector.is_leader:
            await self._set_label(self._settings.node, "true")

    async def _set_label(self, pod: str, value: str | None) -> None:
        try:
            await self._labels.label_pod(self._settings.namespace, pod, names.LABEL_LEADER, value)
        except NotFoundError:
            log.info("no pod %s to label", pod)

    def _observed(self, record: LeaseRecord | None) -> None:
        if record is not None and record.holder and record.holder != self._last_holder:
            if self._last_holder:
                self._on_moved(self._last_holder, record.holder)
            self._last_holder = record.holder
        term = (record.holder, record.transitions) if record is not None else None
        # Each renewal of a leader moves `validUntil`.
        if self.elector.is_leader or term != self._last_term:
            self._last_term = term
            write_atomically(self._settings.leader_file, self.answer())

    def _tell(self) -> None:
        write_atomically(self._settings.leader_file, self.answer())
        self._changed.set()


def write_atomically(path: Path, content: dict[str, Any]) -> None:
    """Write JSON so that a reader sees the old or the new content, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.new")
    temporary.write_text(json.dumps(content) + "\n")
    temporary.replace(path)
