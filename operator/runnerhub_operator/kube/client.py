"""A small asynchronous Kubernetes client over plain dictionaries.

The generated models of the `kubernetes` package are not used: objects stay as the API server sends them, which is
what server-side apply and comparison need.
"""

from __future__ import annotations

import json
import re
import urllib.request
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

import aiohttp
from kubernetes.aio import client as kube_client
from kubernetes.aio import config as kube_config

from .. import names
from ..errors import ConflictError, ExpiredError, KubeError, NotFoundError, RefusedError, UnavailableError

Manifest = dict[str, Any]

DEFAULT_DEADLINE_SECONDS: Final = 10.0
# The server ends a watch after this time; the next one goes on where it ended.
WATCH_SECONDS: Final = 300
# A watch may be silent for as long as nothing happens, but the server sends a bookmark about once a minute.
WATCH_SILENCE_SECONDS: Final = 150.0

# With the charset the library takes the text as it is.
_APPLY: Final = "application/apply-patch+yaml; charset=utf-8"
# An escaped backslash, which starts no escape, or a surrogate pair.
_ESCAPES: Final = re.compile(r"\\\\|(\\ud[89ab][0-9a-f]{2}\\ud[c-f][0-9a-f]{2})")

_SERVICE_ACCOUNT_TOKEN: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount/token")
_PLURALS: Final[Mapping[str, str]] = {
    "ConfigMap": "configmaps",
    "Deployment": "deployments",
    "Event": "events",
    names.GATEWAY: "gateways",
    "HorizontalPodAutoscaler": "horizontalpodautoscalers",
    names.HTTP_ROUTE: "httproutes",
    "Ingress": "ingresses",
    "Job": "jobs",
    "Lease": "leases",
    "Namespace": "namespaces",
    "PersistentVolume": "persistentvolumes",
    "PersistentVolumeClaim": "persistentvolumeclaims",
    "Pod": "pods",
    "PodDisruptionBudget": "poddisruptionbudgets",
    "Role": "roles",
    "RoleBinding": "rolebindings",
    names.KIND: names.PLURAL,
    "Secret": "secrets",
    "Service": "services",
    "ServiceAccount": "serviceaccounts",
    "StatefulSet": "statefulsets",
}


@dataclass(frozen=True, slots=True)
class ObjectRef:
    """Identity of an object in the API."""

    api_version: str
    kind: str
    namespace: str
    name: str

    @classmethod
    def of(cls, manifest: Mapping[str, Any]) -> Self:
        """Identity of a manifest."""
        metadata = manifest["metadata"]
        return cls(manifest["apiVersion"], manifest["kind"], metadata.get("namespace", ""), metadata["name"])

    def __str__(self) -> str:
        return f"{self.kind} {self.namespace}/{self.name}"


def path_of(ref: ObjectRef) -> str:
    """Path of an object under the API server's address; of the collection when the name is empty."""
    prefix = f"/api/{ref.api_version}" if "/" not in ref.api_version else f"/apis/{ref.api_version}"
    scope = f"/namespaces/{ref.namespace}" if ref.namespace else ""
    name = f"/{ref.name}" if ref.name else ""
    return f"{prefix}{scope}/{_PLURALS[ref.kind]}{name}"


def _error_for(status: int, message: str, retry_after: str = "") -> KubeError:
    if status == 404:
        return NotFoundError(message, status)
    if status == 409:
        return ConflictError(message, status)
    if status == 410:
        return ExpiredError(message, status)
    # A field that the server does not know is its own mistake by status only: it will say so for ever.
    if "failed to create typed patch object" in message:
        return RefusedError(message, status)
    # 401: the token has just been renewed or the server has just started. A namespace that goes refuses for now.
    if status in (401, 408, 429) or status >= 500 or (status == 403 and "being terminated" in message):
        return UnavailableError(message, status, float(retry_after) if retry_after.isdigit() else 0.0)
    return RefusedError(message, status)


class KubeClient:
    """Requests to the API server, each with a deadline in seconds.

    Raises NotFoundError, ConflictError, ExpiredError, RefusedError or UnavailableError. Before each write `guard` is
    called; it raises when this process must not write any more. After each call `observer(verb, kind, status)` is
    told.
    """

    def __init__(
        self,
        api: kube_client.ApiClient,
        *,
        guard: Callable[[], None] | None = None,
        observer: Callable[[str, str, int], None] | None = None,
        deadline_seconds: float = DEFAULT_DEADLINE_SECONDS,
    ) -> None:
        self._api = api
        self._guard = guard
        self._observer = observer
        self._deadline_seconds = deadline_seconds

    @classmethod
    async def connect(cls, *, kubeconfig: str | None = None, **options: Any) -> Self:
        """Connect with the given kubeconfig, else with the pod's ServiceAccount, else with the user's kubeconfig."""
        configuration = kube_client.Configuration()
        if kubeconfig is not None:
            await kube_config.load_kube_config(  # type: ignore[no-untyped-call]
                config_file=kubeconfig, client_configuration=configuration
            )
        elif _SERVICE_ACCOUNT_TOKEN.exists():
            kube_config.load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
        else:
            await kube_config.load_kube_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
        # Retries belong to the caller, who knows what is safe to repeat.
        configuration.retries = None
        # Otherwise each request reads .netrc and the environment anew, a quarter of the time that a write takes.
        configuration.client_session_kwargs = {"trust_env": bool(urllib.request.getproxies())}
        return cls(kube_client.ApiClient(configuration), **options)

    def guarded(self, guard: Callable[[], None], deadline_seconds: float) -> KubeClient:
        """The same connection with a guard before each write, and a deadline of its own."""
        return KubeClient(self._api, guard=guard, observer=self._observer, deadline_seconds=deadline_seconds)

    async def close(self) -> None:
        """Close the connections."""
        await self._api.close()  # type: ignore[no-untyped-call]

    async def get(self, ref: ObjectRef) -> Manifest:
        """Read one object."""
        return await self._call("GET", "get", ref)

    async def list_page(
        self,
        api_version: str,
        kind: str,
        namespace: str,
        *,
        label_selector: str = "",
        limit: int = 0,
        continue_token: str = "",
    ) -> Manifest:
        """Read one page of a list, of all namespaces when `namespace` is empty: the list object with its metadata.

        ExpiredError: the list took too long, the token for the next page is not valid any more.
        """
        query = {"labelSelector": label_selector, "continue": continue_token, "limit": str(limit or "")}
        return await self._call(
            "GET",
            "list",
            ObjectRef(api_version, kind, namespace, ""),
            query={key: value for key, value in query.items() if value},
        )

    async def list_objects(
        self, api_version: str, kind: str, namespace: str, label_selector: str = ""
    ) -> list[Manifest]:
        """Read all objects of a kind that match a label selector; all namespaces when `namespace` is empty."""
        answer = await self.list_page(api_version, kind, namespace, label_selector=label_selector)
        items: list[Manifest] = answer.get("items", [])
        return items

    async def watch(
        self, api_version: str, kind: str, namespace: str, *, label_selector: str, resource_version: str
    ) -> AsyncIterator[Manifest]:
        """Changes after `resource_version` as `{"type": ..., "object": ...}`, until the server ends the watch.

        ExpiredError: the server does not remember that version any more, list again.
        """
        ref = ObjectRef(api_version, kind, namespace, "")
        query = {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "labelSelector": label_selector,
            "resourceVersion": resource_version,
            "timeoutSeconds": str(WATCH_SECONDS),
        }
        timeout = aiohttp.ClientTimeout(
            sock_connect=DEFAULT_DEADLINE_SECONDS, sock_read=WATCH_SILENCE_SECONDS, total=None
        )
        async with self._request("GET", "watch", ref, query=query, timeout=timeout) as response:
            if response.status >= 400:
                answer = _decode(await response.read())
                message = f"watch {ref}: {answer.get('message') or response.status}"
                raise _error_for(response.status, message, response.headers.get("Retry-After", ""))
            async for line in response.content:
                event = _decode_event(line)
                if event["type"] == "ERROR":
                    status = event["object"]
                    raise _error_for(int(status.get("code", 500)), f"watch {ref}: {status.get('message')}")
                yield event

    async def create(self, manifest: Manifest) -> Manifest:
        """Create an object; ConflictError when it exists."""
        ref = ObjectRef.of(manifest)
        collection = ObjectRef(ref.api_version, ref.kind, ref.namespace, "")
        query = {"fieldManager": names.FIELD_MANAGER}
        return await self._call("POST", "create", collection, body=manifest, query=query)

    async def replace(self, manifest: Manifest) -> Manifest:
        """Replace an object; ConflictError when its resourceVersion is not the current one."""
        return await self._call("PUT", "update", ObjectRef.of(manifest), body=manifest)

    async def merge_patch(
        self, ref: ObjectRef, patch: Mapping[str, Any], *, subresource: str = ""
    ) -> Manifest:
        """Patch an object, or a subresource of it, by JSON merge patch (RFC 7386)."""
        return await self._call(
            "PATCH", "patch", ref, body=patch, content="application/merge-patch+json", subresource=subresource
        )

    async def strategic_patch(self, ref: ObjectRef, patch: Mapping[str, Any]) -> Manifest:
        """Patch an object by strategic merge patch, which adds to lists such as owner references.

        Source: https://kubernetes.io/docs/tasks/manage-kubernetes-objects/update-api-object-kubectl-patch/
        """
        return await self._call(
            "PATCH", "patch", ref, body=patch, content="application/strategic-merge-patch+json"
        )

    async def apply(self, manifest: Manifest, *, force: bool = True, dry_run: bool = False) -> Manifest:
        """Server-side apply as the operator's one field manager."""
        query = {"fieldManager": names.FIELD_MANAGER, "force": "true" if force else "false"}
        if dry_run:
            query["dryRun"] = "All"
        return await self._call(
            "PATCH",
            "apply",
            ObjectRef.of(manifest),
            body=_as_yaml(manifest),
            query=query,
            content=_APPLY,
        )

    async def delete(
        self,
        ref: ObjectRef,
        *,
        uid: str | None = None,
        grace_seconds: int | None = None,
        orphan: bool = False,
    ) -> Manifest:
        """Delete an object; only the one with `uid` when given.

        Its dependents go in the background, or with `orphan` lose it as their owner and stay.
        """
        policy = "Orphan" if orphan else "Background"
        body: Manifest = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": policy}
        if uid is not None:
            body["preconditions"] = {"uid": uid}
        if grace_seconds is not None:
            body["gracePeriodSeconds"] = grace_seconds
        return await self._call("DELETE", "delete", ref, body=body)

    async def _call(
        self,
        method: str,
        verb: str,
        ref: ObjectRef,
        *,
        body: Mapping[str, Any] | str | None = None,
        query: Mapping[str, str] | None = None,
        content: str = "application/json",
        subresource: str = "",
    ) -> Manifest:
        if method != "GET" and self._guard is not None:
            self._guard()
        timeout = aiohttp.ClientTimeout(total=self._deadline_seconds)
        async with self._request(
            method,
            verb,
            ref,
            body=body,
            query=query,
            content=content,
            subresource=subresource,
            timeout=timeout,
        ) as response:
            answer = _decode(await response.read())
        if response.status >= 400:
            message = f"{verb} {ref}: {answer.get('message') or response.status}"
            raise _error_for(response.status, message, response.headers.get("Retry-After", ""))
        return answer

    @asynccontextmanager
    async def _request(
        self,
        method: str,
        verb: str,
        ref: ObjectRef,
        *,
        timeout: aiohttp.ClientTimeout,
        body: Mapping[str, Any] | str | None = None,
        query: Mapping[str, str] | None = None,
        content: str = "application/json",
        subresource: str = "",
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Send a request; the response, whose body may still be on its way."""
        path = path_of(ref) + (f"/{subresource}" if subresource else "")
        status = 0
        try:
            request = await self._api.param_serialize(
                method,
                path,
                query_params=list((query or {}).items()),
                header_params={"Accept": "application/json", "Content-Type": content},
                body=body,
                auth_settings=["BearerToken"],
            )
            wrapped = await self._api.call_api(*request, _request_timeout=timeout)
            async with wrapped.response as response:
                status = response.status
                yield response
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise UnavailableError(f"{verb} {ref}: no answer from the API server: {error!r}") from error
        finally:
            if self._observer is not None:
                self._observer(verb, ref.kind, status)


def _as_yaml(manifest: Manifest) -> str:
    """A manifest as YAML: JSON, but for characters beyond U+FFFF, whose surrogate pairs YAML does not know."""

    def one(found: re.Match[str]) -> str:
        if found[1] is None:
            return found[0]
        character: str = json.loads(f'"{found[1]}"')
        return f"\\U{ord(character):08x}"

    return _ESCAPES.sub(one, json.dumps(manifest))


def _decode_event(line: bytes) -> Manifest:
    try:
        event: Manifest = json.loads(line)
    except ValueError as error:
        raise UnavailableError("the API server cut a watch in the middle of an event") from error
    return event


def _decode(data: bytes) -> Manifest:
    try:
        answer = json.loads(data or b"{}")
    except ValueError:
        return {"message": data[:200].decode(errors="replace")}
    return answer if isinstance(answer, dict) else {"message": str(answer)[:200]}
