"""`make faults-redis`: the queue's faults, and a control that loses what no replica had."""

from __future__ import annotations

from typing import Any, ClassVar

from ...lab.faults import replication_cut
from ...lab.hub import Hub
from ...lab.kubectl import wait_for
from ...lab.load import LoadClient, now
from ..arena import let_pass
from ..fault import Fault
from ..suite import Suite, first_line
from . import catalogue, network, processes
from .arena import RedisArena

# Shorter than the silence of its replicas after which a master refuses writes.
CUT_SECONDS = 2.0
SUCCESSOR_SECONDS = 60
WHOLE_SECONDS = 240


class RedisSuite(Suite[RedisArena]):
    """See the module."""

    TIER: ClassVar[str] = "redis"
    SHARED: ClassVar[tuple[Fault[Any], ...]] = catalogue.SHARED

    def arena(self, hub: Hub) -> RedisArena:
        """The queue of a cluster."""
        return RedisArena(self._bed, hub, LoadClient(hub))

    def programs(self, hub: Hub) -> dict[str, str]:
        """Redis and the clients."""
        member = hub.pods("redis")[0]["metadata"]["name"]
        return {"redis": first_line(hub, member, "redis", "redis-server", "--version")}

    def control(self, arena: RedisArena) -> dict[str, Any]:
        """SIGKILL of a master whose replicas have heard nothing for two seconds: what it alone had is lost.

        Counted are the writes that no replica confirmed.
        """
        before, since = arena.before(), now()
        with replication_cut(arena.hub, "redis", network.PORT, before.primary.name, self._bed.on_node):
            let_pass("writes that no replica has", CUT_SECONDS)
            with processes.kill_redis(arena, before):
                pass
        wait_for(
            "another master", lambda: arena.leader() not in (None, before.primary.name), SUCCESSOR_SECONDS
        )
        arena.wait_whole(WHOLE_SECONDS)
        found = arena.load.verify(since, now())
        return {
            "fault": "SIGKILL of a master whose replication is cut off",
            "acknowledged": found["unconfirmed"]["acknowledged"],
            "lost": found["unconfirmed"]["lost"],
            "confirmed_lost": found["lost"],
        }
