"""hypothesis strategies for what the planner may find: worlds in which anybody may have done anything.

Everything keeps the types that the API server guarantees of its own kinds, so that what breaks the planner can happen.
"""

from __future__ import annotations

import base64
import copy
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import strategies as st

from runnerhub_operator import names
from runnerhub_operator.api import RunnerHubCluster
from runnerhub_operator.kube.compare import with_applied_hash
from runnerhub_operator.probes.haproxy import BalancerState
from runnerhub_operator.probes.patroni import PatroniCluster, PatroniMember
from runnerhub_operator.probes.runners import MOST_JOBS, Demand
from runnerhub_operator.probes.sentinel import ReplicaView, SentinelView
from runnerhub_operator.resources.common import BuildContext, Images
from runnerhub_operator.resources.credentials import credential_secrets
from runnerhub_operator.snapshot import Children, LiveObject, Pod, Snapshot, Volume
from tests.generate import IMAGES, desired_objects

from .strategies import Strategy, json_values, texts

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
Body = dict[str, Any]

_COMPONENTS = (names.POSTGRES, names.POOLER, names.REDIS, names.ORCHESTRATOR, names.LOAD_BALANCER)
_LARGEST = 2**63 - 1
_COUNTS = st.sampled_from((0, 1, 2, 3, 7, 2**31 - 1, _LARGEST))


@dataclass(slots=True)
class World:
    """What is there, as the API server, Patroni and the Sentinels tell it."""

    cluster: RunnerHubCluster
    children: list[Body]
    pods: list[Body]
    claims: list[Body] = field(default_factory=list)
    patroni: PatroniCluster | None = None
    patroni_config: Body | None = None
    sentinels: tuple[SentinelView, ...] = ()
    http_routes: bool = True
    balancers: tuple[BalancerState, ...] = ()
    demand: Demand | None = None
    now: datetime = field(default=NOW)

    def snapshot(self) -> Snapshot:
        """As the planner gets it: with another revision when an object has changed beyond its status."""
        packed = {(body["kind"], body["metadata"]["name"]): LiveObject.of(body) for body in self.children}
        revision = hash(frozenset((key, live.uid, live.spec_digest) for key, live in packed.items()))
        return Snapshot(
            now=self.now,
            children=Children(packed, revision),
            pods=tuple(Pod.of(body) for body in self.pods),
            volumes=tuple(Volume.of(body) for body in self.claims),
            patroni=self.patroni,
            patroni_config=self.patroni_config,
            sentinels=self.sentinels,
            http_routes=self.http_routes,
            balancers=self.balancers,
            demand=self.demand,
        )


def _address(ordinal: int) -> str:
    return f"10.96.0.{ordinal + 1}"


def _pod(name: str, component: str) -> Body:
    labels = {names.LABEL_COMPONENT: component, "controller-revision-hash": "new"}
    return {
        "metadata": {"name": name, "uid": f"uid-{name}", "labels": labels},
        "spec": {"nodeName": "n"},
        "status": {"podIP": "10.0.0.1", "conditions": [{"type": "Ready", "status": "True"}]},
    }


def _claim(name: str, component: str, size: str) -> Body:
    return {
        "metadata": {"name": name, "uid": f"uid-{name}", "labels": {names.LABEL_COMPONENT: component}},
        "spec": {"storageClassName": "standard", "resources": {"requests": {"storage": size}}},
        "status": {"phase": "Bound", "capacity": {"storage": size}},
    }


def _streaming(cluster: RunnerHubCluster, primary: int, timeline: int) -> PatroniCluster:
    """A database that is well, with a member as its primary."""
    leader = names.member(cluster.name, names.POSTGRES, primary)
    members = [names.member(cluster.name, names.POSTGRES, i) for i in range(cluster.spec.postgres.instances)]
    return PatroniCluster(
        tuple(
            PatroniMember(name, "primary", "running", timeline)
            if name == leader
            else PatroniMember(name, "quorum_standby", "streaming", timeline, 0)
            for name in members
        ),
        leader,
        timeline,
        by_leader=True,
    )


def _agreeing(cluster: RunnerHubCluster, master: int, epoch: int) -> tuple[SentinelView, ...]:
    """Sentinels that agree on a master."""
    size = cluster.spec.redis.replicas
    replicas = tuple(ReplicaView(_address(i), True, 0, frozenset()) for i in range(size) if i != master)
    return tuple(
        SentinelView(
            names.member(cluster.name, names.REDIS, i),
            _address(master),
            epoch,
            quorum_ok=True,
            replicas=replicas,
            sentinels_count=size,
            flags=frozenset({"master"}),
        )
        for i in range(size)
    )


def peaceful(cluster: RunnerHubCluster, images: Images = IMAGES) -> World:
    """A cluster that is complete and at rest, made with these default images."""
    spec, name = cluster.spec, cluster.name
    context = BuildContext(
        cluster,
        images,
        redis_bootstrapped=True,
        redis_addresses={names.member(name, names.REDIS, i): _address(i) for i in range(spec.redis.replicas)},
        credentials_hash="",
    )
    made = [copy.deepcopy(with_applied_hash(item)) for item in desired_objects(context)]
    # Claims are cached apart from the other objects, and what belongs to no namespace is not watched.
    children = [item for item in made if not item["kind"].startswith("PersistentVolume")]
    for secret in credential_secrets(context):
        data = {key: base64.b64encode(b"x").decode() for key in secret.keys}
        children.append({**copy.deepcopy(secret.manifest), "kind": "Secret", "data": data})
    for number, body in enumerate(children):
        body["metadata"] |= {"uid": f"uid-{number}", "resourceVersion": str(number), "generation": 1}
        if body["kind"] == "Service" and body["metadata"]["name"] in context.redis_addresses:
            body["spec"]["clusterIP"] = context.redis_addresses[body["metadata"]["name"]]
        if body["kind"] in ("StatefulSet", "Deployment"):
            size = body["spec"]["replicas"]
            body["status"] = {
                "observedGeneration": 1,
                "updateRevision": "new",
                "replicas": size,
                "updatedReplicas": size,
            }
    sizes = (
        spec.postgres.instances,
        spec.postgres.pooler.replicas,
        spec.redis.replicas,
        spec.orchestrator.replicas,
        spec.load_balancer.replicas,
    )
    pods = [
        _pod(names.member(name, component, ordinal), component)
        for component, size in zip(_COMPONENTS, sizes, strict=True)
        for ordinal in range(size)
    ]
    claims = [
        _claim(names.claim(name, component, ordinal), component, size)
        for component, count, size in (
            (names.POSTGRES, spec.postgres.instances, spec.postgres.storage.size),
            (names.REDIS, spec.redis.replicas, spec.redis.storage.size),
        )
        for ordinal in range(count)
    ]
    claims += [
        _claim(item["metadata"]["name"], names.SHARED, item["spec"]["resources"]["requests"]["storage"])
        for item in made
        if item["kind"] == "PersistentVolumeClaim"
    ]
    world = World(cluster, children, pods, claims, _streaming(cluster, 0, 1), {}, _agreeing(cluster, 0, 0))
    _lead(world, 0)
    return world


# --- What may have happened to an object ---

_JUNK_LAYOUTS = (
    *("", "null", "[]", "{}", '"x"', "{", '{"version": 1}', '{"version": null, "images": {}}'),
    *('{"version": 1, "images": []}', '{"version": 1, "images": {"postgres": null, "redis": 7}}'),
    *('{"version": 1e400, "images": {}}', '{"version": 999999, "images": {"postgres": "x"}}'),
    *('{"version": -1, "images": {}}', '{"version": true, "images": "x"}'),
)
_OUR_ANNOTATIONS = (
    names.ANNOTATION_APPLIED,
    names.ANNOTATION_LAYOUT,
    names.ANNOTATION_TEMPLATE,
    names.ANNOTATION_CREDENTIALS,
    names.ANNOTATION_CONFIG,
)
_annotations = st.dictionaries(
    st.one_of(st.sampled_from(_OUR_ANNOTATIONS), texts),
    st.one_of(st.sampled_from(_JUNK_LAYOUTS), texts),
    max_size=4,
)
_owners = st.sampled_from(
    (
        [],
        [{"uid": "somebody", "kind": "ConfigMap", "name": "x", "apiVersion": "v1", "controller": True}],
        [{"uid": "u"}],
    )
)
_managers = st.builds(
    lambda manager, subresource: [
        {
            "manager": manager,
            "operation": "Update",
            "fieldsV1": {"f:spec": {"f:replicas": {}}},
            **({"subresource": subresource} if subresource else {}),
        }
    ],
    texts,
    st.sampled_from(("", "scale", "status")),
)
_statuses = st.fixed_dictionaries(
    {},
    optional={
        "observedGeneration": _COUNTS,
        "updateRevision": texts,
        "currentRevision": texts,
        "replicas": _COUNTS,
        "updatedReplicas": _COUNTS,
        "conditions": st.lists(
            st.fixed_dictionaries({"type": texts}, optional={"status": texts, "reason": texts}), max_size=2
        ),
        "loadBalancer": st.sampled_from(
            ({}, {"ingress": []}, {"ingress": [{}]}, {"ingress": [{"ip": "1.2.3.4"}]})
        ),
        "parents": st.lists(
            st.fixed_dictionaries(
                {"parentRef": st.fixed_dictionaries({"name": texts}, optional={"sectionName": texts})},
                optional={
                    "conditions": st.lists(
                        st.fixed_dictionaries(
                            {"type": st.sampled_from(("Accepted", "x")), "status": texts},
                            optional={"message": texts, "observedGeneration": _COUNTS},
                        ),
                        max_size=2,
                    )
                },
            ),
            max_size=2,
        ),
    },
)
_lease_specs = st.fixed_dictionaries(
    {},
    optional={
        "holderIdentity": st.one_of(
            st.sampled_from(("operator/rolling-change-", "operator/repair-postgres", "kim")), texts
        ),
        "leaseTransitions": _COUNTS,
        "acquireTime": st.sampled_from(("2026-01-01T00:00:00.000000Z", "1970-01-01T00:00:00.000000Z")),
    },
)
_config_data = st.dictionaries(
    st.one_of(st.sampled_from(("bootstrapped", "address.hub-redis-0", "config", "leader")), texts),
    st.one_of(st.sampled_from(("true", "10.96.0.1")), texts),
    max_size=3,
)
_secret_data = st.dictionaries(
    st.sampled_from(("jwt-secret", "password", "superuser-password", "x")),
    st.binary(max_size=8).map(lambda raw: base64.b64encode(raw).decode()),
    max_size=3,
)
_SPECS: dict[str, Strategy] = {
    "Lease": _lease_specs.map(lambda spec: {"spec": spec}),
    "Service": st.sampled_from(("None", "", "10.96.0.1", "fd00::1")).map(
        lambda ip: {"spec": {"clusterIP": ip}}
    ),
    "ConfigMap": st.one_of(st.just({}), _config_data.map(lambda data: {"data": data})),
    "Secret": st.one_of(st.just({}), _secret_data.map(lambda data: {"data": data})),
    "Deployment": _COUNTS.map(lambda count: {"replicas": count}),
    "StatefulSet": _COUNTS.map(lambda count: {"replicas": count}),
}


def _replaced(body: Body, change: Body) -> None:
    """Put what a kind's own strategy drew in place of what was there."""
    if body["kind"] in ("Deployment", "StatefulSet"):
        body["spec"] = {**body["spec"], **change}
        return
    for key in ("spec", "data"):
        body.pop(key, None)
    body.update(change)


_metadata_changes = st.fixed_dictionaries(
    {},
    optional={
        "labels": st.dictionaries(st.one_of(st.just(names.LABEL_COMPONENT), texts), texts, max_size=2),
        "annotations": _annotations,
        "ownerReferences": _owners,
        "deletionTimestamp": st.just("2026-01-01T00:00:00Z"),
        "generation": _COUNTS,
        "managedFields": _managers,
        "uid": st.sampled_from(("uid-0", "another")),
    },
)


# --- What Patroni and the Sentinels may say ---


def _member_names(cluster: str, component: str) -> Strategy:
    return st.one_of(
        st.integers(0, 3).map(lambda ordinal: names.member(cluster, component, ordinal)),
        st.sampled_from(
            (f"{cluster}-{component}-99", f"{cluster}-{component}-x", f"{cluster}-{component}-", "", "x")
        ),
    )


def _patroni(cluster: str) -> Strategy:
    name = _member_names(cluster, names.POSTGRES)
    member = st.builds(
        PatroniMember,
        name=name,
        role=st.sampled_from(("primary", "replica", "sync_standby", "quorum_standby", "standby_leader", "")),
        state=st.sampled_from(("running", "streaming", "stopped", "starting", "creating replica", "")),
        timeline=st.one_of(st.none(), _COUNTS),
        lag_bytes=st.one_of(st.none(), _COUNTS),
        pending_restart=st.booleans(),
        restart_primary_first=st.booleans(),
        host=st.one_of(st.none(), texts),
        lag_seconds=st.one_of(st.none(), _COUNTS),
    )
    return st.builds(
        PatroniCluster,
        members=st.lists(member, max_size=4).map(tuple),
        leader=st.one_of(st.none(), name),
        timeline=st.one_of(st.none(), _COUNTS),
        paused=st.booleans(),
        version=st.one_of(st.none(), texts),
    )


_addresses = st.one_of(st.integers(0, 3).map(_address), st.sampled_from(("", "fd00::1", "nowhere")))
_flags = st.frozensets(
    st.sampled_from(("s_down", "o_down", "disconnected", "master", "failover_in_progress", "x")), max_size=3
)
_replica = st.builds(ReplicaView, ip=_addresses, link_ok=st.booleans(), offset=_COUNTS, flags=_flags)


def _sentinels(cluster: str) -> Strategy:
    view = st.builds(
        SentinelView,
        sentinel=_member_names(cluster, names.REDIS),
        master_ip=_addresses,
        epoch=_COUNTS,
        quorum_ok=st.booleans(),
        replicas=st.lists(_replica, max_size=3).map(tuple),
        sentinels_count=_COUNTS,
        flags=_flags,
    )
    return st.lists(view, max_size=4).map(tuple)


_patroni_configs = st.one_of(
    st.none(),
    st.dictionaries(st.sampled_from(("ttl", "postgresql", "synchronous_mode", "x")), json_values, max_size=3),
    json_values.map(lambda value: {"postgresql": {"parameters": value}}),
    json_values.map(lambda value: {"postgresql": {"pg_hba": value}}),
)


# --- What pods may look like ---

_waiting = st.fixed_dictionaries(
    {},
    optional={
        "reason": st.sampled_from(
            ("CrashLoopBackOff", "ErrImagePull", "InvalidImageName", "ContainerCreating", "NeverHeardOf")
        ),
        "message": texts,
    },
)
_containers = st.lists(
    st.one_of(
        st.just({}), st.just({"state": {}}), _waiting.map(lambda waiting: {"state": {"waiting": waiting}})
    ),
    max_size=2,
)
_pod_statuses = st.fixed_dictionaries(
    {},
    optional={
        "podIP": _addresses,
        "reason": st.sampled_from(("NodeLost", "Evicted")),
        "phase": st.sampled_from(("Pending", "Failed", "Succeeded")),
        "conditions": st.lists(
            st.fixed_dictionaries(
                {
                    "type": st.sampled_from(("Ready", "PodScheduled", "x")),
                    "status": st.sampled_from(("True", "False", "Unknown")),
                },
                optional={"reason": st.sampled_from(("Unschedulable", "SchedulerError")), "message": texts},
            ),
            max_size=3,
        ),
        "containerStatuses": _containers,
        "initContainerStatuses": _containers,
    },
)


_pool_names = st.sampled_from(("a", "linux", "gone", ""))


def _pods(cluster: str) -> Strategy:
    runner = st.builds(lambda pool, slot: names.runner(cluster, pool, slot), _pool_names, st.integers(0, 3))
    name = st.one_of([runner, *(_member_names(cluster, component) for component in _COMPONENTS)])
    labels = st.fixed_dictionaries(
        {},
        optional={
            names.LABEL_COMPONENT: st.sampled_from((*_COMPONENTS, names.RUNNER, "stranger", "")),
            names.LABEL_POOL: _pool_names,
            names.LABEL_BUSY: st.sampled_from(("true", "x")),
            names.LABEL_ROLE: st.sampled_from(("primary", "replica", "x")),
            names.LABEL_LEADER: st.sampled_from(("true", "false", "x")),
            "controller-revision-hash": texts,
        },
    )
    return st.builds(
        lambda name, labels, annotations, status, going: {
            "metadata": {
                "name": name,
                "uid": f"uid-{name}",
                "annotations": annotations,
                **({"labels": labels} if labels else {}),
                **({"deletionTimestamp": "2026-01-01T00:00:00Z"} if going else {}),
            },
            "spec": {},
            "status": status,
        },
        name,
        labels,
        _annotations,
        _pod_statuses,
        st.booleans(),
    )


def _demands(cluster: str) -> Strategy:
    runner = st.builds(lambda pool, slot: names.runner(cluster, pool, slot), _pool_names, st.integers(0, 3))
    labels = st.frozensets(st.one_of(st.sampled_from(("self-hosted", "linux")), texts), max_size=3)
    waiting = st.lists(st.tuples(labels, st.integers(0, MOST_JOBS)), max_size=4).map(tuple)
    return st.one_of(
        st.none(), st.builds(Demand, waiting, st.frozensets(st.one_of(runner, texts), max_size=4))
    )


# --- What claims may look like ---

_amounts = st.sampled_from(({}, {"storage": "1Ki"}, {"storage": "1e3"}, {"storage": "900Ti"}, {"cpu": "1"}))
_claim_changes = st.fixed_dictionaries(
    {},
    optional={
        "spec": st.builds(
            lambda requests, name: {"resources": {"requests": requests}, "storageClassName": name},
            _amounts,
            st.one_of(st.none(), texts),
        ),
        "status": st.fixed_dictionaries(
            {},
            optional={
                "phase": st.sampled_from(("Pending", "Bound", "Lost")),
                "capacity": _amounts,
                "conditions": st.lists(
                    st.fixed_dictionaries(
                        {
                            "type": st.sampled_from(
                                ("Resizing", "FileSystemResizePending", "NodeResizeError", "x")
                            ),
                            "status": st.sampled_from(("True", "False", "Unknown")),
                        },
                        optional={"message": texts},
                    ),
                    max_size=3,
                ),
            },
        ),
    },
)


def _change_claim(world: World, which: int, change: Body) -> None:
    if world.claims:
        world.claims[which % len(world.claims)].update(change)


# --- What happens in ordinary life ---

Happening = Callable[["World"], None]


def _pods_of(world: World, component: str) -> list[Body]:
    return [
        pod for pod in world.pods if pod["metadata"].get("labels", {}).get(names.LABEL_COMPONENT) == component
    ]


def _lead(world: World, which: int) -> None:
    """Another orchestrator leads."""
    pods = _pods_of(world, names.ORCHESTRATOR)
    for number, pod in enumerate(pods):
        pod["metadata"]["labels"][names.LABEL_LEADER] = "true" if number == which % len(pods) else "false"


def _elect_primary(world: World, which: int) -> None:
    before = world.patroni.timeline if world.patroni is not None else None
    timeline = min((before or 0) + 1, _LARGEST)
    world.patroni = _streaming(world.cluster, which % world.cluster.spec.postgres.instances, timeline)


def _elect_master(world: World, which: int) -> None:
    epoch = min(max((view.epoch for view in world.sentinels), default=0) + 1, _LARGEST)
    world.sentinels = _agreeing(world.cluster, which % world.cluster.spec.redis.replicas, epoch)


def _change_member(world: World, which: int, change: Body) -> None:
    if world.patroni is not None and world.patroni.members:
        members = list(world.patroni.members)
        members[which % len(members)] = replace(members[which % len(members)], **change)
        world.patroni = replace(world.patroni, members=tuple(members))


def _change_pod(world: World, which: int, change: Callable[[Body], None]) -> None:
    if world.pods:
        change(world.pods[which % len(world.pods)])


def _change_volume(world: World, which: int, status: Body) -> None:
    """A volume is lost with what it stood on, grows, or is replaced by a smaller one."""
    _change_claim(world, which, {"status": status})


def _outdate(world: World, component: str) -> None:
    for pod in _pods_of(world, component):
        pod["metadata"]["labels"]["controller-revision-hash"] = "old"


def _deployments(world: World) -> list[Body]:
    return [body for body in world.children if body["kind"] == "Deployment"]


def _scale(world: World, which: int, replicas: int) -> None:
    for body in _deployments(world)[which % 3 : which % 3 + 1]:
        body["spec"]["replicas"] = replicas
        body["metadata"]["managedFields"] = [
            {"manager": "hpa", "subresource": "scale", "fieldsV1": {"f:spec": {"f:replicas": {}}}}
        ]


def _edit_template(world: World, which: int) -> None:
    for body in _deployments(world)[which % 3 : which % 3 + 1]:
        containers = body.get("spec", {}).get("template", {}).get("spec", {}).get("containers", [])
        for container in containers[:1]:
            container["image"] = "example.test/edited:1"


def _fall_behind(world: World, which: int) -> None:
    for body in _deployments(world)[which % 3 : which % 3 + 1]:
        body["status"] = {"observedGeneration": 1, "replicas": 3, "updatedReplicas": 1}


def _replace_pod(pod: Body) -> None:
    pod["metadata"]["uid"] += "-new"


def _terminate(pod: Body) -> None:
    pod["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"


def _ready(status: str) -> Callable[[Body], None]:
    return lambda pod: pod.update(status={"conditions": [{"type": "Ready", "status": status}]})


_index = st.integers(0, 80)
_in_passing = st.one_of(
    *(
        st.builds(lambda which, do=do: lambda world: do(world, which), _index)  # type: ignore[misc]
        for do in (_lead, _elect_primary, _elect_master, _fall_behind)
    ),
    st.sampled_from(_COMPONENTS).map(lambda component: lambda world: _outdate(world, component)),
    st.builds(
        lambda which, change: lambda world: _change_member(world, which, change),
        _index,
        st.sampled_from(
            (
                {"pending_restart": True},
                {"pending_restart": True, "restart_primary_first": True},
                {"state": "starting"},
                {"timeline": 9},
                {"lag_bytes": 2**40},
            )
        ),
    ),
    st.builds(
        lambda which, change: lambda world: _change_pod(world, which, change),
        _index,
        st.sampled_from((_replace_pod, _terminate, _ready("False"), _ready("Unknown"))),
    ),
    st.builds(
        lambda which, status: lambda world: _change_volume(world, which, status),
        _index,
        st.sampled_from(
            (
                {"phase": "Lost"},
                {"phase": "Bound", "capacity": {"storage": "1Gi"}},
                {"phase": "Bound", "capacity": {"storage": "900Gi"}},
            )
        ),
    ),
)
_ordinary = st.one_of(
    _in_passing,
    st.builds(lambda which: lambda world: _edit_template(world, which), _index),
    st.builds(lambda which, size: lambda world: _scale(world, which, size), _index, st.integers(0, 9)),
)


# --- Putting it together ---


def _in_children(index: int, do: Callable[[World, Body], None]) -> Happening:
    def happen(world: World) -> None:
        if world.children:
            do(world, world.children[index % len(world.children)])

    return happen


def _rewrite_metadata(change: Body) -> Callable[[World, Body], None]:
    def do(_: World, body: Body) -> None:
        body["metadata"] = {**body["metadata"], **change}
        for key, value in change.items():
            if not value:
                body["metadata"].pop(key)

    return do


def _add_stranger(kind: str, name: str, owned: bool) -> Happening:
    def happen(world: World) -> None:
        metadata: Body = {
            "name": name,
            "uid": "stranger",
            "labels": {names.LABEL_CLUSTER: world.cluster.name},
        }
        if owned:
            metadata["ownerReferences"] = [world.cluster.owner_reference]
        world.children = [
            body for body in world.children if (body["kind"], body["metadata"]["name"]) != (kind, name)
        ]
        spec: Body = {"spec": {"template": {}}} if kind in ("Deployment", "StatefulSet") else {}
        world.children.append({"kind": kind, "metadata": metadata, **spec})

    return happen


def _setter(attribute: str) -> Callable[[Any], Happening]:
    return lambda value: lambda world: setattr(world, attribute, value)


def happenings(cluster: str) -> Strategy:
    """One thing that happened to a world."""
    index = _index
    kinds = st.sampled_from((*_SPECS, "Ingress", "Role", "ServiceAccount", "PodDisruptionBudget"))
    stranger = st.sampled_from(
        (
            cluster,
            f"{cluster}-redis-7",
            f"{cluster}-postgres",
            f"{cluster}-orchestrator",
            f"{cluster}-disruption",
            "x",
        )
    )
    special = st.one_of(
        [
            st.builds(lambda change, kind=kind: (kind, change), change)  # type: ignore[misc]
            for kind, change in _SPECS.items()
        ]
    )

    def rewrite_kind(which: int, drawn: tuple[str, Body]) -> Happening:
        def happen(world: World) -> None:
            found = [body for body in world.children if body["kind"] == drawn[0]]
            if found:
                _replaced(found[which % len(found)], drawn[1])

        return happen

    return st.one_of(
        _ordinary,
        _ordinary,
        st.builds(lambda which: _in_children(which, lambda world, body: world.children.remove(body)), index),
        st.builds(
            lambda which, change: _in_children(which, _rewrite_metadata(change)), index, _metadata_changes
        ),
        st.builds(rewrite_kind, index, special),
        st.builds(_add_stranger, kinds, stranger, st.booleans()),
        _lease_specs.map(
            lambda spec: (
                lambda world: world.children.append(
                    {
                        "kind": "Lease",
                        "metadata": {"name": names.disruption_lease(world.cluster.name), "uid": "lease"},
                        "spec": spec,
                    }
                )
            )
        ),
        st.just(lambda world: world.children.clear()),
        passing(cluster),
    )


def passing(cluster: str) -> Strategy:
    """One thing that happened to a world, and to none of the cached objects beyond their status."""
    index = _index
    return st.one_of(
        _in_passing,
        st.builds(
            lambda which, status: _in_children(which, lambda _, body: body.update(status=status)),
            index,
            _statuses,
        ),
        st.builds(
            lambda which, managers: _in_children(which, _rewrite_metadata({"managedFields": managers})),
            index,
            _managers,
        ),
        st.just(lambda world: world.pods.clear()),
        _pods(cluster).map(lambda pod: lambda world: world.pods.append(pod)),
        st.builds(
            lambda which, status: (
                lambda world: world.pods and world.pods[which % len(world.pods)].update(status=status)
            ),
            index,
            _pod_statuses,
        ),
        st.builds(
            lambda which, change: lambda world: _change_claim(world, which, change), index, _claim_changes
        ),
        _patroni(cluster).map(_setter("patroni")),
        _patroni_configs.map(_setter("patroni_config")),
        _sentinels(cluster).map(_setter("sentinels")),
        st.booleans().map(_setter("http_routes")),
        st.lists(st.builds(BalancerState, texts, texts, st.one_of(st.none(), texts)), max_size=2).map(
            lambda states: _setter("balancers")(tuple(states))
        ),
        _demands(cluster).map(_setter("demand")),
        st.one_of(_member_names(cluster, names.POSTGRES), st.none(), texts).map(
            lambda wanted: (
                lambda world: setattr(
                    world, "cluster", replace(world.cluster, switch_primary_to=wanted or None)
                )
            )
        ),
        st.integers(-3600, 3600).map(
            lambda late: lambda world: setattr(world, "now", NOW + timedelta(seconds=late))
        ),
    )
