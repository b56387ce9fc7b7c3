"""What poolers do for a planned change of the database: hold clients back, send readers elsewhere."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncIterator, Mapping, Sequence

import aiohttp

from .. import names
from ..api import RunnerHubCluster
from ..errors import ProbeError, SwitchoverPostponedError
from ..probes import pgbouncer
from ..probes.http import Login
from ..resources.patroni import POOLER_ADMIN_USER
from ..snapshot import Snapshot

logger = logging.getLogger(__name__)


class Poolers:
    """The agents in the poolers' pods."""

    def __init__(self, http: aiohttp.ClientSession) -> None:
        self._http = http

    @contextlib.asynccontextmanager
    async def held_back(
        self, cluster: RunnerHubCluster, snapshot: Snapshot, primary: str, what: str, *, seconds: int
    ) -> AsyncIterator[Sequence[str]]:
        """Have the poolers hold their clients back, for so long at most; gives their addresses. `what` is for people.

        For the clients' comfort only: a primary that stops sends its replicas all that it has confirmed, and then takes
        no more, whoever is not held back. So a pooler that serves nobody, or a dead node's, need not be waited for.

        SwitchoverPostponedError: not every pooler could. When that or anything within fails, clients go on at once.
        """
        login = login_of(cluster, snapshot, POOLER_ADMIN_USER)
        pods = [pod for pod in snapshot.pods_of(names.POOLER) if pod.ip and not pod.ended]
        serving = {pod.ip for pod in pods if pod.ready}

        def go_on_without(held_up: Mapping[str, str]) -> None:
            for pooler, why in held_up.items():
                # One that starts or drains has few clients, or none, and may not be able to answer.
                if pooler in serving:
                    raise SwitchoverPostponedError(f"the Postgres {what} waits: {why}")
                logger.info("goes on without a pooler that does not serve: %s", why)

        # While nobody is held back: all clients would wait for the answer of one on a dead node.
        silent = await pgbouncer.silent(self._http, [pod.ip for pod in pods])
        go_on_without(silent)
        poolers = [pod.ip for pod in pods if pod.ip not in silent]
        try:
            # A shorter stop of the old primary: what it has in memory is written while clients still work.
            for pooler in sorted(serving.intersection(poolers))[:1]:
                await self._checkpoint(pooler, login, what)
            go_on_without(await pgbouncer.pause(self._http, poolers, primary, seconds=seconds, login=login))
            yield poolers
        except BaseException:
            # Also when this task is cancelled; an agent that is not reached opens when its time is over.
            await self.let_go(cluster, snapshot, poolers)
            raise

    async def let_go(self, cluster: RunnerHubCluster, snapshot: Snapshot, poolers: Sequence[str]) -> None:
        """Have clients go on at poolers; one that is not reached opens when its time is over."""
        login = login_of(cluster, snapshot, POOLER_ADMIN_USER)
        for pooler, why in (await pgbouncer.resume(self._http, poolers, login=login)).items():
            logger.info("pooler %s was not resumed: %s", pooler, why)

    async def leave(self, cluster: RunnerHubCluster, snapshot: Snapshot, replica: str) -> None:
        """Have readers go on at other members, as far as the poolers can be reached."""
        login = login_of(cluster, snapshot, POOLER_ADMIN_USER)
        poolers = _reachable(snapshot)
        for pooler, why in (await pgbouncer.leave(self._http, poolers, replica, login=login)).items():
            logger.info("readers at pooler %s may see an error: %s", pooler, why)

    async def fit(self, snapshot: Snapshot, room: int, *, renews_poolers: bool) -> bool:
        """Whether so many connections are enough for all poolers, by the settings that they have in effect.

        `renews_poolers`: some still have to make way for pods with other settings.
        """
        try:
            needed = await pgbouncer.needed_connections(self._http, _reachable(snapshot))
        except ProbeError as error:
            logger.info("max_connections stays larger for now: %s", error)
            return False
        # Those that do not know have the settings of their pods.
        return all(need <= room if need is not None else not renews_poolers for need in needed.values())

    async def _checkpoint(self, pooler: str, login: Login, what: str) -> None:
        try:
            await pgbouncer.checkpoint(self._http, pooler, login=login)
        except ProbeError as error:
            logger.info("no checkpoint before the %s: %s", what, error)


def _reachable(snapshot: Snapshot) -> list[str]:
    """Addresses of those that may have connections: not of one that has ended, nor of one that is overdue to go."""
    return [
        pod.ip
        for pod in snapshot.pods_of(names.POOLER)
        if pod.ip and not pod.ended and not pod.is_overdue(snapshot.now)
    ]


def login_of(cluster: RunnerHubCluster, snapshot: Snapshot, user: str) -> Login:
    """A user with the password for all that steers the database. ProbeError: it is not known yet."""
    password = snapshot.children.secret_value(
        names.credentials(cluster.name, names.POSTGRES), "restapi-password"
    )
    if password is None:
        raise ProbeError("the password of Patroni's REST API is not known yet")
    # A line break at the end is no part of it, as everywhere.
    return Login(user, password.rstrip("\r\n"))
