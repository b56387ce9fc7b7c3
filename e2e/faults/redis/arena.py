"""The queue under load."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from ...lab.kubectl import KubectlError
from ..arena import Arena


@dataclass(frozen=True)
class RedisArena(Arena):
    """A cluster of RunnerHub with clients of its queue: plain ones, and BullMQ in Python and in Node."""

    COMPONENT: ClassVar[str] = "redis"
    CONTAINER: ClassVar[str] = "redis"
    # Each is waited for at most 5 s. The other components get no load, so that a small machine's time goes to what is
    # measured.
    LOAD_ARGUMENTS: ClassVar[tuple[str, ...]] = (
        "--queue-rate=25", "--counter-rate=25", "--unconfirmed-rate=25", "--plain-rate=10", "--bullmq-rate=10",
        "--timeout=5", "--jobs-rate=0", "--rows-rate=0", "--runners=0", "--websockets=0",
    )  # fmt: skip
    NODE_JS_RATE: ClassVar[float] = 10
    PROBES: ClassVar[tuple[str, ...]] = (
        "queue",
        "counter",
        "unconfirmed",
        "plain",
        "bullmq-python",
        "bullmq-python-worker",
        "bullmq-node",
        "bullmq-node-worker",
    )
    # What a replica confirmed; the others may lose what the master alone had, and are told apart.
    WRITERS: ClassVar[tuple[str, ...]] = ("queue", "counter")
    STORE: ClassVar[str] = "redis"

    def leader(self) -> str | None:
        """The master by the Sentinels' newest epoch; None while nobody knows one, or no client can ask."""
        return self._pod_of(self._told().get("master"))

    def is_whole(self) -> bool:
        """Settled by the operator's word, with the master that all Sentinels name, and all replicas in step with it."""
        if not self.hub.is_settled():
            return False
        if self.hub.kubectl.get("pod", self.load.pod) is None:
            # Before there is a client nobody can ask the servers, and nothing has been broken.
            return True
        queue = self.hub.kubectl.get("statefulset", f"{self.hub.name}-redis")
        if queue is None:
            return False
        told, members = self._told(), queue["spec"]["replicas"]
        return (
            self._pod_of(told.get("master")) == self.hub.role_holder("redis")
            and told["agree"] == members
            and told["sentinels"] == told["replicas"] == told["online"] == members - 1
        )

    def _told(self) -> dict[str, Any]:
        try:
            return self.load.run("master", timeout=30)
        except KubectlError:
            return {}

    def _pod_of(self, address: str | None) -> str | None:
        if address is None:
            return None
        services = self.hub.kubectl.items("service", f"runnerhub.io/cluster={self.hub.name}")
        named = {service["spec"].get("clusterIP"): service["metadata"]["name"] for service in services}
        return named.get(address)
