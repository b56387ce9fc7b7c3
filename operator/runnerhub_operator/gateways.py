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
# Of one that has no address yet, or did not come.
AGAIN_SECONDS: Final = 10.0
# Of all others: their address may change, and rights or the Gateway may come later, without a word in the route.
LATER_SECONDS: Final = 600.0
DEADLINE_SECONDS: Final = 2.0


@dataclass(frozen=True, slots=True)
class _Seen:
    """What was read for a route in this state; `final`: nothing is to be expected soon."""

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

        Reads them when the route has changed, every ten seconds while one of them has no address or could not be
        asked, and otherwise every ten minutes. One that could not be asked is as it was known last.
        """
        ingress = cluster.spec.ingress
        route = children.get(names.HTTP_ROUTE, names.child(cluster.name, names.INGRESS))
        if ingress is None or ingress.gateway is None or route is None or not route.get("status"):
            self.forget(cluster.key)
            return {}
        state = (cluster.uid, route["metadata"].get("generation"), route["status"], ingress.gateway)
        seen, now = self._seen.get(cluster.key), time.monotonic()
        if seen is not None and seen.route == state:
            pause = LATER_SECONDS if seen.final else AGAIN_SECONDS
            if now - seen.at < pause:
                return seen.gateways
        places = {(ref.namespace or cluster.namespace, ref.name) for ref in ingress.gateway.parent_refs}
        answers = dict(zip(places, await asyncio.gather(*map(self._read, places)), strict=True))
        before = {} if seen is None else seen.gateways
        known = {place: answer or before.get(place) for place, answer in answers.items()}
        found = {place: gateway for place, gateway in known.items() if gateway is not None}
        final = all(answer is not None and not answer.problem for answer in answers.values())
        self._seen[cluster.key] = _Seen(state, found, final, now)
        return found

    def forget(self, key: Place) -> None:
        """The cluster is gone, or asks for no route."""
        self._seen.pop(key, None)

    async def _read(self, place: Place) -> Gateway | None:
        """A Gateway, None when there was no answer about it."""
        ref = ObjectRef(names.GATEWAY_API, names.GATEWAY, *place)
        try:
            async with asyncio.timeout(DEADLINE_SECONDS):
                return Gateway.of(await self._client.get(ref))
        except NotFoundError:
            return Gateway(problem="it does not exist")
        except RefusedError as error:
            logger.debug("%s: %s", ref, error)
            return Gateway(readable=False)
        except (KubeError, TimeoutError) as error:
            logger.debug("%s: %s", ref, error)
            return None
