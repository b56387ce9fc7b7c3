"""The process that plays what no machine runs: a scheduler that takes any node, and the programs inside the pods."""

from __future__ import annotations

import argparse
import asyncio
import itertools
import resource
import sys
from functools import partial
from pathlib import Path
from typing import Final

from e2e.stage.api import MERGE_PATCH, Api, ApiError, Object
from e2e.stage.roles import PlayedCluster, PlayedPod
from e2e.stage.servers import Listeners
from e2e.stage.volumes import played_status
from runnerhub_operator import names

_CLAIMS: Final = "/api/v1/persistentvolumeclaims"
_PODS: Final = "/api/v1/pods"
_SERVICES: Final = "/api/v1/services"
_WRITERS: Final = 16
# The object went away or changed meanwhile; its next event tells.
_OVERTAKEN: Final = (404, 409)

Key = tuple[str, str]
Write = tuple[str, str, Object]


class Cast:
    """Binds pods to nodes, answers as Patroni and Sentinel at their addresses, sets the labels that agents set.

    It also says of each claim that it has a volume as large as it asks for.
    """

    def __init__(self, api: Api, nodes: list[str]) -> None:
        self._api = api
        self._nodes = itertools.cycle(nodes)
        self._clusters: dict[Key, PlayedCluster] = {}
        self._listeners = Listeners()
        self._addresses: dict[str, str] = {}
        self._writes: asyncio.Queue[Write] = asyncio.Queue()

    async def run(self) -> None:
        """Play until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._follow_pods())
            group.create_task(self._follow_services())
            group.create_task(self._follow_claims())
            for _ in range(_WRITERS):
                group.create_task(self._write())

    async def _write(self) -> None:
        while True:
            method, path, body = await self._writes.get()
            try:
                await self._api.call(
                    method, path, body, content=MERGE_PATCH if method == "PATCH" else "application/json"
                )
            except ApiError as error:
                if error.status not in _OVERTAKEN:
                    raise

    async def _follow_services(self) -> None:
        async for kind, body in self._api.follow(_SERVICES, f"{names.LABEL_COMPONENT}={names.REDIS}"):
            metadata = body["metadata"]
            cluster = self._cluster(metadata)
            if kind == "DELETED":
                cluster.addresses.pop(metadata["name"], None)
            else:
                cluster.addresses[metadata["name"]] = body["spec"].get("clusterIP", "")

    async def _follow_claims(self) -> None:
        async for kind, body in self._api.follow(_CLAIMS, names.LABEL_CLUSTER):
            status = played_status(body) if kind != "DELETED" else None
            if status is not None:
                metadata = body["metadata"]
                path = f"/api/v1/namespaces/{metadata['namespace']}/persistentvolumeclaims/{metadata['name']}"
                self._writes.put_nowait(("PATCH", f"{path}/status", {"status": status}))

    async def _follow_pods(self) -> None:
        async for kind, body in self._api.follow(_PODS, names.LABEL_CLUSTER):
            metadata = body["metadata"]
            if kind != "DELETED" and not body["spec"].get("nodeName") and "deletionTimestamp" not in metadata:
                self._schedule(body)
            cluster, component = self._cluster(metadata), metadata["labels"].get(names.LABEL_COMPONENT, "")
            if component in cluster.pods or component in (names.POOLER, names.RUNNER, names.LOAD_BALANCER):
                await self._play(cluster, component, body, gone=kind == "DELETED")

    def _cluster(self, metadata: Object) -> PlayedCluster:
        namespace = metadata["namespace"]
        key = namespace, metadata["labels"][names.LABEL_CLUSTER]
        if key not in self._clusters:
            self._clusters[key] = PlayedCluster(partial(self._relabel, namespace))
        return self._clusters[key]

    def _relabel(self, namespace: str, pod: str, labels: dict[str, str | None]) -> None:
        path = f"/api/v1/namespaces/{namespace}/pods/{pod}"
        self._writes.put_nowait(("PATCH", path, {"metadata": {"labels": labels}}))

    def _schedule(self, body: Object) -> None:
        """Any node will do, but none has a label beside its name."""
        metadata, status = body["metadata"], body.get("status", {})
        if set(body["spec"].get("nodeSelector", {})) <= {"kubernetes.io/hostname"}:
            self._bind(metadata)
        elif not any(item["type"] == "PodScheduled" for item in status.get("conditions", ())):
            path = f"/api/v1/namespaces/{metadata['namespace']}/pods/{metadata['name']}/status"
            told = {
                "type": "PodScheduled",
                "status": "False",
                "reason": "Unschedulable",
                "message": "no node matches",
            }
            self._writes.put_nowait(("PATCH", path, {"status": {"conditions": [told]}}))

    def _bind(self, metadata: Object) -> None:
        path = f"/api/v1/namespaces/{metadata['namespace']}/pods/{metadata['name']}"
        binding = {
            "apiVersion": "v1",
            "kind": "Binding",
            "metadata": {"name": metadata["name"], "uid": metadata["uid"]},
            "target": {"apiVersion": "v1", "kind": "Node", "name": next(self._nodes)},
        }
        self._writes.put_nowait(("POST", f"{path}/binding", binding))

    async def _play(self, cluster: PlayedCluster, component: str, body: Object, *, gone: bool) -> None:
        """Let a pod come on or leave."""
        metadata = body["metadata"]
        uid, ip = metadata["uid"], body.get("status", {}).get("podIP", "")
        # A pooler, a runner and a load balancer have a voice and no role.
        has_role = component in cluster.pods
        if gone or "deletionTimestamp" in metadata:
            if has_role:
                cluster.drop(component, metadata["name"])
            cluster.drained.discard(metadata["name"])
            self._listeners.close(self._addresses.pop(uid, ""))
        elif ip:
            labels = metadata["labels"]
            role, leads = labels.get(names.LABEL_ROLE, ""), names.LABEL_LEADER in labels
            if has_role:
                cluster.put(component, PlayedPod(metadata["name"], uid, ip, role, leads))
            if component == names.RUNNER:
                cluster.runners[ip] = metadata["name"]
            self._addresses[uid] = ip
            await self._listeners.open(cluster, component, ip)


async def _play(kubeconfig: Path, nodes: list[str]) -> None:
    async with Api(kubeconfig) as api:
        await Cast(api, nodes).run()


def main() -> int:
    """Play until the process is ended."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kubeconfig", type=Path, required=True)
    parser.add_argument("--nodes", required=True, help="names of the nodes, separated by commas")
    options = parser.parse_args()
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(
        resource.RLIMIT_NOFILE, (hard, hard)
    )  # one listening socket per database and queue pod
    asyncio.run(_play(options.kubeconfig, options.nodes.split(",")))
    return 0


if __name__ == "__main__":
    sys.exit(main())
