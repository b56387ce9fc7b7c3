"""Where a fault happens: a cluster under load, and what it looked like just before."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from ..lab.bed import Bed
from ..lab.hub import Hub
from ..lab.kubectl import KubectlError, WaitTimeoutError, wait_for
from ..lab.load import LoadClient, now

CONTROL_PLANE_LABEL = "node-role.kubernetes.io/control-plane"
# Row and transaction every 20 ms; four connections in turn, ten times as many while tries hang. A statement is waited
# for at most 5 s. The other components get no load, so that a small machine's time goes to what is measured.
LOAD_ARGUMENTS = (
    "--rows-rate=50", "--transactions-rate=50", "--rows-per-transaction=5", "--reads-rate=20",
    "--connections=4", "--most-connections=40", "--timeout=5",
    "--jobs-rate=0", "--queue-rate=0", "--runners=0", "--websockets=0",
)  # fmt: skip
LOAD_PROBES = ("rows", "transactions", "reads")

# On the pod's own socket the superuser needs no password.
_PSQL = 'exec psql -U postgres -d postgres -XAtc "$1"'

# Replicas only, not a base backup under way; Patroni names each after its member.
_STREAMING = (
    "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming' "
    "AND application_name ~ '-postgres-[0-9]+$'"
)


@dataclass(frozen=True, slots=True)
class Member:
    """A pod of the database as it was before the fault."""

    name: str
    uid: str
    node: str
    container: str


@dataclass(frozen=True, slots=True)
class Before:
    """The database just before a fault.

    `replicas` has those first that confirm commits; `poolers` maps the name of each pod to its uid.
    """

    primary: Member
    replicas: tuple[Member, ...]
    poolers: dict[str, str]
    pooler_nodes: frozenset[str]

    @property
    def members(self) -> tuple[Member, ...]:
        """All of them."""
        return (self.primary, *self.replicas)


@dataclass(frozen=True, slots=True)
class Arena:
    """A cluster of RunnerHub with clients that write to its database."""

    bed: Bed
    hub: Hub
    load: LoadClient

    def leader(self) -> str | None:
        """The primary by Patroni's own record, which is right with the operator away; None when there is none."""
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

    def wait_whole(self, seconds: float) -> None:
        """Wait until nothing is missing."""
        wait_for(f"{self.hub.name} to be whole", self.is_whole, seconds, every=1)

    def before(self) -> Before:
        """What there is now."""
        instances = self.hub.status()["postgres"]["instances"]
        confirming = {
            item["name"] for item in instances if item["role"] in ("sync_standby", "quorum_standby")
        }
        leader = self.leader()
        members = {member.name: member for member in self.members()}
        if leader not in members:
            raise WaitTimeoutError(f"the primary {leader} is not among the running members {sorted(members)}")
        primary = members.pop(leader)
        replicas = sorted(members.values(), key=lambda member: (member.name not in confirming, member.name))
        return Before(primary, tuple(replicas), self.poolers(), frozenset(self.pooler_nodes()))

    def members(self) -> list[Member]:
        """The members whose container has been started."""
        return [member for pod in self.hub.pods("postgres") if (member := _member(pod)) is not None]

    def poolers(self) -> dict[str, str]:
        """Uid of each pooler pod by its name."""
        return {pod["metadata"]["name"]: pod["metadata"]["uid"] for pod in self.hub.pods("pooler")}

    def pooler_nodes(self) -> list[str]:
        """Node of each pooler pod that has one."""
        nodes = [pod["spec"].get("nodeName") for pod in self.hub.pods("pooler")]
        return [node for node in nodes if node]

    def pod_uids(self) -> dict[str, str]:
        """Uid of each member's pod by its name."""
        return {pod["metadata"]["name"]: pod["metadata"]["uid"] for pod in self.hub.pods("postgres")}

    def wait_writing(self, seconds: float, least: int = 20) -> None:
        """Wait until each writer was acknowledged several times from now on."""
        since = now()

        def writing() -> bool:
            gaps = self.load.gaps(since, now())
            return all(gaps[probe]["acknowledged"] >= least for probe in ("rows", "transactions"))

        wait_for("rows and transactions to be acknowledged", writing, seconds, every=1)


def _member(pod: dict[str, Any]) -> Member | None:
    statuses = pod["status"].get("containerStatuses", ())
    container = next((item.get("containerID") for item in statuses if item["name"] == "postgres"), None)
    if not container:
        return None
    return Member(
        name=pod["metadata"]["name"],
        uid=pod["metadata"]["uid"],
        node=pod["spec"]["nodeName"],
        container=container.rpartition("/")[2],
    )


def control_plane(bed: Bed) -> str:
    """Name of the control plane's node."""
    return str(bed.kubectl.items("node", CONTROL_PLANE_LABEL)[0]["metadata"]["name"])


def let_pass(what: str, seconds: float) -> None:
    """A bounded time in which nothing is to be waited for but its end."""
    end = time.monotonic() + seconds
    wait_for(what, lambda: time.monotonic() >= end, seconds + 5)
