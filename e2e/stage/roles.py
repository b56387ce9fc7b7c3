"""One played cluster: its pods as the API server knows them, and who has which role in it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from runnerhub_operator import names

FIRST_TIMELINE = 1
_ELECTING = (names.POSTGRES, names.REDIS, names.ORCHESTRATOR)


@dataclass(frozen=True, slots=True)
class PlayedPod:
    """A pod that runs: it has an address and is Ready. `role` and `leads` are its labels, set or about to be."""

    name: str
    uid: str
    ip: str
    role: str
    leads: bool


@dataclass(slots=True)
class PlayedCluster:
    """Roles move only when their holder goes: to the running pod with the lowest name, on the next timeline or epoch.

    `broken` are replicas of the database that do not come to run until they are made anew, with the state that
    Patroni tells of them.

    `demand` is what orchestrators tell of jobs, None when they do not know the question. `runners` are runners' pods
    by address, `drained` those that were told to take no more jobs.

    `relabel(pod, labels)` is asked to set the labels that Patroni and the agents would set; None removes one.
    `addresses` are the ClusterIPs of the Redis pods' Services by pod; `config` is Patroni's dynamic configuration.
    """

    relabel: Callable[[str, dict[str, str | None]], None]
    pods: dict[str, dict[str, PlayedPod]] = field(default_factory=lambda: {name: {} for name in _ELECTING})
    addresses: dict[str, str] = field(default_factory=dict)
    holders: dict[str, PlayedPod] = field(default_factory=dict)
    terms: dict[str, int] = field(default_factory=lambda: {names.POSTGRES: FIRST_TIMELINE, names.REDIS: 0})
    config: dict[str, Any] = field(default_factory=dict)
    broken: dict[str, str] = field(default_factory=dict)
    demand: dict[str, Any] | None = field(
        default_factory=lambda: {"waiting": [], "running": [], "complete": True}
    )
    runners: dict[str, str] = field(default_factory=dict)
    drained: set[str] = field(default_factory=set)

    def put(self, component: str, pod: PlayedPod) -> None:
        """A pod runs."""
        self.pods[component][pod.name] = pod
        self._elect(component)

    def drop(self, component: str, name: str) -> None:
        """A pod is gone, or on its way."""
        self.pods[component].pop(name, None)
        self._elect(component)

    def hand_over(self, component: str, candidate: str | None = None) -> bool:
        """Move a role from its holder to the candidate, or to any other; False when there is none."""
        holder, able = self.holders.get(component), self._able(component)
        others = [able[name] for name in sorted(able) if holder is None or name != holder.name]
        chosen = next((pod for pod in others if candidate in (None, pod.name)), None)
        if chosen is None:
            return False
        self._give(component, chosen)
        return True

    def break_replica(self, ip: str, state: str) -> bool:
        """Break the replica at an address; False for the primary, and when there is none."""
        replica = self._replica_at(ip)
        if replica is not None:
            self.broken[replica.name] = state
        return replica is not None

    def reinitialize(self, ip: str) -> bool:
        """Make the replica at an address anew; False for the primary, and when there is none."""
        replica = self._replica_at(ip)
        if replica is not None:
            self.broken.pop(replica.name, None)
        return replica is not None

    def _replica_at(self, ip: str) -> PlayedPod | None:
        primary = self.holders.get(names.POSTGRES)
        pods = self.pods[names.POSTGRES].values()
        return next(
            (pod for pod in pods if pod.ip == ip and primary is not None and pod.name != primary.name), None
        )

    def _able(self, component: str) -> dict[str, PlayedPod]:
        """The pods that can have a role."""
        lame = self.broken if component == names.POSTGRES else {}
        return {name: pod for name, pod in self.pods[component].items() if name not in lame}

    def _elect(self, component: str) -> None:
        holder, able = self.holders.get(component), self._able(component)
        if holder is None or holder.name not in able or able[holder.name].uid != holder.uid:
            if able:
                self._give(component, able[min(able)])
        else:
            self._label(component)

    def _give(self, component: str, pod: PlayedPod) -> None:
        if component in self.holders and component in self.terms:
            self.terms[component] += 1
        self.holders[component] = pod
        self._label(component)

    def _label(self, component: str) -> None:
        holder = self.holders[component]
        for pod in list(self.pods[component].values()):
            role = "primary" if pod.name == holder.name else "replica"
            leads = pod.name == holder.name
            if component == names.POSTGRES and pod.role != role:
                self.relabel(pod.name, {names.LABEL_ROLE: role})
                self.pods[component][pod.name] = replace(pod, role=role)
            if component == names.ORCHESTRATOR and pod.leads != leads:
                self.relabel(pod.name, {names.LABEL_LEADER: "true" if leads else None})
                self.pods[component][pod.name] = replace(pod, leads=leads)

    # --- What the programs answer ---

    def drain(self, ip: str) -> str:
        """What the runner at an address says when it is told to take no more jobs: its last request takes a moment.

        "": nothing.
        """
        name = self.runners.get(ip, "")
        if name in (self.demand or {}).get("silent", ()):
            return ""
        if any(job["runnerId"] == name for job in (self.demand or {}).get("running", ())):
            return "busy"
        if name in self.drained:
            return "drained"
        self.drained.add(name)
        return "draining"

    def patroni_members(self) -> dict[str, Any]:
        """Patroni's GET /cluster: all that are not broken stream from the primary, without lag."""
        primary = self.holders.get(names.POSTGRES)
        members = []
        for name, pod in sorted(self.pods[names.POSTGRES].items()):
            leads = primary is not None and name == primary.name
            address = {"api_url": f"http://{pod.ip}:{names.PORT_PATRONI}/patroni", "host": pod.ip}
            if name in self.broken:
                members.append({"name": name, "role": "replica", "state": self.broken[name], **address})
                continue
            member = {
                "name": name,
                "role": "leader" if leads else "quorum_standby",
                "state": "running" if leads else "streaming",
                **address,
                "port": names.PORT_POSTGRES,
                "timeline": self.terms[names.POSTGRES],
            }
            members.append(member if leads else {**member, "lag": 0, "receive_lag": 0, "replay_lag": 0})
        return {"members": members, "scope": "played"}

    def patroni_own_words(self, ip: str) -> dict[str, Any]:
        """The GET /patroni of the member at an address."""
        name = next((pod.name for pod in self.pods[names.POSTGRES].values() if pod.ip == ip), "")
        if name in self.broken:
            return {"state": self.broken[name], "role": "replica"}
        words = {"state": "running", "server_version": 170006, "timeline": self.terms[names.POSTGRES]}
        primary = self.holders.get(names.POSTGRES)
        if primary is not None and name == primary.name:
            return {**words, "role": "primary", "xlog": {"location": 1}}
        xlog = {"received_location": 1, "replayed_location": 1}
        return {**words, "role": "replica", "replication_state": "streaming", "xlog": xlog}

    def sentinel_master(self) -> dict[str, str] | None:
        """Sentinel's MASTER, None while there is no master with an address."""
        ip = self.master_address()
        if ip is None:
            return None
        others = len(self.pods[names.REDIS]) - 1
        return {
            "name": names.REDIS_MASTER_NAME,
            "ip": ip,
            "port": str(names.PORT_REDIS),
            "flags": "master",
            "config-epoch": str(self.terms[names.REDIS]),
            "num-slaves": str(others),
            "num-other-sentinels": str(others),
            "quorum": str(others // 2 + 1),
        }

    def master_address(self) -> str | None:
        """The address that the Redis master announces."""
        master = self.holders.get(names.REDIS)
        return self.addresses.get(master.name) if master is not None else None

    def sentinel_replicas(self) -> list[dict[str, str]]:
        """Sentinel's REPLICAS: all linked, none behind."""
        master = self.master_address()
        return [
            {
                "ip": self.addresses[name],
                "port": str(names.PORT_REDIS),
                "flags": "slave",
                "master-link-status": "ok",
                "slave-repl-offset": "1000",
            }
            for name in sorted(self.pods[names.REDIS])
            if name in self.addresses and self.addresses[name] != master
        ]
