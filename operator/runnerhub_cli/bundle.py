"""The support bundle: one archive with what others need to see what is wrong, and without passwords."""

from __future__ import annotations

import base64
import io
import os
import tarfile
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Final

import yaml

from runnerhub_operator import names

from .errors import CliError
from .kubectl import CLUSTERS, Kubectl, Manifest, Unknown, at_once, known
from .objects import Pod
from .operators import OPERATOR_SELECTOR, operator_lease
from .redact import MARK, Redactor, is_plain

# Of each container, the newest lines.
LOG_LINES: Final = 5000
LOG_BYTES: Final = 2 * 2**20
# Of each kind, the newest.
MOST_EVENTS: Final = 2000
# Everything before it is compressed; what comes later is left out and told.
MOST_BYTES: Final = 200 * 2**20

# Kinds that carry the cluster's label. Secrets are not among them: only their names and keys are told.
_KINDS: Final = (
    "pods",
    "statefulsets.apps",
    "deployments.apps",
    "replicasets.apps",
    "jobs.batch",
    "horizontalpodautoscalers.autoscaling",
    "services",
    "configmaps",
    "persistentvolumeclaims",
    "poddisruptionbudgets.policy",
    "ingresses.networking.k8s.io",
    "serviceaccounts",
    "roles.rbac.authorization.k8s.io",
    "rolebindings.rbac.authorization.k8s.io",
)
# Only where one is asked for: Kubernetes by itself does not know the kind.
_ROUTES: Final = "httproutes.gateway.networking.k8s.io"
_WITHOUT_LABEL: Final = (
    "leases",
    "events",
    "endpointslices.discovery.k8s.io",
    "resourcequotas",
    "limitranges",
)
_EVERYWHERE: Final = ("nodes", "storageclasses", "persistentvolumes")


@dataclass(slots=True)
class Bundle:
    """Files by path. Everything that goes in is redacted here, at the one door."""

    redactor: Redactor
    # Values of Secrets that others may read, as NAME/KEY.
    left_in: Sequence[str] = ()
    files: dict[str, bytes] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    size: int = 0

    def text(self, path: str, text: str) -> None:
        """Add a text."""
        self._add(path, self.redactor.text(text))

    def _add(self, path: str, text: str) -> None:
        data = text.encode()
        if self.size + len(data) > MOST_BYTES:
            self.missing.append(f"{path}: the archive is full ({MOST_BYTES // 2**20} MiB)")
            return
        self.size += len(data)
        self.files[path] = data

    def objects(self, path: str, bodies: Any) -> None:
        """Add objects as YAML."""
        clean = self.redactor.object(_tidy(bodies))
        # Not folded: a value that is broken over lines would not be found any more.
        written = yaml.safe_dump(clean, sort_keys=False, allow_unicode=True, width=2**31)
        self._add(path, self.redactor.values(written))

    def lacks(self, path: str, why: str) -> None:
        """Note what could not be had."""
        self.missing.append(f"{path}: {why}")


def _tidy(bodies: Any) -> Any:
    """Without what only repeats: managed fields, and the manifest as kubectl last applied it."""
    if isinstance(bodies, list):
        return [_tidy(item) for item in bodies]
    if not isinstance(bodies, Mapping) or not isinstance(bodies.get("metadata"), Mapping):
        return bodies
    metadata = {key: value for key, value in bodies["metadata"].items() if key != "managedFields"}
    if isinstance(annotations := metadata.get("annotations"), Mapping):
        metadata["annotations"] = {
            key: value
            for key, value in annotations.items()
            if key != "kubectl.kubernetes.io/last-applied-configuration"
        }
    return {**bodies, "metadata": metadata}


def secret_values(
    secrets: Sequence[Manifest], public: Container[str] = ()
) -> tuple[list[str], dict[str, str]]:
    """All values in Secrets, as text: those that must not leave, and by NAME/KEY those that others may read.

    `public`: see `is_plain`.
    """
    hidden: list[str] = []
    plain: dict[str, str] = {}
    for body in secrets:
        for key, encoded in (body.get("data") or {}).items():
            try:
                value = base64.b64decode(encoded).decode()
            except ValueError:
                # No text, so it is in no text.
                continue
            if is_plain(key, value, public):
                plain[f"{body['metadata']['name']}/{key}"] = value
            else:
                hidden.append(value)
        hidden += [str(value) for value in (body.get("stringData") or {}).values()]
    return hidden, plain


def public_names(body: Manifest, objects: Iterable[Manifest]) -> frozenset[str]:
    """Namespace, names, their beginnings and label values of a cluster's `objects`; and what DNS adds to a Service."""
    found = {body["metadata"]["namespace"], body["metadata"]["name"], "svc", "cluster", "local"}
    for item in objects:
        parts = item["metadata"]["name"].split("-")
        found |= {"-".join(parts[:count]) for count in range(1, len(parts) + 1)}
        found |= set((item["metadata"].get("labels") or {}).values())
    return frozenset(found)


def _start(kubectl: Kubectl, body: Manifest, pods: Sequence[Manifest] | Unknown, selector: str) -> Bundle:
    """A bundle that knows what must not be in it, with the outline of the cluster's Secrets."""
    # All of the namespace: a pod may print the password of something else.
    secrets = known(lambda: kubectl.items("secrets"))
    if isinstance(secrets, Unknown):
        bundle = Bundle(Redactor())
        bundle.lacks("secrets.yaml", f"{secrets.why}; credentials were taken out by how they look only")
        return bundle
    services = _list(kubectl, "services", selector)
    objects = [item for items in (pods, services) if not isinstance(items, Unknown) for item in items]
    hidden, plain = secret_values(secrets, public_names(body, objects))
    redactor = Redactor(hidden)
    # What is a password elsewhere, or has one in it, is taken out all the same.
    left_in = sorted(where for where, value in plain.items() if value and redactor.values(value) == value)
    bundle = Bundle(redactor, left_in)
    name = body["metadata"]["name"]
    own = [item for item in secrets if item["metadata"].get("labels", {}).get(names.LABEL_CLUSTER) == name]
    bundle.objects("secrets.yaml", secret_outline(own))
    return bundle


def secret_outline(secrets: Sequence[Manifest]) -> list[dict[str, Any]]:
    """Secrets without their values: name, labels, type, keys with the length of each value."""
    return [
        {
            "name": body["metadata"]["name"],
            "type": body.get("type"),
            "createdAt": body["metadata"].get("creationTimestamp"),
            "labels": body["metadata"].get("labels", {}),
            "valueLengths": {key: _length(value) for key, value in (body.get("data") or {}).items()},
        }
        for body in secrets
    ]


def _length(value: str) -> int:
    try:
        return len(base64.b64decode(value))
    except ValueError:
        return -1


def collect(
    kubectl: Kubectl,
    body: Manifest,
    screens: Mapping[str, Callable[[], str]],
    tell: Callable[[str], None],
) -> Bundle:
    """Gather everything. `screens`: texts that this program makes itself, by path. `tell` hears what is being read."""
    mine = f"{names.LABEL_CLUSTER}={body['metadata']['name']}"
    tell("Secrets, to know what must not be in the archive")
    pods = _list(kubectl, "pods", mine)
    bundle = _start(kubectl, body, pods, mine)
    bundle.objects("cluster.yaml", body)
    for path, make in screens.items():
        tell(path)
        try:
            bundle.text(path, make())
        except CliError as error:
            bundle.lacks(path, str(error))
    tell("objects")
    ingress = (body.get("spec") or {}).get("ingress") or {}
    _objects(kubectl, bundle, mine, (*_KINDS, _ROUTES) if ingress.get("gateway") else _KINDS)
    _definition(kubectl, bundle)
    if not isinstance(pods, Unknown):
        _logs(kubectl, bundle, [Pod.of(item) for item in pods], "logs", tell)
    _operator(kubectl, bundle, tell)
    return bundle


def _objects(kubectl: Kubectl, bundle: Bundle, selector: str, kinds: Sequence[str]) -> None:
    readings: dict[str, Callable[[], Any]] = {}
    for kind in kinds:
        readings[f"objects/{kind}"] = partial(_list, kubectl, kind, selector)
    for kind in _WITHOUT_LABEL:
        readings[f"objects/{kind}"] = partial(_list, kubectl, kind)
    for kind in _EVERYWHERE:
        readings[f"kubernetes/{kind}"] = partial(_list_everywhere, kubectl, kind)
    readings["kubernetes/version"] = lambda: known(lambda: kubectl.json("version", everywhere=True))
    for path, found in at_once(readings).items():
        file = f"{path.split('.', maxsplit=1)[0]}.yaml"
        if isinstance(found, Unknown):
            bundle.lacks(file, found.why)
        elif path.endswith("/events"):
            newest = sorted(found, key=_event_time)[-MOST_EVENTS:]
            bundle.text("events.txt", "".join(_event_line(item) for item in newest))
            bundle.objects(file, newest)
        else:
            bundle.objects(file, found)


def _list(kubectl: Kubectl, kind: str, selector: str = "") -> list[Manifest] | Unknown:
    return known(lambda: kubectl.items(kind, selector=selector))


def _list_everywhere(kubectl: Kubectl, kind: str) -> list[Manifest] | Unknown:
    return known(lambda: list(kubectl.json("get", kind, everywhere=True)["items"]))


def _event_time(body: Manifest) -> str:
    series = body.get("series") or {}
    return str(
        series.get("lastObservedTime")
        or body.get("lastTimestamp")
        or body.get("eventTime")
        or body["metadata"].get("creationTimestamp")
        or ""
    )


def _event_line(body: Manifest) -> str:
    about = body.get("involvedObject", {})
    count = int((body.get("series") or {}).get("count") or body.get("count") or 1)
    what = f"{about.get('kind')}/{about.get('name')}"
    said = " ".join(str(body.get("message", "")).split())
    return (
        f"{_event_time(body)}  {body.get('type', ''):<7}  x{count:<4} {what}  {body.get('reason')}: {said}\n"
    )


def _definition(kubectl: Kubectl, bundle: Bundle) -> None:
    found = known(lambda: kubectl.json("get", "customresourcedefinition", CLUSTERS, everywhere=True))
    if isinstance(found, Unknown):
        bundle.lacks("kubernetes/definition.yaml", found.why)
    else:
        bundle.objects("kubernetes/definition.yaml", found)


def _logs(
    kubectl: Kubectl, bundle: Bundle, pods: Sequence[Pod], folder: str, tell: Callable[[str], None]
) -> None:
    for pod in pods:
        tell(f"logs of {pod.name}")
        readings: dict[str, Callable[[], Any]] = {}
        for container in pod.containers:
            path = f"{folder}/{pod.name}/{container}"
            readings[f"{path}.log"] = partial(_log, kubectl, pod.name, container)
            # Only one that was restarted has an earlier log.
            if pod.restarts:
                readings[f"{path}.previous.log"] = partial(_log, kubectl, pod.name, container, "--previous")
        for path, text in at_once(readings).items():
            if not isinstance(text, Unknown):
                bundle.text(path, text)
            elif not path.endswith(".previous.log"):
                bundle.lacks(path, text.why)


def _log(kubectl: Kubectl, pod: str, container: str, *more: str) -> str | Unknown:
    bounds = (f"--tail={LOG_LINES}", f"--limit-bytes={LOG_BYTES}")
    words = ("logs", pod, "--container", container, "--timestamps", *more, *bounds)
    return known(lambda: kubectl.text(*words, seconds=60))


def _operator(kubectl: Kubectl, bundle: Bundle, tell: Callable[[str], None]) -> None:
    lease = operator_lease(kubectl)
    if isinstance(lease, Unknown) or lease is None:
        bundle.lacks(
            "operator/", lease.why if isinstance(lease, Unknown) else "no operator has ever run here"
        )
        return
    there = kubectl.in_namespace(lease.namespace)
    pods = known(lambda: there.items("pods", selector=OPERATOR_SELECTOR))
    leases = known(lambda: there.items("leases", fields=f"metadata.name={names.OPERATOR_LEASE}"))
    for path, found in (("operator/pods.yaml", pods), ("operator/leases.yaml", leases)):
        if isinstance(found, Unknown):
            bundle.lacks(path, found.why)
        else:
            bundle.objects(path, found)
    if not isinstance(pods, Unknown):
        _logs(there, bundle, [Pod.of(item) for item in pods], "operator/logs", tell)


# --- The archive ---


def write(bundle: Bundle, path: Path, body: Manifest, made_at: datetime) -> None:
    """Write the archive, readable by its owner only; raises CliError when that fails, also when the file exists."""
    folder = f"runnerhub-{body['metadata']['namespace']}-{body['metadata']['name']}"
    files = {**bundle.files, "README.txt": bundle.redactor.text(readme(bundle, body, made_at)).encode()}
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file, tarfile.open(fileobj=file, mode="w:gz") as archive:
            for name in sorted(files):
                entry = tarfile.TarInfo(f"{folder}/{name}")
                entry.size, entry.mtime, entry.mode = len(files[name]), int(made_at.timestamp()), 0o600
                archive.addfile(entry, io.BytesIO(files[name]))
    except OSError as error:
        raise CliError(f"{path} cannot be written: {error.strerror}") from error


def readme(bundle: Bundle, body: Manifest, made_at: datetime) -> str:
    """What is in it, what was taken out, what is missing."""
    lines = [
        f"Support bundle of RunnerHubCluster {body['metadata']['namespace']}/{body['metadata']['name']}",
        f"made at {made_at.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}",
        "",
        f"Passwords, tokens and keys are replaced by {MARK}. Secrets are told by name, keys and lengths only.",
        f"Logs: the last {LOG_LINES} lines of each container, {LOG_BYTES // 2**20} MiB at most.",
        "Look through it before you give it to others: job names, addresses and host names are in it.",
        "",
        *sorted(bundle.files),
    ]
    if bundle.left_in:
        lines += [
            "",
            "Left in, although they are values of Secrets (NAME/KEY), because they are names, addresses, settings or",
            "certificates, and a password nowhere in the namespace:",
            *bundle.left_in,
        ]
    if bundle.missing:
        lines += ["", "Could not be had:", *bundle.missing]
    return "\n".join(lines) + "\n"


def default_name(body: Manifest, made_at: datetime) -> str:
    """Name of the archive."""
    metadata = body["metadata"]
    return f"runnerhub-{metadata['namespace']}-{metadata['name']}-{made_at.astimezone(UTC):%Y%m%dT%H%M%SZ}.tar.gz"
