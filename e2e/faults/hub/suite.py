"""`make faults-hub`: faults of orchestrators, leader, load balancer and runners, and a control that loses jobs."""

from __future__ import annotations

from typing import Any, ClassVar

from ...demo import control
from ...lab.hub import Hub
from ...lab.load import LoadClient
from ..fault import Fault
from ..report import Report
from ..suite import Suite, first_line
from . import catalogue
from .arena import HubArena
from .report import HubReport


class HubSuite(Suite[HubArena]):
    """See the module."""

    TIER: ClassVar[str] = "hub"
    SHARED: ClassVar[tuple[Fault[Any], ...]] = catalogue.SHARED
    REPORT: ClassVar[type[Report]] = HubReport

    def arena(self, hub: Hub) -> HubArena:
        """The orchestrators of a cluster."""
        return HubArena(self._bed, hub, LoadClient(hub))

    def programs(self, hub: Hub) -> dict[str, str]:
        """HAProxy and what the orchestrators run on."""
        balancer = hub.pods("loadbalancer")[0]["metadata"]["name"]
        orchestrator = hub.pods("orchestrator")[0]["metadata"]["name"]
        return {
            "haproxy": first_line(hub, balancer, "haproxy", "haproxy", "-v"),
            "python": first_line(hub, orchestrator, "orchestrator", "python", "--version"),
        }

    def control(self, arena: HubArena) -> dict[str, Any]:
        """Jobs that a primary accepted whose replication was asynchronous and cut off, before it dies."""
        return control(self._bed, arena.hub, arena.load, "jobs")
