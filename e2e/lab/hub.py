"""A RunnerHubCluster as a test sees it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .kubectl import Kubectl, wait_for


@dataclass(frozen=True, slots=True)
class Hub:
    """One RunnerHubCluster in the namespace of `kubectl`."""

    kubectl: Kubectl
    name: str

    def body(self) -> dict[str, Any]:
        """The resource; raises KeyError when it is gone."""
        found = self.kubectl.get("runnerhubcluster", self.name)
        if found is None:
            raise KeyError(self.name)
        return found

    def status(self) -> dict[str, Any]:
        """Its status."""
        status: dict[str, Any] = self.body().get("status", {})
        return status

    def condition(self, kind: str) -> dict[str, Any]:
        """One condition, {} when there is none."""
        return next((item for item in self.status().get("conditions", ()) if item["type"] == kind), {})

    def role_holder(self, component: str) -> str | None:
        """Pod that has the role of a component: postgres, redis or orchestrator."""
        status = self.status()
        section, field = {
            "postgres": ("postgres", "primary"),
            "redis": ("redis", "master"),
            "orchestrator": ("orchestrator", "leader"),
        }[component]
        holder: str | None = status.get(section, {}).get(field)
        return holder

    def pods(self, component: str) -> list[dict[str, Any]]:
        """Pods of a component."""
        return self.kubectl.items(
            "pod", f"runnerhub.io/cluster={self.name},runnerhub.io/component={component}"
        )

    def is_settled(self) -> bool:
        """Whether the cluster is Ready with nothing missing and nothing going on."""
        body = self.body()
        status = body.get("status", {})
        return (
            status.get("phase") == "Ready"
            and status.get("observedGeneration") == body["metadata"]["generation"]
        )

    def wait_settled(self, seconds: float) -> None:
        """Wait until nothing is missing."""
        wait_for(f"{self.name} to be complete and settled", self.is_settled, seconds)
