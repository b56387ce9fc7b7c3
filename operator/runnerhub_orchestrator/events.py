"""Job events between the pods, over Redis publish/subscribe.

Events are news, not truth: one that is published while Redis fails over is delivered to the clients of this
pod only, and nobody may depend on having seen it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import redis.asyncio as redis
from redis.exceptions import RedisError

from .background import Background
from .jobs import Job
from .redis_link import RedisLink

log = logging.getLogger(__name__)

CHANNEL = "runnerhub:job-events"
Listener = Callable[[dict[str, Any]], None]

READ_SECONDS = 1.0
# A subscription is silent by nature, so silence must be told from a dead master by asking.
PING_SECONDS = 2.0
SILENCE_SECONDS = 6.0
RECONNECT_SECONDS = 0.5
OUTBOX_SIZE = 1000


class EventBus:
    """Publishes this pod's events and hands those of all pods to the listeners."""

    def __init__(self, link: RedisLink, node_id: str) -> None:
        self._link = link
        self._node_id = node_id
        self._publisher = link.client()
        self._listeners: list[Listener] = []
        self._outbox: asyncio.Queue[dict[str, Any]] = asyncio.Queue(OUTBOX_SIZE)
        self.backgrounds = (Background("event publisher"), Background("event subscriber"))
        self._subscribed = False

    def listen(self, listener: Listener) -> None:
        """Call `listener` with every event; it must not block."""
        self._listeners.append(listener)

    def publish(self, kind: str, job: Job) -> None:
        """Send news of a job soon; never waits, never fails the caller."""
        event = {
            "type": kind,
            "jobId": job.job_id,
            "delegationId": str(job.delegation_id),
            "runId": job.run_id,
            "repository": job.repository,
            "workflow": job.workflow,
            "status": job.status,
            "attempt": job.attempt,
            "runnerId": job.runner_id,
            "node": self._node_id,
            "at": datetime.now(UTC).isoformat(timespec="milliseconds"),
        }
        try:
            self._outbox.put_nowait(event)
        except asyncio.QueueFull:
            self._deliver(event)

    def start(self) -> None:
        """Begin to publish and to listen."""
        publisher, subscriber = self.backgrounds
        publisher.start(self._publish_all)
        subscriber.start(self._subscribe_always)

    async def close(self) -> None:
        """Stop both directions."""
        await asyncio.gather(*(background.close() for background in self.backgrounds))
        await self._publisher.aclose()

    def _deliver(self, event: dict[str, Any]) -> None:
        for listener in self._listeners:
            listener(event)

    def _receive(self, text: str) -> None:
        try:
            event = json.loads(text)
        except ValueError:
            event = None
        if isinstance(event, dict):
            self._deliver(event)
        else:
            log.warning("news that is none of ours on %s", CHANNEL)

    async def _publish_all(self) -> None:
        while True:
            event = await self._outbox.get()
            try:
                await self._publisher.publish(CHANNEL, json.dumps(event))
            except (RedisError, OSError, TimeoutError):
                self._deliver(event)

    async def _subscribe_always(self) -> None:
        while True:
            client = self._link.client()
            try:
                await self._subscribe(client)
            except (RedisError, OSError, TimeoutError) as error:
                if self._subscribed:
                    log.info("event subscription broke", extra={"error": f"{type(error).__name__}: {error}"})
                self._subscribed = False
            finally:
                with contextlib.suppress(RedisError, OSError, TimeoutError):
                    await client.aclose()
            await asyncio.sleep(RECONNECT_SECONDS)

    async def _subscribe(self, client: redis.Redis) -> None:
        """Deliver until the subscription breaks, is silent for too long, or its server is no master."""
        async with client.pubsub() as subscription:
            await subscription.subscribe(CHANNEL)
            self._subscribed = True
            log.info("subscribed to events")
            pinged = heard = time.monotonic()
            while time.monotonic() - heard < SILENCE_SECONDS:
                message = await subscription.get_message(timeout=READ_SECONDS)
                if message is not None:
                    heard = time.monotonic()
                    if message["type"] == "message":
                        self._receive(message["data"])
                if time.monotonic() - pinged >= PING_SECONDS:
                    pinged = time.monotonic()
                    await subscription.ping()
                    await self._check_address(subscription)
        raise TimeoutError("the subscription is silent")

    async def _check_address(self, subscription: Any) -> None:
        """A master cut off with us answers pings for ever; the Sentinels know that it is none any more."""
        if self._link.sentinel is None or subscription.connection is None:
            return
        master = await self._link.master()
        if master and master != (subscription.connection.host, subscription.connection.port):
            raise TimeoutError(f"the master moved to {master[0]}:{master[1]}")
