"""Whether this pod alone has lost the database or the queue, so that another orchestrator had better lead.

That a store is away moves nothing by itself: mostly it is away for everybody, and whoever led next would lack it too.
So the agents beside the other orchestrators are asked, but only as long as something is lost here, or until any of
them has answered: the silence of those that were never heard, as behind a NetworkPolicy, proves nothing.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

import aiohttp

from .. import names
from ..kube.lease import boot_clock
from .candidacy import ANSWER_WITHIN_SECONDS, ASK_EVERY_SECONDS
from .nodes import url_of

log = logging.getLogger(__name__)

# Singleton work and requests need both.
STORES: Final = ("database", "redis")
# For so long without a break: after a failover pods find the new primary and master at different moments.
ALONE_SECONDS: Final = 30.0
# An orchestrator that fails has been failing for longer; this is for the moments at which a failover ends.
BEHIND_SECONDS: Final = 5.0
# While none of them has ever answered and nothing is lost.
GREET_EVERY_SECONDS: Final = 30.0


class Store(Protocol):
    """A check of a store."""

    @property
    def healthy(self) -> bool:
        """Whether it works as far as is known."""
        ...


@dataclass(frozen=True, slots=True)
class Loss:
    """What is lost here, and `since` when others have been better off; times on any monotonic clock, in seconds."""

    lost: tuple[str, ...] = ()
    since: float | None = None

    def after(self, lost: Sequence[str], now: float, *, others_better: bool) -> Loss:
        """Take in one more look."""
        if not lost or not others_better:
            return Loss()
        return Loss(tuple(lost), now if self.since is None else self.since)

    def lost_for(self, seconds: float, now: float) -> tuple[str, ...]:
        """What this pod alone has been without for so long."""
        return self.lost if self.since is not None and now - self.since >= seconds else ()


def others_better(
    node: str, stores: Iterable[str], answers: Sequence[Mapping[str, Any] | None], *, heard: bool
) -> bool:
    """Whether another pod is well, has all stores, and may lead, by the agents' answers to GET /health.

    None is an address that does not answer: when no other one does, this pod is the one that is cut off, if another
    one was ever `heard`. Without any address nothing is known, as in a cluster that starts.
    """
    others = _of_others(node, answers)
    if not others:
        return heard and None in answers
    return any(_is_well(answer.get("dependencies"), stores) for answer in others)


def _of_others(node: str, answers: Iterable[Mapping[str, Any] | None]) -> list[Mapping[str, Any]]:
    return [answer for answer in answers if answer is not None and answer.get("node") != node]


def _is_well(dependencies: object, stores: Iterable[str]) -> bool:
    def told(name: str) -> Mapping[str, Any]:
        found = dependencies.get(name) if isinstance(dependencies, Mapping) else None
        return found if isinstance(found, Mapping) else {}

    fit = told(names.ORCHESTRATOR).get("fitToLead") is True
    return fit and all(told(name).get("status") == "up" for name in (names.ORCHESTRATOR, *stores))


class Isolation:
    """Keeps looking. `addresses` gives where the orchestrators of the cluster were last; `cluster` is namespace/name.

    `failing`: whether the orchestrator of this pod fails. `on_change` is called when `alone_without` has changed.
    """

    def __init__(
        self,
        node: str,
        cluster: str,
        stores: Mapping[str, Store],
        session: aiohttp.ClientSession,
        *,
        addresses: Callable[[], Sequence[str]],
        port: int,
        failing: Callable[[], bool] = lambda: False,
        on_change: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = boot_clock,
    ) -> None:
        self._node = node
        self._headers = {names.HEADER_CLUSTER: cluster}
        self._stores = stores
        self._session = session
        self._addresses = addresses
        self._port = port
        self._failing = failing
        self._on_change = on_change
        self._clock = clock
        self._loss = Loss()
        self._failure = Loss()
        self._heard = False
        self._greet_at = clock()
        self.alone_without: tuple[str, ...] = ()

    @property
    def others_better(self) -> bool:
        """Whether another orchestrator is well while the one of this pod fails."""
        return bool(self._failure.lost_for(BEHIND_SECONDS, self._clock()))

    async def run(self) -> None:
        """Look for ever."""
        while True:
            await self.once()
            await asyncio.sleep(ASK_EVERY_SECONDS)

    async def once(self) -> None:
        """Look once."""
        lost = [name for name, store in self._stores.items() if not store.healthy]
        failing = [names.ORCHESTRATOR] if self._failing() else []
        better = False
        if lost or failing:
            better = await self._ask_others()
        elif not self._heard:
            await self._greet()
        now = self._clock()
        self._loss = self._loss.after(lost, now, others_better=better)
        self._failure = self._failure.after(failing, now, others_better=better)
        before, self.alone_without = self.alone_without, self._loss.lost_for(ALONE_SECONDS, now)
        if before == self.alone_without:
            return
        if self.alone_without:
            log.warning("this pod alone is without %s", " and ".join(self.alone_without))
        else:
            log.info("this pod is as well off as the others")
        self._on_change()

    async def _greet(self) -> None:
        """Find out, now and then, whether others can be heard at all. One address is that of this pod."""
        if len(self._addresses()) > 1 and self._clock() >= self._greet_at:
            self._greet_at = self._clock() + GREET_EVERY_SECONDS
            await self._ask_others()

    async def _ask_others(self) -> bool:
        answers = await asyncio.gather(*(self._ask(address) for address in self._addresses()))
        self._heard = self._heard or bool(_of_others(self._node, answers))
        return others_better(self._node, self._stores, answers, heard=self._heard)

    async def _ask(self, address: str) -> Mapping[str, Any] | None:
        url = url_of("http", address, self._port, "/health")
        try:
            async with (
                asyncio.timeout(ANSWER_WITHIN_SECONDS),
                self._session.get(url, headers=self._headers) as response,
            ):
                # 200 and 503 tell the same; whoever has this address by now may be of another cluster.
                answer = await response.json(content_type=None) if response.status in (200, 503) else None
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError):
            return None
        return answer if isinstance(answer, Mapping) else None
