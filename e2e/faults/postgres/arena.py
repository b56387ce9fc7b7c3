"""The database under load."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from ...lab.kubectl import KubectlError
from ..arena import Arena

# On the pod's own socket the superuser needs no password.
_PSQL = 'exec psql -U postgres -d postgres -XAtc "$1"'

# Replicas only, not a base backup under way; Patroni names each after its member.
_STREAMING = (
    "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming' "
    "AND application_name ~ '-postgres-[0-9]+$'"
)


@dataclass(frozen=True)
class PostgresArena(Arena):
    """A cluster of RunnerHub with clients that write to its database through the poolers."""

    COMPONENT: ClassVar[str] = "postgres"
    CONTAINER: ClassVar[str] = "postgres"
    # Row and transaction every 20 ms; four connections in turn, ten times as many while tries hang. A statement is
    # waited for at most 5 s. The other components get no load, so that a small machine's time goes to what is measured.
    LOAD_ARGUMENTS: ClassVar[tuple[str, ...]] = (
        "--rows-rate=50", "--transactions-rate=50", "--rows-per-transaction=5", "--reads-rate=20",
        "--connections=4", "--most-connections=40", "--timeout=5",
        "--jobs-rate=0", "--queue-rate=0", "--runners=0", "--websockets=0",
    )  # fmt: skip
    PROBES: ClassVar[tuple[str, ...]] = ("rows", "transactions", "reads")
    WRITERS: ClassVar[tuple[str, ...]] = ("rows", "transactions")
    STORE: ClassVar[str] = "postgres"
    WAY_IN: ClassVar[str] = "pooler"

    def leader(self) -> str | None:
        """The primary by Patroni's own record; None when there is none."""
        found = self.hub.kubectl.get("configmap", f"{self.hub.name}-postgres-leader")
        if found is None:
            return None
        leader: str | None = found["metadata"].get("annotations", {}).get("leader")
        return leader or None

    def sql(self, pod: str, query: str) -> str:
        """The answer of one member's own Postgres, unaligned; raises KubectlError."""
        command = ("sh", "-c", _PSQL, "sh", query)
        return self.hub.kubectl("exec", pod, "-c", "postgres", "--", *command, timeout=20).strip()

    def replicas_streaming(self) -> int:
        """How many replicas the primary itself sees streaming; 0 without a primary that answers."""
        leader = self.leader()
        if leader is None:
            return 0
        try:
            return int(self.sql(leader, _STREAMING))
        except KubectlError:
            return 0

    def is_whole(self) -> bool:
        """Settled by the operator's word, with the right primary, and all replicas streaming by the primary's."""
        if not self.hub.is_settled():
            return False
        database = self.hub.kubectl.get("statefulset", f"{self.hub.name}-postgres")
        if database is None or self.hub.role_holder("postgres") != self.leader():
            return False
        replicas: int = database["spec"]["replicas"] - 1
        return self.replicas_streaming() == replicas

    def _first_replicas(self) -> Sequence[str]:
        instances = self.hub.status()["postgres"]["instances"]
        return [item["name"] for item in instances if item["role"] in ("sync_standby", "quorum_standby")]
