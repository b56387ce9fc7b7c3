"""The Gateways of HTTPRoutes: objects of others, read by single requests, and only when there is news to expect."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from . import names
from .api import RunnerHubCluster
from .errors import KubeError, NotFoundError, RefusedError
from .kube.client import KubeClient, ObjectRef
from .snapshot import Children, Gateway

logger = logging.getLogger(__name__)

Place = tuple[str, str]
# Of one that has no address yet.
AGAIN_SECONDS: Final = 10.0
DEADLINE_SECONDS: Final = 2.0


@dataclass(frozen=True, slots=True)
class _Seen:
    """What was read for a route in this state; `final`: only another state of the route is a reason to read again."""

    route: object
    gateways: Mapping[Place, Gateway]
    final: bool
    at: float


class Gateways:
    """Remembers what it has read of each cluster."""

    def __init__(self, client: KubeClient) -> None:
        self._client = client
        self._seen: dict[Place, _Seen] = {}

    async def of(self, cluster: RunnerHubCluster, children: Children) -> Mapping[Place, Gateway]:
        """By namespace and name, the Gateways that the cluster's route has an answer of; those not known are left out.

        Reads them when the route has changed, and every ten seconds while one of them has no address.
        """
        ingress = cluster.spec.ingress
        route = children.get(names.HTTP_ROUTE, names.child(cluster.name, names.INGRESS))
        if ingress is None or ingress.gateway is None or route is None or not route.get("status"):
            self.forget(cluster.key)
            return {}
        state = (cluster.uid, route["metadata"].get("generation"), route["status"], ingress.gateway)
        seen, now = self._seen.get(cluster.key), time.monotonic()
        if seen is not None and seen.route == state and (seen.final or now - seen.at < AGAIN_SECONDS):
            return seen.gateways
        places = {(ref.namespace or cluster.namespace, ref.name) for ref in ingress.gateway.parent_refs}
        answers = dict(zip(places, await asyncio.gather(*map(self._read, places)), strict=True))
        found = {place: gateway for place, (gateway, _) in answers.items() if gateway is not None}
        self._seen[cluster.key] = _Seen(state, found, all(final for _, final in answers.values()), now)
        return found

    def forget(self, key: Place) -> None:
        """The cluster is gone, or asks for no route."""
        self._seen.pop(key, None)

    async def _read(self, place: Place) -> tuple[Gateway | None, bool]:
        """A Gateway, None when it cannot be read, and whether that will stay so."""
        ref = ObjectRef(names.GATEWAY_API, names.GATEWAY, *place)
        try:
            async with asyncio.timeout(DEADLINE_SECONDS):
                gateway = Gateway.of(await self._client.get(ref))
        except (KubeError, TimeoutError) as error:
            logger.debug("%s: %s", ref, error)
            return None, isinstance(error, NotFoundError | RefusedError)
        return gateway, not gateway.problem
