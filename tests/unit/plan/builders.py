"""Small snapshots for tests of the planner."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from runnerhub_operator import names
from runnerhub_operator.api import RunnerHubCluster, parse_cluster
from runnerhub_operator.kube.compare import with_applied_hash
from runnerhub_operator.plan.planner import Plan
from runnerhub_operator.probes.patroni import PatroniCluster, PatroniMember
from runnerhub_operator.probes.sentinel import ReplicaView, SentinelView
from runnerhub_operator.resources.common import BuildContext
from runnerhub_operator.resources.credentials import CREDENTIAL_KEYS
from runnerhub_operator.resources.token_keys import TokenKeys, token_keys_secret
from runnerhub_operator.snapshot import Children, Pod, Snapshot
from tests.generate import IMAGES, desired_objects

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)


def cluster(spec: dict[str, Any] | None = None, status: dict[str, Any] | None = None) -> RunnerHubCluster:
    metadata = {"name": "hub", "namespace": "d", "uid": "u", "generation": 3}
    return parse_cluster({"metadata": metadata, "spec": spec or {}, "status": status or {}})


def pod(name: str, component: str, **changes: Any) -> Pod:
    values: dict[str, Any] = {
        "name": name,
        "uid": f"uid-{name}",
        "component": component,
        "ip": "10.0.0.1",
        "node": "n",
        "ready": True,
        "node_silent": False,
        "terminating": False,
        "revision": "new",
        "role": "",
        "leads": False,
        "waiting_reason": "",
        "message": "",
    }
    return Pod(**(values | changes))


def pods(**changes: dict[str, Any]) -> tuple[Pod, ...]:
    """All pods of the default cluster; `hub_redis_0={"ready": False}` changes one."""
    wanted = [
        *((f"hub-postgres-{i}", names.POSTGRES) for i in range(3)),
        *((f"hub-redis-{i}", names.REDIS) for i in range(3)),
        *((f"hub-pooler-{i}", names.POOLER) for i in range(2)),
        *((f"hub-orchestrator-{i}", names.ORCHESTRATOR) for i in range(3)),
        *((f"hub-loadbalancer-{i}", names.LOAD_BALANCER) for i in range(2)),
    ]
    leader = {"leads": True}
    return tuple(
        pod(
            name,
            component,
            **((leader if name == "hub-orchestrator-0" else {}) | changes.get(name.replace("-", "_"), {})),
        )
        for name, component in wanted
    )


def patroni(
    leader: str | None = "hub-postgres-0", timeline: int = 1, **changes: dict[str, Any]
) -> PatroniCluster:
    members = []
    for name in (f"hub-postgres-{i}" for i in range(3)):
        primary = name == leader
        values: dict[str, Any] = {
            "name": name,
            "role": "primary" if primary else "quorum_standby",
            "state": "running" if primary else "streaming",
            "timeline": timeline,
            "lag_bytes": None if primary else 0,
        }
        members.append(PatroniMember(**(values | changes.get(name.replace("-", "_"), {}))))
    return PatroniCluster(
        members=tuple(members), leader=leader, timeline=timeline, by_leader=leader is not None
    )


def address(ordinal: int) -> str:
    return f"10.96.0.{ordinal + 1}"


def sentinels(
    master: int = 0, epoch: int = 0, flags: frozenset[str] = frozenset()
) -> tuple[SentinelView, ...]:
    replicas = tuple(ReplicaView(address(i), True, 100, frozenset()) for i in range(3) if i != master)
    return tuple(
        SentinelView(
            sentinel=f"hub-redis-{i}",
            master_ip=address(master),
            epoch=epoch,
            quorum_ok=True,
            replicas=replicas,
            sentinels_count=3,
            flags=flags,
        )
        for i in range(3)
    )


def stateful_set(component: str, *, generation: int = 1, observed: int = 1) -> dict[str, Any]:
    """State of a StatefulSet beyond what the operator writes."""
    return {
        "kind": "StatefulSet",
        "metadata": {"name": f"hub-{component}", "generation": generation, "uid": f"sts-{component}"},
        "status": {"observedGeneration": observed, "updateRevision": "new"},
    }


def settled_deployment(manifest: dict[str, Any]) -> dict[str, Any]:
    """A Deployment whose pods are all there."""
    replicas = manifest["spec"]["replicas"]
    return {
        **manifest,
        "metadata": {**manifest["metadata"], "generation": 1},
        "status": {"observedGeneration": 1, "replicas": replicas, "updatedReplicas": replicas},
    }


def written(spec: dict[str, Any] | None = None) -> dict[tuple[str, str], dict[str, Any]]:
    """All objects as the operator has written them."""
    context = BuildContext(
        cluster(spec),
        IMAGES,
        redis_bootstrapped=True,
        redis_addresses={f"hub-redis-{i}": address(i) for i in range(cluster(spec).spec.redis.replicas)},
        credentials_hash="",
    )
    found = {
        (item["kind"], item["metadata"]["name"]): with_applied_hash(item) for item in desired_objects(context)
    }
    return {
        key: settled_deployment(item) if item["kind"] == "Deployment" else item for key, item in found.items()
    }


def children(
    *more: dict[str, Any], spec: dict[str, Any] | None = None
) -> dict[tuple[str, str], dict[str, Any]]:
    """What is there when nothing is to be done, with the state of some objects replaced."""
    found = written(spec)
    secrets = [
        {
            "kind": "Secret",
            "metadata": {"name": f"hub-{component}-credentials"},
            "data": dict.fromkeys(keys, "eA=="),
        }
        for component, keys in CREDENTIAL_KEYS.items()
    ]
    keys = with_applied_hash(token_keys_secret(BuildContext(cluster(spec), IMAGES), TokenKeys(("x",))))
    found["Secret", keys["metadata"]["name"]] = keys
    for body in (stateful_set("postgres"), stateful_set("redis"), *secrets, *more):
        key = body["kind"], body["metadata"]["name"]
        base = found.get(key, {"metadata": {}})
        found[key] = {**base, **body, "metadata": {**base["metadata"], **body["metadata"]}}
    return found


def snapshot(**changes: Any) -> Snapshot:
    """What is there when nothing is to be done, with changes; `children` by kind and name, as `children()` gives."""
    values: dict[str, Any] = {
        "now": NOW,
        "children": children(),
        "pods": pods(),
        "patroni": patroni(),
        "sentinels": sentinels(),
    } | changes
    return Snapshot(**{**values, "children": Children.of(values["children"].values())})


def step(found: Plan) -> Any:
    """The disruption that a plan makes, None for none."""
    return found.rollout.step if found.rollout is not None else None


def waits_for(found: Plan) -> str:
    """What a plan waits for before its next disruption."""
    assert found.rollout is not None
    assert found.rollout.step is None
    return found.rollout.waiting_for
