"""The crash sweep: the operator is killed at each of its writes in turn, and the end is always the same.

A scenario is a cluster that is settled, and one change. The change is carried out once undisturbed, which gives the
end that is expected and the number of writes, and then once for each write and each way to die at it: before the
write is sent, and after it took effect but before its response arrived. A second life takes over each time.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from e2e.stage.lives import Life
from runnerhub_operator import names
from runnerhub_operator.errors import NotFoundError
from runnerhub_operator.kube.client import KubeClient, ObjectRef

Object = dict[str, Any]

CLUSTER: Final = "hub"
# A deleted cluster was once not gone after 90 s beside other tests; it is not known why.
SETTLE_SECONDS: Final = 180.0
QUIET_SECONDS: Final = 1.2
_API: Final = f"{names.API_GROUP}/{names.API_VERSION}"
_LISTED: Final = (
    ("v1", "ConfigMap"),
    ("v1", "PersistentVolumeClaim"),
    ("v1", "Pod"),
    ("v1", "Secret"),
    ("v1", "Service"),
    ("v1", "ServiceAccount"),
    ("apps/v1", "Deployment"),
    ("apps/v1", "StatefulSet"),
    ("coordination.k8s.io/v1", "Lease"),
    ("networking.k8s.io/v1", "Ingress"),
    ("policy/v1", "PodDisruptionBudget"),
    ("rbac.authorization.k8s.io/v1", "Role"),
    ("rbac.authorization.k8s.io/v1", "RoleBinding"),
)
# The volumes of the smallest cluster and what belongs to them: it outlives the cluster on purpose.
KEPT: Final = frozenset(
    {
        ("Secret", f"{CLUSTER}-postgres-credentials"),
        ("Secret", f"{CLUSTER}-redis-credentials"),
        ("Secret", f"{CLUSTER}-orchestrator-credentials"),
        ("ConfigMap", f"{CLUSTER}-redis-state"),
        *(("PersistentVolumeClaim", names.claim(CLUSTER, names.POSTGRES, ordinal)) for ordinal in range(2)),
        *(("PersistentVolumeClaim", names.claim(CLUSTER, names.REDIS, ordinal)) for ordinal in range(3)),
    }
)
# Made from passwords, addresses or the uid, which differ from run to run.
_HASHES: Final = frozenset(
    {
        names.ANNOTATION_APPLIED,
        names.ANNOTATION_TEMPLATE,
        names.ANNOTATION_CREDENTIALS,
        names.ANNOTATION_CONFIG,
    }
)


@dataclass(frozen=True, slots=True)
class Scenario:
    """A change to a cluster that is settled with `before`; None: there is none yet. `after` None: it is deleted.

    `abandoned`: somebody deletes the cluster in the moment in which the operator dies.
    """

    name: str
    before: Mapping[str, Any] | None
    after: Mapping[str, Any] | None
    abandoned: bool = False


@dataclass(frozen=True, slots=True)
class Ending:
    """What was there at the end, and the fewest ready pods of a stateful component seen on the way."""

    objects: Mapping[tuple[str, str], str]
    writes: tuple[str, ...]
    killed: bool
    fewest_ready: Mapping[str, int] = field(default_factory=dict)


class Sweep:
    """Runs scenarios on a stage, each run in a namespace of its own."""

    def __init__(self, kubeconfig: Path) -> None:
        self._kubeconfig = kubeconfig
        self._numbers: Iterator[int] = itertools.count(1)

    async def run(self, scenario: Scenario, *, kill_at: int = 0, after: bool = False) -> Ending:
        """Carry a scenario out; the operator dies at a write of the change, and another takes over."""
        client = await KubeClient.connect(kubeconfig=str(self._kubeconfig))
        namespace = f"{scenario.name}-{next(self._numbers)}"
        try:
            await client.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})
            if scenario.before is not None:
                await client.apply(_manifest(namespace, scenario.before))
                async with self._alive(namespace) as life:
                    await self._until_settled(client, namespace, life)
            async with _fewest_ready(client, namespace) as fewest:
                await self._change(client, namespace, scenario)
                first = Life(self._kubeconfig, namespace, kill_at=kill_at, after=after)
                killed = await self._live(client, namespace, scenario, first)
                if killed:
                    if scenario.abandoned:
                        await client.delete(_ref(namespace))
                    await self._live(client, namespace, scenario, Life(self._kubeconfig, namespace))
            objects = await _objects(client, namespace)
            return Ending(_normal(objects, namespace), tuple(first.writes), killed, dict(fewest))
        finally:
            await client.close()

    async def _change(self, client: KubeClient, namespace: str, scenario: Scenario) -> None:
        if scenario.after is None:
            await client.delete(_ref(namespace))
        else:
            await client.apply(_manifest(namespace, scenario.after))

    async def _live(self, client: KubeClient, namespace: str, scenario: Scenario, life: Life) -> bool:
        """Let a life work until everything is settled, or gone; True: it was killed before."""
        task = asyncio.create_task(life.run())
        try:
            gone = await _is_gone(client, namespace)
            waiting = self._until_gone if gone or scenario.after is None else self._until_settled
            done = asyncio.create_task(waiting(client, namespace, life))
            await asyncio.wait((task, done), return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                done.cancel()
                return task.result()
            done.result()
            return False
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    @asynccontextmanager
    async def _alive(self, namespace: str) -> AsyncIterator[Life]:
        life = Life(self._kubeconfig, namespace)
        task = asyncio.create_task(life.run())
        try:
            yield life
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _until_settled(self, client: KubeClient, namespace: str, life: Life) -> None:
        async def settled() -> bool:
            body = await client.get(_ref(namespace))
            told = {item["type"]: item for item in body.get("status", {}).get("conditions", ())}
            return (
                bool(told)
                and told["Ready"]["status"] == "True"
                and told["Progressing"]["status"] == "False"
                and told["Degraded"]["status"] == "False"
                and all(
                    item["observedGeneration"] == body["metadata"]["generation"] for item in told.values()
                )
                and life.idle_seconds > QUIET_SECONDS
                and not await _disruption_holder(client, namespace)
            )

        await _until(settled, f"{namespace} to settle")

    async def _until_gone(self, client: KubeClient, namespace: str, life: Life) -> None:
        left: set[tuple[str, str]] = set()

        async def gone() -> bool:
            found = await _objects(client, namespace)
            left.clear()
            left.update({(item["kind"], item["metadata"]["name"]) for item in found} - KEPT)
            return not left and life.idle_seconds > QUIET_SECONDS

        try:
            await _until(gone, f"{namespace} to be gone")
        except TimeoutError as error:
            error.add_note(f"left: {sorted(left)}, last write {life.idle_seconds:.0f} s ago")
            raise


async def _until(condition: Callable[[], Awaitable[bool]], what: str) -> None:
    end = time.monotonic() + SETTLE_SECONDS
    while not await condition():
        if time.monotonic() > end:
            raise TimeoutError(f"waited {SETTLE_SECONDS} s for {what}")
        await asyncio.sleep(0.25)


def _ref(namespace: str) -> ObjectRef:
    return ObjectRef(_API, names.KIND, namespace, CLUSTER)


def _manifest(namespace: str, spec: Mapping[str, Any]) -> Object:
    metadata = {"name": CLUSTER, "namespace": namespace}
    return {"apiVersion": _API, "kind": names.KIND, "metadata": metadata, "spec": dict(spec)}


async def _disruption_holder(client: KubeClient, namespace: str) -> str:
    """Who holds the Lease for disruptions, "" when nobody does; it is given back after Progressing has been told."""
    ref = ObjectRef("coordination.k8s.io/v1", "Lease", namespace, names.disruption_lease(CLUSTER))
    try:
        return (await client.get(ref))["spec"].get("holderIdentity") or ""
    except NotFoundError:
        return ""


async def _is_gone(client: KubeClient, namespace: str) -> bool:
    try:
        body = await client.get(_ref(namespace))
    except NotFoundError:
        return True
    return "deletionTimestamp" in body["metadata"]


async def _objects(client: KubeClient, namespace: str) -> list[Object]:
    found = []
    for api_version, kind in _LISTED:
        for item in await client.list_objects(api_version, kind, namespace, names.LABEL_CLUSTER):
            found.append({**item, "apiVersion": api_version, "kind": kind})  # noqa: PERF401 -- awaits
    return found


def _normal(objects: list[Object], namespace: str) -> dict[tuple[str, str], str]:
    """Objects as text without what differs from run to run."""
    addresses = {
        item["spec"]["clusterIP"]: f"<address of {item['metadata']['name']}>"
        for item in objects
        if item["kind"] == "Service" and item["spec"].get("clusterIP") != "None"
    }
    uids = {owner["uid"] for item in objects for owner in item["metadata"].get("ownerReferences", ())}
    replaced = {**addresses, **dict.fromkeys(uids, "<uid>"), namespace: "<namespace>"}
    pattern = re.compile("|".join(re.escape(word) for word in sorted(replaced, key=len, reverse=True)))
    found: dict[tuple[str, str], str] = {}
    for item in objects:
        text = json.dumps(_essence(item), sort_keys=True)
        text = pattern.sub(lambda match: replaced[match.group()], text)
        name = item["metadata"]["name"]
        key = item["kind"], name
        if item["kind"] == "Pod" and "pod-template-hash" in item["metadata"]["labels"]:
            # Pods of Deployments have random names; how many of each template there are is what counts.
            key = (
                "Pod",
                item["metadata"]["labels"][names.LABEL_COMPONENT]
                + " "
                + "+" * (sum(other[0] == "Pod" for other in found) + 1),
            )
        found[key] = text
    return found


def _essence(item: Object) -> Object:
    metadata = item["metadata"]
    annotations = {key: value for key, value in metadata.get("annotations", {}).items() if key not in _HASHES}
    kept: Object = {
        "labels": {
            key: value
            for key, value in metadata.get("labels", {}).items()
            if key
            not in ("controller-revision-hash", "pod-template-hash", names.LABEL_ROLE, names.LABEL_LEADER)
        },
        "owners": [owner["kind"] for owner in metadata.get("ownerReferences", ())],
    }
    if item["kind"] == "Pod":
        images = [container["image"] for container in item["spec"]["containers"]]
        return {**kept, "images": images, "going": "deletionTimestamp" in metadata}
    if item["kind"] == "Lease":
        # Who holds a role, and since when, is chance; that nobody holds the one for disruptions is not.
        free = not item["spec"].get("holderIdentity")
        return {**kept, "free": free}
    if item["kind"] == "Secret":
        return {**kept, "keys": sorted(item.get("data", {}))}
    spec = json.loads(json.dumps(item.get("spec", {})))
    template = spec.get("template", {}).get("metadata", {})
    template["annotations"] = {
        key: value for key, value in template.get("annotations", {}).items() if key not in _HASHES
    }
    annotations.pop("deployment.kubernetes.io/revision", None)
    rest = {key: item[key] for key in ("data", "rules", "subjects", "roleRef") if key in item}
    return {**kept, "annotations": annotations, "spec": spec, **rest}


@asynccontextmanager
async def _fewest_ready(client: KubeClient, namespace: str) -> AsyncIterator[dict[str, int]]:
    """The fewest ready pods of each stateful component while the block runs."""
    fewest: dict[str, int] = {}
    selector = f"{names.LABEL_COMPONENT} in ({names.POSTGRES},{names.REDIS})"
    page = await client.list_page("v1", "Pod", namespace, label_selector=selector)
    pods = {item["metadata"]["name"]: item for item in page["items"]}

    def count() -> None:
        for component in (names.POSTGRES, names.REDIS):
            ready = sum(
                item["metadata"]["labels"][names.LABEL_COMPONENT] == component and _is_ready(item)
                for item in pods.values()
            )
            fewest[component] = min(ready, fewest.get(component, ready))

    async def follow() -> None:
        version = page["metadata"]["resourceVersion"]
        async for event in client.watch(
            "v1", "Pod", namespace, label_selector=selector, resource_version=version
        ):
            if event["type"] == "BOOKMARK":
                continue
            name = event["object"]["metadata"]["name"]
            if event["type"] == "DELETED":
                pods.pop(name, None)
            else:
                pods[name] = event["object"]
            count()

    count()
    task = asyncio.create_task(follow())
    try:
        yield fewest
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def _is_ready(pod: Object) -> bool:
    conditions = pod.get("status", {}).get("conditions", ())
    ready = any(item["type"] == "Ready" and item["status"] == "True" for item in conditions)
    return ready and "deletionTimestamp" not in pod["metadata"]
