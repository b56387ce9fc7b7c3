"""Hostile specs through a real API server: schema and operator refuse the same, and what they accept can be built.

Every generated spec is created with dry-run and read by the operator, whether the server took it or not. What was
accepted is built, and every object that this gives is applied with dry-run.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.client import HTTPSConnection
from ssl import create_default_context
from typing import Any
from urllib.parse import urlsplit

import pytest
from hypothesis import assume
from hypothesis import strategies as st

from apiserver import ApiServer
from e2e.lab.kubectl import Kubectl, wait_for
from kindbed import paths
from runnerhub_operator import names
from runnerhub_operator.api import RunnerHubCluster, parse_cluster
from runnerhub_operator.api.crd import spec_schema, status_schema
from runnerhub_operator.errors import InvalidSpecError, RefusedError
from runnerhub_operator.kube.client import KubeClient, ObjectRef, path_of
from runnerhub_operator.kube.compare import needs_apply, with_applied_hash
from runnerhub_operator.plan import make_plan
from runnerhub_operator.resources.common import BuildContext, Manifest, config_hash
from runnerhub_operator.snapshot import Snapshot
from tests.generate import IMAGES, desired_objects, example
from tests.hostile.effort import FULL, try_all
from tests.hostile.strategies import any_values, fields, leaves, valid
from tests.hostile.worlds import NOW, Happening, happenings, peaceful
from tests.integration.gateway_api import DEFINITION

SPEC, STATUS = spec_schema(), status_schema()
REPORT = paths.BUILD_DIR / "reports" / "hostile.json"
ALL_FIELDS = {".".join(item.path) for item in fields(SPEC)} - {""}
Answer = tuple[int, dict[str, Any]]


class Requests:
    """Requests to the API server over one connection, as an administrator."""

    def __init__(self, server: ApiServer) -> None:
        trust = create_default_context(cafile=str(server.certificate_authority))
        self._connection = HTTPSConnection(urlsplit(server.url).netloc, context=trust, timeout=30)
        self._token = server.token

    def __call__(self, method: str, path: str, body: Any, content: str = "application/json") -> Answer:
        """Send a request; status and answer."""
        headers = {"Authorization": f"Bearer {self._token}", "Content-Type": content}
        self._connection.request(method, path, json.dumps(body), headers)
        response = self._connection.getresponse()
        return response.status, json.loads(response.read())

    def create(self, spec: Any, name: str, namespace: str, *, strict: bool) -> Answer:
        """Create a cluster with dry-run."""
        ref = ObjectRef(f"{names.API_GROUP}/{names.API_VERSION}", names.KIND, namespace, "")
        body = {"apiVersion": ref.api_version, "kind": ref.kind, "metadata": {"name": name}, "spec": spec}
        validation = "Strict" if strict else "Ignore"
        return self("POST", f"{path_of(ref)}?dryRun=All&fieldValidation={validation}", body)

    def close(self) -> None:
        """End the connection."""
        self._connection.close()


@dataclass(slots=True)
class Tally:
    """What was tried; the report."""

    counts: Counter[str] = field(default_factory=Counter)
    applied: set[str] = field(default_factory=set)
    seconds: dict[str, float] = field(default_factory=dict)
    accepted_fields: set[str] = field(default_factory=set)


@pytest.fixture(scope="module")
def requests(server: ApiServer, admin: Kubectl) -> Iterator[Requests]:
    found = Requests(server)
    yield found
    found.close()


class Applier:
    """The operator's own client, for tests that are not asynchronous."""

    def __init__(self, server: ApiServer) -> None:
        self._runner = asyncio.Runner()
        self._client = self._runner.run(KubeClient.connect(kubeconfig=str(server.kubeconfig)))

    def __call__(self, manifest: Manifest) -> Manifest:
        """Apply an object with dry-run; what it would be. Raises KubeError."""
        return self._runner.run(self._client.apply(manifest, dry_run=True))

    def close(self) -> None:
        """End the connections."""
        self._runner.run(self._client.close())
        self._runner.close()


@pytest.fixture(scope="module")
def apply(server: ApiServer, admin: Kubectl) -> Iterator[Applier]:
    found = Applier(server)
    yield found
    found.close()


@pytest.fixture(scope="module")
def space(admin: Kubectl) -> str:
    admin("create", "namespace", "hostile")
    admin("apply", "--server-side", "-f", "-", stdin=json.dumps(DEFINITION))
    wait_for("HTTPRoutes to be served", lambda: admin("get", "httproutes", "-A") is not None, 60)
    return "hostile"


@pytest.fixture(scope="module")
def living(admin: Kubectl) -> str:
    """Namespace of a cluster that is there; elsewhere its name stays free."""
    admin("create", "namespace", "hostile-living")
    admin.in_namespace("hostile-living")("apply", "-f", str(paths.REPOSITORY / "examples" / "minimal.yaml"))
    return "hostile-living"


@pytest.fixture(scope="module")
def tally() -> Iterator[Tally]:
    found = Tally()
    started = time.monotonic()
    yield found
    found.seconds["all"] = round(time.monotonic() - started, 1)
    REPORT.parent.mkdir(parents=True, exist_ok=True)
    form = "full" if FULL else "short"
    report = {
        "form": form,
        "counts": dict(sorted(found.counts.items())),
        "seconds": found.seconds,
        "fields_never_accepted": sorted(ALL_FIELDS - found.accepted_fields),
    }
    REPORT.write_text(json.dumps(report, indent=2) + "\n")


def read(body: dict[str, Any], space: str) -> RunnerHubCluster | InvalidSpecError:
    """What the operator makes of a resource."""
    metadata = {**body["metadata"], "namespace": space, "uid": "0000", "generation": 1}
    try:
        return parse_cluster({**body, "metadata": metadata})
    except InvalidSpecError as error:
        return error


def given_fields(value: Any, path: str = "") -> Iterator[str]:
    """The paths of all fields that a spec sets."""
    for name, inner in value.items() if isinstance(value, dict) else ():
        yield f"{path}{name}"
        yield from given_fields(inner, f"{path}{name}.")


def has_whole_float(value: Any) -> bool:
    """Whether a number such as 3.0 is anywhere in a spec."""
    if isinstance(value, dict | list):
        return any(has_whole_float(inner) for inner in (value.values() if isinstance(value, dict) else value))
    return isinstance(value, float) and value.is_integer()


hub_names = st.sampled_from(("hub",) * 12 + ("1hub", "hub.x", "Hub", "hub-", "a" * 40, "a" * 41, "h"))


def test_schema_and_operator_agree(requests: Requests, space: str, tally: Tally) -> None:
    def agree(spec: Any, name: str) -> None:
        status, answer = requests.create(spec, name, space, strict=True)
        tally.counts["generated"] += 1
        raw = read({"metadata": {"name": name}, "spec": spec}, space)
        # For an integer the API server takes 3.0 and stores 3, unless a rule or the scale subresource reads the field;
        # the operator sees what is stored.
        whole_floats = has_whole_float(spec)
        tally.counts["with a number like 3.0"] += whole_floats
        if status == 201:
            tally.counts["accepted"] += 1
            tally.accepted_fields |= set(given_fields(spec))
            stored = read(answer, space)
            assert isinstance(stored, RunnerHubCluster), f"only the operator refuses: {stored}"
            if whole_floats:
                return
            assert isinstance(raw, RunnerHubCluster), f"without the server's defaults refused: {raw}"
            assert raw.spec == stored.spec, "the defaults of the server are those of the operator"
            return
        assert status in (400, 422), answer
        tally.counts["refused"] += 1
        # That is refused only where it is new, because clusters from before go on.
        since = "needs at least three instances" in answer["message"]
        assert whole_floats or since or isinstance(raw, InvalidSpecError), (
            f"only the API server refuses: {answer['message']}"
        )
        # A client that does not ask for strict decoding gets unknown fields dropped.
        status, answer = requests.create(spec, name, space, strict=False)
        if status == 201:
            tally.counts["accepted without unknown fields"] += 1
            assert isinstance(read(answer, space), RunnerHubCluster)

    started = time.monotonic()
    try_all(agree, any_values(SPEC), hub_names, short=500, full=11_000)
    tally.seconds["schema and operator"] = round(time.monotonic() - started, 1)
    assert tally.counts["accepted"] > tally.counts["generated"] // 5, "most examples test nothing"
    if FULL:
        assert tally.accepted_fields >= ALL_FIELDS, "some fields were never set in an accepted spec"


def is_about_free_form(refusal: str, spec: dict[str, Any]) -> bool:
    """Whether a refusal speaks of the affinity, which the spec hands on as it is."""
    given = spec.get("orchestrator", {}).get("podTemplate", {}).get("affinity")
    return bool(given) and "ffinity" in refusal


def objects_of(cluster: RunnerHubCluster) -> list[Manifest]:
    """All objects of a cluster, as they are written at the first visit and when everything is known."""
    late = BuildContext(
        cluster,
        IMAGES,
        redis_bootstrapped=True,
        redis_addresses={f"{cluster.name}-redis-{i}": f"10.0.0.{i + 1}" for i in range(9)},
        credentials_hash="0" * 16,
    )
    first = make_plan(cluster, Snapshot(now=NOW), IMAGES, None)
    return [*first.objects, *(with_applied_hash(item) for item in desired_objects(late))]


def test_what_is_accepted_is_built_and_the_objects_are_accepted(
    requests: Requests, apply: Applier, space: str, tally: Tally
) -> None:
    def build(spec: Any) -> None:
        status, answer = requests.create(spec, "hub", space, strict=False)
        assume(status == 201)
        cluster = read(answer, space)
        assert isinstance(cluster, RunnerHubCluster)
        tally.counts["specs built"] += 1
        for manifest in objects_of(cluster):
            tally.counts["objects built"] += 1
            digest = config_hash(manifest)
            if digest in tally.applied:
                continue
            try:
                live = apply(manifest)
            except RefusedError as error:
                # What nobody but the API server judges; the operator tells its answer with Accepted=False.
                if not is_about_free_form(str(error), answer["spec"]):
                    raise
                tally.counts["objects refused for what is inside a free-form field"] += 1
                continue
            tally.counts["objects applied"] += 1
            told = f"{manifest['kind']} {manifest['metadata']['name']} would be written again at each visit"
            assert not needs_apply(manifest, live), told
            tally.applied.add(digest)

    started = time.monotonic()
    try_all(build, any_values(SPEC), short=30, full=1500)
    tally.seconds["objects"] = round(time.monotonic() - started, 1)


@pytest.mark.parametrize("name", ["minimal", "full", "gateway"])
def test_the_examples_are_accepted_and_written_once(
    requests: Requests, apply: Applier, space: str, name: str
) -> None:
    spec = example(name).get("spec", {})
    status, answer = requests.create(spec, f"example-{name}", space, strict=True)
    assert status == 201, answer
    for manifest in objects_of(parse_cluster(answer)):
        assert not needs_apply(manifest, apply(manifest)), manifest


def test_every_status_that_is_written_holds_the_schema(requests: Requests, living: str, tally: Tally) -> None:
    ref = ObjectRef(f"{names.API_GROUP}/{names.API_VERSION}", names.KIND, living, "hub")
    path = f"{path_of(ref)}/status?dryRun=All&fieldValidation=Strict"

    def write(status: Any, changes: list[Happening]) -> None:
        metadata = {"name": "hub", "namespace": living, "uid": "0000", "generation": 1}
        cluster = parse_cluster({"metadata": metadata, "status": status})
        world = peaceful(cluster)
        for happen in changes:
            happen(world)
        written = make_plan(cluster, world.snapshot(), IMAGES, None).status
        body = {"status": written.model_dump(mode="json", by_alias=True, exclude_none=True)}
        code, answer = requests("PATCH", path, body, "application/merge-patch+json")
        assert code == 200, answer["message"]
        tally.counts["statuses written"] += 1

    try_all(write, valid(STATUS), st.lists(happenings("hub"), max_size=8), short=30, full=1000)


def test_hostile_sizes_are_refused_by_the_scale_subresource(requests: Requests, living: str) -> None:
    ref = ObjectRef(f"{names.API_GROUP}/{names.API_VERSION}", names.KIND, living, "hub")
    path = f"{path_of(ref)}/scale?dryRun=All"

    def scale(replicas: Any) -> None:
        body = {"spec": {"replicas": replicas}}
        code, _ = requests("PATCH", path, body, "application/merge-patch+json")
        fits = isinstance(replicas, int) and not isinstance(replicas, bool) and 1 <= replicas <= 50
        assert (code == 200) == fits, replicas

    try_all(scale, leaves, short=30, full=500)
